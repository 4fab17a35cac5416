/** The page's keys, in one table that both answers them and explains them. */

export type ActionId =
  | 'next'
  | 'previous'
  | 'next-extend'
  | 'previous-extend'
  | 'first'
  | 'last'
  | 'select-all'
  | 'toggle'
  | 'clear'
  | 'open'
  | 'open-in-tab'
  | 'up'
  | 'rename'
  | 'trash'
  | 'undo'
  | 'menu'
  | 'search'
  | 'help'
  | 'new-notebook'
  | 'new-folder'
  | 'new-upload'
  | 'go-drive'
  | 'go-recent'
  | 'go-trash'
  | 'go-examples';

export interface Shortcut {
  readonly action: ActionId;
  /** One or more ways; keys of a sequence are parted by a space, as in `n b`. */
  readonly keys: readonly string[];
  readonly text: string;
  readonly group: 'Move around' | 'Select' | 'Files' | 'New' | 'Go to';
}

export const SHORTCUTS: readonly Shortcut[] = [
  { action: 'next', keys: ['ArrowDown', 'j'], text: 'Next file', group: 'Move around' },
  { action: 'previous', keys: ['ArrowUp', 'k'], text: 'Previous file', group: 'Move around' },
  { action: 'first', keys: ['Home'], text: 'First file', group: 'Move around' },
  { action: 'last', keys: ['End'], text: 'Last file', group: 'Move around' },
  { action: 'up', keys: ['Alt+ArrowUp'], text: 'The folder above', group: 'Move around' },
  { action: 'search', keys: ['/'], text: 'Search', group: 'Move around' },
  { action: 'help', keys: ['?'], text: 'This list', group: 'Move around' },
  { action: 'next-extend', keys: ['Shift+ArrowDown'], text: 'Select the next file too', group: 'Select' },
  { action: 'previous-extend', keys: ['Shift+ArrowUp'], text: 'Select the previous file too', group: 'Select' },
  { action: 'toggle', keys: ['x', 'Ctrl+Space'], text: 'Select or unselect this file', group: 'Select' },
  { action: 'select-all', keys: ['Ctrl+a'], text: 'Select all', group: 'Select' },
  { action: 'clear', keys: ['Escape'], text: 'Clear the selection', group: 'Select' },
  { action: 'open', keys: ['Enter', 'o'], text: 'Open', group: 'Files' },
  { action: 'open-in-tab', keys: ['Ctrl+Enter'], text: 'Open in a new tab', group: 'Files' },
  { action: 'rename', keys: ['F2'], text: 'Rename', group: 'Files' },
  { action: 'trash', keys: ['Delete', '#'], text: 'Move to trash', group: 'Files' },
  { action: 'undo', keys: ['Ctrl+z'], text: 'Undo the last move, rename or trash', group: 'Files' },
  { action: 'menu', keys: ['Shift+F10', 'ContextMenu'], text: 'Menu of the file', group: 'Files' },
  { action: 'new-notebook', keys: ['n b'], text: 'New notebook', group: 'New' },
  { action: 'new-folder', keys: ['n f'], text: 'New folder', group: 'New' },
  { action: 'new-upload', keys: ['n u'], text: 'Upload files', group: 'New' },
  { action: 'go-drive', keys: ['g d'], text: 'My Drive', group: 'Go to' },
  { action: 'go-recent', keys: ['g r'], text: 'Recent', group: 'Go to' },
  { action: 'go-trash', keys: ['g t'], text: 'Trash', group: 'Go to' },
  { action: 'go-examples', keys: ['g e'], text: 'Examples', group: 'Go to' },
];

export interface Press {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly shiftKey: boolean;
  readonly altKey: boolean;
}

/** A key press as the table writes it; ⌘ counts as Ctrl. Shift is written only where the key itself does not show it. */
export function chord(press: Press): string {
  const key = press.key === ' ' ? 'Space' : press.key;
  const shown = key.length === 1 && !press.ctrlKey && !press.metaKey;
  const parts = [
    press.ctrlKey || press.metaKey ? 'Ctrl' : '',
    press.altKey ? 'Alt' : '',
    press.shiftKey && !shown ? 'Shift' : '',
    key.length === 1 && !shown ? key.toLowerCase() : key,
  ];
  return parts.filter((part) => part !== '').join('+');
}

const BY_KEYS: ReadonlyMap<string, ActionId> = new Map(
  SHORTCUTS.flatMap((shortcut) => shortcut.keys.map((keys) => [keys, shortcut.action] as const)),
);
const PREFIXES: ReadonlySet<string> = new Set(
  [...BY_KEYS.keys()].filter((keys) => keys.includes(' ')).map((keys) => keys.slice(0, keys.indexOf(' '))),
);

/** How long the second key of a sequence may take, in milliseconds. */
export const SEQUENCE_TIME = 1500;

/** Remembers the first key of a sequence. */
export class Keys {
  #first: { readonly key: string; readonly at: number } | null = null;

  /** The action of a key press at `now` (milliseconds); null when there is none yet or at all. */
  press(press: Press, now: number): ActionId | null {
    const key = chord(press);
    const first = this.#first;
    this.#first = null;
    if (first !== null && now - first.at <= SEQUENCE_TIME) {
      const found = BY_KEYS.get(`${first.key} ${key}`);
      if (found !== undefined) {
        return found;
      }
    }
    if (PREFIXES.has(key)) {
      this.#first = { key, at: now };
      return null;
    }
    return BY_KEYS.get(key) ?? null;
  }
}

const SHOWN: Readonly<Record<string, string>> = {
  ArrowDown: '↓',
  ArrowUp: '↑',
  Escape: 'Esc',
  Delete: 'Del',
  ContextMenu: 'Menu key',
};

/** A way to press it as people read it: the keys, and for a sequence its steps. */
export function shownKeys(keys: string): readonly (readonly string[])[] {
  return keys
    .split(' ')
    .map((step) => step.split('+').map((key) => SHOWN[key] ?? (key.length === 1 && step.length > 1 ? key.toUpperCase() : key)));
}
