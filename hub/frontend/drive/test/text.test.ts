import assert from 'node:assert/strict';
import { test } from 'node:test';
import { count, formatLeft, formatSize, formatTime } from '../src/format';
import { kindOf, MAX_TEXT_PREVIEW, previewOf } from '../src/kinds';
import { locationOf, nameProblem, stemLength } from '../src/names';
import { file } from './make';

test('sizes are short and never show 1000 of a unit', () => {
  const cases: readonly (readonly [number | null, string])[] = [
    [null, '—'],
    [0, '0 bytes'],
    [1, '1 byte'],
    [1023, '1023 bytes'],
    [1024, '1 KB'],
    [1536, '1.5 KB'],
    [10 * 1024, '10 KB'],
    [1023 * 1024, '1 MB'],
    [200 * 1024 * 1024, '200 MB'],
    [5 * 1024 ** 4, '5 TB'],
    [5000 * 1024 ** 4, '5000 TB'],
  ];
  for (const [bytes, text] of cases) {
    assert.equal(formatSize(bytes), text);
  }
});

test('a time is the hour today, the day this year, and the whole date before', () => {
  const now = new Date(2026, 10, 24, 15, 0).getTime();
  assert.equal(formatTime(new Date(2026, 10, 24, 9, 5).getTime(), now, 'en-GB'), '9:05');
  assert.equal(formatTime(new Date(2026, 10, 23, 23, 59).getTime(), now, 'en-GB'), '23 Nov');
  assert.equal(formatTime(new Date(2025, 11, 31, 9, 5).getTime(), now, 'en-GB'), '31 Dec 2025');
  assert.equal(formatTime(null, now), '—');
});

test('counts agree with their word', () => {
  assert.equal(count(1, 'item'), '1 item');
  assert.equal(count(0, 'item'), '0 items');
  assert.equal(count(2, 'copy', 'copies'), '2 copies');
});

test('the time left is rough, and empty while it is not known', () => {
  assert.equal(formatLeft(null), '');
  assert.equal(formatLeft(Infinity), '');
  assert.equal(formatLeft(12), 'less than a minute left');
  assert.equal(formatLeft(150), 'about 3 min left');
  assert.equal(formatLeft(7200), 'about 2 h left');
});

test('a kind comes from the last suffix, whatever its case; a dot file has none', () => {
  assert.equal(kindOf(file({ name: 'A.PNG' })), 'image');
  assert.equal(kindOf(file({ name: 'data.csv.gz' })), 'archive');
  assert.equal(kindOf(file({ name: '.png' })), 'file');
  assert.equal(kindOf(file({ name: 'x.png', type: 'folder' })), 'folder');
  assert.equal(kindOf(file({ name: 'x.ipynb', type: 'notebook' })), 'notebook');
});

test('text is shown up to its limit, pictures are, programs and unknown files are not', () => {
  assert.equal(previewOf(file({ name: 'a.py', size: MAX_TEXT_PREVIEW })), 'text');
  assert.equal(previewOf(file({ name: 'a.py', size: MAX_TEXT_PREVIEW + 1 })), 'none');
  assert.equal(previewOf(file({ name: 'README' })), 'text');
  assert.equal(previewOf(file({ name: 'a.parquet' })), 'none');
  assert.equal(previewOf(file({ name: 'a.svg' })), 'image');
  assert.equal(previewOf(file({ name: 'a.exe' })), 'none');
});

test('a rename selects what is before the suffix', () => {
  assert.equal(stemLength('notes.txt', false), 5);
  assert.equal(stemLength('a.b.txt', false), 3);
  assert.equal(stemLength('.profile', false), 8);
  assert.equal(stemLength('v1.2', true), 4);
});

test('a bad name is told before it is sent', () => {
  for (const bad of ['', '   ', 'a/b', 'a\\b', 'a\u0000', '.', '..', 'end.', 'x'.repeat(256), 'ä'.repeat(128)]) {
    assert(nameProblem(bad) !== null, JSON.stringify(bad));
  }
  for (const good of ['a', '.profile', 'Résumé 2.pdf', '数据.csv', 'x'.repeat(255)]) {
    assert.equal(nameProblem(good), null);
  }
});

test('a location is the folder a file lies in', () => {
  assert.equal(locationOf('a.txt', 'My Drive'), 'My Drive');
  assert.equal(locationOf('Data/Raw/a.txt', 'My Drive'), 'Raw');
  assert.equal(locationOf('', 'My Drive'), 'My Drive');
});
