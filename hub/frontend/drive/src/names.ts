/** File names: what a rename selects, what is wrong with a name, where a file lies. The service has the last word. */

/** Length of the part before the suffix, which is what a rename selects. */
export function stemLength(name: string, isFolder: boolean): number {
  const dot = name.lastIndexOf('.');
  return isFolder || dot <= 0 ? name.length : dot;
}

/** A sentence when the name can not be used, null when it may be. */
export function nameProblem(name: string): string | null {
  if (name.trim() === '') {
    return 'Give it a name.';
  }
  if (/[/\\]/.test(name)) {
    return 'A name can’t contain a slash or a backslash.';
  }
  if (/[\u0000-\u001f\u007f]/.test(name)) {
    return 'A name can’t contain control characters.';
  }
  if (name === '.' || name === '..' || name.endsWith('.')) {
    return 'A name can’t end with a dot.';
  }
  if (new TextEncoder().encode(name).length > 255) {
    return 'The name is too long. 255 bytes is the limit.';
  }
  return null;
}

/** The folder part of a path, as the Location column shows it. */
export function locationOf(path: string, root: string): string {
  const parts = path.split('/').filter((part) => part !== '');
  return parts.length < 2 ? root : (parts[parts.length - 2] ?? root);
}
