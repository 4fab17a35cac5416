// The plugins of minicolab's notebook page.
import { forms } from './forms/plugin';
import { opener } from './opener';
import { limits } from './limits/plugin';
import { managerPlugins } from './runtime/managers';
import { attacher, executor } from './runtime/plugin';
import { toolbar } from './toolbar';
import { cells } from './ui/cells';
import { commands } from './ui/commands';
import { contents } from './ui/contents';
import { header } from './ui/header';
import { menus } from './ui/menus';

export default [...managerPlugins, executor, attacher, opener, toolbar, header, commands, menus, contents, cells, forms, limits];
