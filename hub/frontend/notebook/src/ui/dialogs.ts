// Dialogs: runtime type, resources, about.
import { Dialog, showDialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';
import { control, IResources } from '../api';
import { now } from '../clock';
import { when } from '../limits/words';
import { IRuntime } from '../runtime/model';
import { size } from '../runtime/state';

/** Return what a dialog shows. */
export function body(html: HTMLElement[]): Widget {
  const widget = new Widget();
  widget.addClass('mc-dialog');
  widget.node.append(...html);
  return widget;
}

/** Make an element with text. */
export function element(tag: string, text = '', className = ''): HTMLElement {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

interface IFlavor {
  name: string;
  title: string;
  available: boolean;
  reason: string | null;
}

/** Choose the accelerator; a change ends the runtime that is there. Return whether another is to take its place. */
export async function changeRuntimeType(runtime: IRuntime, remember: (accelerator: string) => void): Promise<boolean> {
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
    label.append(input, element('span', item.title));
    if (item.reason) {
      label.append(element('span', item.reason, 'mc-soft'));
    }
    form.append(label);
  }
  if (items.length === 1) {
    form.append(element('p', 'There is no GPU or TPU here.', 'mc-soft'));
  }
  const result = await showDialog({
    title: 'Change runtime type',
    body: body([form]),
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Save' })]
  });
  const chosen = form.querySelector<HTMLInputElement>('input:checked')?.value;
  if (!result.button.accept || !chosen || chosen === runtime.accelerator) {
    return false;
  }
  const had = ['connecting', 'connected'].includes(runtime.state);
  if (runtime.state === 'connecting') {
    await runtime.end(); // it has nothing to lose yet
  } else if (runtime.state === 'connected') {
    const sure = await showDialog({
      title: 'Disconnect and delete runtime',
      body: 'Changing the runtime type ends the current runtime. Its variables and files in /content are lost; the notebook and your Drive are not.',
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'OK' })]
    });
    if (!sure.button.accept) {
      return false;
    }
    await runtime.end();
  }
  runtime.accelerator = chosen;
  remember(chosen);
  return had;
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
      line('Ends at the latest', when(runtime.model.deadline, now()));
    }
    if (runtime.model.idle_deadline) {
      line('Is reset when idle until', when(runtime.model.idle_deadline, now()));
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
