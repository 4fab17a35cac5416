import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as select from '../src/selection';

const ORDER = ['a', 'b', 'c', 'd', 'e'];
const ids = (selection: select.Selection): string[] => [...selection.ids].sort();

test('a click selects one row and nothing else', () => {
  assert.deepEqual(ids(select.only('b')), ['b']);
});

test('ctrl+click adds a row, and takes it away again', () => {
  const two = select.toggled(select.only('a'), 'c');
  assert.deepEqual(ids(two), ['a', 'c']);
  assert.deepEqual(ids(select.toggled(two, 'c')), ['a']);
});

test('shift+click selects from the anchor, upwards too, and the anchor stays', () => {
  const down = select.extended(select.only('b'), ORDER, 'd');
  assert.deepEqual(ids(down), ['b', 'c', 'd']);
  assert.deepEqual(ids(select.extended(down, ORDER, 'a')), ['a', 'b']);
});

test('shift+click without an anchor selects that row', () => {
  assert.deepEqual(ids(select.extended(select.NOTHING, ORDER, 'c')), ['c']);
});

test('ctrl+shift+click keeps what was selected before', () => {
  const before = select.toggled(select.only('a'), 'c');
  assert.deepEqual(ids(select.extended(before, ORDER, 'd', true)), ['a', 'c', 'd']);
});

test('arrows begin at the end they come from and stop at the other', () => {
  assert.equal(select.moved(select.NOTHING, ORDER, 1, false).focus, 'a');
  assert.equal(select.moved(select.NOTHING, ORDER, -1, false).focus, 'e');
  assert.equal(select.moved(select.only('e'), ORDER, 1, false).focus, 'e');
  assert.equal(select.moved(select.only('c'), ORDER, -5, false).focus, 'a');
  assert.equal(select.moved(select.only('c'), ORDER, 5, false).focus, 'e');
});

test('shift+arrow grows the selection and shrinks it on the way back', () => {
  const grown = select.moved(select.moved(select.only('b'), ORDER, 1, true), ORDER, 1, true);
  assert.deepEqual(ids(grown), ['b', 'c', 'd']);
  assert.deepEqual(ids(select.moved(grown, ORDER, -1, true)), ['b', 'c']);
});

test('an empty list selects nothing', () => {
  assert.equal(select.moved(select.only('a'), [], 1, false).focus, null);
  assert.deepEqual(ids(select.everything(select.NOTHING, [])), []);
});

test('when the focused row goes, the one in its place has the focus, and what is left stays selected', () => {
  const before = select.extended(select.only('b'), ORDER, 'd');
  const after = select.pruned(before, ORDER, ['a', 'b', 'e']);
  assert.deepEqual(ids(after), ['b']);
  assert.equal(after.focus, 'e');
});

test('when the last row goes, the one before has the focus', () => {
  assert.equal(select.pruned(select.only('e'), ORDER, ['a', 'b']).focus, 'b');
  assert.equal(select.pruned(select.only('e'), ORDER, []).focus, null);
});
