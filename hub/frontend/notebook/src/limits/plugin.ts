// Limits in the page: what is announced, what a person's actions tell control, what is said after the end, what can be restored.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { showErrorMessage } from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { control, IQuota, IRuntimeModel, ISnapshot } from '../api';
import { ahead, now } from '../clock';
import { page } from '../page';
import { IRuntime } from '../runtime/model';
import { size, waits } from '../runtime/state';
import { Acts, gapFor, IPress, isCommand, isEdit } from './acts';
import { connectOrExplain, viewUsage } from './dialog';
import { IWarning, secondsLeft, told, warned } from './notices';
import { IAction, ILine, Strip } from './strip';
import { announcement, clock, notKept, skewed, span, stopped, when } from './words';

const FLUSH_SECONDS = 60;
const EXPLAINED_MILLISECONDS = 12 * 3_600_000;
const SAID_MILLISECONDS = 8_000;
const WAIT_MILLISECONDS = 1_500; // a wait that is shorter is not told
const OWN_WILL = new Set(['user_deleted', 'unassigned']);
const DISMISSED = 'minicolab:dismissed-snapshot';
const DISMISSED_LOSS = 'minicolab:dismissed-loss';

class LimitsView {
  constructor(
    private _runtime: IRuntime,
    private _tracker: INotebookTracker
  ) {
    this._acts = new Acts(
      () => void this._keep(),
      () => gapFor(this._runtime.model?.limits?.idle_limit_seconds),
      { now: () => performance.now(), after: (ms, call) => window.setTimeout(call, ms), cancel: timer => window.clearTimeout(timer) }
    );
    _runtime.told.connect((_, event) => {
      if (event.name === 'warning') {
        this._show(warned(event.model, performance.now()));
        this._notify();
      } else {
        this._show(told(this._warning, event.model, this._warnBefore, performance.now()));
      }
    });
    _runtime.stateChanged.connect((_, state) => {
      this._moved(state);
      this._waits();
    });
  }

  /** A person did something. */
  act(): void {
    if (this._runtime.state === 'connected') {
      this._acts.act(this._warning?.kind === 'idle');
    }
  }

  /** Put the lines above another notebook. */
  add(panel: NotebookPanel): void {
    const strip = new Strip();
    panel.contentHeader.addWidget(strip);
    this._strips.push(strip);
    strip.disposed.connect(() => (this._strips = this._strips.filter(other => other !== strip)));
    this._lines.forEach(line => strip.put(line));
  }

  /** A page that comes after the end says why the last runtime ended. */
  async explainLast(): Promise<void> {
    if (!page.file) {
      return;
    }
    const { items } = await control<{ items: IRuntimeModel[] }>(`runtimes?file_id=${encodeURIComponent(page.file.id)}&all=true&limit=1`);
    this._tellClock();
    const last = items[0];
    const recent = last?.ended && now().getTime() - new Date(last.ended).getTime() < EXPLAINED_MILLISECONDS;
    if (recent && last.state === 'ended' && !OWN_WILL.has(last.reason?.code ?? '') && this._runtime.state === 'disconnected') {
      this._ended(last);
    }
  }

  private _moved(state: string): void {
    if (state === this._last) {
      return;
    }
    this._last = state;
    if (state === 'connected') {
      this._remove('ended');
      void this._connected();
    } else {
      this._show(null);
      this._acts.forget();
      this._remove('restore');
      this._remove('not-kept');
    }
    if (state === 'lost') {
      this._flush();
      this._ended(this._runtime.lastEnded);
    } else if (state === 'connecting') {
      this._remove('ended');
    }
  }

  /** Say what a start waits for, once that takes a while, and let a person give it up. */
  private _waits(): void {
    const { state, model, phase } = this._runtime;
    if (state !== 'connecting' || !waits(model?.phase)) {
      window.clearTimeout(this._waiting);
      this._waiting = 0;
      this._remove('waiting');
      return;
    }
    const said = this._lines.get('waiting')?.words[0];
    if (said !== undefined && said !== phase) {
      this._putWait();
    } else if (!this._waiting) {
      this._waiting = window.setTimeout(() => this._putWait(), WAIT_MILLISECONDS);
    }
  }

  private _putWait(): void {
    this._put({
      key: 'waiting',
      tone: 'quiet',
      words: [this._runtime.phase],
      actions: [{ label: 'Cancel', run: () => this._runtime.end() }]
    });
  }

  private async _connected(): Promise<void> {
    const { model, isNew } = this._runtime;
    const quota = await control<IQuota>('quota').catch(() => null);
    this._tellClock();
    this._warnBefore = quota?.limits.warn_before_seconds ?? [];
    if (model && this._runtime.model) {
      this._show(told(this._warning, this._runtime.model, this._warnBefore, performance.now()));
    }
    if (isNew && model) {
      await this._tellFiles(model.id, quota?.keep_content ?? false);
    }
  }

  // -- what is announced ---------------------------------------------------------------------------------------

  private _show(warning: IWarning | null): void {
    const same = warning && this._warning && warning.kind === this._warning.kind && warning.extension.left === this._warning.extension.left;
    this._warning = warning;
    window.clearInterval(this._ticking);
    if (!warning) {
      this._remove('warning');
      return;
    }
    if (!same) {
      this._draw(warning);
    }
    this._flushed = this._flushed && secondsLeft(warning, performance.now()) <= FLUSH_SECONDS;
    this._tick();
    this._ticking = window.setInterval(() => this._tick(), 250);
  }

  private _draw(warning: IWarning): void {
    const [before, after] = announcement(warning.kind, warning.maxLifetimeSeconds);
    this._put({ key: 'warning', tone: 'warning', words: [before, time(), after], actions: this._offers(warning) });
  }

  private _offers(warning: IWarning): IAction[] {
    const actions: IAction[] = [];
    if (warning.kind === 'idle') {
      actions.push({ label: 'Keep', main: true, run: () => this._keep(true) });
    } else if (warning.kind === 'budget') {
      actions.push({ label: 'View usage', main: true, run: viewUsage });
    } else if (warning.extension.left > 0) {
      actions.push({ label: `Extend by ${span(warning.extension.bySeconds)}`, main: true, run: () => this._extend() });
    }
    if ('Notification' in window && window.Notification.permission === 'default') {
      actions.push({ label: 'Notify me', run: () => this._askToNotify() });
    }
    return actions;
  }

  private _tick(): void {
    const warning = this._warning;
    if (!warning) {
      return;
    }
    const left = secondsLeft(warning, performance.now());
    const text = clock(left);
    document.querySelectorAll('.mc-countdown').forEach(node => {
      if (node.textContent !== text) {
        node.textContent = text;
      }
    });
    if (left <= FLUSH_SECONDS && !this._flushed) {
      this._flushed = true;
      this._flush();
    }
  }

  private _notify(): void {
    const warning = this._warning;
    const away = document.hidden || !document.hasFocus();
    if (!warning || !away || !('Notification' in window) || window.Notification.permission !== 'granted') {
      return;
    }
    const [before, after] = announcement(warning.kind, warning.maxLifetimeSeconds);
    const body = before + clock(secondsLeft(warning, performance.now())) + after;
    const note = new window.Notification(page.file?.name ?? 'minicolab', { body, tag: this._runtime.model?.id });
    note.onclick = () => window.focus();
  }

  private async _askToNotify(): Promise<void> {
    await window.Notification.requestPermission();
    if (this._warning) {
      this._draw(this._warning);
      this._tick();
    }
  }

  /** Say that this computer's clock is wrong: what is said of times here is not what it shows. */
  private _tellClock(): void {
    if (!ahead()) {
      this._remove('clock');
    } else if (!this._clockRead) {
      const read = () => {
        this._clockRead = true;
        this._remove('clock');
      };
      this._put({ key: 'clock', tone: 'quiet', words: [skewed(ahead())], actions: [{ label: 'Dismiss', run: read }] });
    }
  }

  // -- what a person does --------------------------------------------------------------------------------------

  /** Tell control that a person is there. `asked`: by the button, so a failure is told. */
  private async _keep(asked = false): Promise<void> {
    await this._call('keep', asked ? 'The runtime could not be kept' : null);
  }

  private async _extend(): Promise<void> {
    await this._call('extend', 'The runtime was not extended');
  }

  private async _call(what: string, trouble: string | null): Promise<void> {
    const id = this._runtime.model?.id;
    if (!id || this._runtime.state !== 'connected') {
      return;
    }
    try {
      this._runtime.note(await control<IRuntimeModel>(`runtimes/${id}/${what}`, 'POST', {}));
    } catch (error) {
      if (trouble) {
        void showErrorMessage(trouble, (error as Error).message);
      }
    }
  }

  /** Save what is on the page, before the end and at it. */
  private _flush(): void {
    this._tracker.forEach(panel => {
      if (panel.context.isReady && panel.context.model.dirty && !page.file?.readOnly) {
        panel.context.save().catch(() => undefined); // the header says what became of it
      }
    });
  }

  // -- what was --------------------------------------------------------------------------------------------------

  private _ended(model: IRuntimeModel | null): void {
    this._put({
      key: 'ended',
      tone: 'ended',
      words: [stopped(model?.ended ?? null, model?.reason?.message ?? this._runtime.reason, now())],
      title: model?.reason?.code ?? '',
      actions: [{ label: 'Reconnect', main: true, run: () => connectOrExplain(this._runtime) }],
      close: () => this._remove('ended')
    });
  }

  /** Say what became of the files of the notebook's runtimes before this one. Who keeps none and has none is told nothing. */
  private async _tellFiles(id: string, keeps: boolean): Promise<void> {
    const { items } = await control<{ items: ISnapshot[] }>('snapshots').catch(() => ({ items: [] as ISnapshot[] }));
    const mine = items.filter(item => item.file_id === page.file?.id).sort((a, b) => b.created.localeCompare(a.created))[0];
    const before = keeps || mine ? await this._before(id).catch(() => null) : null;
    if (this._runtime.model?.id !== id) {
      return;
    }
    if (before?.content?.kept === false && before.id !== window.localStorage.getItem(DISMISSED_LOSS)) {
      this._put({
        key: 'not-kept',
        tone: 'quiet',
        words: [notKept(before.content.message)],
        actions: [this._dismiss('not-kept', DISMISSED_LOSS, before.id)]
      });
    }
    if (mine && mine.id !== window.localStorage.getItem(DISMISSED)) {
      this._put({
        key: 'restore',
        tone: 'quiet',
        words: [mine.id === before?.id ? 'Files of your last runtime were kept.' : 'Files of an earlier runtime were kept.'],
        title: `${size(mine.size_bytes)}, ${when(mine.created, now())}`,
        actions: [{ label: 'Restore', main: true, run: () => this._restore(id, mine.id) }, this._dismiss('restore', DISMISSED, mine.id)]
      });
    }
  }

  /** Return the button that takes a line about a runtime away for good. */
  private _dismiss(key: string, stored: string, runtime: string): IAction {
    const run = () => {
      window.localStorage.setItem(stored, runtime);
      this._remove(key);
    };
    return { label: 'Dismiss', run };
  }

  /** Return the notebook's runtime before this one, with what became of its files. */
  private async _before(id: string): Promise<IRuntimeModel | null> {
    const { items } = await control<{ items: IRuntimeModel[] }>(`runtimes?file_id=${encodeURIComponent(page.file?.id ?? '')}&all=true&limit=2`);
    const before = items.find(item => item.id !== id && item.ended);
    return before ? control<IRuntimeModel>(`runtimes/${before.id}`) : null;
  }

  private async _restore(id: string, snapshot: string): Promise<void> {
    try {
      const { files } = await control<{ files: number }>(`runtimes/${id}/restore`, 'POST', { snapshot_id: snapshot });
      this._put({ key: 'restore', tone: 'quiet', words: [`${files} ${files === 1 ? 'file is' : 'files are'} back in /content.`], actions: [] });
      window.setTimeout(() => this._remove('restore'), SAID_MILLISECONDS);
    } catch (error) {
      void showErrorMessage('The files were not restored', (error as Error).message);
    }
  }

  private _put(line: ILine): void {
    this._lines.set(line.key, line);
    this._strips.forEach(strip => strip.put({ ...line, words: line.words.map(copy) }));
  }

  private _remove(key: string): void {
    if (this._lines.delete(key)) {
      this._strips.forEach(strip => strip.remove(key));
    }
  }

  private _acts: Acts;
  private _strips: Strip[] = [];
  private _lines = new Map<string, ILine>();
  private _warning: IWarning | null = null;
  private _warnBefore: number[] = [];
  private _ticking = 0;
  private _waiting = 0;
  private _flushed = false;
  private _clockRead = false;
  private _last = 'disconnected';
}

function time(): HTMLElement {
  const node = document.createElement('span');
  node.className = 'mc-countdown';
  node.setAttribute('role', 'timer');
  node.setAttribute('aria-live', 'off');
  return node;
}

function copy(part: string | HTMLElement): string | HTMLElement {
  return typeof part === 'string' ? part : (part.cloneNode(true) as HTMLElement);
}

function placeOf(target: EventTarget | null): IPress['place'] {
  const element = target instanceof Element ? target : null;
  if (element?.closest('.jp-Terminal')) {
    return 'terminal';
  }
  return element?.closest('.jp-Notebook .cm-editor, .jp-Notebook .mc-form') ? 'cell' : 'elsewhere';
}

export const limits: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:limits',
  description: 'Announces the ends of a runtime, tells that a person is there, explains what ended.',
  autoStart: true,
  requires: [IRuntime, INotebookTracker],
  activate: (app: JupyterFrontEnd, runtime: IRuntime, tracker: INotebookTracker) => {
    const view = new LimitsView(runtime, tracker);
    for (const type of ['keydown', 'input', 'paste', 'cut', 'drop']) {
      document.addEventListener(
        type,
        event => {
          if (isEdit({ type, isTrusted: event.isTrusted, key: (event as KeyboardEvent).key, place: placeOf(event.target) })) {
            view.act();
          }
        },
        { capture: true, passive: true }
      );
    }
    app.commands.commandExecuted.connect((_, { id }) => {
      if (isCommand(id, navigator.userActivation?.isActive ?? true)) {
        view.act();
      }
    });
    tracker.widgetAdded.connect((_, panel) => {
      void panel.context.ready.then(() => {
        view.add(panel);
        view.explainLast().catch(() => undefined); // nothing to explain is no trouble
      });
    });
  }
};
