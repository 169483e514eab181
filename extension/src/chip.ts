import { append, darkTheme, element, listen, setAttribute, setOnlyChild, setText } from './natives';
import { drawShape } from './shapes';
import { PALETTE, guardedShadow } from './shadow';
import { CLASSES, isStale, type Trust } from './trust';
import type { Words } from './words';

const STYLE =
  PALETTE +
  `
:host { display: inline-flex !important; align-items: center !important; height: 100% !important; margin: 0 4px !important;
  flex: none !important; cursor: pointer !important; }
:host(.lm-mod-hidden) { display: none !important; }
.frame { display: contents; }
button { all: unset; box-sizing: border-box; display: inline-flex; align-items: center; gap: 5px; height: 20px;
  padding: 0 8px 0 6px; border: 1px solid var(--edge); border-radius: 10px; background: var(--back); color: var(--text);
  font: 500 12px/18px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif;
  white-space: nowrap; cursor: pointer; }
button:hover { box-shadow: 0 0 0 1px var(--edge); }
button:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
button.not-attested, button.none, button.unknown { border-style: dashed; }
button.stale { border-style: dotted; border-width: 2px; }
.said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
`;

/**
 * Shows one {@link Trust}: a form, a word, a colour.
 *
 * Drawn in a closed shadow tree, by functions that were captured at load. The page's styles do not get in, and what a
 * script does to the host element (attributes, children) is undone. See the README for what a script in the page can
 * do all the same.
 */
export class TrustChip {
  readonly #words: Words;
  readonly #frame = element('div');
  readonly #button = element('button');
  readonly #shape = element('span');
  readonly #word = element('span');
  readonly #said = element('span');
  readonly #end: () => void;
  #trust: Trust | null = null;
  #covered = false;
  #drawn = '';

  /**
   * @param host - The element that the page sees; nothing of the state is in it.
   * @param words - What it says.
   * @param announced - Whether screen readers hear of a change; one of a page's chips is enough.
   * @param clicked - Called by a click, the Enter and the Space key.
   */
  constructor(host: HTMLElement, words: Words, announced: boolean, clicked: () => void) {
    this.#words = words;
    const { root, end } = guardedShadow(host, STYLE, () => this.#draw());
    setAttribute(this.#button, 'type', 'button');
    append(this.#button, this.#shape);
    append(this.#button, this.#word);
    append(this.#frame, this.#button);
    if (announced) {
      setAttribute(this.#said, 'class', 'said');
      setAttribute(this.#said, 'role', 'status');
      setAttribute(this.#said, 'aria-live', 'polite');
      append(this.#frame, this.#said);
    }
    append(root, this.#frame);
    listen(this.#button, 'click', () => clicked());
    this.#end = end;
    Object.freeze(this);
  }

  /** Show what the server said. */
  show(trust: Trust): void {
    this.#trust = trust;
    this.#draw();
  }

  /** Whether something is in front of it: what can be seen of it says that, and no state. */
  set covered(covered: boolean) {
    this.#covered = covered;
    this.#draw();
  }

  /** Stop watching the page. */
  dispose(): void {
    this.#end();
  }

  #draw(): void {
    const trust = this.#trust;
    if (trust === null) {
      return;
    }
    const words = this.#words;
    const state = this.#covered ? 'unknown' : trust.state;
    const stale = !this.#covered && isStale(trust);
    const word = this.#covered ? words.coveredState : (stale ? words.staleStates : words.states)[state];
    const why = this.#covered ? words.covered : trust.explanation || (state === 'unknown' ? words.unknown : '');
    const kind = CLASSES[state] + (stale ? ' stale' : '');
    const dark = darkTheme() ? ' dark' : '';
    const drawn = kind + dark + '\n' + word + '\n' + why;
    if (drawn === this.#drawn) {
      return;
    }
    this.#drawn = drawn;
    const name = words.title + ': ' + word;
    setAttribute(this.#frame, 'class', 'frame ' + kind + dark);
    setAttribute(this.#button, 'class', kind);
    setAttribute(this.#button, 'aria-label', name + '. ' + (why ? why + ' ' : '') + words.action);
    setAttribute(this.#button, 'title', why);
    setOnlyChild(this.#shape, drawShape(stale ? 'stale' : state));
    setText(this.#word, word);
    setText(this.#said, name);
  }
}
Object.freeze(TrustChip.prototype);
Object.freeze(TrustChip);
