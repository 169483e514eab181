import type { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

/** One question of a {@link FileDialog}: a text, or a choice where there are `choices`. */
export interface IQuestion {
  readonly name: string;
  readonly label: string;
  readonly value: string;
  readonly choices?: readonly { readonly value: string; readonly label: string }[];
}

/** The body of a dialog that asks for a few words; its value is the answers by the questions' names. */
export class FileDialog extends Widget implements Dialog.IBodyWidget<Record<string, string>> {
  private readonly _inputs = new Map<string, HTMLInputElement | HTMLSelectElement>();

  constructor(text: string, questions: readonly IQuestion[]) {
    super();
    this.addClass('sealbook-FileDialog');
    const paragraph = document.createElement('p');
    paragraph.textContent = text;
    this.node.append(paragraph);
    for (const question of questions) {
      const label = document.createElement('label');
      label.textContent = question.label;
      const input = question.choices ? FileDialog._select(question.choices) : document.createElement('input');
      input.classList.add('jp-mod-styled');
      input.value = question.value;
      input.name = question.name;
      label.append(input);
      this.node.append(label);
      this._inputs.set(question.name, input);
    }
  }

  getValue(): Record<string, string> {
    return Object.fromEntries([...this._inputs].map(([name, input]) => [name, input.value.trim()]));
  }

  private static _select(choices: readonly { value: string; label: string }[]): HTMLSelectElement {
    const select = document.createElement('select');
    for (const choice of choices) {
      select.append(new Option(choice.label, choice.value));
    }
    return select;
  }
}
