import assert from 'node:assert/strict';
import { test } from 'node:test';
import { edit, expressionFor, IField, parseForm, shown } from '../src/forms/parser.js';

function only(source: string): IField {
  const items = parseForm(source).items;
  assert.equal(items.length, 1);
  assert.equal(items[0].type, 'field');
  return (items[0] as { field: IField }).field;
}

test('a title with properties sets the view and running by itself', () => {
  const form = parseForm('#@title Auto { run: "auto", display-mode: "form", vertical-output: true }\nx = 1 #@param');
  assert.equal(form.title, 'Auto');
  assert.equal(form.autoRun, true);
  assert.equal(form.display, 'form');
});

test('a cell without annotations has no form', () => {
  assert.equal(parseForm('x = 1  # a comment about @param things\nprint(x)').isForm, false);
});

const kinds: [string, string][] = [
  ['n = 5 #@param {type:"slider", min:1, max:10, step:1}', 'slider'],
  ['n = 5 # @param {type:"integer"}', 'integer'],
  ['n = 5.5 # @param {type:"number"}', 'number'],
  ['b = True #@param {type:"boolean"}', 'boolean'],
  ['d = "2018-03-22" #@param {type:"date"}', 'date'],
  ['s = "a" #@param {type:"string", placeholder:"enter"}', 'string'],
  ['r = None #@param {type:"raw"}', 'raw'],
  ['r = None #@param', 'raw'],
  ['o = "adam" #@param ["adam", "sgd"]', 'dropdown'],
  ['o = "a" #@param ["a","b"] {allow-input: true}', 'dropdown'],
  ['o = 1 #@param [1, "raw_expr", "False"] {type:"raw"}', 'dropdown']
];
for (const [source, kind] of kinds) {
  test(`${source} is a ${kind}`, () => assert.equal(only(source).kind, kind));
}

test('slider limits have Colab\'s defaults', () => {
  const field = only('n = 5 #@param {type:"slider"}');
  assert.deepEqual([field.min, field.max, field.step], [0, 100, 1]);
});

test('a value chosen rewrites the expression and nothing else', () => {
  const source = 'a = 1\nopt = "adam"   #@param ["adam", "sgd"]\nb = 2';
  const field = only(source);
  const change = edit(source, field, 'sgd');
  assert.equal(source.slice(0, change.start) + change.text + source.slice(change.end), 'a = 1\nopt = "sgd"   #@param ["adam", "sgd"]\nb = 2');
});

test('text with quotes and backslashes stays a Python string', () => {
  assert.equal(expressionFor(only('s = "" #@param {type:"string"}'), 'say "hi" \\ there'), '"say \\"hi\\" \\\\ there"');
});

test('raw fields write code, booleans write True and False', () => {
  assert.equal(expressionFor(only('r = None #@param {type:"raw"}'), '(1, 2)'), '(1, 2)');
  assert.equal(expressionFor(only('b = True #@param {type:"boolean"}'), false), 'False');
});

test('what is shown has no quotes', () => assert.equal(shown(only("s = 'abc' #@param {type:\"string\"}")), 'abc'));

test('markdown lines are kept in order', () => {
  const form = parseForm('#@markdown first\nx = 1 #@param\n#@markdown ---');
  assert.deepEqual(form.items.map(i => i.type), ['markdown', 'field', 'markdown']);
});

test('nothing in a source is ever evaluated', () => {
  const form = parseForm('x = 1 #@param {type: process.exit(1)}\n#@title {run: require("fs")}');
  assert.equal(form.items.length, 1);
});
