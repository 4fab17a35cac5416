import { NotebookPanel } from '@jupyterlab/notebook';
import { Contents } from '@jupyterlab/services';

type Options = Partial<Contents.IModel>;

/** What JupyterLab's document context does when the file is not the one it knows; it has no public name. */
interface IMayConflict {
  _raiseConflict(found: Contents.IModel, options: Options): Promise<Contents.IModel>;
  _contentProviderId?: string;
}

/**
 * Save without asking when the file is newer than the page knew.
 *
 * The document is shared and the service saves it by itself, a moment before it tells the pages. Whether somebody else changed the file
 * is for the service to see, which keeps both versions and says so.
 */
export function leaveConflictsToTheService(panel: NotebookPanel, contents: Contents.IManager): void {
  const context = panel.context as unknown as IMayConflict;
  context._raiseConflict = (_, options) =>
    contents.save(panel.context.path, { ...options, contentProviderId: context._contentProviderId } as Options);
}
