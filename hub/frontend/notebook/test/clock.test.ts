import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ahead, heard, now } from '../src/clock.js';

const HOUR = 3_600_000;

test('times are those of the service, however wrong this clock is', () => {
  for (const hours of [13, -13]) {
    const real = Math.floor(Date.now() / 1000) * 1000 - hours * HOUR;
    heard(new Date(real).toUTCString());
    assert.ok(Math.abs(ahead() - hours * HOUR) < 5_000);
    assert.ok(Math.abs(now().getTime() - real) < 5_000);
  }
});

test('a second or a slow answer is no difference, and nothing is learnt from an answer without a time', () => {
  const own = Date.UTC(2026, 10, 29, 12);
  heard(new Date(own - 59_000).toUTCString(), own);
  assert.equal(ahead(), 0);
  heard(new Date(own - HOUR).toUTCString(), own);
  heard(null, own);
  heard('soon', own);
  assert.equal(ahead(), HOUR);
  heard(new Date(own).toUTCString(), own);
  assert.equal(ahead(), 0);
});
