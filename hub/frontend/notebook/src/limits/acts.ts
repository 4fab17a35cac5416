// What counts as a person's action, and how seldom it is told: pings, polls and other people's edits never come this way.

/** What is looked at of a DOM event. */
export interface IPress {
  type: string;
  isTrusted: boolean;
  key?: string;
  /** Where it happened. */
  place: 'cell' | 'terminal' | 'elsewhere';
}

const NOT_TYPING = new Set(['Shift', 'Control', 'Alt', 'Meta', 'AltGraph', 'CapsLock', 'NumLock', 'ScrollLock', 'Fn', 'Dead', 'Unidentified']);
const EDITS = new Set(['input', 'paste', 'cut', 'drop']);
const COMMANDS =
  /^(docmanager:save|minicolab:(save|insert-\w+|key-[A-Z]|run-\w+|cut|paste|delete|undo|redo|clear|interrupt|restart(-run-all)?)|notebook:(run|insert|delete|cut|paste|merge|split|move|duplicate|change-cell)[\w-]*|runmenu:[\w-]+)$/;

/** Whether a person typed or changed something in a cell or a terminal. */
export function isEdit(press: IPress): boolean {
  if (!press.isTrusted || press.place === 'elsewhere') {
    return false;
  }
  return press.type === 'keydown' ? !!press.key && !NOT_TYPING.has(press.key) : EDITS.has(press.type);
}

/** Whether a command is an edit, a run or a save by hand. Programs execute commands too: `gesture` tells that a person just did something. */
export function isCommand(id: string, gesture: boolean): boolean {
  return gesture && COMMANDS.test(id);
}

/** How this page waits; a test has its own. */
export interface ITime {
  now(): number;
  after(milliseconds: number, call: () => void): number;
  cancel(timer: number): void;
}

/** Tell that a person acted: the first action at once, those of the following `gap()` milliseconds together at its end. */
export class Acts {
  constructor(
    private _send: () => void,
    private _gap: () => number,
    private _time: ITime
  ) {}

  /** Something was done. `urgent`: an end is announced, so that it is told without waiting for the gap. */
  act(urgent = false): void {
    const wait = this._last === null ? 0 : this._last + (urgent ? Math.min(URGENT_GAP, this._gap()) : this._gap()) - this._time.now();
    if (wait <= 0) {
      this._tell();
    } else if (this._timer === 0 || urgent) {
      this.forget();
      this._timer = this._time.after(wait, () => this._tell());
    }
  }

  /** Tell nothing any more of what was done so far: the runtime is another one, or none. */
  forget(): void {
    this._time.cancel(this._timer);
    this._timer = 0;
  }

  private _tell(): void {
    this.forget();
    this._last = this._time.now();
    this._send();
  }

  private _last: number | null = null;
  private _timer = 0;
}

const URGENT_GAP = 5_000;
const MINUTE = 60_000;

/** Return how often a person's actions are told: once a minute, more often only where the idle limit is itself minutes. */
export function gapFor(idleLimitSeconds: number | undefined): number {
  return Math.min(MINUTE, Math.max(1_000, ((idleLimitSeconds ?? 5400) * 1000) / 4));
}
