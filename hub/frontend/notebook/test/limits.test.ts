import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Acts, gapFor, isCommand, isEdit } from '../src/limits/acts.js';
import { secondsLeft, told, warned } from '../src/limits/notices.js';
import { explain } from '../src/limits/refusal.js';
import { announcement, clock, hours, left, span, stopped } from '../src/limits/words.js';

const IDLE = {
  id: 'r-1',
  end: { kind: 'idle' as const, at: '', seconds_left: 50 },
  limits: { max_lifetime_seconds: 43_200, idle_limit_seconds: 5400 },
  extension: { left: 1, by_seconds: 3600 }
};

test('times are said as people say them, and a countdown never reads nothing too early', () => {
  assert.deepEqual([272, 3723, 0.2, 0, -1].map(clock), ['4:32', '1:02:03', '0:01', '0:00', '0:00']);
  assert.deepEqual([43_200, 5400, 20, 3600].map(span), ['12 hours', '90 minutes', '20 seconds', '1 hour']);
  assert.deepEqual([10, 720, 32_580].map(left), ['less than a minute', '12 min', '9 h 3 min']);
  assert.deepEqual([0.005, 0.2, 3.5, 120].map(hours), ['less than a minute', '12 min', '3.5 h', '120 h']);
  assert.equal(announcement('max_lifetime', 43_200).join('9:58'), 'This runtime reaches its longest life of 12 hours in 9:58.');
  const at = new Date(2026, 0, 1, 14, 2);
  assert.equal(stopped(at.toISOString(), 'Idle for 90 minutes (limit 90 minutes).', at, 'en'), 'Stopped at 14:02: idle for 90 minutes (limit 90 minutes).');
});

test('a countdown runs on the clock of the page, from the seconds the service told', () => {
  const warning = warned({ ...IDLE, ends: 'idle', seconds_left: 60 }, 1000);
  assert.equal(secondsLeft(warning, 31_000), 30);
  assert.equal(secondsLeft(warning, 100_000), 0);
});

test('an end that moved away takes the banner with it; a page that comes late shows it', () => {
  const warning = warned({ ...IDLE, ends: 'idle', seconds_left: 60 }, 0);
  const away = { ...IDLE, end: { ...IDLE.end, seconds_left: 5400 } };
  assert.equal(told(warning, away, [600, 60], 0), null);
  assert.equal(told(null, IDLE, [600, 60], 0)?.kind, 'idle');
  assert.equal(told(null, away, [600, 60], 0), null);
  assert.equal(told(null, IDLE, [10], 0), null);
});

test('only what a person does by hand is use', () => {
  const press = { type: 'keydown', isTrusted: true, key: 'a', place: 'cell' as const };
  assert.ok(isEdit(press));
  assert.ok(isEdit({ ...press, place: 'terminal' }));
  assert.ok(!isEdit({ ...press, isTrusted: false }));
  assert.ok(!isEdit({ ...press, key: 'Shift' }));
  assert.ok(!isEdit({ ...press, place: 'elsewhere' }));
  assert.ok(isCommand('notebook:run-cell', true));
  assert.ok(!isCommand('notebook:run-cell', false));
  assert.ok(!isCommand('docmanager:reload', true));
});

test('actions are told at once, then at most once in a while', () => {
  let now = 0;
  let sent = 0;
  let due: [number, () => void] | null = null;
  const time = { now: () => now, after: (ms: number, call: () => void) => ((due = [now + ms, call]), 1), cancel: () => (due = null) };
  const acts = new Acts(() => (sent += 1), () => 60_000, time);
  acts.act();
  acts.act();
  assert.equal(sent, 1);
  now = 30_000;
  acts.act();
  assert.deepEqual([sent, due?.[0]], [1, 60_000]);
  acts.act(true); // an end is announced: it does not wait for the minute
  assert.equal(sent, 2);
  assert.deepEqual([gapFor(5400), gapFor(20), gapFor(1)], [60_000, 5000, 1000]);
});

test('a refusal says its numbers and the next best thing to do', () => {
  const words = explain(
    {
      code: 'budget_used_up',
      message: 'All 30 accelerator-hours of your budget are used up.',
      limit: 30,
      used: 30.2,
      unit: 'accelerator_hours',
      resets_at: new Date(2026, 0, 2).toISOString(),
      offer: { kind: 'accelerator', accelerator: 'NONE', message: 'Connect without an accelerator.' }
    },
    new Date(2026, 0, 1),
    'en'
  );
  assert.equal(words.title, 'Usage limit reached');
  assert.deepEqual(words.facts[0], ['Used', '30 h of 30 h']);
  assert.match(words.facts[1][1], /2.*00:00|Jan 2.*00:00/);
  assert.equal(words.action, 'Connect without GPU');
  assert.ok(words.usage);
  assert.equal(explain({ code: 'odd', message: 'No.' }, new Date()).action, '');
});
