// The toolbar above the notebook: + Code, + Text, Run all; at the right, Connect.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IToolbarWidgetRegistry, ToolbarButton } from '@jupyterlab/apputils';
import { NotebookPanel } from '@jupyterlab/notebook';
import { IRuntime } from './runtime/model';
import { ConnectWidget } from './ui/connect';

export const toolbar: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:toolbar',
  description: 'The notebook toolbar.',
  autoStart: true,
  requires: [IToolbarWidgetRegistry, IRuntime],
  activate: (app: JupyterFrontEnd, registry: IToolbarWidgetRegistry, runtime: IRuntime) => {
    const button = (id: string, label: string, tooltip: string) =>
      registry.addFactory<NotebookPanel>('Notebook', `minicolab-${id}`, () => {
        const made = new ToolbarButton({ label, tooltip, onClick: () => void app.commands.execute(`minicolab:${id}`) });
        made.addClass('mc-tool');
        return made;
      });
    button('insert-code', '+ Code', 'Add code cell below (Ctrl+M B)');
    button('insert-text', '+ Text', 'Add text cell below');
    button('run-all', '▷ Run all', 'Run all (Ctrl+F9)');
    registry.addFactory<NotebookPanel>('Notebook', 'minicolab-connect', () => new ConnectWidget(app, runtime));
  }
};
