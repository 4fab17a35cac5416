// Why no runtime could be had, with the next best thing to do.
import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { ApiError } from '../api';
import { now } from '../clock';
import { page } from '../page';
import { GIVEN_UP, IRuntime } from '../runtime/model';
import { body, element } from '../ui/dialogs';
import { explain, IRefusal } from './refusal';
import { manageSessions } from './sessions';

/** Connect; say why when that is refused. */
export async function connectOrExplain(runtime: IRuntime): Promise<void> {
  try {
    await runtime.connect();
  } catch (error) {
    await tellWhy(error as Error, runtime);
  }
}

/** Open the person's usage in a tab of its own. */
export function viewUsage(): void {
  window.open(`${page.controlUrl}usage`, '_blank');
}

let shown: Promise<void> | null = null;

/** Show a dialog for a refusal or a failure: one at a time, however many cells waited for the runtime. */
export function tellWhy(error: Error, runtime: IRuntime): Promise<void> {
  if (error instanceof ApiError && error.code === GIVEN_UP) {
    return Promise.resolve(); // the person did that
  }
  shown ??= show(error, runtime).finally(() => {
    shown = null;
  });
  return shown;
}

async function show(error: Error, runtime: IRuntime): Promise<void> {
  const refused = error instanceof ApiError && [403, 409].includes(error.status);
  if (!refused) {
    await showErrorMessage('No runtime', error.message);
    return;
  }
  const refusal = { ...error.details, code: error.code, message: error.message } as IRefusal;
  const words = explain(refusal, now());
  const parts = [element('p', words.sentence)];
  if (words.facts.length) {
    const list = element('dl', '', 'mc-facts');
    for (const [name, value] of words.facts) {
      list.append(element('dt', name), element('dd', value));
    }
    parts.push(list);
  }
  if (words.hint) {
    parts.push(element('p', words.hint, 'mc-soft'));
  }
  if (words.usage) {
    const link = element('a', 'View usage', 'mc-link') as HTMLAnchorElement;
    link.href = `${page.controlUrl}usage`;
    link.target = '_blank';
    parts.push(link);
  }
  const buttons = words.action
    ? [Dialog.cancelButton(), Dialog.okButton({ label: words.action })]
    : [Dialog.okButton({ label: 'Close' })];
  const result = await showDialog({ title: words.title, body: body(parts), buttons });
  if (!result.button.accept || !words.action) {
    return;
  }
  if (refusal.offer?.kind === 'stop') {
    await manageSessions(runtime);
  } else if (refusal.offer?.kind === 'accelerator') {
    runtime.accelerator = refusal.offer.accelerator ?? 'NONE';
    shown = null; // the next refusal is told as well
    await connectOrExplain(runtime);
  }
}
