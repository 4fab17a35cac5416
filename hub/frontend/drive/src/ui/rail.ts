/** The left side: New, and the places of the Drive. */

import { ROOT } from '../model';
import { addressOf, type View } from '../routes';
import { bringsFiles } from '../uploads/tree';
import { h } from './dom';
import { DRAG_TYPE } from './grid';
import { icon } from './icons';
import { showMenu, type MenuItem } from './menu';

export interface RailEvents {
  go(view: View): void;
  newMenu(): readonly MenuItem[];
  /** Something was let go above a place: My Drive or Trash. */
  dropped(place: 'drive' | 'trash', transfer: DataTransfer): void;
}

const PLACES: readonly (readonly [View, string, string])[] = [
  [{ kind: 'folder', id: ROOT }, 'My Drive', 'drive'],
  [{ kind: 'recent' }, 'Recent', 'recent'],
  [{ kind: 'trash' }, 'Trash', 'trash'],
  [{ kind: 'examples' }, 'Examples', 'examples'],
];

export class Rail {
  readonly element: HTMLElement;
  readonly floating: HTMLButtonElement;
  readonly #links = new Map<string, HTMLAnchorElement>();

  constructor(private readonly events: RailEvents) {
    const button = this.#newButton('new');
    this.floating = this.#newButton('new floating');
    const list = h('ul', { class: 'places' });
    for (const [view, label, picture] of PLACES) {
      const link = h('a', { class: 'place', href: addressOf(view) }, icon(picture), h('span', {}, label));
      link.addEventListener('click', (event) => {
        if (!event.ctrlKey && !event.metaKey && !event.shiftKey) {
          event.preventDefault();
          events.go(view);
        }
      });
      if (view.kind === 'folder' || view.kind === 'trash') {
        this.#takeDrops(link, view.kind === 'folder' ? 'drive' : 'trash');
      }
      this.#links.set(label, link);
      list.append(h('li', {}, link));
    }
    this.element = h('nav', { class: 'rail', 'aria-label': 'Drive' }, button, list);
  }

  setView(view: View): void {
    for (const [place, label] of PLACES) {
      const here = place.kind === view.kind;
      this.#links.get(label)?.classList.toggle('here', here);
      if (here) {
        this.#links.get(label)?.setAttribute('aria-current', 'page');
      } else {
        this.#links.get(label)?.removeAttribute('aria-current');
      }
    }
  }

  #newButton(className: string): HTMLButtonElement {
    const button = h('button', { class: className, type: 'button', 'aria-haspopup': 'menu' }, icon('plus'), h('span', {}, 'New'));
    button.addEventListener('click', () => {
      showMenu(button, this.events.newMenu(), 'New');
    });
    return button;
  }

  #takeDrops(link: HTMLElement, place: 'drive' | 'trash'): void {
    const takes = (event: DragEvent): boolean =>
      event.dataTransfer !== null &&
      (event.dataTransfer.types.includes(DRAG_TYPE) || (place === 'drive' && bringsFiles(event.dataTransfer)));
    link.addEventListener('dragover', (event) => {
      if (takes(event)) {
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
      if (takes(event) && event.dataTransfer !== null) {
        event.preventDefault();
        event.stopPropagation();
        this.events.dropped(place, event.dataTransfer);
      }
    });
  }
}
