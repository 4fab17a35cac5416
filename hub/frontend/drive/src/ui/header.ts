/** The top of the page: mark, search, runtimes, and who is signed in. */

import type { Person, Runtime } from '../model';
import { count } from '../format';
import { fileAddress } from '../routes';
import { fill, h } from './dom';
import { icon, mark } from './icons';
import { showMenu, type MenuItem } from './menu';

const SEARCH_DELAY = 250;

export interface HeaderEvents {
  home(): void;
  /** The person asks for names containing `query`; `done` after Enter. */
  searched(query: string, done: boolean): void;
  searchLeft(): void;
  rail(): void;
  help(): void;
}

export class Header {
  readonly element: HTMLElement;
  readonly #input: HTMLInputElement;
  readonly #clear: HTMLButtonElement;
  readonly #chip: HTMLButtonElement;
  readonly #avatar: HTMLButtonElement;
  #person: Person | null = null;
  #timer = 0;

  constructor(private readonly events: HeaderEvents) {
    this.#input = h('input', {
      type: 'search',
      placeholder: 'Search in Drive',
      'aria-label': 'Search in Drive',
      autocomplete: 'off',
      spellcheck: 'false',
      enterkeyhint: 'search',
      maxlength: 255,
    });
    this.#clear = h('button', { class: 'round', type: 'button', 'aria-label': 'Clear search', hidden: true }, icon('close'));
    this.#chip = h('button', { class: 'chip', type: 'button', 'aria-haspopup': 'menu', hidden: true });
    this.#avatar = h('button', { class: 'avatar', type: 'button', 'aria-haspopup': 'menu', 'aria-label': 'Your account' });
    const form = h('form', { class: 'search', role: 'search' }, icon('search'), this.#input, this.#clear);
    this.element = h(
      'header',
      { class: 'header' },
      h(
        'button',
        { class: 'round rail-toggle', type: 'button', 'aria-label': 'Show the menu', onclick: () => { events.rail(); } },
        icon('menu'),
      ),
      h(
        'a',
        {
          class: 'brand',
          href: '/drive',
          'aria-label': 'minicolab: My Drive',
          onclick: (event: MouseEvent) => {
            if (!event.ctrlKey && !event.metaKey && !event.shiftKey) {
              event.preventDefault();
              events.home();
            }
          },
        },
        mark(),
        h('span', {}, 'minicolab'),
      ),
      form,
      h(
        'div',
        { class: 'header-end' },
        this.#chip,
        h(
          'button',
          { class: 'round help', type: 'button', 'aria-label': 'Keyboard shortcuts', title: 'Keyboard shortcuts (?)', onclick: () => { events.help(); } },
          icon('keyboard'),
        ),
        this.#avatar,
      ),
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#search(true);
    });
    this.#input.addEventListener('input', () => {
      this.#clear.hidden = this.#input.value === '';
      window.clearTimeout(this.#timer);
      this.#timer = window.setTimeout(() => {
        this.#search(false);
      }, SEARCH_DELAY);
    });
    this.#input.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.preventDefault();
        this.#leave();
      }
    });
    this.#clear.addEventListener('click', () => {
      this.#leave();
    });
    this.#avatar.addEventListener('click', () => {
      this.#showAccount();
    });
  }

  focusSearch(): void {
    this.#input.focus();
    this.#input.select();
  }

  /** What the page shows; what is being typed is left alone. */
  setQuery(query: string): void {
    if (document.activeElement !== this.#input) {
      window.clearTimeout(this.#timer);
      this.#input.value = query;
    }
    this.#clear.hidden = this.#input.value === '';
  }

  setPerson(person: Person): void {
    this.#person = person;
    const first = [...person.name][0] ?? '?';
    fill(this.#avatar, first.toLocaleUpperCase());
    this.#avatar.setAttribute('aria-label', `Account of ${person.name}`);
    this.#avatar.title = person.name;
  }

  setRuntimes(runtimes: readonly Runtime[]): void {
    this.#chip.hidden = runtimes.length === 0;
    fill(this.#chip, h('span', { class: 'dot ready', 'aria-hidden': 'true' }), h('span', {}, count(runtimes.length, 'runtime')));
    this.#chip.setAttribute('aria-label', `${count(runtimes.length, 'runtime')} running`);
    this.#chip.onclick = () => {
      showMenu(
        this.#chip,
        runtimes.map((runtime) => ({
          label: runtime.fileName === '' ? 'Notebook' : runtime.fileName,
          detail: STATES[runtime.state] ?? runtime.state,
          icon: 'notebook-line',
          href: fileAddress(runtime.fileId),
        })),
        'Running runtimes',
      );
    };
  }

  #search(done: boolean): void {
    window.clearTimeout(this.#timer);
    const query = this.#input.value.trim();
    if (query === '') {
      this.events.searchLeft();
    } else {
      this.events.searched(query, done);
    }
  }

  #leave(): void {
    window.clearTimeout(this.#timer);
    this.#input.value = '';
    this.#clear.hidden = true;
    this.#input.blur();
    this.events.searchLeft();
  }

  #showAccount(): void {
    const person = this.#person;
    const items: readonly MenuItem[] = [
      ...(person?.admin === true ? [{ label: 'Admin', icon: 'admin', href: '/services/control/admin' }] : []),
      { label: 'Usage', icon: 'usage', href: '/services/control/usage' },
      { label: 'API tokens', icon: 'link', href: '/hub/token' },
      { label: 'Keyboard shortcuts', icon: 'keyboard', keys: '?', run: () => { this.events.help(); } },
      { label: 'Sign out', icon: 'sign-out', separated: true, href: '/services/documents/logout' },
    ];
    const head = h(
      'div',
      { class: 'menu-head' },
      h('strong', {}, person?.name ?? 'Signed in'),
      person?.admin === true ? h('small', {}, 'Administrator') : null,
    );
    showMenu(this.#avatar, items, 'Account', head);
  }
}

const STATES: Readonly<Record<string, string>> = {
  ready: 'Connected',
  starting: 'Starting',
  queued: 'Waiting',
  stopping: 'Stopping',
};
