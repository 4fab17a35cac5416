/** Addresses of the page and what they show. */

import { ROOT } from './model';

export type View =
  | { readonly kind: 'folder'; readonly id: string }
  | { readonly kind: 'recent' }
  | { readonly kind: 'trash' }
  | { readonly kind: 'search'; readonly query: string }
  | { readonly kind: 'examples' }
  | { readonly kind: 'missing' };

/** A view, and the file to show above it (`?open=<id>`). */
export interface Place {
  readonly view: View;
  readonly open: string | null;
}

export function parseLocation(pathname: string, search: string): Place {
  const query = new URLSearchParams(search);
  return { view: parseView(pathname, query), open: query.get('open') };
}

function parseView(pathname: string, query: URLSearchParams): View {
  const parts = pathname.split('/').filter((part) => part !== '');
  if (parts[0] !== 'drive' || parts.length > 3) {
    return { kind: 'missing' };
  }
  if (parts.length === 1) {
    return { kind: 'folder', id: ROOT };
  }
  if (parts[1] === 'folders' && parts[2] !== undefined) {
    const id = decoded(parts[2]);
    return id === null ? { kind: 'missing' } : { kind: 'folder', id };
  }
  if (parts.length > 2) {
    return { kind: 'missing' };
  }
  switch (parts[1]) {
    case 'recent':
      return { kind: 'recent' };
    case 'trash':
      return { kind: 'trash' };
    case 'examples':
      return { kind: 'examples' };
    case 'search':
      return { kind: 'search', query: query.get('q') ?? '' };
    default:
      return { kind: 'missing' };
  }
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

export function addressOf(view: View): string {
  switch (view.kind) {
    case 'folder':
      return view.id === ROOT ? '/drive' : `/drive/folders/${encodeURIComponent(view.id)}`;
    case 'search':
      return `/drive/search?q=${encodeURIComponent(view.query)}`;
    case 'missing':
      return '/drive';
    default:
      return `/drive/${view.kind}`;
  }
}

/** The address of a file itself, good for sharing: it stays when the file is renamed or moved. */
export function fileAddress(id: string): string {
  return `/d/${encodeURIComponent(id)}`;
}

export function sameView(a: View, b: View): boolean {
  return a.kind === b.kind && addressOf(a) === addressOf(b);
}
