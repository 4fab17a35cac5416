// Give the notebook its kernel on every connect: the one it had, else the one another page uses, else a new one. And show what
// the kernel is doing already: a page that comes late marks the running cell and collects its outputs.
import { CodeCell } from '@jupyterlab/cells';
import { IOutput } from '@jupyterlab/nbformat';
import { NotebookPanel } from '@jupyterlab/notebook';
import { Kernel, KernelMessage, Session } from '@jupyterlab/services';
import { page } from '../page';
import { RuntimeSessionManager } from './managers';
import { IRuntime } from './model';

interface IExecution {
  msg_id: string;
  cell_id: string;
  session: string;
  state: 'queued' | 'running' | 'done';
  execution_count: number | null;
  outputs: IOutput[];
}

/** Attach `panel` to a kernel of the connected runtime. */
export async function attach(panel: NotebookPanel, sessions: Session.IManager, runtime: IRuntime): Promise<void> {
  const context = panel.sessionContext;
  await (sessions as RuntimeSessionManager).sync();
  const running = [...sessions.running()].filter(m => m.kernel && m.type === 'notebook');
  const mine = running.find(m => page.file && m.path.startsWith(`${page.file.id}/`)) ?? running[0];
  if (context.session?.kernel && mine?.kernel?.id === context.session.kernel.id) {
    return;
  }
  await context.changeKernel(mine?.kernel ? { id: mine.kernel.id } : { name: 'python3' });
  if (mine?.kernel && context.session?.kernel) {
    await catchUp(panel, context.session.kernel, runtime);
  }
}

/** Send the cell's id with every request, as google.colab expects of a page. */
export function markRequests(kernel: Kernel.IKernelConnection): void {
  const marked = kernel as Kernel.IKernelConnection & { minicolabMarked?: boolean };
  if (marked.minicolabMarked) {
    return;
  }
  marked.minicolabMarked = true;
  const plain = kernel.requestExecute.bind(kernel);
  kernel.requestExecute = (content, disposeOnDone, metadata) =>
    plain(content, disposeOnDone, { ...metadata, colab: { cell_id: (metadata?.cellId as string) ?? '', supports: ['request_auth', 'unmount_drive', 'get_ipynb'] } } as never);
}

/** Show the cells that run or wait, with all their outputs so far, and go on collecting. */
async function catchUp(panel: NotebookPanel, kernel: Kernel.IKernelConnection, runtime: IRuntime): Promise<void> {
  const early: KernelMessage.IIOPubMessage[] = [];
  const gather = (_: unknown, message: KernelMessage.IIOPubMessage) => early.push(message);
  kernel.iopubMessage.connect(gather);
  let executions: IExecution[] = [];
  try {
    const reply = await runtime.fetch(`minicolab/executions?kernel_id=${kernel.id}`);
    executions = reply.ok ? ((await reply.json()) as { executions: IExecution[] }).executions : [];
  } finally {
    kernel.iopubMessage.disconnect(gather);
  }
  for (const execution of executions) {
    if (execution.state === 'done' || execution.session === kernel.clientId) {
      continue;
    }
    const cell = panel.content.widgets.find(w => w.model.id === execution.cell_id);
    if (cell instanceof CodeCell) {
      follow(cell, kernel, execution, early);
    }
  }
}

function follow(cell: CodeCell, kernel: Kernel.IKernelConnection, execution: IExecution, early: KernelMessage.IIOPubMessage[]): void {
  const outputs = cell.outputArea.model;
  outputs.fromJSON(execution.outputs);
  cell.model.executionState = 'running';
  cell.setPrompt('*');
  let clearNext = false;
  const take = (message: KernelMessage.IIOPubMessage): boolean => {
    const content = message.content as Record<string, unknown>;
    switch (message.header.msg_type) {
      case 'execute_result':
      case 'display_data':
      case 'stream':
      case 'error':
        if (clearNext) {
          outputs.clear();
          clearNext = false;
        }
        outputs.add({ ...content, output_type: message.header.msg_type } as unknown as IOutput);
        break;
      case 'clear_output':
        if (content.wait) {
          clearNext = true;
        } else {
          outputs.clear();
        }
        break;
      case 'execute_input':
        execution.execution_count = content.execution_count as number;
        break;
      case 'status':
        if (content.execution_state === 'idle') {
          cell.model.executionCount = execution.execution_count;
          cell.model.executionState = 'idle';
          return true;
        }
        break;
    }
    return false;
  };
  const mine = (message: KernelMessage.IIOPubMessage) => (message.parent_header as { msg_id?: string }).msg_id === execution.msg_id;
  const listen = (_: unknown, message: KernelMessage.IIOPubMessage) => {
    if (mine(message) && take(message)) {
      kernel.iopubMessage.disconnect(listen);
    }
  };
  // Messages that came while we asked are in the answer already, but for the end.
  if (early.some(m => mine(m) && m.header.msg_type === 'status' && take(m))) {
    return;
  }
  kernel.iopubMessage.connect(listen);
}
