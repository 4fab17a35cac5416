/** Above the list: where we are, and what can be done with what is selected. */

import type { Command, CommandId } from '../commands';
import { count } from '../format';
import { ROOT, ROOT_NAME, type Ancestor } from '../model';
import { addressOf, type View } from '../routes';
import { bringsFiles } from '../uploads/tree';
import { fill, h } from './dom';
import { DRAG_TYPE } from './grid';
import { icon } from './icons';
import { showMenu } from './menu';

export interface TopEvents {
  go(view: View): void;
  run(command: CommandId): void;
  clear(): void;
  emptyTrash(): void;
  /** Something was let go above a folder of the path. */
  dropped(folder: Ancestor, transfer: DataTransfer): void;
}

export interface TopState {
  readonly view: View;
  readonly trail: readonly Ancestor[];
  readonly selected: number;
  readonly commands: readonly Command[];
  /** How many files the view has; null while that is not known. */
  readonly total: number | null;
}

const TITLES: Readonly<Record<string, string>> = {
  recent: 'Recent',
  trash: 'Trash',
  examples: 'Examples',
  missing: 'Nothing here',
};

/** Commands that are buttons; the others are in the menu behind the dots. */
const BUTTONS: readonly CommandId[] = ['download', 'move', 'copy-link', 'trash', 'restore', 'delete-forever'];
/** More folders than this are folded into a menu. */
const SHOWN_FOLDERS = 4;

export class Top {
  readonly element: HTMLElement;
  readonly #path = h('div', { class: 'path' });
  readonly #bar = h('div', { class: 'bar', role: 'toolbar', 'aria-label': 'Selected files' });
  #drawnPath = '';
  #drawnBar = '';

  constructor(private readonly events: TopEvents) {
    this.element = h('div', { class: 'top' }, this.#path, this.#bar);
  }

  render(state: TopState): void {
    const path = JSON.stringify([state.view, state.trail]);
    if (path !== this.#drawnPath) {
      this.#drawnPath = path;
      this.#drawPath(state);
    }
    const bar = JSON.stringify([state.view.kind, state.selected, state.commands.map(({ id }) => id), state.total]);
    if (bar !== this.#drawnBar) {
      this.#drawnBar = bar;
      this.#drawBar(state);
    }
  }

  #drawPath(state: TopState): void {
    const { view } = state;
    if (view.kind !== 'folder') {
      const title = view.kind === 'search' ? `Results for “${view.query}”` : (TITLES[view.kind] ?? '');
      fill(this.#path, h('h1', { class: 'crumb last' }, title));
      return;
    }
    const folders: readonly Ancestor[] = [{ id: ROOT, name: ROOT_NAME }, ...state.trail];
    const known = view.id === ROOT || state.trail.length > 0;
    const hidden = folders.length > SHOWN_FOLDERS ? folders.slice(0, folders.length - SHOWN_FOLDERS + 1) : [];
    const shown = folders.slice(hidden.length);
    const parts = shown.map((folder, i) => (known && i === shown.length - 1 ? last(folder) : this.#crumb(folder)));
    fill(
      this.#path,
      h(
        'nav',
        { 'aria-label': 'Folder path' },
        ...(hidden.length > 0 ? [this.#hidden(hidden), icon('right')] : []),
        ...parts.flatMap((part, i) => (i === 0 ? [part] : [icon('right'), part])),
      ),
    );
  }

  #hidden(folders: readonly Ancestor[]): HTMLElement {
    const button = h('button', { class: 'crumb', type: 'button', 'aria-label': 'Folders above', 'aria-haspopup': 'menu' }, '…');
    button.addEventListener('click', () => {
      const items = folders.map((folder) => ({
        label: folder.name,
        icon: folder.id === ROOT ? 'drive' : 'folder',
        run: () => {
          this.events.go({ kind: 'folder', id: folder.id });
        },
      }));
      showMenu(button, items, 'Folders above');
    });
    return button;
  }

  #crumb(folder: Ancestor): HTMLElement {
    const view: View = { kind: 'folder', id: folder.id };
    const link = h('a', { class: 'crumb', href: addressOf(view) }, folder.name);
    link.addEventListener('click', (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.shiftKey) {
        event.preventDefault();
        this.events.go(view);
      }
    });
    link.addEventListener('dragover', (event) => {
      const transfer = event.dataTransfer;
      if (transfer !== null && (bringsFiles(transfer) || transfer.types.includes(DRAG_TYPE))) {
        event.preventDefault();
        event.stopPropagation();
        link.classList.add('drop-target');
      }
    });
    link.addEventListener('dragleave', () => {
      link.classList.remove('drop-target');
    });
    link.addEventListener('drop', (event) => {
      link.classList.remove('drop-target');
      if (event.dataTransfer !== null) {
        event.preventDefault();
        event.stopPropagation();
        this.events.dropped(folder, event.dataTransfer);
      }
    });
    return link;
  }

  #drawBar(state: TopState): void {
    this.#bar.classList.toggle('active', state.selected > 0);
    if (state.selected === 0) {
      fill(this.#bar, ...this.#quietBar(state));
      return;
    }
    const direct = state.commands.filter(({ id }) => BUTTONS.includes(id));
    const others = state.commands.filter(({ id }) => !BUTTONS.includes(id) && id !== 'open');
    const more = h('button', { class: 'round', type: 'button', 'aria-label': 'More actions', 'aria-haspopup': 'menu', title: 'More actions' }, icon('dots'));
    more.addEventListener('click', () => {
      showMenu(more, others.map((command) => this.#menuItem(command)), 'More actions');
    });
    fill(
      this.#bar,
      h('button', { class: 'round', type: 'button', 'aria-label': 'Clear the selection', title: 'Clear the selection (Esc)', onclick: () => { this.events.clear(); } }, icon('close')),
      h('span', { class: 'selected', 'aria-live': 'polite' }, `${state.selected.toLocaleString()} selected`),
      ...direct.map((command) => this.#button(command)),
      others.length === 0 ? null : more,
    );
  }

  #quietBar(state: TopState): readonly Node[] {
    if (state.view.kind === 'examples') {
      return [h('span', { class: 'count' }, 'Guides that come with minicolab. They open read-only; copy one to your Drive to change it.')];
    }
    if (state.total === null) {
      return [];
    }
    if (state.view.kind === 'trash' && state.total > 0) {
      return [
        h('span', { class: 'count' }, 'Files here can be restored until you delete them forever.'),
        h('button', { class: 'button quiet small', type: 'button', onclick: () => { this.events.emptyTrash(); } }, 'Empty trash'),
      ];
    }
    return state.total === 0 ? [] : [h('span', { class: 'count' }, count(state.total, state.view.kind === 'search' ? 'result' : 'item'))];
  }

  #button(command: Command): HTMLElement {
    const title = command.keys === '' ? command.label : `${command.label} (${command.keys})`;
    return h(
      'button',
      { class: 'round', type: 'button', 'aria-label': command.label, title, onclick: () => { this.events.run(command.id); } },
      icon(command.icon),
    );
  }

  #menuItem(command: Command): { label: string; icon: string; keys: string; run: () => void } {
    return {
      label: command.label,
      icon: command.icon,
      keys: command.keys,
      run: () => {
        this.events.run(command.id);
      },
    };
  }
}

function last(folder: Ancestor): HTMLElement {
  return h('h1', { class: 'crumb last', 'aria-current': 'page', title: folder.name }, folder.name);
}
