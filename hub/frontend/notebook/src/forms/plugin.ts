// Show the form of a cell beside its code; what a person chooses rewrites the source.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Cell, CodeCell } from '@jupyterlab/cells';
import { INotebookTracker, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { PanelLayout, Widget } from '@lumino/widgets';
import { edit, IField, IForm, parseForm, shown } from './parser';

class FormWidget extends Widget {
  constructor(
    private _cell: CodeCell,
    private _panel: NotebookPanel,
    private _markdown: IRenderMimeRegistry
  ) {
    super();
    this.addClass('mc-form');
    _cell.model.sharedModel.changed.connect(this._draw, this);
    this._draw();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._cell.model.sharedModel.changed.disconnect(this._draw, this);
      super.dispose();
    }
  }

  private _draw(): void {
    const source = this._cell.model.sharedModel.getSource();
    if (source === this._last) {
      return;
    }
    this._last = source;
    const form = parseForm(source);
    this._form = form;
    this.setHidden(!form.isForm);
    this._cell.toggleClass('mc-has-form', form.isForm);
    const view = (this._cell.model.getMetadata('cellView') as string | undefined) ?? form.display;
    this._cell.toggleClass('mc-form-only', form.isForm && view === 'form');
    const shape = JSON.stringify(form.items.map(i => (i.type === 'field' ? { ...i.field, expression: '' } : i))) + form.title;
    if (shape !== this._shape) {
      this._shape = shape;
      this._build(form);
    } else {
      form.items.forEach(item => item.type === 'field' && this._inputs.get(item.field.name)?.(item.field));
    }
  }

  private _build(form: IForm): void {
    this._inputs.clear();
    this.node.replaceChildren();
    if (form.title) {
      const title = document.createElement('h4');
      title.textContent = form.title.replace(/^#+\s*/, '');
      title.title = 'Double-click to show or hide the code';
      title.ondblclick = () => {
        const only = this._cell.node.classList.toggle('mc-form-only');
        this._cell.model.setMetadata('cellView', only ? 'form' : 'both');
      };
      this.node.append(title);
    }
    for (const item of form.items) {
      if (item.type === 'markdown') {
        const renderer = this._markdown.createRenderer('text/markdown');
        void renderer.renderModel(this._markdown.createModel({ data: { 'text/markdown': item.text } }));
        this.node.append(renderer.node);
      } else {
        this.node.append(this._row(item.field));
      }
    }
  }

  private _row(field: IField): HTMLElement {
    const row = document.createElement('label');
    const name = document.createElement('span');
    name.textContent = `${field.name}:`;
    row.append(name);
    const input = makeInput(field);
    const value = document.createElement('output');
    const set = (now: IField) => {
      const text = shown(now);
      if (input instanceof HTMLInputElement && input.type === 'checkbox') {
        input.checked = text === 'True';
      } else if (input !== document.activeElement || input.value === '') {
        input.value = text === 'None' && now.kind === 'raw' ? 'None' : text;
      }
      value.textContent = now.kind === 'slider' ? text : '';
    };
    set(field);
    this._inputs.set(field.name, set);
    const write = () => {
      const current = this._form?.items.find(i => i.type === 'field' && i.field.name === field.name);
      if (current?.type === 'field') {
        const model = this._cell.model.sharedModel;
        const chosen = input instanceof HTMLInputElement && input.type === 'checkbox' ? input.checked : input.value;
        const change = edit(model.getSource(), current.field, chosen);
        model.updateSource(change.start, change.end, change.text);
      }
    };
    input.addEventListener('change', () => {
      write();
      if (this._form?.autoRun && this._cell.model.executionCount !== null) {
        void NotebookActions.runCells(this._panel.content, [this._cell], this._panel.sessionContext);
      }
    });
    if (field.kind === 'slider') {
      input.addEventListener('input', write);
    }
    row.append(input, value);
    return row;
  }

  private _last: string | null = null;
  private _shape = '';
  private _form: IForm | null = null;
  private _inputs = new Map<string, (field: IField) => void>();
}

let lists = 0;

function makeInput(field: IField): HTMLInputElement | HTMLSelectElement {
  if (field.kind === 'dropdown' && !field.allowInput) {
    const select = document.createElement('select');
    for (const option of field.options) {
      select.add(new Option(String(option), String(option)));
    }
    return select;
  }
  const input = document.createElement('input');
  const types: Record<string, string> = { slider: 'range', boolean: 'checkbox', number: 'number', integer: 'number', date: 'date' };
  input.type = types[field.kind] ?? 'text';
  input.placeholder = field.placeholder;
  if (field.kind === 'slider') {
    input.min = String(field.min);
    input.max = String(field.max);
    input.step = String(field.step);
  }
  if (field.kind === 'number') {
    input.step = 'any';
  }
  if (field.kind === 'dropdown') {
    const list = document.createElement('datalist');
    list.id = `mc-options-${++lists}`;
    field.options.forEach(option => list.append(new Option(String(option))));
    input.setAttribute('list', list.id);
    document.body.append(list);
  }
  return input;
}

export const forms: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:forms',
  description: 'Forms: #@title and #@param beside the code.',
  autoStart: true,
  requires: [INotebookTracker, IRenderMimeRegistry],
  activate: (_: JupyterFrontEnd, tracker: INotebookTracker, markdown: IRenderMimeRegistry) => {
    const seen = new WeakSet<Cell>();
    const decorate = (panel: NotebookPanel) => {
      for (const cell of panel.content.widgets) {
        if (cell instanceof CodeCell && !seen.has(cell)) {
          seen.add(cell);
          void cell.ready.then(() => {
            (cell.inputArea?.layout as PanelLayout | undefined)?.addWidget(new FormWidget(cell, panel, markdown));
          });
        }
      }
    };
    tracker.widgetAdded.connect((_, panel) => {
      void panel.context.ready.then(() => decorate(panel));
      panel.content.modelContentChanged.connect(() => decorate(panel));
    });
  }
};
