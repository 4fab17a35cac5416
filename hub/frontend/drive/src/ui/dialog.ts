/** Dialogs: one thing to look at or to decide, on top of the page. */

import { fill, h, type Child } from './dom';

export interface DialogButton {
  readonly label: string;
  readonly main?: boolean;
  readonly danger?: boolean;
}

export class Dialog {
  readonly element: HTMLDialogElement;
  readonly body: HTMLElement;
  readonly footer: HTMLElement;
  readonly #before: Element | null = document.activeElement;

  /** `closed` is called once, however it was closed. */
  constructor(title: string, className: string, closed: () => void = () => undefined) {
    const heading = h('h2', { id: `dialog-${String(++count)}` }, title);
    this.body = h('div', { class: 'dialog-body' });
    this.footer = h('div', { class: 'dialog-footer' });
    this.element = h(
      'dialog',
      { class: `dialog ${className}`, 'aria-labelledby': heading.id },
      heading,
      this.body,
      this.footer,
    );
    this.element.addEventListener('close', () => {
      // This event comes some time after the dialog has gone. Who opened something else by then keeps the keys.
      const free = document.activeElement === null || document.activeElement === document.body || this.element.contains(document.activeElement);
      this.element.remove();
      if (free && this.#before instanceof HTMLElement && this.#before.isConnected) {
        this.#before.focus();
      }
      closed();
    });
    this.element.addEventListener('pointerdown', (event) => {
      if (event.target === this.element && !inside(this.element, event)) {
        this.close();
      }
    });
    this.element.addEventListener('keydown', (event) => {
      event.stopPropagation();
    });
  }

  show(): void {
    document.body.append(this.element);
    this.element.showModal();
  }

  close(): void {
    this.element.close();
  }

  button(label: string, kind: string, run: () => void): HTMLButtonElement {
    return h('button', { class: `button ${kind}`, type: 'button', onclick: run }, label);
  }
}

let count = 0;

function inside(element: HTMLElement, event: PointerEvent): boolean {
  const box = element.getBoundingClientRect();
  return event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
}

export function dialogIsOpen(): boolean {
  return document.querySelector('dialog[open]') !== null;
}

/** Ask before something that can not be undone. True when the person agrees. */
export function confirm(title: string, text: string, yes: string): Promise<boolean> {
  return new Promise((resolve) => {
    let agreed = false;
    const dialog = new Dialog(title, 'narrow', () => {
      resolve(agreed);
    });
    fill(dialog.body, h('p', {}, text));
    const cancel = dialog.button('Cancel', 'quiet', () => {
      dialog.close();
    });
    const agree = dialog.button(yes, 'danger', () => {
      agreed = true;
      dialog.close();
    });
    fill(dialog.footer, cancel, agree);
    dialog.show();
    cancel.focus();
  });
}

/** Show something that only needs to be closed. */
export function tell(title: string, className: string, ...body: readonly Child[]): void {
  const dialog = new Dialog(title, className);
  fill(dialog.body, ...body);
  const close = dialog.button('Close', 'main', () => {
    dialog.close();
  });
  fill(dialog.footer, close);
  dialog.show();
  close.focus();
}
