// Every command of the menus, in one table: Colab's words, Jupyter's or our own effect.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { showDialog, Dialog, showErrorMessage } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { documents, IFileModel } from '../api';
import { page } from '../page';
import { IRuntime } from '../runtime/model';
import { remember } from '../runtime/type';
import { connectOrExplain } from '../limits/dialog';
import { manageSessions } from '../limits/sessions';
import { settings } from '../limits/settings';
import { about, changeRuntimeType, viewResources } from './dialogs';
import { toggleContents } from './contents';

type Act = (panel: NotebookPanel) => unknown;

function download(name: string, url: string): void {
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
}

async function open(promise: Promise<IFileModel>): Promise<void> {
  try {
    window.open(`/d/${(await promise).id}`, '_blank');
  } catch (error) {
    void showErrorMessage('That did not work', (error as Error).message);
  }
}

/** Copy this page's file to the person's Drive and open the copy. */
export function copyToDrive(): Promise<void> {
  return open(documents<IFileModel>(`files/${page.file?.id}/copy`, 'POST', {}));
}

function code(panel: NotebookPanel, source: string, kind: 'code' | 'markdown'): void {
  const notebook = panel.content;
  NotebookActions.insertBelow(notebook);
  NotebookActions.changeCellType(notebook, kind);
  if (source) {
    notebook.activeCell?.model.sharedModel.setSource(source);
  }
  notebook.mode = 'edit';
}

export const commands: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:commands',
  description: 'The commands behind the menus.',
  autoStart: true,
  requires: [INotebookTracker, IRuntime],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker, runtime: IRuntime) => {
    const writable = () => !page.file?.readOnly;
    const add = (id: string, label: string, act: Act, isEnabled: () => boolean = () => true) => {
      app.commands.addCommand(`minicolab:${id}`, {
        label,
        isEnabled: () => tracker.currentWidget !== null && isEnabled(),
        execute: () => (tracker.currentWidget ? act(tracker.currentWidget) : undefined)
      });
    };
    const run = (id: string) => () => app.commands.execute(id);
    const cells = (panel: NotebookPanel, from: number, to: number) =>
      NotebookActions.runCells(panel.content, panel.content.widgets.slice(from, to), panel.sessionContext);
    const busy = () => runtime.state === 'connected';

    add('new', 'New notebook in Drive', () => open(documents<IFileModel>('files', 'POST', { parent: writable() ? page.file?.parent || 'root' : 'root', type: 'notebook' })));
    add('open', 'Open notebook', () => window.open('/drive', '_blank'));
    add('upload', 'Upload notebook', () => {
      const input = document.createElement('input');
      input.type = 'file';
      input.accept = '.ipynb';
      input.onchange = async () => {
        const file = input.files?.[0];
        if (file) {
          const url = `${page.documentsApi}files/upload?parent=root&name=${encodeURIComponent(file.name)}`;
          const reply = await fetch(url, { method: 'POST', body: file, credentials: 'same-origin' });
          const data = (await reply.json()) as IFileModel & { message?: string };
          if (reply.ok) {
            window.open(`/d/${data.id}`, '_blank');
          } else {
            void showErrorMessage('The notebook was not uploaded', data.message ?? `Status ${reply.status}`);
          }
        }
      };
      input.click();
    });
    add('rename', 'Rename', () => document.querySelector<HTMLInputElement>('.mc-title')?.focus(), writable);
    add('copy', 'Save a copy in Drive', () => copyToDrive());
    add('save', 'Save', run('docmanager:save'), writable);
    add('trash', 'Move to trash', async () => {
      const sure = await showDialog({
        title: 'Move to trash?',
        body: `“${page.file?.name}” can be restored from the trash in your Drive.`,
        buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Move to trash' })]
      });
      if (sure.button.accept) {
        await documents(`files/${page.file?.id}`, 'DELETE');
        window.location.assign('/drive');
      }
    }, writable);
    add('download-ipynb', 'Download .ipynb', () => download(page.file?.name ?? 'notebook.ipynb', `${page.documentsApi}files/${page.file?.id}/download`));
    add('download-py', 'Download .py', () => download('notebook.py', `${page.documentsApi}files/${page.file?.id}/download?format=py`));
    add('print', 'Print', () => window.print());

    add('undo', 'Undo cell action', panel => NotebookActions.undo(panel.content));
    add('redo', 'Redo cell action', panel => NotebookActions.redo(panel.content));
    add('select-all', 'Select all cells', panel => NotebookActions.selectAll(panel.content));
    add('cut', 'Cut cell or selection', panel => NotebookActions.cut(panel.content));
    add('copy-cell', 'Copy cell or selection', panel => NotebookActions.copy(panel.content));
    add('paste', 'Paste', panel => NotebookActions.paste(panel.content));
    add('delete', 'Delete selected cells', panel => NotebookActions.deleteCells(panel.content));
    add('find', 'Find and replace', run('documentsearch:startWithReplace'));
    add('clear', 'Clear all outputs', panel => NotebookActions.clearAllOutputs(panel.content));

    add('contents', 'Table of contents', () => toggleContents(app));
    add('show-code', 'Show/hide code', panel => {
      const hidden = panel.content.activeCell?.inputHidden;
      (hidden ? NotebookActions.showCode : NotebookActions.hideCode)(panel.content);
    });
    add('show-output', 'Show/hide output', panel => NotebookActions.toggleOutput(panel.content));
    add('collapse', 'Collapse sections', panel => NotebookActions.collapseAllHeadings(panel.content));
    add('expand', 'Expand sections', panel => NotebookActions.expandAllHeadings(panel.content));
    add('line-numbers', 'Show/hide line numbers', run('viewmenu:line-numbering'));

    add('insert-code', 'Code cell', panel => code(panel, '', 'code'));
    add('insert-text', 'Text cell', panel => code(panel, '', 'markdown'));
    add('insert-section', 'Section header cell', panel => code(panel, '# New section', 'markdown'));
    add('insert-form', 'Form field', panel => {
      const cell = panel.content.activeCell;
      if (cell?.model.type === 'code') {
        const source = cell.model.sharedModel.getSource();
        cell.model.sharedModel.setSource(`${source}${source && !source.endsWith('\n') ? '\n' : ''}variable_name = "" # @param {type:"string"}`);
      } else {
        code(panel, '# @title Parameters\nvariable_name = "" # @param {type:"string"}', 'code');
      }
    });

    add('run-all', 'Run all', panel => cells(panel, 0, panel.content.widgets.length));
    add('run-before', 'Run before', panel => cells(panel, 0, panel.content.activeCellIndex));
    add('run-focused', 'Run the focused cell', panel => NotebookActions.run(panel.content, panel.sessionContext));
    add('run-selection', 'Run selection', panel => {
      const editor = panel.content.activeCell?.editor;
      const selection = editor?.getSelection();
      const text = editor && selection ? editor.model.sharedModel.getSource().slice(editor.getOffsetAt(selection.start), editor.getOffsetAt(selection.end)) : '';
      return text.trim() ? runText(panel, runtime, text) : NotebookActions.run(panel.content, panel.sessionContext);
    });
    add('run-after', 'Run cell and below', panel => cells(panel, panel.content.activeCellIndex, panel.content.widgets.length));
    add('interrupt', 'Interrupt execution', panel => panel.sessionContext.session?.kernel?.interrupt(), busy);
    add('restart', 'Restart session', panel => restart(panel), busy);
    add('restart-run-all', 'Restart session and run all', async panel => {
      if (await restart(panel)) {
        await cells(panel, 0, panel.content.widgets.length);
      }
    }, busy);
    add('end-runtime', 'Disconnect and delete runtime', async () => {
      const sure = await showDialog({
        title: 'Disconnect and delete runtime',
        body: 'The runtime, its variables and its files in /content will be deleted. The notebook and your Drive are not touched.',
        buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Yes' })]
      });
      if (sure.button.accept) {
        await runtime.end().catch(error => showErrorMessage('The runtime could not be ended', (error as Error).message));
      }
    }, () => runtime.state === 'connecting' || busy());
    add('connect', 'Connect to a hosted runtime', () => connectOrExplain(runtime), () => !busy());
    add('change-runtime', 'Change runtime type', async panel => {
      if (await changeRuntimeType(runtime, accelerator => remember(panel.context.model, accelerator))) {
        await connectOrExplain(runtime);
      }
    });
    add('manage-sessions', 'Manage sessions', () => manageSessions(runtime).catch(error => showErrorMessage('Sessions', (error as Error).message)));
    add('view-resources', 'View resources', () => viewResources(runtime).catch(error => showErrorMessage('Resources', (error as Error).message)));

    add('palette', 'Command palette', run('apputils:activate-command-palette'));
    add('settings', 'Settings', () => settings().catch(error => showErrorMessage('Settings', (error as Error).message)));
    add('usage', 'Usage', () => window.open(`${page.controlUrl}usage`, '_blank'));
    add('admin', 'Admin', () => window.open(`${page.controlUrl}admin`, '_blank'));
    add('sign-out', 'Sign out', () => window.location.assign('/services/documents/logout'));
    add('shortcuts', 'Keyboard shortcuts', run('apputils:display-shortcuts'));
    add('account', 'Account and API tokens', () => window.open('/hub/account', '_blank'));
    app.commands.addCommand('minicolab:about', { label: 'About minicolab', execute: () => about() });
    app.commands.addCommand('minicolab:example', {
      label: args => String(args.title ?? ''),
      execute: args => void window.open(`/d/${String(args.id)}`, '_blank')
    });

    const keys: [string, string[]][] = [
      ['run-all', ['Ctrl F9']],
      ['run-before', ['Ctrl F8']],
      ['run-after', ['Ctrl F10']],
      ['run-selection', ['Ctrl Shift Enter']],
      ['interrupt', ['Ctrl M', 'I']],
      ['restart', ['Ctrl M', '.']],
      ['open', ['Ctrl O']],
      ['find', ['Ctrl H']],
      ['undo', ['Ctrl M', 'Z']],
      ['delete', ['Ctrl M', 'D']],
      ['shortcuts', ['Ctrl M', 'H']]
    ];
    for (const [id, sequence] of keys) {
      app.commands.addKeyBinding({ command: `minicolab:${id}`, keys: sequence, selector: '.jp-Notebook' });
    }
    const insertions: [string, () => void][] = [
      ['A', () => tracker.currentWidget && NotebookActions.insertAbove(tracker.currentWidget.content)],
      ['B', () => tracker.currentWidget && NotebookActions.insertBelow(tracker.currentWidget.content)],
      ['M', () => tracker.currentWidget && NotebookActions.changeCellType(tracker.currentWidget.content, 'markdown')],
      ['Y', () => tracker.currentWidget && NotebookActions.changeCellType(tracker.currentWidget.content, 'code')],
      ['K', () => tracker.currentWidget && NotebookActions.moveUp(tracker.currentWidget.content)],
      ['J', () => tracker.currentWidget && NotebookActions.moveDown(tracker.currentWidget.content)]
    ];
    for (const [key, execute] of insertions) {
      app.commands.addCommand(`minicolab:key-${key}`, { execute });
      app.commands.addKeyBinding({ command: `minicolab:key-${key}`, keys: ['Ctrl M', key], selector: '.jp-Notebook' });
    }
  }
};

async function restart(panel: NotebookPanel): Promise<boolean> {
  const sure = await showDialog({
    title: 'Restart session',
    body: 'All variables will be lost. Files in the runtime stay.',
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Yes' })]
  });
  if (sure.button.accept) {
    await panel.sessionContext.session?.kernel?.restart();
    panel.content.widgets.forEach(cell => cell.model.type === 'code' && ((cell.model as unknown as { executionState: string }).executionState = 'idle'));
  }
  return sure.button.accept;
}

/** Run a piece of text; what it prints goes to the active cell's output. */
async function runText(panel: NotebookPanel, runtime: IRuntime, text: string): Promise<void> {
  await runtime.connect();
  const cell = panel.content.activeCell as unknown as { outputArea?: { future: unknown } };
  const future = panel.sessionContext.session?.kernel?.requestExecute({ code: text });
  if (future && cell.outputArea) {
    cell.outputArea.future = future;
    await future.done;
  }
}
