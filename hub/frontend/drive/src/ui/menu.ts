/** Menus: a list of things to do beside a button or the pointer, with keys, lines and one level of further menus. */

import { fill, h } from './dom';
import { icon } from './icons';

export interface MenuItem {
  readonly label: string;
  readonly icon?: string;
  readonly picture?: SVGSVGElement;
  readonly keys?: string;
  readonly separated?: boolean;
  readonly detail?: string;
  readonly run?: () => void;
  readonly href?: string;
  readonly items?: readonly MenuItem[];
}

export interface Spot {
  readonly x: number;
  readonly y: number;
}

const MARGIN = 8;

let open: Menu | null = null;

/** Show a menu below `at` (an element or a point); the one shown before is closed. `head` is shown above the items. */
export function showMenu(at: HTMLElement | Spot, items: readonly MenuItem[], label: string, head?: HTMLElement): void {
  const toggles = at instanceof HTMLElement && open?.opener === at;
  closeMenu();
  if (!toggles && items.length > 0) {
    open = new Menu(at, items, label, head ?? null);
  }
}

export function closeMenu(): void {
  open?.close(false);
}

export function menuIsOpen(): boolean {
  return open !== null;
}

class Menu {
  readonly opener: HTMLElement | null;
  readonly #element: HTMLElement;
  readonly #before: Element | null = document.activeElement;
  #sub: { readonly element: HTMLElement; readonly from: HTMLElement } | null = null;
  readonly #outside = (event: Event): void => {
    const target = event.target as Node;
    if (!this.#element.contains(target) && this.#sub?.element.contains(target) !== true && this.opener?.contains(target) !== true) {
      this.close(false);
    }
  };
  readonly #away = (): void => {
    this.close(false);
  };

  constructor(at: HTMLElement | Spot, items: readonly MenuItem[], label: string, head: HTMLElement | null) {
    this.opener = at instanceof HTMLElement ? at : null;
    this.#element = this.#list(items, label);
    if (head !== null) {
      this.#element.prepend(head);
    }
    document.body.append(this.#element);
    const box = at instanceof HTMLElement ? at.getBoundingClientRect() : null;
    place(this.#element, box?.left ?? (at as Spot).x, box === null ? (at as Spot).y : box.bottom + 4, box);
    this.opener?.setAttribute('aria-expanded', 'true');
    document.addEventListener('pointerdown', this.#outside, true);
    window.addEventListener('blur', this.#away);
    window.addEventListener('resize', this.#away);
    buttons(this.#element)[0]?.focus();
  }

  /** `back` gives the keys back to where they were. */
  close(back: boolean): void {
    if (open !== this) {
      return;
    }
    open = null;
    this.#closeSub();
    document.removeEventListener('pointerdown', this.#outside, true);
    window.removeEventListener('blur', this.#away);
    window.removeEventListener('resize', this.#away);
    const hadFocus = this.#element.contains(document.activeElement);
    this.#element.remove();
    this.opener?.setAttribute('aria-expanded', 'false');
    const to = this.opener ?? this.#before;
    if ((back || hadFocus) && to instanceof HTMLElement && to.isConnected) {
      to.focus();
    }
  }

  #list(items: readonly MenuItem[], label: string): HTMLElement {
    const element = h('div', { class: 'menu', role: 'menu', 'aria-label': label, onkeydown: this.#key });
    fill(element, ...items.flatMap((item) => [item.separated === true ? h('hr') : null, this.#item(item)]));
    element.addEventListener('contextmenu', (event) => {
      event.preventDefault();
    });
    return element;
  }

  #item(item: MenuItem): HTMLElement {
    const inside = [
      item.picture ?? (item.icon === undefined ? null : icon(item.icon)),
      h('span', { class: 'menu-label' }, item.label, item.detail === undefined ? null : h('small', {}, item.detail)),
      item.keys === undefined || item.keys === '' ? null : h('kbd', {}, item.keys),
      item.items === undefined ? null : icon('right'),
    ];
    if (item.href !== undefined) {
      return h('a', { class: 'menu-item', role: 'menuitem', tabindex: -1, href: item.href }, ...inside);
    }
    const element = h(
      'button',
      { class: 'menu-item', role: 'menuitem', tabindex: -1, type: 'button', 'aria-haspopup': item.items === undefined ? null : 'menu' },
      ...inside,
    );
    const { items, run } = item;
    if (items !== undefined) {
      const show = (): void => {
        this.#showSub(element, items, item.label);
      };
      element.addEventListener('click', () => {
        show();
        this.#focusSub();
      });
      element.addEventListener('pointerenter', show);
    } else {
      element.addEventListener('pointerenter', () => {
        if (this.#sub?.element.contains(element) !== true) {
          this.#closeSub();
        }
      });
      element.addEventListener('click', () => {
        this.close(true);
        run?.();
      });
    }
    return element;
  }

  #showSub(from: HTMLElement, items: readonly MenuItem[], label: string): void {
    if (this.#sub?.from === from) {
      return;
    }
    this.#closeSub();
    const element = this.#list(items, label);
    document.body.append(element);
    const box = from.getBoundingClientRect();
    const fits = box.right + element.offsetWidth + MARGIN < window.innerWidth;
    place(element, fits ? box.right - 4 : Math.max(MARGIN, box.left - element.offsetWidth + 4), box.top - 8, null);
    from.setAttribute('aria-expanded', 'true');
    this.#sub = { element, from };
  }

  #focusSub(): void {
    if (this.#sub !== null) {
      buttons(this.#sub.element)[0]?.focus();
    }
  }

  #closeSub(): void {
    this.#sub?.from.removeAttribute('aria-expanded');
    this.#sub?.element.remove();
    this.#sub = null;
  }

  readonly #key = (event: KeyboardEvent): void => {
    const list = event.currentTarget as HTMLElement;
    const all = buttons(list);
    const at = all.indexOf(document.activeElement as HTMLElement);
    const inSub = this.#sub?.element === list;
    const go = (to: number): void => {
      all[(to + all.length) % all.length]?.focus();
    };
    switch (event.key) {
      case 'ArrowDown':
        go(at + 1);
        break;
      case 'ArrowUp':
        go(at < 0 ? -1 : at - 1);
        break;
      case 'Home':
        go(0);
        break;
      case 'End':
        go(-1);
        break;
      case 'ArrowRight':
        if (all[at]?.getAttribute('aria-haspopup') === 'menu') {
          all[at]?.click();
        }
        break;
      case 'ArrowLeft':
        if (inSub) {
          const from = this.#sub?.from;
          this.#closeSub();
          from?.focus();
        }
        break;
      case 'Escape':
        this.close(true);
        break;
      case 'Tab':
        this.close(true);
        return;
      default:
        if (event.key.length !== 1 || event.ctrlKey || event.metaKey || event.key === ' ') {
          event.stopPropagation();
          return;
        }
        this.#startsWith(all, at, event.key);
    }
    event.preventDefault();
    event.stopPropagation();
  };

  #startsWith(all: readonly HTMLElement[], at: number, letter: string): void {
    const order = [...all.slice(at + 1), ...all.slice(0, at + 1)];
    order.find((item) => item.textContent?.toLowerCase().startsWith(letter.toLowerCase()))?.focus();
  }
}

function buttons(list: HTMLElement): readonly HTMLElement[] {
  return [...list.querySelectorAll<HTMLElement>(':scope > .menu-item')];
}

function place(element: HTMLElement, left: number, top: number, anchor: DOMRect | null): void {
  const { offsetWidth: width, offsetHeight: height } = element;
  const right = window.innerWidth - width - MARGIN;
  const below = window.innerHeight - height - MARGIN;
  const above = anchor === null ? top - height : anchor.top - height - 4;
  const x = anchor !== null && left > right ? anchor.right - width : left;
  element.style.left = `${String(Math.max(MARGIN, Math.min(x, right)))}px`;
  element.style.top = `${String(Math.max(MARGIN, top <= below ? top : above >= MARGIN ? above : below))}px`;
}
