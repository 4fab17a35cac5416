// The quiet lines above a notebook: what will end, what has ended, what can be brought back.
import { Widget } from '@lumino/widgets';

/** A button of a line. */
export interface IAction {
  label: string;
  main?: boolean;
  run: () => unknown;
}

/** One line. `words` stay as they are while only its countdown changes. */
export interface ILine {
  key: string;
  tone: 'warning' | 'ended' | 'quiet';
  words: (string | HTMLElement)[];
  title?: string;
  actions: IAction[];
  close?: () => void;
}

function button(action: IAction): HTMLButtonElement {
  const made = document.createElement('button');
  made.type = 'button';
  made.className = action.main ? 'mc-line-main' : 'mc-line-action';
  made.textContent = action.label;
  made.onclick = async () => {
    made.disabled = true;
    try {
      await action.run();
    } finally {
      made.disabled = false;
    }
  };
  return made;
}

/** Lines above one notebook; it takes no room while there are none. */
export class Strip extends Widget {
  constructor() {
    super();
    this.addClass('mc-strip');
    this._inside.className = 'mc-strip-inside';
    this.node.append(this._inside);
    this._observer = new ResizeObserver(() => this._measure());
    this._observer.observe(this._inside);
    this.hide();
  }

  dispose(): void {
    this._observer.disconnect();
    super.dispose();
  }

  /** Show a line, in the place of the one of the same key. */
  put(line: ILine): void {
    const row = document.createElement('div');
    row.className = `mc-line mc-line-${line.tone}`;
    row.dataset.key = line.key;
    const words = document.createElement('span');
    words.className = 'mc-line-words';
    words.append(...line.words);
    words.title = line.title ?? '';
    words.setAttribute('role', line.tone === 'quiet' ? 'status' : 'alert');
    row.append(words, ...line.actions.map(button));
    if (line.close) {
      const close = document.createElement('button');
      close.type = 'button';
      close.className = 'mc-line-close';
      close.setAttribute('aria-label', 'Dismiss');
      close.textContent = '×';
      close.onclick = line.close;
      row.append(close);
    }
    const old = this._row(line.key);
    if (old) {
      old.replaceWith(row);
    } else {
      this._inside.append(row);
    }
    this.show();
    this._measure();
  }

  remove(key: string): void {
    this._row(key)?.remove();
    if (this._inside.childElementCount) {
      this._measure();
    } else {
      this.hide();
    }
  }

  private _row(key: string): HTMLElement | null {
    return this._inside.querySelector<HTMLElement>(`[data-key="${key}"]`);
  }

  /** The panel around gives a widget its least height, so a line that wraps has to say how high it is. */
  private _measure(): void {
    const height = `${this._inside.offsetHeight}px`;
    if (this.node.style.minHeight !== height) {
      this.node.style.minHeight = height;
      (this.parent as (Widget & { fit?: () => void }) | null)?.fit();
    }
  }

  private _inside = document.createElement('div');
  private _observer: ResizeObserver;
}
