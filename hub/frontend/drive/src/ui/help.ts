/** The list of keys. */

import { SHORTCUTS, shownKeys } from '../shortcuts';
import { tell } from './dialog';
import { h } from './dom';

export function showShortcuts(): void {
  const groups = [...new Set(SHORTCUTS.map(({ group }) => group))];
  tell(
    'Keyboard shortcuts',
    'shortcuts',
    h(
      'div',
      { class: 'shortcut-groups' },
      ...groups.map((group) =>
        h(
          'section',
          {},
          h('h3', {}, group),
          h(
            'dl',
            {},
            ...SHORTCUTS.filter((shortcut) => shortcut.group === group).flatMap((shortcut) => [
              h('dt', {}, shortcut.text),
              h('dd', {}, ...ways(shortcut.keys)),
            ]),
          ),
        ),
      ),
    ),
  );
}

function ways(keys: readonly string[]): readonly (Node | string)[] {
  return keys.flatMap((way, i) => [
    ...(i === 0 ? [] : [h('span', { class: 'or' }, 'or')]),
    ...shownKeys(way).flatMap((step, j) => [
      ...(j === 0 ? [] : [h('span', { class: 'or' }, 'then')]),
      ...step.map((key) => h('kbd', {}, key)),
    ]),
  ]);
}
