/** Making elements. Text always goes in as text, never as markup. */

type Listener<E extends Event> = (event: E) => void;

export interface Props {
  readonly [attribute: `on${string}`]: Listener<never> | undefined;
  readonly [attribute: string]: string | number | boolean | Listener<never> | null | undefined;
}

export type Child = Node | string | null;

/** `h('button', {class: 'icon', 'aria-label': 'Close', onclick: close}, icon('close'))`; null and false attributes are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') {
      element.addEventListener(name.slice(2), value as unknown as EventListener);
    } else if (value === true) {
      element.setAttribute(name, '');
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Replace what is inside. */
export function fill(element: Element, ...children: readonly Child[]): void {
  element.replaceChildren(...children.filter((child) => child !== null));
}

/** Change text only when it differs, so that the browser has nothing to redo. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/** Whether keys belong to what the person is typing into. */
export function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable || ['INPUT', 'TEXTAREA', 'SELECT'].includes(target.tagName))
  );
}
