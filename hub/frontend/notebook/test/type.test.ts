import assert from 'node:assert/strict';
import { test } from 'node:test';
import { askedFor, IMetadata, remember } from '../src/runtime/type.js';

function notebook(metadata: Record<string, unknown>): IMetadata & { metadata: Record<string, unknown> } {
  return {
    metadata,
    getMetadata: key => metadata[key],
    setMetadata: (key, value) => void (metadata[key] = value),
    deleteMetadata: key => void delete metadata[key]
  };
}

test('what a person chose is asked for when the notebook is opened again', () => {
  const made = notebook({ colab: { provenance: [] } });
  remember(made, 'T4');
  assert.deepEqual(made.metadata, { accelerator: 'GPU', colab: { provenance: [], gpuType: 'T4' } });
  assert.equal(askedFor(made), 'T4');
  remember(made, 'V5E1');
  assert.equal(made.metadata.accelerator, 'TPU');
  remember(made, 'V100');
  assert.equal(made.metadata.accelerator, 'GPU');
  remember(made, 'NONE');
  assert.deepEqual(made.metadata, { colab: { provenance: [] } });
  assert.equal(askedFor(made), 'NONE');
});

test('a notebook that says nothing, or nonsense, asks for no accelerator', () => {
  for (const metadata of [{}, { colab: { gpuType: 'T4' } }, { accelerator: 'GPU' }, { accelerator: 'GPU', colab: { gpuType: 4 } }]) {
    assert.equal(askedFor(notebook(metadata)), 'NONE');
  }
});
