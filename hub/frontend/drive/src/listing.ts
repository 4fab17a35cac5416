/** The files of the view that is shown: loads them page by page, and looks again without disturbing anybody. */

import { api, ApiError, isAbort, PAGE_SIZE, sentence } from './api';
import { ROOT, type Ancestor, type FileDetails, type FileEntry, type Page } from './model';
import type { View } from './routes';
import { sorted, type Sort } from './sorting';

/** `problem` is the error of the last look; with files shown it is a warning, without it is all there is to see. */
export interface Listed {
  readonly view: View;
  readonly items: readonly FileEntry[];
  readonly total: number;
  readonly loading: boolean;
  readonly problem: ApiError | null;
  /** Folders above the one shown, from the outside in, without My Drive; the shown one is last. */
  readonly trail: readonly Ancestor[];
}

export class Listing {
  #state: Listed;
  #sort: Sort | null = null;
  #abort = new AbortController();
  /** Counts looks, so that an older answer never replaces a newer one. */
  #look = 0;

  constructor(private readonly changed: (before: Listed, now: Listed) => void) {
    this.#state = EMPTY;
  }

  get state(): Listed {
    return this.#state;
  }

  find(id: string): FileEntry | undefined {
    return this.#state.items.find((item) => item.id === id);
  }

  /** Show another view, or with `keep` the same in another order. `trail` is what is known of the way there. */
  async show(view: View, sort: Sort | null, keep: boolean, trail: readonly Ancestor[]): Promise<void> {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#sort = sort;
    this.#set(keep ? { ...this.#state, view, loading: true } : { ...EMPTY, view, loading: true, trail });
    await Promise.all([this.#load(PAGE_SIZE), this.#loadTrail()]);
  }

  /** Look again at everything that is loaded. Raises ApiError after noting it, so that the poller slows down. */
  async refresh(): Promise<void> {
    if (this.#state.loading) {
      return;
    }
    const problem = await this.#load(Math.max(this.#state.items.length, PAGE_SIZE));
    if (problem !== null) {
      throw problem;
    }
  }

  /** Look again at the names of the folders above. */
  async refreshTrail(): Promise<void> {
    await this.#loadTrail();
  }

  /** Load one page more. */
  async more(): Promise<void> {
    const { items, total, loading } = this.#state;
    if (!loading && items.length < total) {
      this.#set({ ...this.#state, loading: true });
      await this.#load(items.length + PAGE_SIZE);
    }
  }

  async #load(wanted: number): Promise<ApiError | null> {
    const { signal } = this.#abort;
    const look = ++this.#look;
    try {
      const page = await this.#pages(wanted, signal);
      if (signal.aborted || look !== this.#look) {
        return null;
      }
      this.#set({ ...this.#state, ...page, loading: false, problem: null });
      return null;
    } catch (error) {
      if (isAbort(error) || signal.aborted || look !== this.#look) {
        return null;
      }
      const problem = error instanceof ApiError ? error : new ApiError(0, 'page_error', sentence(error));
      const gone = problem.status === 404;
      this.#set({ ...this.#state, ...(gone ? { items: [], total: 0 } : {}), loading: false, problem });
      return problem;
    }
  }

  async #pages(wanted: number, signal: AbortSignal): Promise<Page> {
    const items = new Map<string, FileEntry>();
    let total = 0;
    for (let offset = 0; ; ) {
      const page = await this.#page(offset, signal);
      total = page.total;
      offset += page.items.length;
      for (const item of page.items) {
        items.set(item.id, item);
      }
      if (page.items.length === 0 || offset >= Math.min(total, wanted)) {
        break;
      }
    }
    const ordered = this.#state.view.kind === 'folder' ? [...items.values()] : sorted([...items.values()], this.#sort);
    return { items: ordered, total };
  }

  #page(offset: number, signal: AbortSignal): Promise<Page> {
    const { view } = this.#state;
    switch (view.kind) {
      case 'folder':
        return api.folder(view.id, this.#sort ?? { key: 'name', order: 'asc' }, offset, signal);
      case 'recent':
        return api.recent(signal);
      case 'trash':
        return api.trash(signal);
      case 'search':
        return view.query.trim() === ''
          ? Promise.resolve({ items: [], total: 0 })
          : api.search(view.query, signal);
      default:
        return Promise.resolve({ items: [], total: 0 });
    }
  }

  async #loadTrail(): Promise<void> {
    const { view } = this.#state;
    const { signal } = this.#abort;
    if (view.kind !== 'folder' || view.id === ROOT) {
      return;
    }
    try {
      const details = await api.file(view.id, signal);
      if (!signal.aborted) {
        this.#set({ ...this.#state, trail: trailOf(details) });
      }
    } catch (error) {
      if (!(error instanceof ApiError) && !isAbort(error)) {
        throw error;
      }
      // The listing of the same folder fails in the same way, and says so.
    }
  }

  #set(now: Listed): void {
    const before = this.#state;
    this.#state = now;
    this.changed(before, now);
  }
}

const EMPTY: Listed = {
  view: { kind: 'folder', id: ROOT },
  items: [],
  total: 0,
  loading: false,
  problem: null,
  trail: [],
};

/** The folders from below My Drive down to this one. */
export function trailOf(folder: FileDetails): readonly Ancestor[] {
  const above = folder.ancestors.filter(({ id }) => id !== ROOT && id !== folder.id);
  return [...above, { id: folder.id, name: folder.name }];
}

/** Whether two lists look the same on the page. */
export function sameItems(a: readonly FileEntry[], b: readonly FileEntry[]): boolean {
  return a.length === b.length && a.every((item, i) => sameEntry(item, b[i] as FileEntry));
}

export function sameEntry(a: FileEntry, b: FileEntry): boolean {
  return (
    a.id === b.id &&
    a.name === b.name &&
    a.path === b.path &&
    a.parent === b.parent &&
    a.type === b.type &&
    a.size === b.size &&
    a.modified === b.modified &&
    a.role === b.role
  );
}
