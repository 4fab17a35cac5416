/** The list of uploads at the bottom right: how far each is, and a way to stop or repeat it. */

import { count, formatLeft, formatSize } from '../format';
import { kindOf } from '../kinds';
import { Speed, summary, type Upload, type UploadQueue } from '../uploads/queue';
import { fill, h, setText } from './dom';
import { icon, kindIcon } from './icons';

export interface UploadEvents {
  /** Show where an uploaded file is. */
  reveal(upload: Upload): void;
}

export class UploadsPanel {
  readonly element = h('section', { class: 'uploads', 'aria-label': 'Uploads', hidden: true });
  readonly #title = h('h2', {});
  readonly #left = h('p', { class: 'uploads-left' });
  readonly #said = h('p', { class: 'unseen', 'aria-live': 'polite' });
  readonly #list = h('ul', {});
  readonly #rows = new Map<number, UploadRow>();
  readonly #cancel: HTMLButtonElement;
  readonly #close: HTMLButtonElement;
  readonly #fold: HTMLButtonElement;
  readonly #speed = new Speed();
  #planned = false;

  constructor(
    private readonly queue: () => UploadQueue,
    private readonly events: UploadEvents,
  ) {
    this.#fold = h('button', { class: 'round', type: 'button', 'aria-expanded': 'true', 'aria-label': 'Fold the list of uploads' }, icon('down'));
    this.#fold.addEventListener('click', () => {
      const folded = this.element.classList.toggle('folded');
      this.#fold.setAttribute('aria-expanded', String(!folded));
    });
    this.#close = h('button', { class: 'round', type: 'button', 'aria-label': 'Close the list of uploads' }, icon('close'));
    this.#close.addEventListener('click', () => {
      this.queue().clear();
    });
    this.#cancel = h('button', { class: 'button quiet small', type: 'button' }, 'Cancel all');
    this.#cancel.addEventListener('click', () => {
      this.queue().cancelAll();
    });
    this.element.append(
      h('div', { class: 'uploads-head' }, this.#title, this.#fold, this.#close),
      h('div', { class: 'uploads-line' }, this.#left, this.#cancel),
      this.#list,
      this.#said,
    );
  }

  /** Draw soon; many changes in one frame are drawn once. */
  changed(): void {
    if (!this.#planned) {
      this.#planned = true;
      window.requestAnimationFrame(() => {
        this.#planned = false;
        this.#draw(this.queue().uploads);
      });
    }
  }

  #draw(uploads: readonly Upload[]): void {
    const shown = uploads.slice(-500);
    const sum = summary(uploads);
    this.element.hidden = uploads.length === 0;
    this.#speed.note(sum.sent, performance.now());
    setText(this.#title, titleOf(uploads));
    const percent = sum.size === 0 ? 0 : Math.floor((100 * sum.sent) / sum.size);
    const left = formatLeft(this.#speed.secondsFor(sum.size - sum.sent));
    setText(this.#left, sum.active === 0 ? '' : `${String(percent)} %${left === '' ? '' : ` · ${left}`}`);
    this.#cancel.parentElement?.toggleAttribute('hidden', sum.active === 0);
    this.#close.hidden = sum.active > 0;
    if (sum.active === 0) {
      setText(this.#said, titleOf(uploads));
    }
    const ids = new Set(shown.map((upload) => upload.id));
    for (const [id, row] of this.#rows) {
      if (!ids.has(id)) {
        row.element.remove();
        this.#rows.delete(id);
      }
    }
    for (const upload of shown) {
      let row = this.#rows.get(upload.id);
      if (row === undefined) {
        row = new UploadRow(upload, this.queue, this.events);
        this.#rows.set(upload.id, row);
        this.#list.append(row.element);
      }
      row.draw(upload);
    }
  }
}

export function titleOf(uploads: readonly Upload[]): string {
  const sum = summary(uploads);
  if (sum.active > 0) {
    return `Uploading ${count(sum.active, 'file')}`;
  }
  if (sum.failed > 0) {
    return `${count(sum.failed, 'upload')} failed`;
  }
  return sum.done === 0 ? 'Uploads cancelled' : `${count(sum.done, 'upload')} complete`;
}

class UploadRow {
  readonly element = h('li', { class: 'upload' });
  readonly #name = h('span', { class: 'label' });
  readonly #state = h('span', { class: 'upload-state' });
  readonly #progress = h('progress', { max: 1 });
  readonly #button = h('button', { class: 'round', type: 'button' });
  #upload: Upload;
  #drawn = '';

  constructor(upload: Upload, queue: () => UploadQueue, events: UploadEvents) {
    this.#upload = upload;
    this.element.append(
      h('span', { class: 'picture' }, kindIcon(kindOf({ name: upload.name, type: upload.name.endsWith('.ipynb') ? 'notebook' : 'file' }))),
      h('div', { class: 'upload-text' }, this.#name, this.#state, this.#progress),
      this.#button,
    );
    this.#button.addEventListener('click', () => {
      const { id, state } = this.#upload;
      if (state === 'waiting' || state === 'sending') {
        queue().cancel(id);
      } else if (state === 'done') {
        events.reveal(this.#upload);
      } else {
        queue().retry(id);
      }
    });
  }

  draw(upload: Upload): void {
    this.#upload = upload;
    setText(this.#name, upload.name);
    this.#name.title = upload.name;
    setText(this.#state, stateText(upload));
    this.#progress.hidden = upload.state !== 'sending';
    this.#progress.value = upload.size === 0 ? 0 : Math.min(upload.sent / upload.size, 1);
    this.#progress.setAttribute('aria-label', `Progress of ${upload.name}`);
    if (this.#drawn !== upload.state) {
      this.#drawn = upload.state;
      this.element.className = `upload ${upload.state}`;
      const [picture, label] = BUTTONS[upload.state];
      fill(this.#button, icon(picture));
      this.#button.setAttribute('aria-label', `${label} ${upload.name}`);
      this.#button.title = label;
    }
  }
}

const BUTTONS: Readonly<Record<Upload['state'], readonly [string, string]>> = {
  waiting: ['close', 'Cancel'],
  sending: ['close', 'Cancel'],
  done: ['folder-open', 'Show in folder'],
  failed: ['restore', 'Try again'],
  cancelled: ['restore', 'Try again'],
};

function stateText(upload: Upload): string {
  switch (upload.state) {
    case 'waiting':
      return `Waiting · ${formatSize(upload.size)}`;
    case 'sending':
      return upload.sent >= upload.size && upload.size > 0
        ? 'Storing…'
        : `${formatSize(upload.sent)} of ${formatSize(upload.size)}`;
    case 'done':
      return `${formatSize(upload.size)} · in ${upload.parentName}`;
    case 'failed':
      return upload.error;
    case 'cancelled':
      return 'Cancelled';
  }
}
