// Dialogs: sessions, runtime type, resources, about, shortcuts.
import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';
import { control, IResources, IRuntimeModel } from '../api';
import { IRuntime } from '../runtime/model';
import { ago, size } from '../runtime/state';

function body(html: HTMLElement[]): Widget {
  const widget = new Widget();
  widget.addClass('mc-dialog');
  widget.node.append(...html);
  return widget;
}

function element(tag: string, text = '', className = ''): HTMLElement {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

/** List the person's runtimes, with a button to end each. */
export async function manageSessions(runtime: IRuntime): Promise<void> {
  const list = element('div');
  const draw = async () => {
    const { items } = await control<{ items: IRuntimeModel[] }>('runtimes');
    list.replaceChildren();
    if (!items.length) {
      list.append(element('p', 'No active sessions. Run a cell to start one.'));
    }
    for (const item of items) {
      const row = element('div', '', 'mc-session');
      const words = element('div');
      const current = item.id === runtime.model?.id;
      words.append(element('strong', item.file_name + (current ? ' (current session)' : '')));
      const facts = element('div', `${item.state} · last used ${ago(item.last_activity, Date.now())}`, 'mc-soft');
      words.append(facts);
      void control<IResources>(`runtimes/${item.id}/resources`)
        .then(r => (facts.textContent += ` · ${size(r.memory.used_bytes)} RAM`))
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
      row.append(words, stop);
      list.append(row);
    }
  };
  await draw();
  await showDialog({ title: 'Active sessions', body: body([list]), buttons: [Dialog.okButton({ label: 'Close' })] });
}

interface IFlavor {
  name: string;
  title: string;
  available: boolean;
  reason: string | null;
}

/** Choose the accelerator; a change ends the runtime that is there. */
export async function changeRuntimeType(runtime: IRuntime, remember: (accelerator: string) => void): Promise<void> {
  const { items } = await control<{ items: IFlavor[] }>('accelerators');
  const form = element('form');
  form.append(element('p', 'Runtime type', 'mc-soft'), element('p', 'Python 3'), element('p', 'Hardware accelerator', 'mc-soft'));
  for (const item of items) {
    const label = element('label', '', 'mc-choice');
    const input = document.createElement('input');
    input.type = 'radio';
    input.name = 'accelerator';
    input.value = item.name;
    input.checked = item.name === runtime.accelerator;
    input.disabled = !item.available;
    label.append(input, element('span', item.name === 'NONE' ? 'CPU' : `${item.name} GPU`));
    if (item.reason) {
      label.append(element('span', item.reason, 'mc-soft'));
    }
    form.append(label);
  }
  if (items.length === 1) {
    form.append(element('p', 'This machine has no GPU.', 'mc-soft'));
  }
  const result = await showDialog({
    title: 'Change runtime type',
    body: body([form]),
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Save' })]
  });
  const chosen = form.querySelector<HTMLInputElement>('input:checked')?.value;
  if (!result.button.accept || !chosen || chosen === runtime.accelerator) {
    return;
  }
  if (runtime.state === 'connected') {
    const sure = await showDialog({
      title: 'Disconnect and delete runtime',
      body: 'Changing the runtime type ends the current runtime. Its variables and files in /content are lost; the notebook and your Drive are not.',
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'OK' })]
    });
    if (!sure.button.accept) {
      return;
    }
    await runtime.end();
  }
  runtime.accelerator = chosen;
  remember(chosen);
}

export async function viewResources(runtime: IRuntime): Promise<void> {
  const rows: HTMLElement[] = [];
  const line = (name: string, value: string) => {
    const row = element('div', '', 'mc-session');
    row.append(element('span', name), element('span', value));
    rows.push(row);
  };
  if (runtime.state === 'connected' && runtime.model) {
    const r = await control<IResources>(`runtimes/${runtime.model.id}/resources`);
    line('System RAM', `${size(r.memory.used_bytes)} of ${r.memory.limit_bytes ? size(r.memory.limit_bytes) : 'unlimited'}`);
    line('Disk', `${size(r.disk.used_bytes)} used, ${size(r.disk.free_bytes)} free`);
    line('Accelerator', runtime.model.accelerator === 'NONE' ? 'CPU' : runtime.model.accelerator);
    if (runtime.model.deadline) {
      line('Ends at the latest', new Date(runtime.model.deadline).toLocaleString());
    }
    line('Runtime', runtime.model.id);
  } else {
    rows.push(element('p', 'Not connected. Run a cell, or press Connect.'));
  }
  await showDialog({ title: 'Resources', body: body(rows), buttons: [Dialog.okButton({ label: 'Close' })] });
}

export async function about(): Promise<void> {
  await showDialog({
    title: 'About minicolab',
    body: body([
      element('p', 'A self-hosted Colab. Notebooks live in your Drive and run on a machine of their own.'),
      element('p', 'Built on JupyterHub, Jupyter Server, Notebook and JupyterLab. BSD 3-Clause licence.', 'mc-soft')
    ]),
    buttons: [Dialog.okButton({ label: 'Close' })]
  });
}
