/** Turn the service's JSON into the types of `model`, or say what is wrong with it. */

import type {
  Ancestor,
  Example,
  FileDetails,
  FileEntry,
  FileType,
  Page,
  Person,
  Role,
  Runtime,
} from './model';

/** The service answered something this page does not understand. */
export class DecodeError extends Error {}

type Json = Readonly<Record<string, unknown>>;

const TYPES: readonly string[] = ['notebook', 'folder', 'file'];
const ROLES: readonly string[] = ['viewer', 'commenter', 'editor', 'owner'];

export function object(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new DecodeError(`${what} is not an object.`);
  }
  return value as Json;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new DecodeError(`${what} is not a list.`);
  }
  return value;
}

function text(from: Json, field: string): string {
  const value = from[field];
  if (typeof value !== 'string') {
    throw new DecodeError(`'${field}' is not text.`);
  }
  return value;
}

function textOr(from: Json, field: string, otherwise: string): string {
  const value = from[field];
  return typeof value === 'string' ? value : otherwise;
}

function time(from: Json, field: string): number | null {
  const value = from[field];
  if (typeof value !== 'string') {
    return null;
  }
  const ms = Date.parse(value);
  return Number.isNaN(ms) ? null : ms;
}

function size(from: Json): number | null {
  const value = from['size'];
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : null;
}

export function fileEntry(value: unknown): FileEntry {
  const from = object(value, 'A file');
  const type = text(from, 'type');
  if (!TYPES.includes(type)) {
    throw new DecodeError(`'${type}' is not a type of file.`);
  }
  const role = textOr(from, 'role', 'viewer');
  return {
    id: text(from, 'id'),
    name: text(from, 'name'),
    path: textOr(from, 'path', ''),
    parent: textOr(from, 'parent', ''),
    type: type as FileType,
    size: type === 'folder' ? null : size(from),
    created: time(from, 'created'),
    modified: time(from, 'modified'),
    role: (ROLES.includes(role) ? role : 'viewer') as Role,
    etag: textOr(from, 'etag', ''),
    trashed: time(from, 'trashed'),
  };
}

export function fileDetails(value: unknown): FileDetails {
  const from = object(value, 'A file');
  const ancestors = from['ancestors'] === undefined ? [] : list(from['ancestors'], "'ancestors'");
  return { ...fileEntry(value), ancestors: ancestors.map(ancestor) };
}

function ancestor(value: unknown): Ancestor {
  const from = object(value, 'A folder');
  return { id: text(from, 'id'), name: textOr(from, 'name', '') };
}

export function page(value: unknown): Page {
  const from = object(value, 'A listing');
  const items = list(from['items'], "'items'").map(fileEntry);
  const total = from['total'];
  return { items, total: typeof total === 'number' ? Math.max(total, items.length) : items.length };
}

export function person(value: unknown): Person {
  const from = object(value, 'A user');
  return { name: text(from, 'name'), admin: from['admin'] === true };
}

export function examples(value: unknown): readonly Example[] {
  return list(object(value, 'A listing')['items'], "'items'").map((item) => {
    const from = object(item, 'An example');
    const name = textOr(from, 'name', '');
    return {
      id: text(from, 'id'),
      name,
      title: textOr(from, 'title', name),
      summary: textOr(from, 'summary', ''),
    };
  });
}

export function runtimes(value: unknown): readonly Runtime[] {
  return list(object(value, 'A listing')['items'], "'items'").map((item) => {
    const from = object(item, 'A runtime');
    return {
      id: text(from, 'id'),
      fileId: text(from, 'file_id'),
      fileName: textOr(from, 'file_name', ''),
      state: text(from, 'state'),
    };
  });
}
