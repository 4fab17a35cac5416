/** The documents service, one method a call. Every failure is an ApiError whose message is a sentence for a person. */

import * as decode from './decode';
import type { Example, FileDetails, FileEntry, FileType, Page, Person, Runtime } from './model';
import type { Sort } from './sorting';

export const API = '/services/documents/api/v1/';
const RUNTIMES = '/services/control/api/v1/runtimes?limit=200';

/** How many files a page of a listing has. */
export const PAGE_SIZE = 200;

/** What went wrong: `status` is 0 when no answer came, `field` names the wrong input where the service said so. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field: string | null = null,
  ) {
    super(message);
  }
}

/** Whether the call was given up by this page itself. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError';
}

/** The sentence to show for an error. */
export function sentence(error: unknown): string {
  return error instanceof ApiError ? error.message : 'Something went wrong in this page. Reload it and try again.';
}

export const UNREACHABLE = 'minicolab can’t be reached. Check that the service is running and that you are online.';

const BY_STATUS: Readonly<Record<number, string>> = {
  401: 'You are signed out.',
  403: 'You may not do this.',
  404: 'That file or folder is not there any more.',
  413: 'The file is larger than the service accepts.',
  429: 'Too many requests. Wait a moment and try again.',
  502: UNREACHABLE,
  503: 'The service is busy or starting. Try again in a moment.',
  504: UNREACHABLE,
  507: 'The Drive’s disk is full.',
};

/** Make the error of an answer that is not a success. `body` is its text, JSON or not. */
export function errorOf(status: number, body: string): ApiError {
  let code = 'http_' + String(status);
  let message = BY_STATUS[status] ?? `The service answered with an error (${String(status)}).`;
  let field: string | null = null;
  try {
    const said = decode.object(JSON.parse(body), 'An error');
    if (typeof said['code'] === 'string') {
      code = said['code'];
    }
    if (typeof said['message'] === 'string' && said['message'] !== '') {
      message = said['message'];
    }
    if (typeof said['field'] === 'string') {
      field = said['field'];
    }
  } catch {
    // A proxy's own page, not ours: the sentence for the status stands.
  }
  return new ApiError(status, code, message, field);
}

function idPath(id: string): string {
  return API + 'files/' + encodeURIComponent(id);
}

export function contentUrl(id: string): string {
  return idPath(id) + '/content';
}

export function downloadUrl(id: string): string {
  return idPath(id) + '/download';
}

export function uploadUrl(parent: string, name: string): string {
  return `${API}files/upload?parent=${encodeURIComponent(parent)}&name=${encodeURIComponent(name)}`;
}

/** Ask the service; raise ApiError, or the DOMException of an aborted `signal`. */
async function ask(method: string, url: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const init: RequestInit = { method, credentials: 'same-origin', cache: 'no-store' };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { 'Content-Type': 'application/json' };
  }
  if (signal !== undefined) {
    init.signal = signal;
  }
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (isAbort(error)) {
      throw error;
    }
    throw new ApiError(0, 'unreachable', UNREACHABLE);
  }
  if (!response.ok) {
    throw errorOf(response.status, await response.text());
  }
  return response;
}

async function json<T>(
  read: (value: unknown) => T,
  method: string,
  url: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<T> {
  const response = await ask(method, url, body, signal);
  const said = await response.text();
  try {
    return read(JSON.parse(said));
  } catch {
    throw new ApiError(response.status, 'bad_answer', 'The service gave an answer this page does not understand. Reload the page.');
  }
}

export const api = {
  me: (): Promise<Person> => json(decode.person, 'GET', API + 'me'),

  folder: (id: string, sort: Sort, offset: number, signal?: AbortSignal): Promise<Page> =>
    json(
      decode.page,
      'GET',
      `${API}files?parent=${encodeURIComponent(id)}&sort=${sort.key}&order=${sort.order}` +
        `&limit=${String(PAGE_SIZE)}&offset=${String(offset)}`,
      undefined,
      signal,
    ),
  recent: (signal?: AbortSignal): Promise<Page> => json(decode.page, 'GET', API + 'recent', undefined, signal),
  trash: (signal?: AbortSignal): Promise<Page> => json(decode.page, 'GET', API + 'trash', undefined, signal),
  search: (query: string, signal?: AbortSignal): Promise<Page> =>
    json(decode.page, 'GET', `${API}search?q=${encodeURIComponent(query)}`, undefined, signal),
  examples: (): Promise<readonly Example[]> => json(decode.examples, 'GET', API + 'examples'),

  file: (id: string, signal?: AbortSignal): Promise<FileDetails> =>
    json(decode.fileDetails, 'GET', idPath(id), undefined, signal),
  create: (parent: string, type: FileType, name?: string): Promise<FileEntry> =>
    json(decode.fileEntry, 'POST', API + 'files', name === undefined ? { parent, type } : { parent, type, name }),
  rename: (id: string, name: string): Promise<FileEntry> => json(decode.fileEntry, 'PATCH', idPath(id), { name }),
  move: (id: string, parent: string): Promise<FileEntry> => json(decode.fileEntry, 'PATCH', idPath(id), { parent }),
  copy: (id: string): Promise<FileEntry> => json(decode.fileEntry, 'POST', idPath(id) + '/copy', {}),
  trashFile: async (id: string): Promise<void> => {
    await ask('DELETE', idPath(id));
  },
  restore: async (id: string): Promise<void> => {
    await ask('POST', idPath(id) + '/restore', {});
  },
  deleteForever: async (id: string): Promise<void> => {
    await ask('DELETE', API + 'trash/' + encodeURIComponent(id));
  },
  emptyTrash: async (): Promise<void> => {
    await ask('DELETE', API + 'trash');
  },
  content: async (id: string, signal: AbortSignal): Promise<Blob> =>
    (await ask('GET', contentUrl(id), undefined, signal)).blob(),

  runtimes: (): Promise<readonly Runtime[]> => json(decode.runtimes, 'GET', RUNTIMES),
};

export type Api = typeof api;
