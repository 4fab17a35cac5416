/** What the documents service says about files, people and runtimes. */

export type FileType = 'notebook' | 'folder' | 'file';
export type Role = 'viewer' | 'commenter' | 'editor' | 'owner';

/** A file or folder. Times are milliseconds since 1970; `size` is bytes, null for a folder. */
export interface FileEntry {
  readonly id: string;
  readonly name: string;
  readonly path: string;
  readonly parent: string;
  readonly type: FileType;
  readonly size: number | null;
  readonly created: number | null;
  readonly modified: number | null;
  readonly role: Role;
  readonly etag: string;
  readonly trashed: number | null;
}

/** A folder on the way from My Drive to a file. */
export interface Ancestor {
  readonly id: string;
  readonly name: string;
}

export interface FileDetails extends FileEntry {
  readonly ancestors: readonly Ancestor[];
}

export interface Page {
  readonly items: readonly FileEntry[];
  readonly total: number;
}

export interface Person {
  readonly name: string;
  readonly admin: boolean;
}

export interface Example {
  readonly id: string;
  readonly name: string;
  readonly title: string;
  readonly summary: string;
}

/** A live machine of the signed-in user. */
export interface Runtime {
  readonly id: string;
  readonly fileId: string;
  readonly fileName: string;
  readonly state: string;
}

/** The id of My Drive itself. */
export const ROOT = 'root';
export const ROOT_NAME = 'My Drive';

/** Whether the person may change the file's name, place or existence. */
export function mayEdit(entry: FileEntry): boolean {
  return entry.role === 'editor' || entry.role === 'owner';
}
