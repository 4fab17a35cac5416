/** Doing things to files: call the service, tell the person, offer the way back. */

import { api, downloadUrl, sentence } from './api';
import { count } from './format';
import type { Ancestor, Example, FileEntry } from './model';
import { suffixOf } from './kinds';
import { stemLength } from './names';
import { fileAddress } from './routes';
import { confirm, tell } from './ui/dialog';
import { h } from './ui/dom';
import { askFolder } from './ui/move_dialog';
import { askName } from './ui/name_dialog';
import type { Toasts } from './ui/toast';

/** What actions need of the page. */
export interface Scene {
  readonly toasts: Toasts;
  /** Look again at the files that are shown. */
  refresh(): Promise<void>;
  /** Select a file once it is shown. */
  reveal(ids: readonly string[]): void;
  /** The folder that new files go to. */
  target(): Ancestor;
  /** Whether this folder is what the page shows. */
  shows(folder: Ancestor): boolean;
  /** Leave the page for a notebook, or open it beside while uploads are on their way. */
  openNotebook(id: string): void;
}

type Undo = () => Promise<void>;

export class Actions {
  #undo: Undo | null = null;

  constructor(private readonly scene: Scene) {}

  async newNotebook(): Promise<void> {
    await this.#reporting(async () => {
      const entry = await api.create(this.scene.target().id, 'notebook');
      this.scene.openNotebook(entry.id);
    });
  }

  newFolder(): void {
    const target = this.scene.target();
    askName({
      title: 'New folder',
      label: 'Name of the folder',
      value: 'Untitled folder',
      select: 'Untitled folder'.length,
      button: 'Create',
      accept: async (name) => {
        const folder = await api.create(target.id, 'folder', name);
        if (!this.scene.shows(target)) {
          this.scene.toasts.show(`“${folder.name}” is in ${target.name}.`);
        }
        await this.#show([folder]);
      },
    });
  }

  rename(file: FileEntry): void {
    askName({
      title: 'Rename',
      label: 'New name',
      value: file.name,
      select: stemLength(file.name, file.type === 'folder'),
      button: 'Rename',
      hint: (name) =>
        file.type === 'notebook' && suffixOf(name) !== 'ipynb' ? 'Without “.ipynb” it will no longer open as a notebook.' : '',
      accept: async (name) => {
        if (name === file.name) {
          return;
        }
        const renamed = await api.rename(file.id, name);
        this.#tell(`Renamed to “${renamed.name}”.`, async () => {
          await api.rename(file.id, file.name);
          await this.#show([file]);
        });
        await this.#show([renamed]);
      },
    });
  }

  moveTo(files: readonly FileEntry[]): void {
    askFolder(files, (folder) => {
      void this.move(files, folder);
    });
  }

  async move(files: readonly FileEntry[], folder: Ancestor): Promise<void> {
    const going = files.filter((file) => file.parent !== folder.id && file.id !== folder.id);
    await this.#change(going, 'move', (file) => api.move(file.id, folder.id), `moved to “${folder.name}”.`, async (moved) => {
      await this.#each(moved, (file) => api.move(file.id, file.parent));
      await this.#show(moved);
    });
  }

  async trash(files: readonly FileEntry[]): Promise<void> {
    await this.#change(files, 'trash', (file) => api.trashFile(file.id), 'moved to the trash.', async (gone) => {
      await this.#each(gone, (file) => api.restore(file.id));
      await this.#show(gone);
    });
  }

  async restore(files: readonly FileEntry[]): Promise<void> {
    await this.#change(files, 'restore', (file) => api.restore(file.id), 'restored.', async (back) => {
      await this.#each(back, (file) => api.trashFile(file.id));
      await this.scene.refresh();
    });
  }

  async deleteForever(files: readonly FileEntry[]): Promise<void> {
    const text = `${subject(files)} will be deleted for good. This can’t be undone.`;
    if (await confirm('Delete forever?', text, 'Delete forever')) {
      await this.#change(files, 'delete', (file) => api.deleteForever(file.id), 'deleted forever.', null);
    }
  }

  async emptyTrash(): Promise<void> {
    if (await confirm('Empty the trash?', 'Everything in the trash will be deleted for good. This can’t be undone.', 'Empty trash')) {
      await this.#reporting(async () => {
        await api.emptyTrash();
        this.#tell('The trash is empty.', null);
      });
      await this.scene.refresh();
    }
  }

  async copy(files: readonly FileEntry[]): Promise<void> {
    const copies: FileEntry[] = [];
    const { problem } = await this.#collect(files, async (file) => {
      copies.push(await api.copy(file.id));
    });
    await this.#show(copies);
    if (problem !== null) {
      this.scene.toasts.show(`Could not copy ${problem}`, null, true);
    } else {
      const made = copies.length === 1 ? `“${copies[0]?.name ?? ''}”` : count(copies.length, 'copy', 'copies');
      this.#tell(`${made} made.`, null);
    }
  }

  async copyExample(example: Example): Promise<void> {
    await this.#reporting(async () => {
      const copy = await api.copy(example.id);
      this.scene.toasts.show(`“${copy.name}” is in your Drive.`, {
        label: 'Open',
        run: () => {
          this.scene.openNotebook(copy.id);
        },
      });
    });
  }

  download(files: readonly FileEntry[]): void {
    files.forEach((file, i) => {
      // A browser takes one download at a time from a page; give each a moment.
      window.setTimeout(() => {
        const link = h('a', { href: downloadUrl(file.id), download: file.name });
        document.body.append(link);
        link.click();
        link.remove();
      }, i * 300);
    });
  }

  async copyLink(file: FileEntry): Promise<void> {
    const link = window.location.origin + fileAddress(file.id);
    try {
      await navigator.clipboard.writeText(link);
      this.scene.toasts.show('Link copied.');
    } catch {
      // No clipboard here (no HTTPS, or not permitted): let the person copy it by hand.
      const field = h('input', { class: 'field', type: 'text', readonly: true, value: link, 'aria-label': 'Link' });
      tell('Copy link', 'narrow', field);
      field.select();
    }
  }

  /** Take back the last move, rename or trash. */
  async undo(): Promise<void> {
    const undo = this.#undo;
    this.#undo = null;
    if (undo !== null) {
      this.scene.toasts.hide();
      await this.#reporting(undo);
    }
  }

  async #show(files: readonly FileEntry[]): Promise<void> {
    this.scene.reveal(files.map(({ id }) => id));
    await this.scene.refresh();
  }

  #tell(text: string, undo: Undo | null, wrong = false): void {
    this.#undo = undo;
    this.scene.toasts.show(text, undo === null ? null : { label: 'Undo', run: () => void this.undo() }, wrong);
  }

  /** Do something to the files, look again, and say what was done with a way back, or what could not be done. */
  async #change(
    files: readonly FileEntry[],
    verb: string,
    run: (file: FileEntry) => Promise<unknown>,
    text: string,
    undo: ((done: readonly FileEntry[]) => Promise<void>) | null,
  ): Promise<void> {
    if (files.length === 0) {
      return;
    }
    const { done, problem } = await this.#collect(files, run);
    const back = undo === null || done.length === 0 ? null : (): Promise<void> => undo(done);
    await this.scene.refresh();
    if (problem === null) {
      this.#tell(`${subject(done)} ${text}`, back);
    } else {
      this.#tell(`Could not ${verb} ${problem}`, back, true);
    }
  }

  /** Do something to one file after the other until one fails; `problem` says which and why. */
  async #collect(
    files: readonly FileEntry[],
    run: (file: FileEntry) => Promise<unknown>,
  ): Promise<{ readonly done: readonly FileEntry[]; readonly problem: string | null }> {
    const done: FileEntry[] = [];
    for (const [i, file] of files.entries()) {
      try {
        await run(file);
        done.push(file);
      } catch (error) {
        const rest = files.length - i - 1;
        const others = rest === 0 ? '' : ` ${count(rest, 'more item')} left as before.`;
        return { done, problem: `“${file.name}”: ${sentence(error)}${others}` };
      }
    }
    return { done, problem: null };
  }

  /** Do something to every file. Raises ApiError at the first that fails. */
  async #each(files: readonly FileEntry[], run: (file: FileEntry) => Promise<unknown>): Promise<void> {
    for (const file of files) {
      await run(file);
    }
  }

  async #reporting(run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      this.scene.toasts.show(sentence(error), null, true);
    }
  }
}

function subject(files: readonly FileEntry[]): string {
  return files.length === 1 ? `“${files[0]?.name ?? ''}”` : count(files.length, 'item');
}
