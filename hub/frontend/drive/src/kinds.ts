/** What a file is shown as, and whether the page can show what is inside, by its name. */

import type { FileEntry } from './model';

export type Kind =
  | 'folder'
  | 'notebook'
  | 'image'
  | 'table'
  | 'code'
  | 'text'
  | 'pdf'
  | 'archive'
  | 'audio'
  | 'video'
  | 'model'
  | 'file';

export type Preview = 'text' | 'image' | 'none';

const BY_SUFFIX: ReadonlyMap<string, Kind> = new Map(
  (
    [
      ['image', 'png jpg jpeg gif webp svg bmp ico avif'],
      ['table', 'csv tsv parquet xlsx xls ods'],
      ['code', 'py js ts tsx jsx json jsonl yaml yml toml ini cfg sh bash r jl c h cc cpp hpp cu rs go java html htm css xml sql tex diff patch'],
      ['text', 'txt md rst log text'],
      ['pdf', 'pdf'],
      ['archive', 'zip tar gz tgz bz2 xz zst 7z rar whl'],
      ['audio', 'wav mp3 ogg flac m4a'],
      ['video', 'mp4 webm mov mkv avi'],
      ['model', 'h5 keras pt pth ckpt onnx safetensors tflite npy npz pkl joblib'],
    ] as const
  ).flatMap(([kind, suffixes]) => suffixes.split(' ').map((suffix) => [suffix, kind] as const)),
);

/** Suffix in lower case without its dot; empty when there is none. */
export function suffixOf(name: string): string {
  const dot = name.lastIndexOf('.');
  return dot > 0 ? name.slice(dot + 1).toLowerCase() : '';
}

export function kindOf(entry: Pick<FileEntry, 'name' | 'type'>): Kind {
  return entry.type === 'file' ? (BY_SUFFIX.get(suffixOf(entry.name)) ?? 'file') : entry.type;
}

const LABELS: Readonly<Record<Kind, string>> = {
  folder: 'Folder',
  notebook: 'Notebook',
  image: 'Image',
  table: 'Table',
  code: 'Code',
  text: 'Text',
  pdf: 'PDF',
  archive: 'Archive',
  audio: 'Audio',
  video: 'Video',
  model: 'Data',
  file: 'File',
};

export function kindLabel(kind: Kind): string {
  return LABELS[kind];
}

/** Larger text is downloaded instead, in bytes. */
export const MAX_TEXT_PREVIEW = 2 * 1024 * 1024;
/** Larger pictures are downloaded instead, in bytes. */
export const MAX_IMAGE_PREVIEW = 50 * 1024 * 1024;

const IMAGE_TYPES: ReadonlyMap<string, string> = new Map([
  ['png', 'image/png'],
  ['jpg', 'image/jpeg'],
  ['jpeg', 'image/jpeg'],
  ['gif', 'image/gif'],
  ['webp', 'image/webp'],
  ['svg', 'image/svg+xml'],
  ['bmp', 'image/bmp'],
  ['ico', 'image/x-icon'],
  ['avif', 'image/avif'],
]);

/** The media type of a picture's name. */
export function imageType(name: string): string | null {
  return IMAGE_TYPES.get(suffixOf(name)) ?? null;
}

export function previewOf(entry: FileEntry): Preview {
  const kind = kindOf(entry);
  const size = entry.size ?? 0;
  if (kind === 'image') {
    return size <= MAX_IMAGE_PREVIEW ? 'image' : 'none';
  }
  const readable = kind === 'code' || kind === 'text' || ['csv', 'tsv', ''].includes(suffixOf(entry.name));
  return entry.type === 'file' && readable && size <= MAX_TEXT_PREVIEW ? 'text' : 'none';
}
