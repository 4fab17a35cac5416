// What a cell looks like: a run button at its left, a live preview of text, and "+ Code  + Text" between cells.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Cell, CodeCell, MarkdownCell } from '@jupyterlab/cells';
import { INotebookTracker, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { Debouncer } from '@lumino/polling';
import { page } from '../page';

const PREVIEW_MILLISECONDS = 150;
const REACH_PIXELS = 14;

/** Make the prompt of a code cell its run button: ▶ to run, ■ while it runs. */
function runButton(cell: CodeCell): void {
  const prompt = cell.node.querySelector<HTMLElement>('.jp-InputPrompt');
  if (prompt) {
    prompt.setAttribute('role', 'button');
    prompt.setAttribute('tabindex', '0');
    const draw = () => {
      const running = cell.model.executionState === 'running';
      prompt.dataset.running = String(running);
      prompt.setAttribute('aria-label', running ? 'Interrupt execution' : 'Run cell');
      const count = cell.model.executionCount;
      prompt.title = running ? 'Interrupt execution (Ctrl+M I)' : count ? 'Run cell (Ctrl+Enter)' : 'Run cell (Ctrl+Enter)\ncell has not been executed in this session';
    };
    cell.model.stateChanged.connect(draw);
    draw();
  }
}

function press(panel: NotebookPanel, prompt: Element): void {
  const cell = panel.content.widgets.find(w => w.node.contains(prompt));
  if (!(cell instanceof CodeCell)) {
    return;
  }
  panel.content.activeCellIndex = panel.content.widgets.indexOf(cell);
  panel.content.deselectAll();
  if (cell.model.executionState === 'running') {
    void panel.sessionContext.session?.kernel?.interrupt();
  } else {
    void NotebookActions.runCells(panel.content, [cell], panel.sessionContext);
  }
}

/** Show the rendered text beside its source while it is edited. */
function preview(cell: MarkdownCell, registry: IRenderMimeRegistry): void {
  const renderer = registry.createRenderer('text/markdown');
  renderer.addClass('mc-preview');
  const render = async () => {
    const source = cell.model.sharedModel.getSource();
    const text = source.trim() ? source : '*Empty text cell*';
    await renderer.renderModel(registry.createModel({ data: { 'text/markdown': text }, trusted: false }));
    registry.latexTypesetter?.typeset(renderer.node);
  };
  const later = new Debouncer(render, PREVIEW_MILLISECONDS);
  const changed = () => {
    if (!cell.rendered) {
      void later.invoke();
    }
  };
  const swap = () => {
    cell.toggleClass('mc-editing', !cell.rendered);
    if (!cell.rendered) {
      cell.inputArea?.node.append(renderer.node);
      void render();
    } else {
      renderer.node.remove();
    }
  };
  cell.model.sharedModel.changed.connect(changed);
  cell.renderedChanged.connect(swap);
  cell.disposed.connect(() => {
    later.dispose();
    renderer.dispose();
  });
  swap();
}

/** "+ Code  + Text" where the pointer is between two cells. */
function inserter(panel: NotebookPanel): void {
  const bar = document.createElement('div');
  bar.className = 'mc-inserter';
  let index = -1;
  for (const [label, kind] of [
    ['+ Code', 'code'],
    ['+ Text', 'markdown']
  ] as const) {
    const button = document.createElement('button');
    button.textContent = label;
    button.title = kind === 'code' ? 'Add code cell' : 'Add text cell';
    button.onclick = () => {
      const notebook = panel.content;
      if (index < 0) {
        notebook.activeCellIndex = 0;
        NotebookActions.insertAbove(notebook);
      } else {
        notebook.activeCellIndex = index;
        NotebookActions.insertBelow(notebook);
      }
      NotebookActions.changeCellType(notebook, kind);
      notebook.mode = 'edit';
      bar.hidden = true;
    };
    bar.append(button);
  }
  bar.hidden = true;
  panel.content.node.append(bar);
  panel.content.node.addEventListener('mousemove', event => {
    if (bar.contains(event.target as Node)) {
      return;
    }
    const outer = panel.content.node.getBoundingClientRect();
    const cells = panel.content.widgets.map(w => w.node.getBoundingClientRect());
    let found = false;
    cells.forEach((box, i) => {
      if (Math.abs(event.clientY - box.bottom) < REACH_PIXELS) {
        found = true;
        index = i;
        bar.style.top = `${box.bottom - outer.top + panel.content.node.scrollTop - 12}px`;
      }
    });
    if (!found && cells.length && Math.abs(event.clientY - cells[0].top) < REACH_PIXELS) {
      found = true;
      index = -1;
      bar.style.top = `${cells[0].top - outer.top + panel.content.node.scrollTop - 12}px`;
    }
    bar.hidden = !found;
  });
  panel.content.node.addEventListener('mouseleave', () => (bar.hidden = true));
}

export const cells: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:cells',
  description: 'Run buttons, live preview of text, adding cells.',
  autoStart: true,
  requires: [INotebookTracker, IRenderMimeRegistry],
  activate: (_: JupyterFrontEnd, tracker: INotebookTracker, registry: IRenderMimeRegistry) => {
    const seen = new WeakSet<Cell>();
    tracker.widgetAdded.connect((_, panel) => {
      const decorate = () => {
        for (const cell of panel.content.widgets) {
          if (!seen.has(cell)) {
            seen.add(cell);
            void cell.ready.then(() => {
              if (cell instanceof CodeCell) {
                runButton(cell);
              } else if (cell instanceof MarkdownCell) {
                preview(cell, registry);
              }
            });
          }
        }
      };
      void panel.context.ready.then(() => {
        decorate();
        inserter(panel);
      });
      panel.content.modelContentChanged.connect(decorate);
      const pressed = (event: Event) => {
        const prompt = (event.target as Element).closest('.jp-CodeCell .jp-InputPrompt');
        if (prompt) {
          event.preventDefault();
          event.stopPropagation();
          press(panel, prompt);
        }
      };
      panel.content.node.addEventListener('click', pressed, true);
      // Above the notebook's own listener, which has by then put the editor in the place of the text: the very next key
      // goes into the text, not to the notebook's single-key commands.
      panel.node.addEventListener('dblclick', event => {
        const cell = panel.content.activeCell;
        const inside = event.composedPath().includes(panel.content.node); // the target itself is gone by now
        if (inside && cell instanceof MarkdownCell && !cell.rendered && !page.file?.readOnly) {
          panel.content.mode = 'edit';
          cell.editor?.focus();
        }
      });
      panel.content.node.addEventListener('keydown', event => {
        if (event.key === 'Enter' && (event.target as Element).classList.contains('jp-InputPrompt')) {
          pressed(event);
        }
      }, true);
    });
  }
};
