/** Sizes, times and counts as people read them. */

const UNITS = ['KB', 'MB', 'GB', 'TB'] as const;

/** `1.4 MB`; units are powers of 1024, as in Google Drive. Null (a folder) is a dash. */
export function formatSize(bytes: number | null): string {
  if (bytes === null) {
    return '—';
  }
  if (bytes < 1024) {
    return bytes === 1 ? '1 byte' : `${String(bytes)} bytes`;
  }
  let value = bytes / 1024;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 9.95 ? value.toFixed(1).replace(/\.0$/, '') : value.toFixed(0)} ${UNITS[unit] ?? ''}`;
}

/** The time of day today, the day this year, else the whole date. */
export function formatTime(ms: number | null, now: number, locale?: string): string {
  if (ms === null) {
    return '—';
  }
  const then = new Date(ms);
  const today = new Date(now);
  if (then.toDateString() === today.toDateString()) {
    return then.toLocaleTimeString(locale, { hour: 'numeric', minute: '2-digit' });
  }
  if (then.getFullYear() === today.getFullYear()) {
    return then.toLocaleDateString(locale, { day: 'numeric', month: 'short' });
  }
  return then.toLocaleDateString(locale, { day: 'numeric', month: 'short', year: 'numeric' });
}

/** The whole time, for a tooltip. */
export function formatFullTime(ms: number | null, locale?: string): string {
  return ms === null ? '' : new Date(ms).toLocaleString(locale, { dateStyle: 'full', timeStyle: 'medium' });
}

/** `1 item`, `3 items`. */
export function count(n: number, one: string, many = one + 's'): string {
  return `${n.toLocaleString()} ${n === 1 ? one : many}`;
}

/** `about 2 min left`. Empty while the speed is not known. */
export function formatLeft(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) {
    return '';
  }
  if (seconds < 60) {
    return 'less than a minute left';
  }
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `about ${String(minutes)} min left` : `about ${String(Math.round(minutes / 60))} h left`;
}
