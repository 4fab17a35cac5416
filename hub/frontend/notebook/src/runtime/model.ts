// The runtime of this page: a live ServerConnection.ISettings whose target is chosen at run time, and how it gets there.
import { ServerConnection } from '@jupyterlab/services';
import { Token } from '@lumino/coreutils';
import { ISignal, Signal } from '@lumino/signaling';
import { ApiError, control, IRuntimeModel, ITicket } from '../api';
import { now } from '../clock';
import { page } from '../page';
import { ConnectionState, renewAfter } from './state';

/** The page's runtime. */
export interface IRuntime {
  readonly settings: ServerConnection.ISettings;
  readonly state: ConnectionState;
  readonly phase: string;
  readonly reason: string;
  readonly model: IRuntimeModel | null;
  readonly stateChanged: ISignal<IRuntime, ConnectionState>;
  /** What became of the ended runtime: its last model, until another is connected. */
  readonly lastEnded: IRuntimeModel | null;
  /** Whether the runtime was started by this page's connect, not found alive. */
  readonly isNew: boolean;
  /** Every event of the runtime that says something of its end. */
  readonly told: ISignal<IRuntime, IRuntimeEvent>;
  accelerator: string;
  connect(): Promise<void>;
  note(model: IRuntimeModel): void;
  findExisting(): Promise<void>;
  end(): Promise<void>;
  url(path: string): string;
  fetch(path: string): Promise<Response>;
}

export const IRuntime = new Token<IRuntime>('@minicolab/notebook:IRuntime', 'The runtime this page is connected to.');

/** `warning` carries `ends` and `seconds_left`; the others the runtime as it is now. */
export interface IRuntimeEvent {
  name: 'ready' | 'warning' | 'changed';
  model: IRuntimeModel & { ends?: string; seconds_left?: number };
}

/** The code of a start that its person gave up. */
export const GIVEN_UP = 'given_up';

const NOWHERE = 'https://runtime.invalid/'; // never fetched: see _fetch
const GONE = new Set([424, 502, 503, 504]);

/** Connects this page's notebook to its runtime, keeps the ticket fresh, and notices the runtime's end. */
export class Runtime implements IRuntime {
  constructor() {
    const base = ServerConnection.makeSettings();
    const target = () => this._ticket?.browser_url ?? this._last;
    // Getters: whatever holds these settings sees the new target; nothing in @jupyterlab/services copies them.
    this.settings = {
      ...base,
      init: { cache: 'no-store', credentials: 'omit' },
      fetch: (input: RequestInfo | URL, init?: RequestInit) => this._fetch(input, init),
      get baseUrl() {
        return target();
      },
      get wsUrl() {
        return target().replace(/^http/, 'ws');
      },
      appendToken: true,
      token: ''
    };
    Object.defineProperty(this.settings, 'token', { get: () => this._ticket?.token ?? '' });
  }

  readonly settings: ServerConnection.ISettings;
  accelerator = 'NONE';

  get state(): ConnectionState {
    return this._state;
  }
  get phase(): string {
    return this._phase;
  }
  get reason(): string {
    return this._reason;
  }
  get model(): IRuntimeModel | null {
    return this._model;
  }
  get stateChanged(): ISignal<IRuntime, ConnectionState> {
    return this._stateChanged;
  }
  get lastEnded(): IRuntimeModel | null {
    return this._lastEnded;
  }
  get isNew(): boolean {
    return this._isNew;
  }
  get told(): ISignal<IRuntime, IRuntimeEvent> {
    return this._told;
  }

  /** Note what an answer of control says of the runtime. */
  note(model: IRuntimeModel): void {
    if (model.id === this._model?.id) {
      this._tell('changed', model);
    }
  }

  url(path: string): string {
    return (this._ticket?.browser_url ?? this._last) + path;
  }

  fetch(path: string): Promise<Response> {
    return fetch(this.url(path), {
      headers: { Authorization: `token ${this._ticket?.token ?? ''}` },
      credentials: 'omit',
      cache: 'no-store'
    });
  }

  /** Connect, starting a runtime when there is none. Rejects with a sentence for the person. */
  connect(): Promise<void> {
    if (this._state === 'connected') {
      return Promise.resolve();
    }
    this._pending ??= this._connect().finally(() => {
      this._pending = null;
    });
    return this._pending;
  }

  /** Attach to a runtime this notebook already has (page reload, second tab); do nothing when there is none. */
  async findExisting(): Promise<void> {
    if (!page.file || this._state !== 'disconnected') {
      return;
    }
    const list = await control<{ items: IRuntimeModel[] }>(`runtimes?file_id=${encodeURIComponent(page.file.id)}`);
    if (list.items.some(r => ['queued', 'starting', 'ready'].includes(r.state))) {
      await this.connect();
    }
  }

  /** End the runtime: disconnect and delete. A start that is under way is given up. */
  async end(): Promise<void> {
    const asked = await this._asked?.catch(() => undefined);
    this._giveUp();
    const id = this._model?.id ?? asked?.id;
    this._forget();
    this._reason = '';
    this._set('disconnected');
    if (id) {
      await control(`runtimes/${id}`, 'DELETE');
    }
  }

  private async _connect(): Promise<void> {
    if (!page.file) {
      throw new ApiError(0, 'no_file', 'This page shows no notebook.');
    }
    this._phase = '';
    this._reason = '';
    this._set('connecting');
    try {
      this._asked = this._ask(page.file.id);
      const model = await this._asked.finally(() => {
        this._asked = null;
      });
      if (this._state !== 'connecting') {
        throw givenUp();
      }
      this._model = model;
      this.accelerator = this._model.accelerator;
      this._isNew = this._model.state !== 'ready';
      await this._untilReady(this._model.id);
      await this._renew(this._model.id);
      this._lastEnded = null;
      this._set('connected');
    } catch (error) {
      this._forget();
      this._reason = error instanceof ApiError && error.code === GIVEN_UP ? '' : (error as Error).message;
      this._set('disconnected');
      throw error;
    }
  }

  /** Ask for a runtime. A notebook from elsewhere may want an accelerator that nobody has heard of here: then without. */
  private async _ask(file: string): Promise<IRuntimeModel> {
    const post = () =>
      control<IRuntimeModel>(
        'runtimes',
        'POST',
        { file_id: file, accelerator: this.accelerator, shape: 'STANDARD' },
        { 'Idempotency-Key': crypto.randomUUID() }
      );
    try {
      return await post();
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'unknown_accelerator') {
        throw error;
      }
      this.accelerator = 'NONE';
      return post();
    }
  }

  /** Follow the runtime's events: resolves once it is ready, and goes on listening for its end. */
  private _untilReady(id: string): Promise<void> {
    this._events?.close();
    const events = new EventSource(`${page.controlUrl}api/v1/runtimes/${id}/events`);
    this._events = events;
    return new Promise((resolve, reject) => {
      this._giveUp = () => reject(givenUp());
      const read = (event: Event) => JSON.parse((event as MessageEvent<string>).data) as IRuntimeModel & { ends?: string; seconds_left?: number };
      events.addEventListener('phase', event => {
        this._model = read(event);
        this._phase = this._model.phase_message;
        this._stateChanged.emit(this._state);
      });
      events.addEventListener('ready', event => {
        this._tell('ready', read(event));
        resolve();
      });
      events.addEventListener('warning', event => this._tell('warning', read(event)));
      events.addEventListener('changed', event => this._tell('changed', read(event)));
      events.addEventListener('ended', event => {
        events.close();
        const data = read(event);
        const reason = data.reason?.message ?? 'The runtime has ended.';
        reject(new ApiError(0, data.reason?.code ?? 'ended', reason));
        if (this._model?.id === data.id) {
          this._lost(reason, data);
        }
      });
      // EventSource reconnects by itself; a restart of control disturbs nobody.
    });
  }

  private async _renew(id: string): Promise<void> {
    this._ticket = await control<ITicket>(`runtimes/${id}/token`, 'POST', {});
    this._last = this._ticket.browser_url;
    window.clearTimeout(this._renewal);
    this._renewal = window.setTimeout(() => void this._renewOrRetry(id), renewAfter(this._ticket.expires_at, now().getTime()));
  }

  private async _renewOrRetry(id: string): Promise<void> {
    try {
      await this._renew(id);
    } catch (error) {
      if (error instanceof ApiError && [404, 409, 410].includes(error.status)) {
        void this._lostWhy(id, error.message);
      } else if (this._model?.id === id) {
        this._renewal = window.setTimeout(() => void this._renewOrRetry(id), 10_000);
      }
    }
  }

  private _tell(name: IRuntimeEvent['name'], model: IRuntimeEvent['model']): void {
    this._model = model;
    this._told.emit({ name, model });
  }

  /** A ticket was refused: the runtime has ended, and its record says why. */
  private async _lostWhy(id: string, message: string): Promise<void> {
    const model = await control<IRuntimeModel>(`runtimes/${id}`).catch(() => null);
    if (this._model?.id === id) {
      this._lost(model?.reason?.message ?? message, model);
    }
  }

  private _lost(reason: string, model: IRuntimeModel | null): void {
    if (this._state === 'connected') {
      this._lastEnded = model ?? this._model;
      this._forget();
      this._reason = reason;
      this._set('lost');
    }
  }

  private _forget(): void {
    window.clearTimeout(this._renewal);
    this._events?.close();
    this._events = null;
    this._ticket = null;
    this._model = null;
  }

  private _set(state: ConnectionState): void {
    this._state = state;
    this._stateChanged.emit(state);
  }

  private async _fetch(input: RequestInfo | URL, init?: RequestInit): Promise<Response> {
    const request = input as Request;
    const ticket = this._ticket;
    if (ticket) {
      try {
        const reply = await fetch(request, init);
        if (reply.status === 401 || reply.status === 403) {
          void this._probe();
        } else if (!GONE.has(reply.status)) {
          return reply;
        }
      } catch {
        // network, or an error page without CORS headers
      }
      void this._probe();
      if (this._ticket === ticket) {
        // Lists: 500, as 424, 503 and network errors raise JupyterLab's own dialog. One kernel: 424, as a kernel connection
        // then retries quietly; on 500 it says "Kernel died unexpectedly".
        const one = /\/api\/kernels\/[^/]+$/.test(new URL(request.url).pathname);
        return answer({ message: 'The runtime did not answer.' }, one ? 424 : 500);
      }
    }
    return offline(request);
  }

  /** One failed request is no proof: ask control what became of the runtime. */
  private async _probe(): Promise<void> {
    const id = this._model?.id;
    if (this._probing || !id || this._state !== 'connected') {
      return;
    }
    this._probing = true;
    try {
      const model = await control<IRuntimeModel>(`runtimes/${id}`);
      if (model.state === 'ended' || model.state === 'failed') {
        this._lost(model.reason?.message ?? 'The runtime has ended.', model);
      } else {
        await this._renew(id);
      }
    } catch {
      // control is away for a moment: the runtime may well live on
    } finally {
      this._probing = false;
    }
  }

  private _state: ConnectionState = 'disconnected';
  private _phase = '';
  private _reason = '';
  private _model: IRuntimeModel | null = null;
  private _ticket: ITicket | null = null;
  private _last = NOWHERE;
  private _pending: Promise<void> | null = null;
  private _asked: Promise<IRuntimeModel> | null = null;
  private _giveUp: () => void = () => undefined;
  private _events: EventSource | null = null;
  private _renewal = 0;
  private _probing = false;
  private _stateChanged = new Signal<this, ConnectionState>(this);
  private _lastEnded: IRuntimeModel | null = null;
  private _isNew = false;
  private _told = new Signal<this, IRuntimeEvent>(this);
}

function givenUp(): ApiError {
  return new ApiError(0, GIVEN_UP, 'The start was given up.');
}

function answer(body: object, status = 200): Response {
  return new Response(JSON.stringify(body), { status, headers: { 'Content-Type': 'application/json' } });
}

/** Answer locally while there is no runtime, so that `ready` promises resolve and polls stay quiet. */
function offline(request: Request): Response {
  const path = new URL(request.url).pathname;
  if (request.method === 'GET') {
    if (path.endsWith('/api/kernelspecs')) {
      const spec = { argv: [], display_name: 'Python 3', language: 'python', env: {} };
      return answer({ default: 'python3', kernelspecs: { python3: { name: 'python3', spec, resources: {} } } });
    }
    if (/\/api\/(sessions|kernels|terminals)$/.test(path)) {
      return answer([]);
    }
  }
  return answer({ message: 'No runtime is connected.' }, 424);
}
