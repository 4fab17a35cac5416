/** Ask for a name, and stay until the service has accepted it. */

import { sentence } from '../api';
import { nameProblem } from '../names';
import { Dialog } from './dialog';
import { fill, h } from './dom';

export interface NameQuestion {
  readonly title: string;
  readonly label: string;
  readonly value: string;
  /** How much of the value is selected at first. */
  readonly select: number;
  readonly button: string;
  /** A remark about a name that is allowed but may not be meant. */
  readonly hint?: (name: string) => string;
  /** Does what is asked; what it raises is shown, and the person may correct the name. */
  readonly accept: (name: string) => Promise<void>;
}

export function askName(question: NameQuestion): void {
  const dialog = new Dialog(question.title, 'narrow');
  const input = h('input', {
    class: 'field',
    type: 'text',
    'aria-label': question.label,
    'aria-describedby': 'name-note',
    autocomplete: 'off',
    spellcheck: 'false',
    value: question.value,
  });
  const note = h('p', { class: 'note', id: 'name-note', 'aria-live': 'polite' });
  const say = (text: string, wrong: boolean): void => {
    note.textContent = text;
    note.classList.toggle('wrong', wrong);
    input.setAttribute('aria-invalid', String(wrong));
  };
  let busy = false;
  const submit = async (): Promise<void> => {
    const name = input.value.trim();
    const problem = nameProblem(name);
    if (busy) {
      return;
    }
    if (problem !== null) {
      say(problem, true);
      return;
    }
    busy = true;
    main.disabled = true;
    try {
      await question.accept(name);
      dialog.close();
    } catch (error) {
      say(sentence(error), true);
      input.focus();
    } finally {
      busy = false;
      main.disabled = false;
    }
  };
  input.addEventListener('input', () => {
    say(question.hint?.(input.value.trim()) ?? '', false);
  });
  const main = h('button', { class: 'button main', type: 'submit' }, question.button);
  const cancel = dialog.button('Cancel', 'quiet', () => {
    dialog.close();
  });
  const form = h('form', { method: 'dialog', novalidate: true }, input, note, h('div', { class: 'dialog-footer' }, cancel, main));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    void submit();
  });
  fill(dialog.body, form);
  dialog.footer.remove();
  dialog.show();
  input.focus();
  input.setSelectionRange(0, question.select);
}
