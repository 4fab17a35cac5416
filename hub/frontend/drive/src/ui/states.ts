/** What is shown where there are no files: a hint, or what went wrong and what to do. */

import type { ApiError } from '../api';
import type { View } from '../routes';
import { h } from './dom';
import { icon, mark } from './icons';

export interface StateEvents {
  newNotebook(): void;
  upload(): void;
  retry(): void;
  home(): void;
}

function page(picture: SVGSVGElement, title: string, text: string, ...buttons: readonly HTMLElement[]): HTMLElement {
  picture.classList.add('state-picture');
  return h(
    'div',
    { class: 'state' },
    picture,
    h('h2', {}, title),
    h('p', {}, text),
    buttons.length === 0 ? null : h('div', { class: 'state-buttons' }, ...buttons),
  );
}

function button(label: string, kind: string, run: () => void): HTMLElement {
  return h('button', { class: `button ${kind}`, type: 'button', onclick: run }, label);
}

export function emptyState(view: View, events: StateEvents): HTMLElement {
  switch (view.kind) {
    case 'recent':
      return page(icon('recent'), 'Nothing opened yet', 'Files you make or change show up here, the latest first.', button('New notebook', 'main', events.newNotebook));
    case 'trash':
      return page(icon('trash'), 'The trash is empty', 'Files you move to the trash wait here until you restore them or delete them forever.');
    case 'search':
      return view.query.trim() === ''
        ? page(icon('search'), 'Search your Drive', 'Type part of a name in the box above.')
        : page(icon('search'), 'No file has that name', 'Names are searched, each word by itself. Check the spelling or try fewer words.');
    case 'missing':
      return page(icon('alert'), 'There is nothing at this address', 'The link may be incomplete.', button('Go to My Drive', 'main', events.home));
    default:
      return page(
        mark(),
        'Drop files here or use New',
        'Start a notebook, make a folder, or drag files from your computer into this window.',
        button('New notebook', 'main', events.newNotebook),
        button('Upload files', 'quiet', events.upload),
      );
  }
}

export function errorState(problem: ApiError, events: StateEvents): HTMLElement {
  if (problem.status === 401) {
    return page(icon('sign-out'), 'You are signed out', 'Sign in again to see your Drive.', signIn());
  }
  if (problem.status === 404) {
    return page(
      icon('alert'),
      'This folder is not here any more',
      'It may have been moved to the trash or deleted, or it is not yours.',
      button('Go to My Drive', 'main', events.home),
    );
  }
  return page(icon('alert'), 'Your files can’t be shown', problem.message, button('Try again', 'main', events.retry));
}

/** A line above files that may be out of date. */
export function banner(problem: ApiError, events: StateEvents): HTMLElement {
  return h(
    'div',
    { class: 'banner', role: 'alert' },
    icon('alert'),
    h('span', {}, problem.message),
    problem.status === 401 ? signIn() : button('Retry', 'quiet small', events.retry),
  );
}

/** Loading the page anew sends the browser to sign in and back. */
function signIn(): HTMLElement {
  return button('Sign in', 'main small', () => {
    window.location.reload();
  });
}

export function loadingState(): HTMLElement {
  return h('div', { class: 'loading', role: 'status', 'aria-label': 'Loading' }, h('span', { class: 'spinner' }));
}
