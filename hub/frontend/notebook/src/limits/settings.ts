// Tools > Settings: what is kept when a runtime ends, and whether this computer tells it before.
import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { control, IQuota } from '../api';
import { size } from '../runtime/state';
import { body, element } from '../ui/dialogs';

function choice(label: string, detail: string, checked: boolean): [HTMLElement, HTMLInputElement] {
  const line = element('label', '', 'mc-choice mc-setting');
  const box = document.createElement('input');
  box.type = 'checkbox';
  box.checked = checked;
  const words = element('span');
  words.append(element('span', label), element('span', detail, 'mc-soft'));
  line.append(box, words);
  return [line, box];
}

/** Return what a browser that was asked already says of notifications. */
function permission(): string {
  return 'Notification' in window ? window.Notification.permission : 'denied';
}

/** Show the settings; each is kept as soon as it is changed. */
export async function settings(): Promise<void> {
  const quota = await control<IQuota>('quota');
  const off = quota.snapshot_max_bytes === 0;
  const [keep, keepBox] = choice(
    'Keep /content when a runtime ends',
    off ? 'Files of runtimes are not kept on this service.' : `Up to ${size(quota.snapshot_max_bytes)}, in the folder “Runtime snapshots” of your Drive. You can restore it on the next runtime.`,
    quota.keep_content && !off
  );
  keepBox.disabled = off;
  keepBox.onchange = async () => {
    try {
      keepBox.checked = (await control<{ keep_content: boolean }>('quota/keep_content', 'PUT', { keep: keepBox.checked })).keep_content;
    } catch (error) {
      keepBox.checked = !keepBox.checked;
      void showErrorMessage('The setting was not changed', (error as Error).message);
    }
  };
  const denied = permission() === 'denied';
  const [notify, notifyBox] = choice(
    'Notify me on this computer before a runtime ends',
    denied ? 'Your browser does not allow notifications for this site.' : permission() === 'granted' ? 'Allowed in your browser.' : 'Your browser will ask you once.',
    permission() === 'granted'
  );
  notifyBox.disabled = permission() !== 'default';
  notifyBox.onchange = async () => {
    notifyBox.checked = (await window.Notification.requestPermission()) === 'granted';
    notifyBox.disabled = permission() !== 'default';
  };
  await showDialog({ title: 'Settings', body: body([keep, notify]), buttons: [Dialog.okButton({ label: 'Close' })] });
}
