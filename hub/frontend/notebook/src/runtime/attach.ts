// Give the notebook its kernel on every connect: the one it had, else the one another page uses, else a new one. And show what
// the kernel is doing already: a page that comes late marks the running cell and collects its outputs.
import { CodeCell } from '@jupyterlab/cells';
import { IOutput } from '@jupyterlab/nbformat';
import { NotebookPanel } from '@jupyterlab/notebook';
import { Kernel, KernelMessage, Session } from '@jupyterlab/services';
import { JSONExt, JSONValue } from '@lumino/coreutils';
import { page } from '../page';
import { RuntimeSessionManager } from './managers';
import { IRuntime } from './model';
import { Marks, marksOf } from './writer';

/** How often the record is looked at while a cell is followed. */
const LOOK_MILLISECONDS = 2000;

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

/** Send the cell's id with every request, as google.colab expects of a page; `sent` is told which request runs which cell. */
export function markRequests(kernel: Kernel.IKernelConnection, sent: (cell: string, run: string) => void): void {
  const marked = kernel as Kernel.IKernelConnection & { minicolabMarked?: boolean };
  if (marked.minicolabMarked) {
    return;
  }
  marked.minicolabMarked = true;
  const plain = kernel.requestExecute.bind(kernel);
  kernel.requestExecute = (content, disposeOnDone, metadata) => {
    const cell = (metadata?.cellId as string) ?? '';
    const colab = { cell_id: cell, supports: ['request_auth', 'unmount_drive', 'get_ipynb'] };
    const future = plain(content, disposeOnDone, { ...metadata, colab } as never);
    if (cell) {
      sent(cell, future.msg.header.msg_id);
    }
    return future;
  };
}

/** Show the cells that run or wait, with all their outputs so far, and go on collecting where nobody else does. */
async function catchUp(panel: NotebookPanel, kernel: Kernel.IKernelConnection, runtime: IRuntime): Promise<void> {
  const early: KernelMessage.IIOPubMessage[] = [];
  const gather = (_: unknown, message: KernelMessage.IIOPubMessage) => early.push(message);
  kernel.iopubMessage.connect(gather);
  let executions: IExecution[] | null = null;
  try {
    executions = await recorded(kernel, runtime);
  } finally {
    kernel.iopubMessage.disconnect(gather);
  }
  const followed: Followed[] = [];
  const marks = marksOf(panel);
  for (const [i, execution] of (executions ?? []).entries()) {
    const cell = panel.content.widgets.find(w => w.model.id === execution.cell_id);
    if (execution.session === kernel.clientId || !(cell instanceof CodeCell)) {
      continue;
    }
    const writer = marks.writer(execution.cell_id, execution.msg_id);
    if (writer === 'later') {
      continue;
    }
    const unfinished = execution.state !== 'done';
    if (writer === 'nobody' && (unfinished || cell.model.executionState === 'running')) {
      marks.put(execution.cell_id, execution.msg_id, runtime.model?.id ?? '');
    }
    if (unfinished) {
      followed.push(new Followed(cell, kernel, execution, early, marks));
    } else if (cell.model.executionState === 'running' && !executions?.slice(i + 1).some(later => later.cell_id === execution.cell_id)) {
      // It ended while no page was there to see it.
      if (writer === 'nobody' || writer === 'me') {
        finish(cell, execution);
      } else {
        cell.model.executionState = 'idle';
      }
    }
  }
  void keepTrue(followed, kernel, runtime);
}

/** What the runtime has recorded of this kernel; null when it does not say. */
async function recorded(kernel: Kernel.IKernelConnection, runtime: IRuntime): Promise<IExecution[] | null> {
  const reply = await runtime.fetch(`minicolab/executions?kernel_id=${kernel.id}`);
  return reply.ok ? ((await reply.json()) as { executions: IExecution[] }).executions : null;
}

/**
 * Look at the record until every followed cell has ended. The kernel's messages reach this page only from the moment its socket
 * is joined to the kernel, which nobody tells: what came before that and after the first answer would be missed for good.
 */
async function keepTrue(followed: readonly Followed[], kernel: Kernel.IKernelConnection, runtime: IRuntime): Promise<void> {
  let left = followed;
  while (left.length > 0) {
    await new Promise(resolve => window.setTimeout(resolve, LOOK_MILLISECONDS));
    if (kernel.isDisposed || runtime.state !== 'connected') {
      return;
    }
    const now = await recorded(kernel, runtime).catch(() => null);
    if (now !== null) {
      left = left.filter(cell => !cell.settled(now));
    }
  }
}

/** Show how an execution ended. */
function finish(cell: CodeCell, execution: IExecution): void {
  const outputs = cell.outputArea.model;
  if (!JSONExt.deepEqual(outputs.toJSON() as unknown as JSONValue, execution.outputs as unknown as JSONValue)) {
    outputs.fromJSON(execution.outputs);
  }
  cell.model.executionCount = execution.execution_count;
  cell.model.executionState = 'idle';
}

/** A cell that another page, or this one before it was reloaded, has started. */
class Followed {
  constructor(
    private _cell: CodeCell,
    private _kernel: Kernel.IKernelConnection,
    private _execution: IExecution,
    early: readonly KernelMessage.IIOPubMessage[],
    private _marks: Marks
  ) {
    this._count = this._cell.model.executionCount;
    if (this._isWriter) {
      this._cell.outputArea.model.fromJSON(this._execution.outputs);
    }
    this._cell.model.executionState = 'running';
    this._cell.setPrompt('*');
    // Messages that came while we asked are in the answer already, but for the end; the record tells what is not.
    if (!early.some(m => this._isMine(m) && m.header.msg_type === 'status' && this._take(m))) {
      this._kernel.iopubMessage.connect(this._listen, this);
    }
  }

  /** Whether there is nothing more to follow; what the record has of the end is shown. */
  settled(record: readonly IExecution[]): boolean {
    const now = record.find(e => e.msg_id === this._execution.msg_id);
    if (now && now.state !== 'done') {
      return false;
    }
    this._kernel.iopubMessage.disconnect(this._listen, this);
    if (!this._cell.isDisposed && this._isWriter && !this._wasTouched(now ?? this._execution)) {
      finish(this._cell, now ?? { ...this._execution, outputs: this._cell.outputArea.model.toJSON() });
    }
    return true;
  }

  /** Whether the cell was run anew since, here or on another page, or its outputs were cleared. */
  private _wasTouched(record: IExecution): boolean {
    const runs = this._cell.outputArea.future && !this._cell.outputArea.future.isDisposed;
    const count = this._cell.model.executionCount;
    return runs || (count !== this._count && (this._ended || count !== record.execution_count));
  }

  /** Whether this page writes the outputs; another page or the service may. */
  private get _isWriter(): boolean {
    return this._marks.writer(this._execution.cell_id, this._execution.msg_id) === 'me';
  }

  private _listen(_: unknown, message: KernelMessage.IIOPubMessage): void {
    if (this._isMine(message) && this._take(message)) {
      this._kernel.iopubMessage.disconnect(this._listen, this);
    }
  }

  private _isMine(message: KernelMessage.IIOPubMessage): boolean {
    return (message.parent_header as { msg_id?: string }).msg_id === this._execution.msg_id;
  }

  /** Show what a message tells; return whether it is the last. */
  private _take(message: KernelMessage.IIOPubMessage): boolean {
    if (!this._isWriter) {
      return false; // the record tells of the end
    }
    const outputs = this._cell.outputArea.model;
    const content = message.content as Record<string, unknown>;
    switch (message.header.msg_type) {
      case 'execute_result':
      case 'display_data':
      case 'stream':
      case 'error':
        if (this._clearNext) {
          outputs.clear();
          this._clearNext = false;
        }
        outputs.add({ ...content, output_type: message.header.msg_type } as unknown as IOutput);
        break;
      case 'clear_output':
        if (content.wait) {
          this._clearNext = true;
        } else {
          outputs.clear();
        }
        break;
      case 'execute_input':
        this._execution.execution_count = content.execution_count as number;
        break;
      case 'status':
        if (content.execution_state === 'idle') {
          this._ended = true;
          this._count = this._execution.execution_count;
          this._cell.model.executionCount = this._count;
          this._cell.model.executionState = 'idle';
          return true;
        }
        break;
    }
    return false;
  }

  private _clearNext = false;
  private _ended = false;
  private _count: number | null; // what the cell showed when this page last looked or changed it
}
