/** Look into a file that is not a notebook: its text, its picture, or what is known about it. */

import { api, downloadUrl, isAbort, sentence } from '../api';
import { formatFullTime, formatSize } from '../format';
import { imageType, kindLabel, kindOf, previewOf } from '../kinds';
import type { FileEntry } from '../model';
import { Dialog } from './dialog';
import { fill, h } from './dom';
import { icon, kindIcon } from './icons';

export function showPreview(entry: FileEntry): void {
  const abort = new AbortController();
  let url: string | null = null;
  const dialog = new Dialog(entry.name, 'preview', () => {
    abort.abort();
    if (url !== null) {
      URL.revokeObjectURL(url);
    }
  });
  const download = h('a', { class: 'button main', href: downloadUrl(entry.id), download: entry.name }, icon('download'), 'Download');
  const close = dialog.button('Close', 'quiet', () => {
    dialog.close();
  });
  fill(dialog.footer, h('span', { class: 'preview-facts' }, facts(entry)), close, download);
  dialog.show();
  close.focus();
  const kind = previewOf(entry);
  if (kind === 'none') {
    fill(dialog.body, nothingToShow(entry, 'This kind of file can’t be shown here. Download it to open it.'));
    return;
  }
  fill(dialog.body, h('div', { class: 'loading', role: 'status', 'aria-label': 'Loading' }, h('span', { class: 'spinner' })));
  const show = async (): Promise<void> => {
    const blob = await api.content(entry.id, abort.signal);
    if (kind === 'text') {
      const text = await blob.text();
      fill(
        dialog.body,
        text.includes('\u0000')
          ? nothingToShow(entry, 'This file is not text. Download it to open it.')
          : h('pre', { class: 'preview-text', tabindex: 0 }, text === '' ? 'This file is empty.' : text),
      );
      return;
    }
    url = URL.createObjectURL(new Blob([blob], { type: imageType(entry.name) ?? 'image/png' }));
    const image = h('img', { class: 'preview-image', src: url, alt: entry.name });
    image.addEventListener('error', () => {
      fill(dialog.body, nothingToShow(entry, 'This picture can’t be shown. Its file may be damaged.'));
    });
    fill(dialog.body, image);
  };
  show().catch((error: unknown) => {
    if (!isAbort(error)) {
      fill(dialog.body, nothingToShow(entry, sentence(error)));
    }
  });
}

function nothingToShow(entry: FileEntry, text: string): HTMLElement {
  const picture = kindIcon(kindOf(entry));
  picture.classList.add('state-picture');
  return h('div', { class: 'state' }, picture, h('p', {}, text));
}

function facts(entry: FileEntry): string {
  const parts = [kindLabel(kindOf(entry)), formatSize(entry.size), formatFullTime(entry.modified)];
  return parts.filter((part) => part !== '').join(' · ');
}
