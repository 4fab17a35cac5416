/** What a person picked or dropped: files, each with the folders it lies in. */

export interface Picked {
  /** Folders from the outside in, empty for a single file. */
  readonly folders: readonly string[];
  readonly file: File;
}

/** Files of an `<input type=file>`, with `webkitdirectory` or without. */
export function fromInput(files: Iterable<File>): readonly Picked[] {
  return [...files].map((file) => ({ folders: file.webkitRelativePath.split('/').slice(0, -1), file }));
}

/** Whether a drag comes from outside the page. */
export function bringsFiles(transfer: DataTransfer | null): boolean {
  return transfer !== null && transfer.types.includes('Files');
}

/** Files of a drop, folders walked through. The browser forgets the drop after the event, so call this inside of it. */
export async function fromDrop(transfer: DataTransfer): Promise<readonly Picked[]> {
  const entries: FileSystemEntry[] = [];
  const loose: File[] = [];
  for (const item of transfer.items) {
    if (item.kind !== 'file') {
      continue;
    }
    const entry = item.webkitGetAsEntry();
    const file = entry === null ? item.getAsFile() : null;
    if (entry !== null) {
      entries.push(entry);
    } else if (file !== null) {
      loose.push(file);
    }
  }
  const walked = await Promise.all(entries.map((entry) => walk(entry, [])));
  return [...loose.map((file) => ({ folders: [], file })), ...walked.flat()];
}

async function walk(entry: FileSystemEntry, folders: readonly string[]): Promise<readonly Picked[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => {
      (entry as FileSystemFileEntry).file(resolve, reject);
    });
    return [{ folders, file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const found: Picked[] = [];
  for (;;) {
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => {
      reader.readEntries(resolve, reject);
    });
    if (batch.length === 0) {
      return found;
    }
    for (const child of batch) {
      found.push(...(await walk(child, [...folders, entry.name])));
    }
  }
}
