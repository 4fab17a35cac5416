/** Short notices at the bottom left, with a way back where there is one. */

import { fill, h } from './dom';
import { icon } from './icons';

export interface ToastAction {
  readonly label: string;
  readonly run: () => void;
}

const SHOWN_MS = 8000;

export class Toasts {
  readonly element = h('div', { class: 'toasts', role: 'status', 'aria-live': 'polite' });
  #timer = 0;

  show(text: string, action: ToastAction | null = null, wrong = false): void {
    window.clearTimeout(this.#timer);
    const toast = h(
      'div',
      { class: wrong ? 'toast wrong' : 'toast' },
      h('span', { class: 'toast-text' }, text),
      action === null
        ? null
        : h(
            'button',
            {
              class: 'toast-action',
              type: 'button',
              onclick: () => {
                this.hide();
                action.run();
              },
            },
            action.label,
          ),
      h(
        'button',
        {
          class: 'toast-close',
          type: 'button',
          'aria-label': 'Close this notice',
          onclick: () => {
            this.hide();
          },
        },
        icon('close'),
      ),
    );
    toast.addEventListener('pointerenter', () => {
      window.clearTimeout(this.#timer);
    });
    toast.addEventListener('pointerleave', () => {
      this.#hideLater();
    });
    fill(this.element, toast);
    this.#hideLater();
  }

  hide(): void {
    window.clearTimeout(this.#timer);
    fill(this.element);
  }

  #hideLater(): void {
    window.clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      if (this.element.contains(document.activeElement)) {
        this.#hideLater();
      } else {
        this.hide();
      }
    }, SHOWN_MS);
  }
}
