/** Files on their way to the Drive: how many at once, how far, what failed. Knows nothing of the network. */

import { ApiError, isAbort, sentence } from '../api';
import type { FileEntry } from '../model';

export type UploadState = 'waiting' | 'sending' | 'done' | 'failed' | 'cancelled';

export interface Upload {
  readonly id: number;
  readonly parent: string;
  /** What the person calls the folder. */
  readonly parentName: string;
  readonly name: string;
  readonly size: number;
  /** Bytes that have left. */
  readonly sent: number;
  readonly state: UploadState;
  /** A sentence, when it failed. */
  readonly error: string;
  readonly entry: FileEntry | null;
}

/** Sends one file; raises ApiError, or an abort when `signal` says so. */
export type Send = (
  parent: string,
  name: string,
  file: Blob,
  progress: (sent: number) => void,
  signal: AbortSignal,
) => Promise<FileEntry>;

const TRIES = 3;

interface Task {
  upload: Upload;
  readonly file: Blob;
  abort: AbortController | null;
}

export class UploadQueue {
  readonly #tasks: Task[] = [];
  #next = 1;

  /** `changed` is called after every change; `arrived` once for each file that is in the Drive. */
  constructor(
    private readonly send: Send,
    private readonly changed: () => void,
    private readonly arrived: (upload: Upload) => void,
    private readonly parallel = 2,
  ) {}

  get uploads(): readonly Upload[] {
    return this.#tasks.map((task) => task.upload);
  }

  /** Whether something would be lost if the page were left now. */
  get busy(): boolean {
    return this.#tasks.some(({ upload }) => upload.state === 'waiting' || upload.state === 'sending');
  }

  add(parent: string, parentName: string, name: string, file: Blob): Upload {
    const upload: Upload = {
      id: this.#next++,
      parent,
      parentName,
      name,
      size: file.size,
      sent: 0,
      state: 'waiting',
      error: '',
      entry: null,
    };
    this.#tasks.push({ upload, file, abort: null });
    this.changed();
    this.#startWaiting();
    return upload;
  }

  cancel(id: number): void {
    const task = this.#find(id);
    if (task === undefined || (task.upload.state !== 'waiting' && task.upload.state !== 'sending')) {
      return;
    }
    this.#set(task, { state: 'cancelled' });
    task.abort?.abort();
    this.#startWaiting();
  }

  cancelAll(): void {
    for (const { upload } of [...this.#tasks]) {
      this.cancel(upload.id);
    }
  }

  retry(id: number): void {
    const task = this.#find(id);
    if (task !== undefined && (task.upload.state === 'failed' || task.upload.state === 'cancelled')) {
      this.#set(task, { state: 'waiting', sent: 0, error: '' });
      this.#startWaiting();
    }
  }

  /** Forget everything that is not on its way. */
  clear(): void {
    const kept = this.#tasks.filter(({ upload }) => upload.state === 'waiting' || upload.state === 'sending');
    this.#tasks.splice(0, this.#tasks.length, ...kept);
    this.changed();
  }

  #find(id: number): Task | undefined {
    return this.#tasks.find((task) => task.upload.id === id);
  }

  #set(task: Task, change: Partial<Upload>): void {
    task.upload = { ...task.upload, ...change };
    this.changed();
  }

  #startWaiting(): void {
    let sending = this.#tasks.filter(({ upload }) => upload.state === 'sending').length;
    for (const task of this.#tasks) {
      if (sending >= this.parallel) {
        return;
      }
      if (task.upload.state === 'waiting') {
        sending += 1;
        void this.#run(task);
      }
    }
  }

  async #run(task: Task): Promise<void> {
    const abort = new AbortController();
    task.abort = abort;
    this.#set(task, { state: 'sending' });
    try {
      const entry = await this.#sendUnderFreeName(task, abort.signal);
      this.#set(task, { state: 'done', sent: task.upload.size, name: entry.name, entry });
      this.arrived(task.upload);
    } catch (error) {
      if (!isAbort(error) && !abort.signal.aborted) {
        this.#set(task, { state: 'failed', error: sentence(error) });
      }
    }
    this.#startWaiting();
  }

  /** Send. Two files of one name may race for the next free one, which the service picks: the loser tries again. */
  async #sendUnderFreeName(task: Task, signal: AbortSignal): Promise<FileEntry> {
    const { parent, name } = task.upload;
    const progress = (sent: number): void => {
      if (!signal.aborted) {
        this.#set(task, { sent });
      }
    };
    for (let turn = 1; ; turn += 1) {
      try {
        return await this.send(parent, name, task.file, progress, signal);
      } catch (error) {
        if (!(error instanceof ApiError) || error.code !== 'name_taken' || turn === TRIES) {
          throw error;
        }
        this.#set(task, { sent: 0 });
      }
    }
  }
}

export interface Summary {
  readonly active: number;
  readonly done: number;
  readonly failed: number;
  /** Bytes sent and to send, of everything that is not cancelled or failed. */
  readonly sent: number;
  readonly size: number;
}

export function summary(uploads: readonly Upload[]): Summary {
  const counted = uploads.filter(({ state }) => state !== 'cancelled' && state !== 'failed');
  return {
    active: uploads.filter(({ state }) => state === 'waiting' || state === 'sending').length,
    done: uploads.filter(({ state }) => state === 'done').length,
    failed: uploads.filter(({ state }) => state === 'failed').length,
    sent: counted.reduce((sum, upload) => sum + upload.sent, 0),
    size: counted.reduce((sum, upload) => sum + upload.size, 0),
  };
}

const WINDOW_MS = 5000;

/** Measures how fast bytes leave, over the last five seconds. */
export class Speed {
  #samples: { readonly at: number; readonly sent: number }[] = [];

  /** Note that `sent` bytes had left at `now` (milliseconds). A smaller number than before starts anew. */
  note(sent: number, now: number): void {
    const last = this.#samples[this.#samples.length - 1];
    if (last !== undefined && sent < last.sent) {
      this.#samples = [];
    }
    this.#samples.push({ at: now, sent });
    this.#samples = this.#samples.filter(({ at }) => now - at <= WINDOW_MS);
  }

  /** Seconds until `left` more bytes have left; null while the speed is not known. */
  secondsFor(left: number): number | null {
    const first = this.#samples[0];
    const last = this.#samples[this.#samples.length - 1];
    if (first === undefined || last === undefined || last.at - first.at < 500 || last.sent <= first.sent) {
      return null;
    }
    return left / ((last.sent - first.sent) / ((last.at - first.at) / 1000));
  }
}
