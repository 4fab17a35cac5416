// When a notebook's session context is "ready". Jupyter's own plug-ins (widgets among them) take it to mean "has a kernel", which
// was true where every notebook is opened with one. Here a notebook opens without, so for them it becomes true later.
import { ISessionContext, SessionContext } from '@jupyterlab/apputils';

const property = Object.getOwnPropertyDescriptor(SessionContext.prototype, 'ready') as PropertyDescriptor;

/** Resolve once the context is set up, with or without a kernel. */
export function setUp(context: object): Promise<void> {
  return (property.get as () => Promise<void>).call(context);
}

/** From now on `sessionContext.ready` of notebooks resolves with their first kernel. */
export function readyMeansKernel(): void {
  Object.defineProperty(SessionContext.prototype, 'ready', {
    ...property,
    get(this: SessionContext) {
      const plain = setUp(this);
      return this.type === 'notebook' ? plain.then(() => firstKernel(this)) : plain;
    }
  });
}

/** Resolve once the context has a kernel. */
export function firstKernel(context: ISessionContext): Promise<void> {
  return new Promise(resolve => {
    const look = () => {
      if (context.session?.kernel) {
        context.kernelChanged.disconnect(look);
        resolve();
      }
    };
    context.kernelChanged.connect(look);
    look();
  });
}
