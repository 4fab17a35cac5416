// Who writes the outputs of a cell that runs, without any I/O. hub/documents/rooms/outputs.py has the rule: the page that ran the cell
// says so by a mark in the shared state, and the service writes when that page is away.

/** A mark of the shared state. `client` 0 is the service; `done`: nobody writes outputs of this run any more. */
export interface IMark {
  run: string;
  client: number;
  runtime: string;
  done?: boolean;
}

export type Writer = 'me' | 'page' | 'service' | 'done' | 'nobody' | 'later';

export const SERVICE = 0;
const PREFIX = 'ran:';

/** Return where the mark of a cell is in the shared state. */
export function keyOf(cell: string): string {
  return PREFIX + cell;
}

/** Return the cell whose mark is at `key`, null when it is another key. */
export function cellOf(key: string): string | null {
  return key.startsWith(PREFIX) ? key.slice(PREFIX.length) : null;
}

/** Return the mark in a value of the shared state, null for anything else. */
export function readMark(value: unknown): IMark | null {
  const mark = value as IMark | null | undefined;
  return typeof mark === 'object' && mark !== null && typeof mark.run === 'string' && typeof mark.client === 'number' ? mark : null;
}

/**
 * Return who writes the outputs of `run`: this page (`me`), another `page` that is here, the `service`, `nobody`; `done` when they
 * are all written, `later` when the cell belongs to another run now.
 */
export function writerOf(mark: IMark | null, run: string, me: number, isHere: (client: number) => boolean): Writer {
  if (mark === null) {
    return 'nobody';
  }
  const gone = mark.client !== SERVICE && mark.client !== me && !isHere(mark.client);
  if (mark.run !== run) {
    return mark.done || gone ? 'nobody' : 'later';
  }
  if (mark.done) {
    return 'done';
  }
  if (mark.client === SERVICE) {
    return 'service';
  }
  return mark.client === me ? 'me' : gone ? 'nobody' : 'page';
}
