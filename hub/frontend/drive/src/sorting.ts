/** By what a list is ordered, and how a click on a column head changes that. */

import type { FileEntry } from './model';

export type SortKey = 'name' | 'modified' | 'size';
export type Order = 'asc' | 'desc';

export interface Sort {
  readonly key: SortKey;
  readonly order: Order;
}

export const BY_NAME: Sort = { key: 'name', order: 'asc' };

const FIRST: Readonly<Record<SortKey, Order>> = { name: 'asc', modified: 'desc', size: 'desc' };

/** The order after a click on `key`: the useful direction first, the other one on the next click. */
export function clicked(sort: Sort | null, key: SortKey): Sort {
  if (sort?.key !== key) {
    return { key, order: FIRST[key] };
  }
  return { key, order: sort.order === 'asc' ? 'desc' : 'asc' };
}

/** Read a stored order such as `modified-desc`; anything else is by name. */
export function parseSort(stored: string | null): Sort {
  const [key, order] = (stored ?? '').split('-');
  if ((key === 'name' || key === 'modified' || key === 'size') && (order === 'asc' || order === 'desc')) {
    return { key, order };
  }
  return BY_NAME;
}

export function formatSort(sort: Sort): string {
  return `${sort.key}-${sort.order}`;
}

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' });

/** Order a list that the service does not order (trash, search, recent). Folders come first, as the service has them. */
export function sorted(items: readonly FileEntry[], sort: Sort | null): readonly FileEntry[] {
  if (sort === null) {
    return items;
  }
  const sign = sort.order === 'asc' ? 1 : -1;
  return [...items].sort(
    (a, b) =>
      Number(b.type === 'folder') - Number(a.type === 'folder') ||
      sign * compare(a, b, sort.key) ||
      collator.compare(a.name, b.name),
  );
}

function compare(a: FileEntry, b: FileEntry, key: SortKey): number {
  switch (key) {
    case 'modified':
      return (a.trashed ?? a.modified ?? 0) - (b.trashed ?? b.modified ?? 0);
    case 'size':
      return (a.size ?? 0) - (b.size ?? 0);
    case 'name':
      return collator.compare(a.name, b.name);
  }
}
