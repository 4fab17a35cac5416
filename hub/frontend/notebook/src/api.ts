// One way to call documents and control: JSON, cookie of the same origin, errors with a sentence.
import { heard } from './clock';
import { IEnd } from './limits/notices';
import { page } from './page';

/** A refusal of the server: `code` is stable, `message` one sentence for the person. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    /** The whole error as the service sent it: numbers, `resets_at`, `offer`. */
    readonly details: Json = {}
  ) {
    super(message);
  }
}

export type Json = Record<string, unknown>;

async function request<T>(url: string, method: string, body?: Json, headers?: Record<string, string>): Promise<T> {
  let reply: Response;
  try {
    reply = await fetch(url, {
      method,
      credentials: 'same-origin',
      cache: 'no-store',
      headers: { ...(body ? { 'Content-Type': 'application/json' } : {}), ...headers },
      body: body ? JSON.stringify(body) : undefined
    });
  } catch {
    throw new ApiError(0, 'offline', 'The service can not be reached. Check the connection and try again.');
  }
  heard(reply.headers.get('Date'));
  const text = await reply.text();
  let data: unknown = null;
  try {
    data = text ? JSON.parse(text) : null;
  } catch {
    data = null;
  }
  if (!reply.ok) {
    const error = (data ?? {}) as { code?: string; message?: string };
    throw new ApiError(reply.status, error.code ?? 'error', error.message ?? `The service answered with status ${reply.status}.`, (data ?? {}) as Json);
  }
  return data as T;
}

/** Call the control service: runtimes, tickets, mounts. */
export function control<T>(path: string, method = 'GET', body?: Json, headers?: Record<string, string>): Promise<T> {
  return request<T>(`${page.controlUrl}api/v1/${path}`, method, body, headers);
}

/** Call the documents service: files. */
export function documents<T>(path: string, method = 'GET', body?: Json): Promise<T> {
  return request<T>(page.documentsApi + path, method, body);
}

/** A runtime as control shows it. */
export interface IRuntimeModel {
  id: string;
  file_id: string;
  file_name: string;
  state: 'queued' | 'starting' | 'ready' | 'stopping' | 'ended' | 'failed';
  phase: string;
  phase_message: string;
  accelerator: string;
  shape: string;
  created: string;
  last_activity: string | null;
  deadline: string | null;
  idle_deadline: string | null;
  ended: string | null;
  reason: { code: string; message: string } | null;
  end?: IEnd | null;
  limits?: { max_lifetime_seconds: number; idle_limit_seconds: number };
  extension?: { left: number; by_seconds: number };
  /** What became of an ended runtime's /content; only where a runtime was asked for by its id. */
  content?: { kept: boolean; message: string } | null;
}

/** A person's limits and what is left of their budgets, as far as this page uses it. */
export interface IQuota {
  limits: { warn_before_seconds: number[]; max_runtimes: number };
  keep_content: boolean;
  snapshot_max_bytes: number;
}

/** /content of an ended runtime, kept in Drive. */
export interface ISnapshot {
  id: string;
  name: string;
  file_id: string;
  size_bytes: number;
  created: string;
}

export interface ITicket {
  url: string;
  browser_url: string;
  token: string;
  expires_at: string;
}

export interface IResources {
  memory: { used_bytes: number; limit_bytes: number | null };
  disk: { used_bytes: number; free_bytes: number };
}

export interface IFileModel {
  id: string;
  name: string;
  parent: string;
}
