// The service's time, as its answers tell it: this computer's own clock may be hours off.

/** By less than this, in milliseconds, clocks may differ without a word: an answer tells its time to a second, and takes a while. */
export const TOLERANCE = 60_000;

let off = 0;

/** Take note of when an answer was sent, as its header `Date` says. */
export function heard(date: string | null, own = Date.now()): void {
  const sent = Date.parse(date ?? '');
  if (!Number.isNaN(sent)) {
    off = Math.abs(own - sent) > TOLERANCE ? own - sent : 0;
  }
}

/** Return how far this computer's clock is ahead of the service's, in milliseconds; 0 when they agree. */
export function ahead(): number {
  return off;
}

/** Return the service's time. */
export function now(): Date {
  return new Date(Date.now() - off);
}
