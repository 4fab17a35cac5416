// The runtime type a notebook asks for, in the metadata where Colab keeps it.

/** The metadata of a notebook. */
export interface IMetadata {
  getMetadata(key: string): unknown;
  setMetadata(key: string, value: unknown): void;
  deleteMetadata(key: string): void;
}

const TPU = /^V(\d+E\d+|28)$/;

/** Return the accelerator a notebook asks for, NONE when it asks for none. */
export function askedFor(notebook: IMetadata): string {
  const named = (notebook.getMetadata('colab') as { gpuType?: unknown } | undefined)?.gpuType;
  return typeof named === 'string' && notebook.getMetadata('accelerator') ? named : 'NONE';
}

/** Write down what a notebook asks for from now on. */
export function remember(notebook: IMetadata, accelerator: string): void {
  const colab = { ...(notebook.getMetadata('colab') as Record<string, unknown> | undefined) };
  delete colab.gpuType;
  if (accelerator === 'NONE') {
    notebook.deleteMetadata('accelerator');
  } else {
    notebook.setMetadata('accelerator', TPU.test(accelerator) ? 'TPU' : 'GPU');
    colab.gpuType = accelerator;
  }
  notebook.setMetadata('colab', colab);
}
