// google.colab asks the page: `colab_request` on iopub, answered by an `input_reply` whose value is a dict.
import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { NotebookPanel } from '@jupyterlab/notebook';
import { Kernel, KernelMessage } from '@jupyterlab/services';
import { ApiError, control } from '../api';
import { connectOrExplain } from '../limits/dialog';
import { page } from '../page';
import { IRuntime } from '../runtime/model';

type Body = Record<string, unknown>;

interface IRequestMetadata {
  colab_request_type?: string;
  colab_msg_id?: number;
}

/** Answer the requests of cells that this page ran. Others' requests are others' to answer. */
export function answerRequests(panel: NotebookPanel, kernel: Kernel.IKernelConnection, runtime: IRuntime): void {
  kernel.anyMessage.connect((_, args) => {
    const message = args.msg as unknown as KernelMessage.IMessage;
    if (args.direction !== 'recv' || (message.header.msg_type as string) !== 'colab_request') {
      return;
    }
    if ((message.parent_header as { session?: string }).session !== kernel.clientId) {
      return;
    }
    const metadata = message.metadata as IRequestMetadata;
    const body = ((message.content as Body).request ?? {}) as Body;
    void answer(metadata.colab_request_type ?? '', body, panel, runtime).then(
      data => reply(kernel, metadata.colab_msg_id, { data }),
      error => reply(kernel, metadata.colab_msg_id, { error: (error as Error).message })
    );
  });
}

function reply(kernel: Kernel.IKernelConnection, id: number | undefined, result: Body): void {
  if (id !== undefined) {
    const value = { type: 'colab_reply', colab_msg_id: id, ...result } as unknown as string;
    kernel.sendInputReply({ status: 'ok', value } as never, {} as never);
  }
}

async function answer(type: string, body: Body, panel: NotebookPanel, runtime: IRuntime): Promise<unknown> {
  switch (type) {
    case 'request_auth':
      return authorize(body, runtime);
    case 'unmount_drive':
      await control(`runtimes/${runtime.model?.id}/mounts?path=${encodeURIComponent(mountpoint(body))}`, 'DELETE');
      return {};
    case 'get_ipynb': {
      const ipynb = panel.context.model.toJSON() as unknown as { metadata: Body };
      const colab = (ipynb.metadata.colab ?? {}) as Body;
      ipynb.metadata = { ...ipynb.metadata, colab: { ...colab, name: colab.name ?? page.file?.name } };
      return { ipynb };
    }
    case 'cell_display_stdin':
    case 'cell_update_stdin':
    case 'cell_remove_stdin':
      return {};
    default:
      throw new Error(`This page can not answer '${type}' requests.`);
  }
}

function mountpoint(body: Body): string {
  return typeof body.mountpoint === 'string' ? body.mountpoint : '/content/drive';
}

/** Ask the person, then mount: the call to control is the consent. */
async function authorize(body: Body, runtime: IRuntime): Promise<unknown> {
  if (body.authType !== 'dfs_ephemeral') {
    throw new Error('This kind of sign-in is not available here.');
  }
  const result = await showDialog({
    title: 'Permit this notebook to access your Drive files?',
    body:
      'The notebook asks for access to your Drive. Code in it will be able to read, change and delete your files while ' +
      'the runtime lives. Make sure you know what the code does before you agree.',
    buttons: [Dialog.cancelButton({ label: 'No thanks' }), Dialog.okButton({ label: 'Connect to Drive' })],
    hasClose: false
  });
  if (!result.button.accept) {
    throw new Error('Error: credential propagation was unsuccessful: cancelled');
  }
  try {
    await control(`runtimes/${runtime.model?.id}/mounts`, 'POST', { path: mountpoint(body), readonly: body.readonly === true });
  } catch (error) {
    if (error instanceof ApiError && error.code === 'restart_needed') {
      await offerRestart(runtime);
    }
    throw new Error(error instanceof ApiError ? error.message : String(error));
  }
  return {};
}

/** Where a runtime has its Drive from its start: say so, and restart when the person wants it. The cell that asked is to be run again. */
async function offerRestart(runtime: IRuntime): Promise<void> {
  const result = await showDialog({
    title: 'Restart the runtime to connect to Drive?',
    body:
      'On this service a Drive is connected when a runtime starts. From now on the runtimes of this notebook start with your Drive, ' +
      'until drive.flush_and_unmount() is run. A restart ends this runtime: its variables and its files in /content are lost; ' +
      'the notebook and your Drive are not.',
    buttons: [Dialog.cancelButton({ label: 'Later' }), Dialog.warnButton({ label: 'Restart and connect' })],
    hasClose: false
  });
  if (result.button.accept) {
    void runtime.end().then(
      () => connectOrExplain(runtime),
      error => showErrorMessage('The runtime could not be ended', (error as Error).message)
    );
  }
}
