// Open this page's file at `/d/<id>`: Notebook's own opener knows only `/notebooks/…`.
import { IRouter, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IDocumentManager } from '@jupyterlab/docmanager';
import { page } from './page';

export const opener: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:opener',
  description: 'Opens the notebook of this page.',
  autoStart: true,
  requires: [IRouter, IDocumentManager],
  activate: (app: JupyterFrontEnd, router: IRouter, documents: IDocumentManager) => {
    const command = 'minicolab:open-page';
    app.commands.addCommand(command, {
      execute: () => {
        const file = page.file;
        if (file) {
          void app.started.then(() => documents.open(file.path, 'Notebook', undefined, { ref: '_noref' }));
        }
      }
    });
    router.register({ command, pattern: /\/d\/[\w-]+/ });
  }
};
