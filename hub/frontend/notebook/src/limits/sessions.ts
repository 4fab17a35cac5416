// Manage sessions: what runs, until when, and why the last ones ended.
import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { control, IResources, IRuntimeModel } from '../api';
import { now } from '../clock';
import { IRuntime } from '../runtime/model';
import { ago, size } from '../runtime/state';
import { body, element } from '../ui/dialogs';
import { left, stopped } from './words';

const ENDED_SHOWN = 5;
const STATES: Record<string, string> = { queued: 'Waiting', starting: 'Starting', ready: 'Connected', stopping: 'Ending' };

function until(iso: string | null, words: string): string[] {
  return iso ? [`${words} ${left((new Date(iso).getTime() - now().getTime()) / 1000)}`] : [];
}

function named(item: IRuntimeModel): HTMLElement {
  const link = element('a', item.file_name, 'mc-session-name') as HTMLAnchorElement;
  link.href = `/d/${encodeURIComponent(item.file_id)}`;
  link.target = '_blank';
  return link;
}

/** Return the lines of a live session. */
function facts(item: IRuntimeModel): HTMLElement[] {
  const hardware = item.accelerator === 'NONE' ? 'CPU' : `${item.accelerator} GPU`;
  return [
    element('div', [STATES[item.state] ?? item.state, hardware, `last used ${ago(item.last_activity, now().getTime())}`].join(' · '), 'mc-soft'),
    element('div', [...until(item.idle_deadline, 'Reset if idle in'), ...until(item.deadline, 'longest life ends in')].join(' · '), 'mc-soft')
  ];
}

/** List the person's runtimes, with a button to end each, and those that ended last. */
export async function manageSessions(runtime: IRuntime): Promise<void> {
  const list = element('div');
  const draw = async () => {
    const [{ items }, { items: all }] = await Promise.all([
      control<{ items: IRuntimeModel[] }>('runtimes'),
      control<{ items: IRuntimeModel[] }>('runtimes?all=true&limit=50')
    ]);
    const ended = all.filter(item => item.state === 'ended' || item.state === 'failed').slice(0, ENDED_SHOWN);
    list.replaceChildren();
    if (!items.length) {
      list.append(element('p', 'No active sessions. Run a cell to start one.'));
    }
    for (const item of items) {
      list.append(row(item));
    }
    if (ended.length) {
      list.append(element('h4', 'Recently ended', 'mc-sub'));
    }
    for (const item of ended) {
      const line = element('div', '', 'mc-session mc-past');
      const words = element('div');
      const why = element('div', stopped(item.ended, item.reason?.message ?? '', now()), 'mc-soft');
      why.title = item.reason?.code ?? '';
      words.append(named(item), why);
      line.append(words);
      list.append(line);
    }
  };
  const row = (item: IRuntimeModel): HTMLElement => {
    const line = element('div', '', 'mc-session');
    const words = element('div');
    const current = item.id === runtime.model?.id;
    const name = element('div');
    name.append(named(item), element('span', current ? ' (current session)' : '', 'mc-soft'));
    const [first, second] = facts(item);
    words.append(name, first, second);
    void control<IResources>(`runtimes/${item.id}/resources`)
      .then(r => (first.textContent += ` · ${size(r.memory.used_bytes)} RAM`))
      .catch(() => undefined);
    const stop = element('button', 'Terminate', 'jp-mod-styled jp-mod-warn');
    stop.onclick = async () => {
      stop.setAttribute('disabled', '');
      try {
        await (current ? runtime.end() : control(`runtimes/${item.id}`, 'DELETE'));
        await draw();
      } catch (error) {
        void showErrorMessage('The session could not be ended', (error as Error).message);
      }
    };
    line.append(words, stop);
    return line;
  };
  await draw();
  await showDialog({ title: 'Active sessions', body: body([list]), buttons: [Dialog.okButton({ label: 'Close' })] });
}
