/** What can be done with the selected files in a view: one list for toolbar, context menu and keys. */

import { mayEdit, type FileEntry } from './model';
import type { View } from './routes';

export type CommandId =
  | 'open'
  | 'open-in-tab'
  | 'rename'
  | 'move'
  | 'copy'
  | 'download'
  | 'copy-link'
  | 'show-in-folder'
  | 'trash'
  | 'restore'
  | 'delete-forever';

export interface Command {
  readonly id: CommandId;
  readonly label: string;
  readonly icon: string;
  readonly keys: string;
  /** A line is drawn above it in menus. */
  readonly separated: boolean;
}

function command(id: CommandId, label: string, icon: string, keys = '', separated = false): Command {
  return { id, label, icon, keys, separated };
}

const OPEN = command('open', 'Open', 'open', 'Enter');
const OPEN_IN_TAB = command('open-in-tab', 'Open in new tab', 'tab', 'Ctrl+Enter');
const DOWNLOAD = command('download', 'Download', 'download', '', true);
const RENAME = command('rename', 'Rename', 'rename', 'F2');
const MOVE = command('move', 'Move to…', 'move');
const COPY = command('copy', 'Make a copy', 'copy');
const COPY_LINK = command('copy-link', 'Copy link', 'link', '', true);
const SHOW = command('show-in-folder', 'Show in folder', 'folder-open');
const TRASH = command('trash', 'Move to trash', 'trash', 'Del', true);
const RESTORE = command('restore', 'Restore', 'restore');
const DELETE = command('delete-forever', 'Delete forever', 'trash', 'Del', true);

/** The commands for these files, in the order of menus. */
export function commandsFor(view: View, files: readonly FileEntry[]): readonly Command[] {
  if (files.length === 0) {
    return [];
  }
  if (view.kind === 'trash') {
    return [RESTORE, DELETE];
  }
  const one = files.length === 1;
  const folders = files.some((file) => file.type === 'folder');
  const editable = files.every(mayEdit);
  return [
    ...(one ? [OPEN, OPEN_IN_TAB] : []),
    ...(folders ? [] : [DOWNLOAD]),
    ...(one && editable ? [RENAME] : []),
    ...(editable ? [MOVE] : []),
    COPY,
    ...(one ? [COPY_LINK] : []),
    ...(one && (view.kind === 'search' || view.kind === 'recent') ? [SHOW] : []),
    ...(editable ? [TRASH] : []),
  ];
}
