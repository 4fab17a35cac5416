import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cellOf, IMark, keyOf, readMark, writerOf } from '../src/runtime/marks.js';

const ME = 7;
const here = (client: number) => client === ME || client === 8;
const mark = (client: number, run = 'r', done = false): IMark => ({ run, client, runtime: 'r-one', ...(done ? { done } : {}) });

test('outputs are written by the page that ran the cell, by the service when that page is away', () => {
  assert.equal(writerOf(null, 'r', ME, here), 'nobody');
  assert.equal(writerOf(mark(ME), 'r', ME, here), 'me');
  assert.equal(writerOf(mark(8), 'r', ME, here), 'page');
  assert.equal(writerOf(mark(9), 'r', ME, here), 'nobody');
  assert.equal(writerOf(mark(0), 'r', ME, here), 'service');
  assert.equal(writerOf(mark(0, 'r', true), 'r', ME, here), 'done');
});

test('a cell that another run has is left to that run, unless its page has gone', () => {
  assert.equal(writerOf(mark(ME, 'newer'), 'r', ME, here), 'later');
  assert.equal(writerOf(mark(8, 'newer'), 'r', ME, here), 'later');
  assert.equal(writerOf(mark(0, 'newer'), 'r', ME, here), 'later');
  assert.equal(writerOf(mark(9, 'older'), 'r', ME, here), 'nobody');
  assert.equal(writerOf(mark(0, 'older', true), 'r', ME, here), 'nobody');
});

test('only what is a mark is read as one', () => {
  assert.deepEqual(readMark(mark(1)), mark(1));
  for (const other of [null, undefined, 'x', 3, {}, { run: 1, client: 2 }, { run: 'r', client: 'c' }]) {
    assert.equal(readMark(other), null);
  }
  assert.equal(cellOf(keyOf('c1')), 'c1');
  assert.equal(cellOf('dirty'), null);
});
