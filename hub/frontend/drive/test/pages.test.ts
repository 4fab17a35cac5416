import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errorOf } from '../src/api';
import { commandsFor } from '../src/commands';
import * as decode from '../src/decode';
import { sameItems, trailOf } from '../src/listing';
import { addressOf, parseLocation, sameView, type View } from '../src/routes';
import { Keys, SEQUENCE_TIME, SHORTCUTS, shownKeys, type Press } from '../src/shortcuts';
import { clicked, formatSort, parseSort, sorted } from '../src/sorting';
import { file } from './make';

const VIEWS: readonly View[] = [
  { kind: 'folder', id: 'root' },
  { kind: 'folder', id: 'a b/ü?#' },
  { kind: 'recent' },
  { kind: 'trash' },
  { kind: 'examples' },
  { kind: 'search', query: 'a & b=c#d' },
];

test('every address leads back to the view it was made for', () => {
  for (const view of VIEWS) {
    const url = new URL(addressOf(view), 'http://localhost');
    assert.deepEqual(parseLocation(url.pathname, url.search).view, view);
  }
});

test('an address nobody made is missing, not My Drive', () => {
  for (const path of ['/drive/nowhere', '/drive/recent/x', '/drive/folders/a/b', '/drive/folders/%E0%A4%A', '/drive/folders']) {
    assert.equal(parseLocation(path, '').view.kind, 'missing');
  }
});

test('a file may be asked for above any view', () => {
  assert.equal(parseLocation('/drive', '?open=f1').open, 'f1');
  assert.equal(parseLocation('/drive/', '').open, null);
});

test('two searches are the same view only with the same words', () => {
  assert(sameView({ kind: 'search', query: 'a' }, { kind: 'search', query: 'a' }));
  assert(!sameView({ kind: 'search', query: 'a' }, { kind: 'search', query: 'b' }));
  assert(!sameView({ kind: 'missing' }, { kind: 'folder', id: 'root' }));
});

test('a column sorts in its useful direction first, then in the other', () => {
  assert.equal(formatSort(clicked(null, 'size')), 'size-desc');
  assert.equal(formatSort(clicked(clicked(null, 'size'), 'size')), 'size-asc');
  assert.equal(formatSort(clicked(parseSort('size-asc'), 'name')), 'name-asc');
});

test('a stored order that makes no sense is by name', () => {
  for (const stored of [null, '', 'size', 'owner-asc', 'size-up', '{}']) {
    assert.equal(formatSort(parseSort(stored)), 'name-asc');
  }
});

test('a list sorted here has folders first and numbers in their order', () => {
  const items = [file({ name: 'b10' }), file({ name: 'b9' }), file({ name: 'z', type: 'folder' })];
  const names = (key: 'name-asc' | 'name-desc'): string[] => sorted(items, parseSort(key)).map(({ name }) => name);
  assert.deepEqual(names('name-asc'), ['z', 'b9', 'b10']);
  assert.deepEqual(names('name-desc'), ['z', 'b10', 'b9']);
});

test('what can be done depends on the place, the number, the kind and the role', () => {
  const ids = (view: View, ...files: Parameters<typeof file>[0][]): string[] =>
    commandsFor(view, files.map((change) => file(change))).map(({ id }) => id);
  const drive: View = { kind: 'folder', id: 'root' };
  assert.deepEqual(ids(drive), []);
  assert(ids(drive, {}).includes('rename'));
  assert(!ids(drive, {}, {}).includes('rename'));
  assert(!ids(drive, { type: 'folder' }).includes('download'));
  assert.deepEqual(ids({ kind: 'trash' }, {}), ['restore', 'delete-forever']);
  assert.deepEqual(ids(drive, { role: 'viewer' }), ['open', 'open-in-tab', 'download', 'copy', 'copy-link']);
  assert(ids({ kind: 'search', query: 'a' }, {}).includes('show-in-folder'));
});

test('a page of files is read, and one that is not understood is refused', () => {
  const raw = { id: 'f', name: 'a', type: 'file', size: 3, modified: '2026-11-24T10:00:00Z', role: 'owner' };
  const page = decode.page({ items: [raw], total: 7 });
  assert.equal(page.total, 7);
  assert.equal(page.items[0]?.modified, Date.UTC(2026, 10, 24, 10));
  for (const bad of [null, [], {}, { items: {} }, { items: [1] }, { items: [{ ...raw, type: 'link' }] }, { items: [{ ...raw, id: 1 }] }]) {
    assert.throws(() => decode.page(bad));
  }
});

test('a role nobody knows may only look', () => {
  assert.equal(decode.fileEntry({ id: 'f', name: 'a', type: 'file', role: 'emperor' }).role, 'viewer');
});

test('an error is told in the words of the service, or by its status when the answer is not ours', () => {
  const ours = errorOf(409, '{"status":409,"code":"name_taken","message":"Taken.","field":"name"}');
  assert.deepEqual([ours.status, ours.code, ours.message, ours.field], [409, 'name_taken', 'Taken.', 'name']);
  assert(errorOf(502, '<html>Bad gateway</html>').message.includes('can’t be reached'));
  assert(errorOf(418, '').message.includes('418'));
});

test('the way to a folder leaves out My Drive and ends with the folder', () => {
  const folder = { ...file({ id: 'c', name: 'C', type: 'folder' }), ancestors: [{ id: 'root', name: 'My Drive' }, { id: 'b', name: 'B' }] };
  assert.deepEqual(trailOf(folder), [
    { id: 'b', name: 'B' },
    { id: 'c', name: 'C' },
  ]);
});

test('a list looks the same when nothing that is shown has changed', () => {
  const a = file({ name: 'a' });
  assert(sameItems([a], [{ ...a, etag: 'another' }]));
  assert(!sameItems([a], [{ ...a, modified: 5 }]));
  assert(!sameItems([a], []));
});

const press = (key: string, change: Partial<Press> = {}): Press => ({
  key,
  ctrlKey: false,
  metaKey: false,
  shiftKey: false,
  altKey: false,
  ...change,
});

test('keys mean what the table says, with ⌘ as Ctrl', () => {
  const keys = new Keys();
  assert.equal(keys.press(press('a', { metaKey: true }), 0), 'select-all');
  assert.equal(keys.press(press('A', { ctrlKey: true, shiftKey: true }), 0), null);
  assert.equal(keys.press(press('?', { shiftKey: true }), 0), 'help');
  assert.equal(keys.press(press('ArrowDown', { shiftKey: true }), 0), 'next-extend');
  assert.equal(keys.press(press('ArrowUp', { altKey: true }), 0), 'up');
  assert.equal(keys.press(press(' ', { ctrlKey: true }), 0), 'toggle');
  assert.equal(keys.press(press('q'), 0), null);
});

test('a sequence needs its second key in time; a wrong second key counts for itself', () => {
  const keys = new Keys();
  assert.equal(keys.press(press('n'), 0), null);
  assert.equal(keys.press(press('b'), SEQUENCE_TIME), 'new-notebook');
  assert.equal(keys.press(press('n'), 0), null);
  assert.equal(keys.press(press('b'), SEQUENCE_TIME + 1), null);
  assert.equal(keys.press(press('g'), 0), null);
  assert.equal(keys.press(press('x'), 1), 'toggle');
});

test('no two shortcuts share their keys', () => {
  const all = SHORTCUTS.flatMap(({ keys }) => keys);
  assert.equal(new Set(all).size, all.length);
});

test('keys are shown as on the keyboard', () => {
  assert.deepEqual(shownKeys('Ctrl+a'), [['Ctrl', 'A']]);
  assert.deepEqual(shownKeys('n b'), [['n'], ['b']]);
  assert.deepEqual(shownKeys('Shift+ArrowUp'), [['Shift', '↑']]);
});
