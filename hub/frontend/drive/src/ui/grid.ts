/** The list of files: rows that are kept while their contents change, so that nothing jumps under the pointer. */

import { formatFullTime, formatSize, formatTime } from '../format';
import { kindLabel, kindOf } from '../kinds';
import { sameEntry } from '../listing';
import { ROOT_NAME, type FileEntry } from '../model';
import { locationOf } from '../names';
import type { View } from '../routes';
import type { Selection } from '../selection';
import type { Sort, SortKey } from '../sorting';
import { bringsFiles } from '../uploads/tree';
import { fill, h, setText } from './dom';
import { icon, kindIcon } from './icons';
import type { Spot } from './menu';

/** Marks a drag of the page's own rows. */
export const DRAG_TYPE = 'application/x-minicolab-files';

export interface GridEvents {
  clicked(id: string, event: MouseEvent): void;
  opened(id: string, inTab: boolean): void;
  menu(id: string, at: HTMLElement | Spot): void;
  sorted(key: SortKey): void;
  /** A drag of a row begins; returns how many files go along, 0 to refuse. */
  dragged(id: string): number;
  /** Files from outside, or the rows that are dragged, were let go above a folder. */
  dropped(id: string, transfer: DataTransfer): void;
  /** The end of the list came into view. */
  ended(): void;
}

export interface GridState {
  readonly view: View;
  readonly items: readonly FileEntry[];
  readonly more: boolean;
  readonly sort: Sort | null;
  readonly selection: Selection;
  /** State of the live runtime of each file that has one. */
  readonly live: ReadonlyMap<string, string>;
  readonly now: number;
}

const LIVE_TEXT: Readonly<Record<string, string>> = {
  ready: 'Runtime connected',
  starting: 'Runtime starting',
  queued: 'Runtime waiting',
  stopping: 'Runtime stopping',
};

export class Grid {
  readonly element: HTMLElement;
  readonly #head = h('div', { class: 'grid-head', role: 'row' });
  readonly #body = h('div', { class: 'grid-body', role: 'rowgroup' });
  readonly #end = h('div', { class: 'grid-end', 'aria-hidden': 'true' });
  readonly #seen: IntersectionObserver;
  #rows = new Map<string, Row>();
  #columns = '';
  #drawn = 0;
  #order: readonly string[] = [];

  constructor(private readonly events: GridEvents) {
    this.element = h('div', { class: 'grid', role: 'grid', 'aria-label': 'Files', 'aria-multiselectable': 'true' });
    this.element.append(h('div', { class: 'grid-top', role: 'rowgroup' }, this.#head), this.#body, this.#end);
    this.#seen = new IntersectionObserver((seen) => {
      if (seen.some((entry) => entry.isIntersecting)) {
        events.ended();
      }
    }, { rootMargin: '600px' });
    this.#seen.observe(this.#end);
    this.#listen();
  }

  render(state: GridState): void {
    const columns = `${state.view.kind}`;
    if (columns !== this.#columns) {
      this.#columns = columns;
      this.#rows.clear();
      this.#body.replaceChildren();
      this.element.className = `grid ${hasLocation(state.view) ? 'with-location' : ''}`;
    }
    this.#renderHead(state);
    const hadFocus = this.#body.contains(document.activeElement);
    this.#renderRows(state);
    this.element.setAttribute('aria-rowcount', String(state.items.length + 1));
    this.#end.hidden = !state.more;
    if (state.items.length !== this.#drawn) {
      // The observer tells changes only: an end that is in view again before it could see it leave is looked at anew.
      this.#drawn = state.items.length;
      this.#seen.unobserve(this.#end);
      this.#seen.observe(this.#end);
    }
    if (hadFocus && !this.#body.contains(document.activeElement)) {
      this.focus(state.selection.focus);
    }
  }

  /** Give the keys to a row and bring it into view. */
  focus(id: string | null): void {
    const row = id === null ? undefined : this.#rows.get(id);
    row?.element.focus({ preventScroll: true });
    row?.element.scrollIntoView({ block: 'nearest' });
  }

  rowOf(id: string): HTMLElement | null {
    return this.#rows.get(id)?.element ?? null;
  }

  #renderHead(state: GridState): void {
    const column = (key: SortKey, label: string, className: string): HTMLElement => {
      const active = state.sort?.key === key ? state.sort.order : null;
      return h(
        'div',
        {
          class: `cell ${className}`,
          role: 'columnheader',
          'aria-sort': active === null ? 'none' : active === 'asc' ? 'ascending' : 'descending',
        },
        h(
          'button',
          {
            class: `sort ${active ?? ''}`,
            type: 'button',
            'data-sort': key,
          },
          label,
          icon('up'),
        ),
      );
    };
    const time = state.view.kind === 'trash' ? 'Date trashed' : 'Last modified';
    const signature = `${state.view.kind} ${state.sort?.key ?? ''} ${state.sort?.order ?? ''}`;
    if (this.#head.dataset['drawn'] === signature) {
      return;
    }
    const focused = this.#head.querySelector<HTMLElement>(':focus')?.dataset['sort'];
    this.#head.dataset['drawn'] = signature;
    fill(
      this.#head,
      column('name', 'Name', 'name'),
      hasLocation(state.view)
        ? h('div', { class: 'cell location', role: 'columnheader' }, state.view.kind === 'trash' ? 'Was in' : 'Location')
        : null,
      column('modified', time, 'modified'),
      column('size', 'Size', 'size'),
      h('div', { class: 'cell more', role: 'columnheader' }, h('span', { class: 'unseen' }, 'Actions')),
    );
    if (focused !== undefined) {
      this.#head.querySelector<HTMLElement>(`[data-sort="${focused}"]`)?.focus();
    }
  }

  #renderRows(state: GridState): void {
    const order = state.items.map((item) => item.id);
    const rows = new Map<string, Row>();
    for (const item of state.items) {
      rows.set(item.id, this.#rows.get(item.id) ?? new Row(hasLocation(state.view)));
    }
    for (const [id, row] of this.#rows) {
      if (!rows.has(id)) {
        row.element.remove();
      }
    }
    this.#rows = rows;
    this.#order = order;
    const entrance = state.selection.focus ?? order[0];
    let next = this.#body.firstElementChild;
    state.items.forEach((item, index) => {
      const row = rows.get(item.id) as Row;
      row.draw(item, state, index, item.id === entrance);
      if (row.element === next) {
        next = next.nextElementSibling;
      } else {
        this.#body.insertBefore(row.element, next);
      }
    });
  }

  #idAt(target: EventTarget | null): string | null {
    const row = target instanceof Element ? target.closest<HTMLElement>('.row') : null;
    return row?.dataset['id'] ?? null;
  }

  #listen(): void {
    const { events } = this;
    this.#head.addEventListener('click', (event) => {
      const button = (event.target as Element).closest<HTMLElement>('[data-sort]');
      if (button !== null) {
        events.sorted(button.dataset['sort'] as SortKey);
      }
    });
    this.#body.addEventListener('click', (event) => {
      const id = this.#idAt(event.target);
      const more = (event.target as Element).closest<HTMLElement>('.row-more');
      if (id !== null && more !== null) {
        events.menu(id, more);
      } else if (id !== null && touched(event)) {
        events.opened(id, false);
      } else if (id !== null) {
        events.clicked(id, event);
      }
    });
    this.#body.addEventListener('dblclick', (event) => {
      const id = this.#idAt(event.target);
      if (id !== null && (event.target as Element).closest('.row-more') === null && !event.ctrlKey && !event.shiftKey && !event.metaKey) {
        events.opened(id, false);
      }
    });
    this.#body.addEventListener('auxclick', (event) => {
      const id = this.#idAt(event.target);
      if (id !== null && event.button === 1) {
        event.preventDefault();
        events.opened(id, true);
      }
    });
    this.#body.addEventListener('contextmenu', (event) => {
      const id = this.#idAt(event.target);
      if (id !== null) {
        event.preventDefault();
        event.stopPropagation();
        const row = this.rowOf(id)?.getBoundingClientRect();
        const byKey = event.clientX === 0 && event.clientY === 0 && row !== undefined;
        events.menu(id, byKey ? { x: row.left + 48, y: row.bottom } : { x: event.clientX, y: event.clientY });
      }
    });
    this.#listenToDrags();
  }

  #listenToDrags(): void {
    const { events } = this;
    let over: HTMLElement | null = null;
    const mark = (row: HTMLElement | null): void => {
      if (over !== row) {
        over?.classList.remove('drop-target');
        row?.classList.add('drop-target');
        over = row;
      }
    };
    this.#body.addEventListener('dragstart', (event) => {
      const id = this.#idAt(event.target);
      const number = id === null ? 0 : events.dragged(id);
      if (id === null || number === 0 || event.dataTransfer === null) {
        event.preventDefault();
        return;
      }
      event.dataTransfer.effectAllowed = 'move';
      event.dataTransfer.setData(DRAG_TYPE, id);
      const name = this.#rows.get(id)?.name ?? '';
      const chip = h('div', { class: 'drag-chip' }, number === 1 ? name : `${String(number)} items`);
      document.body.append(chip);
      event.dataTransfer.setDragImage(chip, -12, -8);
      window.setTimeout(() => {
        chip.remove();
      }, 0);
    });
    this.#body.addEventListener('dragover', (event) => {
      const row = this.#folderUnder(event);
      mark(row);
      if (row !== null && event.dataTransfer !== null) {
        event.preventDefault();
        event.dataTransfer.dropEffect = bringsFiles(event.dataTransfer) ? 'copy' : 'move';
      }
    });
    this.#body.addEventListener('dragleave', (event) => {
      if (!this.#body.contains(event.relatedTarget as Node | null)) {
        mark(null);
      }
    });
    this.#body.addEventListener('drop', (event) => {
      const row = this.#folderUnder(event);
      mark(null);
      if (row !== null && event.dataTransfer !== null) {
        event.preventDefault();
        event.stopPropagation();
        events.dropped(row.dataset['id'] ?? '', event.dataTransfer);
      }
    });
    this.#body.addEventListener('dragend', () => {
      mark(null);
    });
  }

  /** The folder row that would take what is dragged. */
  #folderUnder(event: DragEvent): HTMLElement | null {
    const id = this.#idAt(event.target);
    const row = id === null ? undefined : this.#rows.get(id);
    const takes = bringsFiles(event.dataTransfer) || event.dataTransfer?.types.includes(DRAG_TYPE) === true;
    if (row === undefined || !takes || !row.isFolder || row.isSelected || this.#columns === 'trash') {
      return null;
    }
    return row.element;
  }

  /** Ids in the order shown. */
  get order(): readonly string[] {
    return this.#order;
  }
}

function hasLocation(view: View): boolean {
  return view.kind === 'search' || view.kind === 'recent' || view.kind === 'trash';
}

/** Whether a click came from a finger, which opens instead of selecting. */
function touched(event: MouseEvent): boolean {
  return event instanceof PointerEvent && event.pointerType === 'touch';
}

class Row {
  readonly element: HTMLElement;
  readonly #picture = h('span', { class: 'picture' });
  readonly #name = h('span', { class: 'label' });
  readonly #dot = h('span', { class: 'dot', role: 'img', hidden: true });
  readonly #location: HTMLElement | null;
  readonly #modified = h('time', {});
  readonly #size = h('span', {});
  readonly #more = h('button', { class: 'row-more round', type: 'button', tabindex: -1, 'aria-haspopup': 'menu' }, icon('dots'));
  #drawn: FileEntry | null = null;

  constructor(withLocation: boolean) {
    this.#location = withLocation ? h('span', {}) : null;
    this.element = h(
      'div',
      { class: 'row', role: 'row', draggable: 'true' },
      h('div', { class: 'cell name', role: 'gridcell' }, this.#picture, this.#name, this.#dot),
      this.#location === null ? null : h('div', { class: 'cell location', role: 'gridcell' }, this.#location),
      h('div', { class: 'cell modified', role: 'gridcell' }, this.#modified),
      h('div', { class: 'cell size', role: 'gridcell' }, this.#size),
      h('div', { class: 'cell more', role: 'gridcell' }, this.#more),
    );
  }

  get name(): string {
    return this.#drawn?.name ?? '';
  }

  get isFolder(): boolean {
    return this.#drawn?.type === 'folder';
  }

  get isSelected(): boolean {
    return this.element.getAttribute('aria-selected') === 'true';
  }

  draw(item: FileEntry, state: GridState, index: number, entrance: boolean): void {
    const before = this.#drawn;
    if (before === null || !sameEntry(before, item)) {
      const kind = kindOf(item);
      if (before === null || kindOf(before) !== kind) {
        fill(this.#picture, kindIcon(kind));
        this.element.dataset['type'] = item.type;
      }
      this.element.dataset['id'] = item.id;
      this.element.setAttribute('aria-label', `${item.name}, ${kindLabel(kind)}`);
      setText(this.#name, item.name);
      this.#name.title = item.name;
      setText(this.#size, formatSize(item.size));
      this.#more.setAttribute('aria-label', `Actions for ${item.name}`);
      if (this.#location !== null) {
        setText(this.#location, locationOf(item.path, ROOT_NAME));
        this.#location.title = item.path;
      }
      this.#drawn = item;
    }
    const time = item.trashed ?? item.modified;
    setText(this.#modified, formatTime(time, state.now));
    const full = formatFullTime(time);
    if (this.#modified.title !== full) {
      this.#modified.title = full;
    }
    const live = state.live.get(item.id);
    this.#dot.hidden = live === undefined;
    if (live !== undefined) {
      this.#dot.className = `dot ${live}`;
      this.#dot.title = LIVE_TEXT[live] ?? 'Runtime';
      this.#dot.setAttribute('aria-label', this.#dot.title);
    }
    this.element.setAttribute('aria-rowindex', String(index + 2));
    this.element.setAttribute('aria-selected', String(state.selection.ids.has(item.id)));
    this.element.tabIndex = entrance ? 0 : -1;
  }
}
