/** Values for tests. */

import type { FileEntry } from '../src/model';

export function file(change: Partial<FileEntry> = {}): FileEntry {
  return {
    id: change.name ?? 'id',
    name: 'a.txt',
    path: change.name ?? 'a.txt',
    parent: 'root',
    type: 'file',
    size: 1,
    created: 0,
    modified: 0,
    role: 'owner',
    etag: '"v1"',
    trashed: null,
    ...change,
  };
}
