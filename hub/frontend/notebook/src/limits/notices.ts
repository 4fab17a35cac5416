// Which banner there is to show: decided from the runtime's events and a monotonic clock, without any I/O.
import { EndKind } from './words';

/** The nearest end of a runtime, as control tells it. */
export interface IEnd {
  kind: EndKind;
  at: string;
  seconds_left: number;
}

/** What is read of a runtime here. */
export interface ILimited {
  id: string;
  end?: IEnd | null;
  limits?: { max_lifetime_seconds: number; idle_limit_seconds: number };
  extension?: { left: number; by_seconds: number };
}

/** An announced end. `until` is on the clock that `now` comes from, in milliseconds. */
export interface IWarning {
  kind: EndKind;
  until: number;
  maxLifetimeSeconds: number;
  extension: { left: number; bySeconds: number };
}

const MOVED_SECONDS = 2;

/** Return how long is left of an announced end. */
export function secondsLeft(warning: IWarning, now: number): number {
  return Math.max(0, (warning.until - now) / 1000);
}

function warningOf(model: ILimited, kind: EndKind, seconds: number, now: number): IWarning {
  return {
    kind,
    until: now + seconds * 1000,
    maxLifetimeSeconds: model.limits?.max_lifetime_seconds ?? 0,
    extension: { left: model.extension?.left ?? 0, bySeconds: model.extension?.by_seconds ?? 3600 }
  };
}

/** A `warning` event came: `ends` and `seconds_left` are its own. */
export function warned(model: ILimited & { ends?: string; seconds_left?: number }, now: number): IWarning {
  const kind = (model.ends ?? model.end?.kind ?? 'idle') as EndKind;
  return warningOf(model, kind, model.seconds_left ?? model.end?.seconds_left ?? 0, now);
}

/**
 * The runtime was told anew (`ready`, `changed`, the answer to Keep). An announced end that moved away goes; a page that comes late
 * shows an end that was announced before: `warnBefore` are the seconds at which ends are announced.
 */
export function told(before: IWarning | null, model: ILimited, warnBefore: readonly number[], now: number): IWarning | null {
  const end = model.end;
  if (!end) {
    return null;
  }
  if (before && before.kind === end.kind && end.seconds_left <= secondsLeft(before, now) + MOVED_SECONDS) {
    return warningOf(model, end.kind, end.seconds_left, now);
  }
  const limit = end.kind === 'idle' ? model.limits?.idle_limit_seconds : end.kind === 'max_lifetime' ? model.limits?.max_lifetime_seconds : undefined;
  const first = Math.max(0, ...warnBefore.filter(seconds => limit === undefined || seconds < limit));
  return end.seconds_left <= first ? warningOf(model, end.kind, end.seconds_left, now) : null;
}
