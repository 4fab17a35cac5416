/** The notebooks that come with minicolab. */

import type { Example } from '../model';
import { fileAddress } from '../routes';
import { h } from './dom';
import { kindIcon, icon } from './icons';

export function examplesView(examples: readonly Example[], copy: (example: Example) => void): HTMLElement {
  return h(
    'ul',
    { class: 'examples' },
    ...examples.map((example) =>
      h(
        'li',
        { class: 'example' },
        h(
          'a',
          { class: 'example-link', href: fileAddress(example.id) },
          kindIcon('notebook'),
          h('span', { class: 'example-text' }, h('strong', {}, example.title), h('span', {}, example.summary)),
        ),
        h(
          'button',
          { class: 'round', type: 'button', 'aria-label': `Copy ${example.title} to Drive`, title: 'Copy to Drive', onclick: () => { copy(example); } },
          icon('copy'),
        ),
      ),
    ),
  );
}
