import { append, closedShadow, element, listen, pageBody, parentOf, removeNode, setAttribute, setText, showInTopLayer, startTimer, watchChanges } from './natives';
import type { Words } from './words';

const STYLE = `
:host { all: initial !important; display: block !important; visibility: visible !important; opacity: 1 !important; }
:host::before, :host::after { display: none !important; content: none !important; }
.box { position: fixed; inset: 2px auto auto 50%; transform: translateX(-50%); margin: 0; z-index: 2147483647;
  padding: 6px 12px; border: 2px solid #b32020; border-radius: 6px; background: #fff4f4; color: #6d0c0c;
  font: 500 13px/18px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Arial, sans-serif; }
.line { display: flex; gap: 12px; align-items: center; }
button { font: inherit; padding: 2px 8px; border: 1px solid #b32020; border-radius: 4px; background: #fff; color: #6d0c0c; cursor: pointer; }
button:focus-visible { outline: 2px solid #0b57d0; outline-offset: 1px; }
`;

/** How often the notice is put back at once; then it waits, for the page not to stand still. */
const AT_ONCE = 20;
/** Seconds of that wait. */
const WAIT = 0.3;

/**
 * Says, above everything else in the page, that the indicator is covered.
 *
 * What comes into the top layer is in a closed shadow tree; a page that removes its host has it back.
 */
export class CoverNotice {
  readonly #host = element('div');
  readonly #box = element('div');
  #covered = 0;
  #dismissed = false;
  #shown = false;
  #tries = 0;
  #waits = false;
  #unwatch: (() => void) | null = null;

  constructor(words: Words) {
    const shadow = closedShadow(this.#host);
    const style = element('style');
    setText(style, STYLE);
    append(shadow, style);
    setAttribute(this.#box, 'class', 'box');
    setAttribute(this.#box, 'popover', 'manual');
    const line = element('div');
    setAttribute(line, 'class', 'line');
    setAttribute(line, 'role', 'alert');
    const text = element('span');
    setText(text, words.covered);
    const button = element('button');
    setText(button, words.dismiss);
    listen(button, 'click', () => {
      this.#dismissed = true;
      this.#update();
    });
    append(line, text);
    append(line, button);
    append(this.#box, line);
    append(shadow, this.#box);
    Object.freeze(this);
  }

  /**
   * Register an indicator.
   *
   * @returns what says whether it is covered
   */
  teller(): (covered: boolean) => void {
    let before = false;
    return covered => {
      if (covered !== before) {
        before = covered;
        this.#covered += covered ? 1 : -1;
        if (this.#covered === 0) {
          this.#dismissed = false;
        }
        this.#update();
      }
    };
  }

  #update(): void {
    const shown = this.#covered > 0 && !this.#dismissed;
    if (shown === this.#shown) {
      return;
    }
    this.#shown = shown;
    this.#unwatch?.();
    this.#unwatch = null;
    if (shown) {
      this.#tries = 0;
      this.#unwatch = watchChanges(pageBody(), { childList: true }, () => this.#back());
      this.#put();
    } else {
      removeNode(this.#host);
    }
  }

  #put(): void {
    if (parentOf(this.#host) !== pageBody()) {
      append(pageBody(), this.#host);
      showInTopLayer(this.#box);
    }
  }

  /** Undo that the page removed it. */
  #back(): void {
    if (!this.#shown || this.#waits || parentOf(this.#host) === pageBody()) {
      return;
    }
    if (++this.#tries % AT_ONCE !== 0) {
      this.#put();
      return;
    }
    this.#waits = true;
    startTimer(WAIT, () => {
      this.#waits = false;
      if (this.#shown) {
        this.#put();
      }
    });
  }
}
Object.freeze(CoverNotice.prototype);
Object.freeze(CoverNotice);
