// The menu bar in Colab's order and words. An item is a command of ours; '-' is a line.
import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { CommandRegistry } from '@lumino/commands';
import { Menu, MenuBar } from '@lumino/widgets';
import { page } from '../page';

const MENUS: [string, string[]][] = [
  ['File', ['new', 'open', 'upload', '-', 'rename', 'copy', 'save', '-', 'download-ipynb', 'download-py', '-', 'print', '-', 'trash']],
  ['Edit', ['undo', 'redo', '-', 'select-all', 'cut', 'copy-cell', 'paste', 'delete', '-', 'find', '-', 'clear']],
  ['View', ['contents', '-', 'show-code', 'show-output', 'line-numbers', '-', 'collapse', 'expand']],
  ['Insert', ['insert-code', 'insert-text', 'insert-section', '-', 'insert-form']],
  [
    'Runtime',
    [
      'run-all', 'run-before', 'run-focused', 'run-selection', 'run-after', '-', 'interrupt', 'restart', 'restart-run-all', '-',
      'end-runtime', '-', 'change-runtime', '-', 'manage-sessions', 'view-resources'
    ]
  ],
  ['Tools', ['palette', 'settings', 'shortcuts', '-', 'usage', 'account']]
];

function menu(commands: CommandRegistry, title: string, items: string[]): Menu {
  const out = new Menu({ commands });
  out.title.label = title;
  for (const item of items) {
    out.addItem(item === '-' ? { type: 'separator' } : { command: `minicolab:${item}` });
  }
  return out;
}

export const menus: JupyterFrontEndPlugin<void> = {
  id: '@minicolab/notebook:menus',
  description: 'File, Edit, View, Insert, Runtime, Tools, Help.',
  autoStart: true,
  activate: (app: JupyterFrontEnd) => {
    const bar = new MenuBar();
    bar.id = 'mc-menu';
    for (const [title, items] of MENUS) {
      bar.addMenu(menu(app.commands, title, items));
    }
    const help = menu(app.commands, 'Help', []);
    const examples = new Menu({ commands: app.commands });
    examples.title.label = 'Examples';
    page.examples.forEach(example => examples.addItem({ command: 'minicolab:example', args: { id: example.id, title: example.title } }));
    if (page.examples.length) {
      help.addItem({ type: 'submenu', submenu: examples });
    }
    help.addItem({ command: 'minicolab:shortcuts' });
    help.addItem({ command: 'minicolab:about' });
    bar.addMenu(help);
    app.shell.add(bar, 'menu', { rank: 50 });
  }
};
