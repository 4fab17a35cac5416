// The Connect button with its menu, and the RAM and disk meter.
import { JupyterFrontEnd } from '@jupyterlab/application';
import { Menu, Widget } from '@lumino/widgets';
import { control, IResources } from '../api';
import { connectOrExplain } from '../limits/dialog';
import { IRuntime } from '../runtime/model';
import { size, view, waits } from '../runtime/state';

const METER_MILLISECONDS = 10_000;

/** The button at the right of the toolbar. */
export class ConnectWidget extends Widget {
  constructor(
    private _app: JupyterFrontEnd,
    private _runtime: IRuntime
  ) {
    super();
    this.addClass('mc-connect');
    this._button.className = 'mc-connect-button';
    this._button.onclick = () => void this._click();
    this._arrow.className = 'mc-connect-arrow';
    this._arrow.setAttribute('aria-label', 'More connection options');
    this._arrow.textContent = '▾';
    this._arrow.onclick = () => this._menu();
    this._meter.className = 'mc-meter';
    this._meter.onclick = () => void this._app.commands.execute('minicolab:view-resources');
    this.node.append(this._meter, this._button, this._arrow);
    this._runtime.stateChanged.connect(this._draw, this);
    this._timer = window.setInterval(() => void this._measure(), METER_MILLISECONDS);
    this._draw();
  }

  dispose(): void {
    window.clearInterval(this._timer);
    super.dispose();
  }

  private async _click(): Promise<void> {
    if (this._runtime.state === 'connected') {
      await this._app.commands.execute('minicolab:view-resources');
    } else {
      await connectOrExplain(this._runtime);
    }
  }

  private _menu(): void {
    const menu = new Menu({ commands: this._app.commands });
    for (const command of ['minicolab:connect', 'minicolab:change-runtime', 'minicolab:view-resources', 'minicolab:manage-sessions', 'minicolab:end-runtime']) {
      menu.addItem({ command });
    }
    const box = this._arrow.getBoundingClientRect();
    menu.open(box.right - 260, box.bottom + 4);
  }

  private _draw(): void {
    const { state, phase, reason } = this._runtime;
    const now = view(state, phase, reason);
    this._button.textContent = now.label;
    this._button.title = now.title;
    this.node.dataset.state = state;
    this._meter.hidden = state !== 'connected';
    this._button.hidden = state === 'connected' && this._meter.childElementCount > 0;
    // What a wait is for takes a line of its own, above the notebook.
    if (state === 'connecting' && phase && !waits(this._runtime.model?.phase)) {
      this._button.textContent = `${now.label}: ${phase}`;
    }
    if (state !== this._drawn) {
      this._drawn = state;
      if (state === 'connected') {
        void this._measure();
      } else {
        this._meter.replaceChildren();
      }
    }
  }

  private async _measure(): Promise<void> {
    const id = this._runtime.model?.id;
    if (!id || this._runtime.state !== 'connected' || document.hidden) {
      return;
    }
    const r = await control<IResources>(`runtimes/${id}/resources`).catch(() => null);
    if (r && this._runtime.state === 'connected') {
      const limit = r.memory.limit_bytes ?? 1;
      this._meter.replaceChildren(
        bar('RAM', r.memory.used_bytes / limit, `RAM: ${size(r.memory.used_bytes)} of ${size(limit)}`),
        bar('Disk', r.disk.used_bytes / (r.disk.used_bytes + r.disk.free_bytes), `Disk: ${size(r.disk.used_bytes)} used, ${size(r.disk.free_bytes)} free`)
      );
      this._button.hidden = true;
    }
  }

  private _button = document.createElement('button');
  private _arrow = document.createElement('button');
  private _meter = document.createElement('button');
  private _timer = 0;
  private _drawn = '';
}

function bar(name: string, share: number, title: string): HTMLElement {
  const row = document.createElement('span');
  row.title = title;
  const label = document.createElement('span');
  label.textContent = name;
  const track = document.createElement('span');
  track.className = 'mc-track';
  const fill = document.createElement('span');
  fill.style.width = `${Math.round(Math.min(1, Math.max(0.02, share)) * 100)}%`;
  fill.classList.toggle('mc-high', share > 0.9);
  track.append(fill);
  row.append(label, track);
  return row;
}
