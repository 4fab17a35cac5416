// The header: logo, editable title, what became of the last edit, and the read-only banner.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Notification, showErrorMessage } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { CommandRegistry } from '@lumino/commands';
import { Menu, Widget } from '@lumino/widgets';
import { documents, IFileModel } from '../api';
import { page } from '../page';
import { copyToDrive } from './commands';
import { leaveConflictsToTheService } from './saves';

interface ISharedChange {
  stateChange?: { name: string; newValue?: { message?: string } }[];
}

class Header extends Widget {
  constructor(private _commands: CommandRegistry) {
    super();
    this.id = 'mc-header';
    const logo = document.createElement('a');
    logo.href = '/drive';
    logo.className = 'mc-logo';
    logo.title = 'Go to Drive';
    logo.setAttribute('aria-label', 'Go to Drive');
    this._title.className = 'mc-title';
    this._title.setAttribute('aria-label', 'Notebook name');
    this._title.value = page.file?.name ?? '';
    this._title.readOnly = page.file?.readOnly ?? true;
    this._title.title = this._title.readOnly ? '' : 'Rename';
    this._title.onkeydown = event => {
      if (event.key === 'Enter') {
        this._title.blur();
      } else if (event.key === 'Escape') {
        this._title.value = page.file?.name ?? '';
        this._title.blur();
      }
    };
    this._title.onchange = () => void this._rename();
    this._fit();
    this._title.oninput = () => this._fit();
    this._state.className = 'mc-save';
    this._state.setAttribute('role', 'status');
    const user = document.createElement('button');
    user.className = 'mc-avatar';
    user.title = page.user.name;
    user.setAttribute('aria-label', `Account of ${page.user.name}`);
    user.setAttribute('aria-haspopup', 'menu');
    user.onclick = () => this._account(user);
    user.textContent = (page.user.name[0] ?? '?').toUpperCase();
    const space = document.createElement('span');
    space.className = 'mc-space';
    this.node.append(logo, this._title, this._state, space, user);
  }

  say(text: string): void {
    this._state.textContent = text;
  }

  private _account(at: HTMLElement): void {
    const menu = new Menu({ commands: this._commands });
    for (const id of ['usage', ...(page.user.admin ? ['admin'] : []), 'settings', 'account']) {
      menu.addItem({ command: `minicolab:${id}` });
    }
    menu.addItem({ type: 'separator' });
    menu.addItem({ command: 'minicolab:sign-out' });
    const box = at.getBoundingClientRect();
    menu.open(box.right, box.bottom + 4, { horizontalAlignment: 'right' });
  }

  private _fit(): void {
    this._title.style.width = `${Math.min(60, Math.max(8, this._title.value.length + 1))}ch`;
  }

  private async _rename(): Promise<void> {
    const wanted = this._title.value.trim();
    if (!page.file || !wanted || wanted === page.file.name) {
      this._title.value = page.file?.name ?? '';
      return;
    }
    const name = wanted.endsWith('.ipynb') ? wanted : `${wanted}.ipynb`;
    try {
      const file = await documents<IFileModel>(`files/${page.file.id}`, 'PATCH', { name });
      page.file.name = file.name;
      document.title = `${file.name} - minicolab`;
    } catch (error) {
      void showErrorMessage('The notebook was not renamed', (error as Error).message);
    }
    this._title.value = page.file.name;
    this._fit();
  }

  private _title = document.createElement('input');
  private _state = document.createElement('span');
}

function follow(header: Header, panel: NotebookPanel): void {
  const model = panel.context.model;
  let edited = false;
  let failure = '';
  const say = () => {
    if (page.file?.readOnly) {
      header.say('Changes will not be saved');
    } else if (failure) {
      header.say(failure);
    } else if (!navigator.onLine) {
      header.say('Offline: changes are kept and saved later');
    } else if (model.dirty) {
      edited = true;
      header.say('Saving…');
    } else {
      header.say(edited ? 'All changes saved' : '');
    }
  };
  model.stateChanged.connect(say);
  model.contentChanged.connect(say);
  // What the document service tells everybody who has the notebook open.
  model.sharedModel.changed.connect((_: unknown, change: ISharedChange) => {
    for (const entry of change.stateChange ?? []) {
      if (entry.name === 'saveState') {
        failure = entry.newValue?.message ? `Automatic saving failed: ${entry.newValue.message}` : '';
        say();
      } else if (entry.name === 'notice' && entry.newValue?.message) {
        Notification.info(entry.newValue.message, { autoClose: false });
      }
    }
  });
  panel.context.saveState.connect((_, state) => {
    if (state === 'failed') {
      header.say('Automatic saving failed. Your changes are kept on this page.');
    } else if (state === 'completed') {
      edited = true;
      say();
    }
  });
  window.addEventListener('online', say);
  window.addEventListener('offline', say);
  say();
}

export const header: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:header',
  description: 'Logo, title, save state, read-only banner.',
  autoStart: true,
  requires: [INotebookTracker],
  activate: (app: JupyterFrontEnd, tracker: INotebookTracker) => {
    const widget = new Header(app.commands);
    app.shell.add(widget, 'top', { rank: 1 });
    if (page.file) {
      document.title = `${page.file.name} - minicolab`;
    }
    tracker.widgetAdded.connect((_, panel) => {
      leaveConflictsToTheService(panel, app.serviceManager.contents);
      void panel.context.ready.then(() => {
        follow(widget, panel);
        // Notebook 7 puts its own words into the title on every path change.
        panel.context.pathChanged.connect(() => (document.title = `${page.file?.name} - minicolab`));
        document.title = `${page.file?.name} - minicolab`;
        if (page.file?.readOnly) {
          panel.contentHeader.addWidget(banner());
        }
      });
    });
  }
};

function banner(): Widget {
  const widget = new Widget();
  widget.addClass('mc-banner');
  const text = document.createElement('span');
  text.textContent = page.file?.example
    ? 'This is a read-only example. You can run it and try changes; they will not be saved.'
    : 'You may view this notebook. You can run it and try changes; they will not be saved.';
  const button = document.createElement('button');
  button.className = 'jp-mod-styled jp-mod-accept';
  button.textContent = 'Copy to Drive';
  button.onclick = () => void copyToDrive();
  widget.node.append(text, button);
  return widget;
}
