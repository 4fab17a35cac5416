// Marks in the shared state of one notebook: which page writes the outputs of which run, and what this page does when it no longer does.
import type { ISharedNotebook } from '@jupyter/ydoc';
import { CodeCell } from '@jupyterlab/cells';
import { NotebookPanel } from '@jupyterlab/notebook';
import { JSONObject } from '@lumino/coreutils';
import { cellOf, keyOf, readMark, SERVICE, Writer, writerOf } from './marks';

/** The marks of a panel's notebook. */
export class Marks {
  constructor(private _panel: NotebookPanel) {}

  /** Say that this page writes the outputs of `run`. */
  put(cell: string, run: string, runtime: string): void {
    const shared = this._shared;
    if (shared) {
      const mark: JSONObject = { run, client: shared.awareness.clientID, runtime };
      const key = keyOf(cell);
      shared.transact(() => {
        if (!shared.getState(key)) {
          shared.setState(key, null); // setState compares with what is there, and can not compare an object with nothing
        }
        shared.setState(key, mark);
      });
    }
  }

  /** Return who writes the outputs of `run`. */
  writer(cell: string, run: string): Writer {
    const shared = this._shared;
    if (!shared) {
      return 'done'; // the page shows no notebook any more
    }
    const awareness = shared.awareness;
    return writerOf(readMark(shared.getState(keyOf(cell))), run, awareness.clientID, client => awareness.getStates().has(client));
  }

  /** Let go of a cell when the service has taken it over: this page was away for too long, and what it would add is there already. */
  watch(): void {
    this._shared?.changed.connect((_, change) => {
      for (const { name, newValue } of change.stateChange ?? []) {
        const mark = readMark(newValue);
        const cell = cellOf(name);
        if (cell !== null && mark?.client === SERVICE) {
          this._letGo(cell, mark.run);
        }
      }
    });
  }

  private _letGo(cell: string, run: string): void {
    const widget = this._panel.content.widgets.find(w => w.model.id === cell);
    const future = widget instanceof CodeCell ? widget.outputArea.future : null;
    if (future && !future.isDisposed && future.msg.header.msg_id === run) {
      future.onIOPub = () => undefined;
    }
  }

  private get _shared(): ISharedNotebook | null {
    return this._panel.content.model?.sharedModel ?? null;
  }
}

const marks = new WeakMap<NotebookPanel, Marks>();

/** Return the marks of a panel's notebook; its model must be there. */
export function marksOf(panel: NotebookPanel): Marks {
  let found = marks.get(panel);
  if (!found) {
    found = new Marks(panel);
    found.watch();
    marks.set(panel, found);
  }
  return found;
}
