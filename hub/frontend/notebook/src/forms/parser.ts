// The grammar of `#@title` and `#@param` (a pure function of the source; no kernel). Source order is display order.

export interface IFieldProps {
  [name: string]: string | number | boolean | null;
}

/** One field of a form: the assignment on `line` of the source. */
export interface IField {
  line: number;
  name: string;
  /** The expression as written. */
  expression: string;
  kind: 'string' | 'raw' | 'number' | 'integer' | 'slider' | 'boolean' | 'date' | 'dropdown';
  options: (string | number)[];
  allowInput: boolean;
  raw: boolean;
  placeholder: string;
  min: number;
  max: number;
  step: number;
}

export type FormItem = { type: 'field'; field: IField } | { type: 'markdown'; text: string };

/** A cell's form. `items` is empty when the cell has none. */
export interface IForm {
  title: string;
  items: FormItem[];
  autoRun: boolean;
  display: 'form' | 'code' | 'both';
  isForm: boolean;
}

const PARAM = /^(\s*)([A-Za-z_]\w*)\s*=\s*(.*?)\s*#\s*@param\b\s*(.*)$/;
const TITLE = /^\s*#\s*@title\b\s*(.*)$/;
const MARKDOWN = /^\s*#\s*@markdown\b ?(.*)$/;

/** Return the form in a cell's source. */
export function parseForm(source: string): IForm {
  const form: IForm = { title: '', items: [], autoRun: false, display: 'both', isForm: false };
  source.split('\n').forEach((text, line) => {
    const title = TITLE.exec(text);
    if (title) {
      const [words, props] = splitProps(title[1]);
      form.title = words;
      form.isForm = true;
      form.autoRun = props.run === 'auto';
      const display = props['display-mode'];
      form.display = display === 'form' || display === 'code' ? display : 'both';
      return;
    }
    const markdown = MARKDOWN.exec(text);
    if (markdown) {
      form.items.push({ type: 'markdown', text: markdown[1] });
      form.isForm = true;
      return;
    }
    const param = PARAM.exec(text);
    if (param) {
      form.items.push({ type: 'field', field: field(line, param[2], param[3], param[4]) });
      form.isForm = true;
    }
  });
  return form;
}

function field(line: number, name: string, expression: string, spec: string): IField {
  const list = /^(\[.*?\])\s*(.*)$/.exec(spec);
  const options = list ? literal(list[1]) : null;
  const [, props] = splitProps(list ? list[2] : spec);
  const type = typeof props.type === 'string' ? props.type : options ? 'dropdown' : 'raw';
  const kinds = ['string', 'raw', 'number', 'integer', 'slider', 'boolean', 'date'];
  return {
    line,
    name,
    expression,
    kind: options ? 'dropdown' : kinds.includes(type) ? (type as IField['kind']) : 'raw',
    options: Array.isArray(options) ? (options as (string | number)[]) : [],
    allowInput: props['allow-input'] === true,
    raw: type === 'raw',
    placeholder: typeof props.placeholder === 'string' ? props.placeholder : '',
    min: number(props.min, 0),
    max: number(props.max, 100),
    step: number(props.step, 1)
  };
}

function number(value: unknown, fallback: number): number {
  return typeof value === 'number' ? value : fallback;
}

/** Split `words {props}`; props are a JavaScript object literal with unquoted keys. */
export function splitProps(text: string): [string, IFieldProps] {
  const open = text.lastIndexOf('{');
  if (open < 0 || !text.trimEnd().endsWith('}')) {
    return [text.trim(), {}];
  }
  const value = literal(text.slice(open).trim());
  return value && !Array.isArray(value) && typeof value === 'object'
    ? [text.slice(0, open).trim(), value as IFieldProps]
    : [text.trim(), {}];
}

/** Return the value of a small JavaScript literal (object or array of plain values), null when it is none. Never evaluates. */
export function literal(text: string): unknown {
  let json = '';
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '"' || c === "'") {
      let word = '';
      for (i++; i < text.length && text[i] !== c; i++) {
        if (text[i] === '\\' && i + 1 < text.length) {
          i++;
        }
        word += text[i];
      }
      json += JSON.stringify(word);
    } else if (/[A-Za-z_]/.test(c)) {
      const word = /^[\w-]+/.exec(text.slice(i))![0];
      i += word.length - 1;
      const constant = { true: 'true', True: 'true', false: 'false', False: 'false', null: 'null', None: 'null' }[word];
      json += constant && !/^\s*:/.test(text.slice(i + 1)) ? constant : JSON.stringify(word);
    } else {
      json += c;
    }
  }
  try {
    return JSON.parse(json.replace(/,\s*([\]}])/g, '$1')) as unknown;
  } catch {
    return null;
  }
}

/** Return what the widget of a field shows: the expression without its quotes. */
export function shown(field: IField): string {
  const match = /^(['"])(.*)\1$/.exec(field.expression);
  return match ? match[2].replace(/\\(['"\\])/g, '$1') : field.expression;
}

/** Return the expression to write for a value a person chose. */
export function expressionFor(field: IField, value: string | boolean): string {
  if (typeof value === 'boolean') {
    return value ? 'True' : 'False';
  }
  if (field.kind === 'number' || field.kind === 'integer' || field.kind === 'slider') {
    return value === '' ? '0' : value;
  }
  if (field.raw || field.kind === 'raw') {
    return value === '' ? 'None' : value;
  }
  if (field.kind === 'dropdown' && field.options.some(option => typeof option === 'number' && String(option) === value)) {
    return value;
  }
  return JSON.stringify(value);
}

/** Return the span of the expression in its line, and its replacement: the smallest edit. */
export function edit(source: string, field: IField, value: string | boolean): { start: number; end: number; text: string } {
  const lines = source.split('\n');
  const before = lines.slice(0, field.line).reduce((sum, line) => sum + line.length + 1, 0);
  const line = lines[field.line];
  const equals = line.indexOf('=');
  const from = equals + 1 + (/^\s*/.exec(line.slice(equals + 1)) as RegExpExecArray)[0].length;
  return { start: before + from, end: before + from + field.expression.length, text: expressionFor(field, value) };
}
