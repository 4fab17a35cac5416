import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Acts, gapFor, IPress, isCommand, isEdit, ITime } from '../src/limits/acts.js';
import { ILimited, secondsLeft, told, warned } from '../src/limits/notices.js';
import { explain } from '../src/limits/refusal.js';
import { announcement, clock, hours, left, notKept, skewed, span, stopped, when } from '../src/limits/words.js';

const MODEL: ILimited = {
  id: 'r-1',
  end: { kind: 'idle', at: '2026-01-01T00:05:00Z', seconds_left: 272 },
  limits: { max_lifetime_seconds: 43_200, idle_limit_seconds: 5_400 },
  extension: { left: 2, by_seconds: 3_600 }
};

function ending(kind: 'idle' | 'max_lifetime' | 'budget', seconds_left: number): ILimited {
  return { ...MODEL, end: { kind, at: '', seconds_left } };
}

test('a countdown is said in minutes and seconds, and is 0:00 only at the end', () => {
  assert.deepEqual([272, 0.2, 0, -5, 60, 3_723].map(clock), ['4:32', '0:01', '0:00', '0:00', '1:00', '1:02:03']);
});

test('limits are said as they are set, what is left roughly', () => {
  assert.deepEqual([43_200, 3_600, 5_400, 20, 1].map(span), ['12 hours', '1 hour', '90 minutes', '20 seconds', '1 second']);
  assert.deepEqual([30, 720, 3_600, 32_580].map(left), ['less than a minute', '12 min', '1 h', '9 h 3 min']);
  assert.deepEqual([0, 0.2, 3.5, 30].map(hours), ['0 h', '12 min', '3.5 h', '30 h']);
});

test('a time of today has no day, another one has', () => {
  const now = new Date(2026, 10, 27, 15, 0);
  assert.equal(when(new Date(2026, 10, 27, 14, 2).toISOString(), now, 'en-GB'), '14:02');
  assert.equal(when(new Date(2026, 10, 26, 14, 2).toISOString(), now, 'en-GB'), '26 Nov, 14:02');
});

test('each end is announced in its own words', () => {
  assert.equal(announcement('idle', 0).join('4:32'), 'This runtime will be reset in 4:32 because it is idle.');
  assert.equal(announcement('max_lifetime', 43_200).join('9:58'), 'This runtime reaches its longest life of 12 hours in 9:58.');
  assert.equal(announcement('budget', 0).join('0:30'), 'Your budget is used up in 0:30. The runtime will then be reset.');
});

test('the end is told with its time and its reason', () => {
  const now = new Date(2026, 10, 27, 15, 0);
  const at = new Date(2026, 10, 27, 14, 2).toISOString();
  assert.equal(stopped(at, 'Idle for 90 minutes (limit 90 minutes).', now, 'en-GB'), 'Stopped at 14:02: idle for 90 minutes (limit 90 minutes).');
  assert.equal(stopped(at, 'GPU gone.', now, 'en-GB'), 'Stopped at 14:02: GPU gone.');
  assert.equal(notKept('/content holds more than the 1 GiB that are kept'), 'Files of your last runtime were not kept: /content holds more than the 1 GiB that are kept.');
  assert.equal(skewed(13 * 3_600_000), "This computer's clock is 13 h ahead of the service's. Times on this page are the service's.");
  assert.equal(skewed(-90_000), "This computer's clock is 1 min behind the service's. Times on this page are the service's.");
  assert.equal(notKept('Out of space.'), 'Files of your last runtime were not kept: Out of space.');
  assert.equal(stopped(at, '', now, 'en-GB'), 'Stopped at 14:02: the runtime has ended.');
});

test('a warning counts from its arrival, whatever the wall clock says', () => {
  const warning = warned({ ...MODEL, ends: 'max_lifetime', seconds_left: 598 }, 1_000);
  assert.deepEqual([warning.kind, warning.extension.left, secondsLeft(warning, 11_000)], ['max_lifetime', 2, 588]);
  assert.equal(secondsLeft(warning, 10_000_000), 0);
});

test('an announced end goes when it moved, and stays when it was only told again', () => {
  const warning = warned({ ...MODEL, ends: 'idle', seconds_left: 272 }, 0);
  assert.equal(told(warning, ending('idle', 5_400), [600, 300, 60], 10_000), null);
  assert.equal(told(warning, { ...MODEL, end: null }, [600], 10_000), null);
  const again = told(warning, ending('idle', 262), [], 10_000);
  assert.ok(again);
  assert.equal(secondsLeft(again, 10_000), 262);
});

test('another end that is near takes the place of the one that moved', () => {
  const warning = warned({ ...MODEL, ends: 'idle', seconds_left: 272 }, 0);
  assert.equal(told(warning, ending('max_lifetime', 500), [600, 300, 60], 0)?.kind, 'max_lifetime');
});

test('a page that comes late shows an end that was announced, never one that was not', () => {
  assert.equal(told(null, ending('idle', 250), [600, 300, 60], 0)?.kind, 'idle');
  assert.equal(told(null, ending('idle', 700), [600, 300, 60], 0), null);
  const short: ILimited = { ...ending('idle', 15), limits: { max_lifetime_seconds: 60, idle_limit_seconds: 20 } };
  assert.equal(told(null, short, [600, 300, 60], 0), null);
});

const press = (change: Partial<IPress>): IPress => ({ type: 'keydown', isTrusted: true, key: 'a', place: 'cell', ...change });

test('typing in a cell or a terminal is an action; programs, modifier keys and the rest of the page are not', () => {
  assert.ok(isEdit(press({})));
  assert.ok(isEdit(press({ place: 'terminal', key: 'Enter' })));
  assert.ok(isEdit(press({ type: 'paste', key: undefined })));
  for (const none of [{ isTrusted: false }, { place: 'elsewhere' as const }, { key: 'Shift' }, { type: 'focus' }, { type: 'keydown', key: undefined }]) {
    assert.equal(isEdit(press(none)), false, JSON.stringify(none));
  }
});

test('commands count when a person gave them: run, save, edit; not looking around, not programs', () => {
  for (const id of ['docmanager:save', 'minicolab:run-all', 'notebook:run-cell', 'notebook:insert-cell-below', 'minicolab:key-B']) {
    assert.ok(isCommand(id, true), id);
    assert.equal(isCommand(id, false), false, id);
  }
  for (const id of ['minicolab:view-resources', 'apputils:activate-command-palette', 'docmanager:open', 'notebook:scroll-cell-center', 'toc:run-cells']) {
    assert.equal(isCommand(id, true), false, id);
  }
});

class Hands implements ITime {
  at = 0;
  sent: number[] = [];
  private _timers = new Map<number, [number, () => void]>();
  private _next = 1;
  now(): number {
    return this.at;
  }
  after(milliseconds: number, call: () => void): number {
    this._timers.set(this._next, [this.at + milliseconds, call]);
    return this._next++;
  }
  cancel(timer: number): void {
    this._timers.delete(timer);
  }
  /** Let time pass up to `to`. */
  go(to: number): void {
    for (;;) {
      const due = [...this._timers].filter(([, [at]]) => at <= to).sort((a, b) => a[1][0] - b[1][0])[0];
      if (!due) {
        break;
      }
      this._timers.delete(due[0]);
      this.at = due[1][0];
      due[1][1]();
    }
    this.at = to;
  }
}

function acts(gap = 60_000): [Acts, Hands] {
  const hands = new Hands();
  return [new Acts(() => hands.sent.push(hands.at), () => gap, hands), hands];
}

test('typing for minutes is told once a minute, and the last of it is not forgotten', () => {
  const [told, hands] = acts();
  for (let second = 0; second <= 130; second++) {
    hands.go(second * 1000);
    told.act();
  }
  hands.go(1_000_000);
  assert.deepEqual(hands.sent, [0, 60_000, 120_000, 180_000]);
});

test('nobody there, nothing told', () => {
  const [told, hands] = acts();
  hands.go(1_000_000);
  told.act();
  hands.go(9_000_000);
  assert.deepEqual(hands.sent, [1_000_000]);
});

test('while an end is announced an action is told within seconds', () => {
  const [told, hands] = acts();
  told.act();
  hands.go(2_000);
  told.act(true);
  told.act(true);
  hands.go(5_000);
  assert.deepEqual(hands.sent, [0, 5_000]);
});

test('actions for a runtime that is gone are forgotten', () => {
  const [told, hands] = acts();
  told.act();
  told.act();
  told.forget();
  hands.go(1_000_000);
  assert.deepEqual(hands.sent, [0]);
});

test('actions are told once a minute, more often only under limits of minutes', () => {
  assert.deepEqual([gapFor(undefined), gapFor(5_400), gapFor(20), gapFor(1)], [60_000, 60_000, 5_000, 1_000]);
});

test('a refusal is explained with its numbers, when it changes, and one thing to do', () => {
  const now = new Date(2026, 10, 27, 15, 0);
  const used = explain(
    {
      code: 'budget_used_up',
      message: "All 30 accelerator-hours of your budget 'gpu' are used up.",
      limit: 30,
      used: 30.2,
      unit: 'accelerator_hours',
      resets_at: new Date(2026, 11, 1).toISOString(),
      offer: { kind: 'accelerator', accelerator: 'NONE', message: 'Connect without an accelerator.' }
    },
    now,
    'en-GB'
  );
  assert.equal(used.title, 'Usage limit reached');
  assert.deepEqual(used.facts, [['Used', '30 h of 30 h'], ['Resets at', '1 Dec, 00:00']]);
  assert.equal(used.action, 'Connect without GPU');
  assert.ok(used.usage);
  const many = explain({ code: 'too_many_runtimes', message: 'm', limit: 5, used: 5, offer: { kind: 'stop', runtime_id: 'r-1', message: 'End one.' } }, now);
  assert.deepEqual([many.title, many.facts[0][1], many.action, many.hint], ['Too many sessions', '5 of 5', 'Manage sessions', 'End one.']);
  const busy = explain({ code: 'accelerator_unavailable', message: 'm', limit: 0, used: 0, offer: null }, now);
  assert.deepEqual([busy.facts, busy.action, busy.usage], [[], '', false]);
  assert.equal(explain({ code: 'hub_unavailable', message: 'm' }, now).title, 'No runtime');
});
