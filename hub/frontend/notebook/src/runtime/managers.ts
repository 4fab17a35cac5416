// Kernel, session, kernelspec and terminal managers that talk to the page's runtime instead of the document server.
import { Stream } from '@lumino/signaling';
import {
  Event,
  IEventManager,
  IKernelManager,
  IKernelSpecManager,
  ISessionManager,
  ITerminalManager,
  Kernel,
  KernelManager,
  KernelSpec,
  KernelSpecManager,
  ServerConnection,
  ServiceManagerPlugin,
  Session,
  SessionManager,
  Terminal,
  TerminalManager
} from '@jupyterlab/services';
import { IRuntime, Runtime } from './model';

/** `refreshRunning` goes through a poll that sleeps in a hidden tab: these ask at once. */
class RuntimeKernelManager extends KernelManager {
  sync(): Promise<void> {
    return this.requestRunning();
  }
}
export class RuntimeSessionManager extends SessionManager {
  sync(): Promise<void> {
    return this.requestRunning();
  }
}
class RuntimeTerminalManager extends TerminalManager {
  sync(): Promise<void> {
    return this.requestRunning();
  }
}

function follow(runtime: IRuntime, sync: () => Promise<void>): void {
  let last = runtime.state;
  runtime.stateChanged.connect((_, state) => {
    if (state !== last) {
      last = state;
      sync().catch(() => undefined); // the runtime's end is told by the runtime itself
    }
  });
}

const runtime: ServiceManagerPlugin<IRuntime> = {
  id: '@minicolab/notebook:runtime',
  description: 'The connection to the runtime of the notebook on this page.',
  autoStart: true,
  provides: IRuntime,
  activate: () => new Runtime()
};

const kernels: ServiceManagerPlugin<Kernel.IManager> = {
  id: '@minicolab/notebook:kernel-manager',
  description: 'Kernels of the runtime.',
  autoStart: true,
  provides: IKernelManager,
  requires: [IRuntime],
  activate: (_: null, runtime: IRuntime) => {
    const manager = new RuntimeKernelManager({ serverSettings: runtime.settings });
    follow(runtime, () => manager.sync());
    return manager;
  }
};

const specs: ServiceManagerPlugin<KernelSpec.IManager> = {
  id: '@minicolab/notebook:kernel-spec-manager',
  description: 'Kernel specs of the runtime.',
  autoStart: true,
  provides: IKernelSpecManager,
  requires: [IRuntime],
  activate: (_: null, runtime: IRuntime) => {
    const manager = new KernelSpecManager({ serverSettings: runtime.settings });
    follow(runtime, () => manager.refreshSpecs());
    return manager;
  }
};

const sessions: ServiceManagerPlugin<Session.IManager> = {
  id: '@minicolab/notebook:session-manager',
  description: 'Sessions of the runtime.',
  autoStart: true,
  provides: ISessionManager,
  requires: [IKernelManager, IRuntime],
  activate: (_: null, kernelManager: Kernel.IManager, runtime: IRuntime) => {
    const manager = new RuntimeSessionManager({ kernelManager, serverSettings: runtime.settings });
    follow(runtime, () => manager.sync());
    return manager;
  }
};

const terminals: ServiceManagerPlugin<Terminal.IManager> = {
  id: '@minicolab/notebook:terminal-manager',
  description: 'Terminals of the runtime.',
  autoStart: true,
  provides: ITerminalManager,
  requires: [IRuntime],
  activate: (_: null, runtime: IRuntime) => {
    const manager = new RuntimeTerminalManager({ serverSettings: runtime.settings });
    follow(runtime, () => manager.sync());
    return manager;
  }
};

/** The document service has no event bus to listen to. */
class NoEvents implements Event.IManager {
  readonly serverSettings = ServerConnection.makeSettings();
  readonly stream: Event.Stream = new Stream<Event.IManager, Event.Emission>(this);
  isDisposed = false;

  dispose(): void {
    this.isDisposed = true;
  }

  emit(): Promise<void> {
    return Promise.resolve();
  }
}

const events: ServiceManagerPlugin<Event.IManager> = {
  id: '@minicolab/notebook:event-manager',
  description: 'An event bus on which nothing happens.',
  autoStart: true,
  provides: IEventManager,
  activate: () => new NoEvents()
};

export const managerPlugins = [runtime, kernels, specs, sessions, terminals, events];
