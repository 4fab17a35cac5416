// The states of the connection to a runtime, without any I/O: what the button says, and which moves make sense.

export type ConnectionState = 'disconnected' | 'connecting' | 'connected' | 'lost';

/** What a person sees of the connection. */
export interface IConnectionView {
  label: string;
  title: string;
}

/** Return the button's words for a state; `phase` is the true phase while connecting, `reason` why it ended. */
export function view(state: ConnectionState, phase: string, reason: string): IConnectionView {
  switch (state) {
    case 'connecting':
      return { label: 'Connecting', title: phase || 'Waiting for a machine' };
    case 'connected':
      return { label: 'Connected', title: 'Connected to a runtime of your own' };
    case 'lost':
      return { label: 'Reconnect', title: reason ? `Disconnected: ${reason}` : 'Disconnected' };
    default:
      return { label: 'Connect', title: reason ? `Disconnected: ${reason}` : 'Connect to a runtime' };
  }
}

const WAITS = new Set(['queued', 'preparing']);

/** Return whether a start stands still in a phase: for an accelerator, a machine, or what it is made of. That may take long. */
export function waits(phase: string | undefined): boolean {
  return WAITS.has(phase ?? '');
}

/** Return how long to wait before the ticket is renewed, in milliseconds: two thirds of what is left, at least a second. */
export function renewAfter(expiresAt: string, now: number): number {
  const left = new Date(expiresAt).getTime() - now;
  return Math.max(1000, Math.min((left * 2) / 3, 2 ** 31 - 1));
}

/** Return bytes as people say them. */
export function size(bytes: number): string {
  if (bytes >= 1 << 30) {
    return `${(bytes / (1 << 30)).toFixed(1)} GB`;
  }
  return `${Math.round(bytes / (1 << 20))} MB`;
}

/** Return how long ago an ISO time was, in words. */
export function ago(time: string | null, now: number): string {
  if (!time) {
    return 'never';
  }
  const seconds = Math.max(0, (now - new Date(time).getTime()) / 1000);
  if (seconds < 60) {
    return 'just now';
  }
  if (seconds < 3600) {
    return `${Math.floor(seconds / 60)} min ago`;
  }
  return `${Math.floor(seconds / 3600)} h ago`;
}
