// The table of contents on the left: open from the start when the notebook has headings.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker } from '@jupyterlab/notebook';

interface ISides {
  leftCollapsed?: boolean;
  expandLeft?(id?: string): void;
  collapseLeft?(): void;
}

const PANEL = 'table-of-contents';

/** Show or hide the panel. */
export function toggleContents(app: JupyterFrontEnd): void {
  const shell = app.shell as unknown as ISides;
  if (shell.leftCollapsed === false) {
    shell.collapseLeft?.();
  } else {
    shell.expandLeft?.(PANEL);
  }
}

export const contents: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:contents',
  description: 'Opens the table of contents for notebooks that have headings.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    tracker.widgetAdded.connect((_, panel) => {
      void panel.context.ready.then(async () => {
        await app.restored;
        const headings = panel.content.widgets.some(w => w.model.type === 'markdown' && /^#{1,6} /m.test(w.model.sharedModel.getSource()));
        if (headings && window.innerWidth > 900) {
          (app.shell as unknown as ISides).expandLeft?.(PANEL);
          // The notebook measured itself without the panel.
          window.requestAnimationFrame(() => window.dispatchEvent(new Event('resize')));
        }
      });
    });
  }
};
