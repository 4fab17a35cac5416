// Wire the runtime to the notebook: attach on connect, connect on run, follow the kernel's state.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import {
  INotebookCellExecutor,
  INotebookTracker,
  INotebookWidgetFactory,
  NotebookPanel,
  NotebookWidgetFactory,
  runCell
} from '@jupyterlab/notebook';
import { PromiseDelegate } from '@lumino/coreutils';
import { answerRequests } from '../colab/requests';
import { tellWhy } from '../limits/dialog';
import { attach, markRequests } from './attach';
import { IRuntime } from './model';
import { firstKernel, readyMeansKernel, setUp } from './ready';
import { askedFor } from './type';
import { marksOf } from './writer';

const KERNEL_MILLISECONDS = 60_000;

/** Running a cell connects first, as in Colab. */
export const executor: JupyterFrontEndPlugin<INotebookCellExecutor> = {
  id: '@minicolab/notebook:cell-executor',
  description: 'Runs cells, connecting to a runtime first.',
  autoStart: true,
  provides: INotebookCellExecutor,
  requires: [IRuntime],
  activate: (_: JupyterFrontEnd, runtime: IRuntime): INotebookCellExecutor => ({
    runCell: async options => {
      const context = options.sessionContext;
      if (options.cell.model.type === 'code' && context && !context.session?.kernel) {
        try {
          await runtime.connect();
          await kernelOf(context);
        } catch (error) {
          void tellWhy(error as Error, runtime);
          return false;
        }
      }
      return runCell(options);
    }
  })
};

/** Resolve once the notebook has its kernel; reject when it does not get one. */
function kernelOf(context: NotebookPanel['sessionContext']): Promise<void> {
  const late = new PromiseDelegate<void>();
  const timer = window.setTimeout(
    () => late.reject(new Error('The kernel did not answer. Try again, or restart the runtime.')),
    KERNEL_MILLISECONDS
  );
  return Promise.race([firstKernel(context), late.promise]).finally(() => window.clearTimeout(timer));
}

export const attacher: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:attach',
  description: 'Gives the notebook its kernel on every connect, and attaches to a runtime it has already.',
  autoStart: true,
  requires: [IRuntime, INotebookTracker, INotebookWidgetFactory],
  activate: (app: JupyterFrontEnd, runtime: IRuntime, tracker: INotebookTracker, factory: NotebookWidgetFactory.IFactory) => {
    // A notebook opens without a kernel; nothing waits for one.
    readyMeansKernel();
    Object.defineProperty(factory, 'preferKernel', { get: () => false });
    let queue: Promise<void> = Promise.resolve();
    const attachAll = () => {
      tracker.forEach(panel => {
        queue = queue
          .then(() => panel.context.ready)
          .then(() => setUp(panel.sessionContext))
          .then(() => (runtime.state === 'connected' ? attach(panel, app.serviceManager.sessions, runtime) : undefined))
          .catch(error => console.warn('The notebook could not be attached to its runtime:', error));
      });
    };
    let last = runtime.state;
    runtime.stateChanged.connect((_, state) => {
      if (state === last) {
        return;
      }
      last = state;
      if (state === 'connected') {
        attachAll();
      } else if (state === 'lost' || state === 'disconnected') {
        tracker.forEach(panel => {
          panel.content.widgets.forEach(cell => {
            if (cell.model.type === 'code') {
              (cell.model as unknown as { executionState: string }).executionState = 'idle';
            }
          });
          panel.sessionContext.shutdown().catch(() => undefined); // forgets the connection; the runtime is gone or left alone
        });
      }
    });
    tracker.widgetAdded.connect((_, panel) => {
      panel.sessionContext.kernelChanged.connect((_context, change) => {
        if (change.newValue) {
          markRequests(change.newValue, (cell, run) => marksOf(panel).put(cell, run, runtime.model?.id ?? ''));
          answerRequests(panel, change.newValue, runtime);
        }
      });
      void panel.context.ready.then(() => {
        if (runtime.state === 'disconnected') {
          runtime.accelerator = askedFor(panel.context.model);
        }
        if (runtime.state === 'connected') {
          attachAll();
        } else {
          runtime.findExisting().catch(() => undefined); // the button shows why
        }
      });
    });
  }
};
