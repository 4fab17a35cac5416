// Times, limits and ends in words, without any I/O.

/** Why a runtime will end: nobody uses it, it is old, or its budget is used up. */
export type EndKind = 'idle' | 'max_lifetime' | 'budget';

function two(n: number): string {
  return String(n).padStart(2, '0');
}

/** Return a countdown: `4:32`, `1:02:03`. It reads 0:00 only when nothing is left. */
export function clock(seconds: number): string {
  const all = Math.max(0, Math.ceil(seconds));
  const hours = Math.floor(all / 3600);
  const minutes = Math.floor(all / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
}

function counted(n: number, unit: string): string {
  return `${n} ${unit}${n === 1 ? '' : 's'}`;
}

/** Return a limit as it is set: `12 hours`, `90 minutes`, `20 seconds`. */
export function span(seconds: number): string {
  const all = Math.round(seconds);
  if (all >= 3600 && all % 3600 === 0) {
    return counted(all / 3600, 'hour');
  }
  return all >= 60 && all % 60 === 0 ? counted(all / 60, 'minute') : counted(all, 'second');
}

/** Return roughly how long is left: `9 h 3 min`, `12 min`, `less than a minute`. */
export function left(seconds: number): string {
  const minutes = Math.floor(Math.max(0, seconds) / 60);
  if (minutes < 1) {
    return 'less than a minute';
  }
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours} h${minutes % 60 ? ` ${minutes % 60} min` : ''}` : `${minutes} min`;
}

/** Return the time of day of an ISO time, with its day when that is not today. */
export function when(iso: string, now: Date, locale?: string): string {
  const then = new Date(iso);
  const time = then.toLocaleTimeString(locale, { hour: '2-digit', minute: '2-digit', hour12: false });
  return then.toDateString() === now.toDateString() ? time : `${then.toLocaleDateString(locale, { day: 'numeric', month: 'short' })}, ${time}`;
}

/** Return what a banner says before and after its countdown. */
export function announcement(kind: EndKind, maxLifetimeSeconds: number): [string, string] {
  switch (kind) {
    case 'idle':
      return ['This runtime will be reset in ', ' because it is idle.'];
    case 'budget':
      return ['Your budget is used up in ', '. The runtime will then be reset.'];
    default:
      return [`This runtime reaches its longest life of ${span(maxLifetimeSeconds)} in `, '.'];
  }
}

/** Return what is said when this computer's clock is `ahead` milliseconds ahead of the service's, or behind it. */
export function skewed(ahead: number): string {
  return `This computer's clock is ${left(Math.abs(ahead) / 1000)} ${ahead > 0 ? 'ahead of' : 'behind'} the service's. Times on this page are the service's.`;
}

/** Return why the files of the last runtime are not there any more. */
export function notKept(why: string): string {
  return `Files of your last runtime were not kept: ${/[.!?]$/.test(why) ? why : `${why}.`}`;
}

/** Return `Stopped at 14:02: idle for 90 minutes (limit 90 minutes).` */
export function stopped(endedIso: string | null, message: string, now: Date, locale?: string): string {
  const said = message.trim() || 'The runtime has ended.';
  // A word in capitals (GPU) and a lone "I" stay as they are.
  const inside = /^[A-Z][a-z]/.test(said) ? said[0].toLowerCase() + said.slice(1) : said;
  return `Stopped at ${when(endedIso ?? now.toISOString(), now, locale)}: ${inside}`;
}

/** Return hours of a budget: `3.5 h`, `12 min`. */
export function hours(value: number): string {
  if (value > 0 && value < 1) {
    return value * 60 < 1 ? 'less than a minute' : `${Math.round(value * 60)} min`;
  }
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} h`;
}
