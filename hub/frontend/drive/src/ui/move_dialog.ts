/** Choose a folder to move files to. */

import { api, sentence } from '../api';
import { trailOf } from '../listing';
import { ROOT, ROOT_NAME, type Ancestor, type FileEntry } from '../model';
import { BY_NAME } from '../sorting';
import { Dialog } from './dialog';
import { fill, h } from './dom';
import { icon } from './icons';
import { askName } from './name_dialog';

const MOST_FOLDERS = 1000;

/** `choose` gets the folder the person picked. */
export function askFolder(files: readonly FileEntry[], choose: (folder: Ancestor) => void): void {
  new MoveDialog(files, choose);
}

class MoveDialog {
  readonly #dialog: Dialog;
  readonly #path = h('nav', { class: 'move-path', 'aria-label': 'Folder path' });
  readonly #list = h('ul', { class: 'move-list', 'aria-label': 'Folders' });
  readonly #move: HTMLButtonElement;
  readonly #moving: ReadonlySet<string>;
  #trail: readonly Ancestor[] = [];
  #turn = 0;

  constructor(
    private readonly files: readonly FileEntry[],
    private readonly choose: (folder: Ancestor) => void,
  ) {
    this.#moving = new Set(files.map(({ id }) => id));
    const first = files[0] as FileEntry;
    const what = files.length === 1 ? `“${first.name}”` : `${String(files.length)} items`;
    this.#dialog = new Dialog(`Move ${what}`, 'move');
    this.#move = this.#dialog.button('Move here', 'main', () => {
      this.#dialog.close();
      this.choose(this.#here);
    });
    const cancel = this.#dialog.button('Cancel', 'quiet', () => {
      this.#dialog.close();
    });
    const make = h('button', { class: 'button quiet', type: 'button', onclick: () => { this.#newFolder(); } }, icon('folder-new'), 'New folder');
    fill(this.#dialog.body, this.#path, this.#list);
    fill(this.#dialog.footer, make, h('span', { class: 'gap' }), cancel, this.#move);
    this.#dialog.show();
    void this.#open(first.parent === '' ? ROOT : first.parent, null);
  }

  get #here(): Ancestor {
    return this.#trail[this.#trail.length - 1] ?? { id: ROOT, name: ROOT_NAME };
  }

  /** Show a folder. `trail` is the way to it, null to ask the service. */
  async #open(id: string, trail: readonly Ancestor[] | null): Promise<void> {
    const turn = ++this.#turn;
    this.#move.disabled = true;
    fill(this.#list, h('li', { class: 'loading' }, h('span', { class: 'spinner' })));
    try {
      const way = trail ?? (id === ROOT ? [] : trailOf(await api.file(id)));
      const folders = await this.#folders(id);
      if (turn !== this.#turn) {
        return;
      }
      this.#trail = way;
      this.#drawPath();
      this.#drawFolders(folders);
      this.#move.disabled = this.files.every((file) => file.parent === id) || way.some((folder) => this.#moving.has(folder.id));
      this.#list.querySelector('button')?.focus();
    } catch (error) {
      if (turn === this.#turn) {
        fill(
          this.#list,
          h(
            'li',
            { class: 'move-note' },
            sentence(error),
            this.#dialog.button('Try again', 'quiet small', () => void this.#open(id, trail)),
          ),
        );
      }
    }
  }

  async #folders(id: string): Promise<readonly FileEntry[]> {
    const found: FileEntry[] = [];
    for (let offset = 0; found.length < MOST_FOLDERS; ) {
      const page = await api.folder(id, BY_NAME, offset);
      found.push(...page.items.filter((item) => item.type === 'folder'));
      offset += page.items.length;
      if (page.items.length === 0 || offset >= page.total) {
        break;
      }
    }
    return found;
  }

  #drawPath(): void {
    const way: readonly Ancestor[] = [{ id: ROOT, name: ROOT_NAME }, ...this.#trail];
    fill(
      this.#path,
      ...way.flatMap((folder, i) => {
        const trail = this.#trail.slice(0, i);
        const link = h('button', { class: 'crumb', type: 'button', onclick: () => void this.#open(folder.id, trail) }, folder.name);
        if (i === way.length - 1) {
          link.setAttribute('aria-current', 'page');
          link.classList.add('last');
        }
        return i === 0 ? [link] : [icon('right'), link];
      }),
    );
  }

  #drawFolders(folders: readonly FileEntry[]): void {
    if (folders.length === 0) {
      fill(this.#list, h('li', { class: 'move-note' }, 'No folders here.'));
      return;
    }
    fill(
      this.#list,
      ...folders.map((folder) =>
        h(
          'li',
          {},
          h(
            'button',
            {
              class: 'move-folder',
              type: 'button',
              disabled: this.#moving.has(folder.id),
              onclick: () => void this.#open(folder.id, [...this.#trail, { id: folder.id, name: folder.name }]),
            },
            icon('folder'),
            h('span', { class: 'label' }, folder.name),
            icon('right'),
          ),
        ),
      ),
    );
  }

  #newFolder(): void {
    const { id } = this.#here;
    const trail = this.#trail;
    askName({
      title: 'New folder',
      label: 'Name of the folder',
      value: 'Untitled folder',
      select: 'Untitled folder'.length,
      button: 'Create',
      accept: async (name) => {
        const folder = await api.create(id, 'folder', name);
        await this.#open(folder.id, [...trail, { id: folder.id, name: folder.name }]);
      },
    });
  }
}
