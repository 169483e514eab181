import { append, closedShadow, element, leaveTopLayer, listen, pageBody, parentOf, removeNode, setAttribute, setText, showInTopLayer, startTimer, stopTimer, watchChanges } from './natives';
import type { Words } from './words';

const STYLE = `
:host { all: initial !important; display: block !important; visibility: visible !important; opacity: 1 !important; }
:host::before, :host::after { display: none !important; content: none !important; }
.box { display: block; position: fixed; inset: 2px auto auto 50%; transform: translateX(-50%); margin: 0; z-index: 2147483647;
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

/** Seconds in the top layer, and out of it, in turn. */
const RAISED = 2.5;
const LOWERED = 1.6;

/** What an indicator tells the notice. */
export interface ITeller {
  /** Say whether it is covered. */
  readonly tell: (covered: boolean) => void;
  /** End. */
  readonly leave: () => void;
}

interface IEntry {
  readonly again: () => void;
  next: IEntry | null;
}

/**
 * Says, above everything else in the page, that the indicator is covered.
 *
 * What comes into the top layer is in a closed shadow tree; a page that removes its host has it back. While anything is
 * in the top layer, Chromium says of all else that it is covered: so the notice leaves that layer now and then, without
 * being drawn elsewhere, and has the indicators look again.
 */
export class CoverNotice {
  readonly #host = element('div');
  readonly #box = element('div');
  #entries: IEntry | null = null;
  #covered = 0;
  #dismissed = false;
  #shown = false;
  #raised = false;
  #turn = 0;
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

  /** Whether it is in the top layer, so that the browser's word about what is covered does not count. */
  get raised(): boolean {
    return this.#raised;
  }

  /**
   * Register an indicator.
   *
   * @param again - Called when it should look again.
   */
  teller(again: () => void): ITeller {
    const entry: IEntry = { again, next: this.#entries };
    this.#entries = entry;
    let before = false;
    const tell = (covered: boolean) => {
      if (covered !== before) {
        before = covered;
        this.#covered += covered ? 1 : -1;
        if (this.#covered === 0) {
          this.#dismissed = false;
        }
        this.#update();
      }
    };
    const leave = () => {
      tell(false);
      if (this.#entries === entry) {
        this.#entries = entry.next;
      }
      for (let other = this.#entries; other !== null; other = other.next) {
        if (other.next === entry) {
          other.next = entry.next;
        }
      }
    };
    return Object.freeze({ tell, leave });
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
      this.#raise();
    } else {
      stopTimer(this.#turn);
      this.#raised = false;
      leaveTopLayer(this.#box);
      removeNode(this.#host);
    }
  }

  #put(): void {
    if (parentOf(this.#host) !== pageBody()) {
      append(pageBody(), this.#host);
      if (this.#raised) {
        showInTopLayer(this.#box);
      }
    }
  }

  #raise(): void {
    this.#raised = showInTopLayer(this.#box);
    this.#turn = startTimer(RAISED, () => {
      leaveTopLayer(this.#box);
      this.#raised = false;
      for (let entry = this.#entries; entry !== null; entry = entry.next) {
        entry.again();
      }
      this.#turn = startTimer(LOWERED, () => this.#raise());
    });
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
