import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ago, renewAfter, size, view } from '../src/runtime/state.js';

test('the button says Connect, the true phase, Connected, and Reconnect with the reason', () => {
  assert.equal(view('disconnected', '', '').label, 'Connect');
  assert.deepEqual(view('connecting', 'Starting Python', ''), { label: 'Connecting', title: 'Starting Python' });
  assert.equal(view('connected', '', '').label, 'Connected');
  assert.deepEqual(view('lost', '', 'Idle for 90 minutes.'), { label: 'Reconnect', title: 'Disconnected: Idle for 90 minutes.' });
});

test('a ticket is renewed after two thirds of what is left, never at once', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  assert.equal(renewAfter('2026-01-01T01:00:00Z', now), 40 * 60_000);
  assert.equal(renewAfter('2025-12-31T00:00:00Z', now), 1000);
});

test('sizes and ages are said as people say them', () => {
  assert.equal(size(3 * 2 ** 30), '3.0 GB');
  assert.equal(size(5 * 2 ** 20), '5 MB');
  const now = Date.parse('2026-01-01T02:00:00Z');
  assert.equal(ago('2026-01-01T01:30:00Z', now), '30 min ago');
  assert.equal(ago(null, now), 'never');
});
