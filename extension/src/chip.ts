import {
  append,
  closedShadow,
  element,
  listen,
  removeAttribute,
  removeAttributes,
  removeChildren,
  setAttribute,
  setOnlyChild,
  setText,
  watchChanges
} from './natives';
import { drawShape } from './shapes';
import type { ShownState, Trust } from './trust';
import type { Words } from './words';

/** Text on background at 4.5:1 or more (WCAG 2.2 AA) in each of the two themes. */
const STYLE = `
:host { all: initial !important; display: inline-flex !important; visibility: visible !important;
  opacity: 1 !important; direction: ltr !important; unicode-bidi: isolate !important; align-items: center !important;
  height: 100% !important; flex: none !important; pointer-events: auto !important; cursor: pointer !important; }
:host::before, :host::after { display: none !important; content: none !important; }
button { all: unset; box-sizing: border-box; display: inline-flex; align-items: center; gap: 5px; height: 20px;
  padding: 0 8px 0 6px; border: 1px solid var(--edge); border-radius: 10px; background: var(--back); color: var(--text);
  font: 500 12px/18px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif;
  white-space: nowrap; cursor: pointer; }
button:hover { box-shadow: 0 0 0 1px var(--edge); }
button:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
svg { display: block; flex: none; }
.area { fill: var(--text); }
.line { fill: none; stroke: var(--back); stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
.none .line { stroke: var(--text); stroke-dasharray: 3 3; }
.not-attested .line { stroke: var(--text); }
.not-attested, .none, .unknown { border-style: dashed; }
.stale { border-style: dotted; border-width: 2px; }
.said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
div { display: contents; --text: #3a3a3a; --back: #ececec; --edge: #6b6b6b; --focus: #0b57d0; }
div.attested { --text: #0a5221; --back: #ddf3e2; --edge: #1d7a3c; }
div.simulated { --text: #5f4100; --back: #fdf0c8; --edge: #8f6a10; }
div.refused { --text: #8c1010; --back: #fde2e2; --edge: #b32020; }
div.stale { --text: #7a2f00; --back: #ffe5d3; --edge: #b05413; }
div.dark { --text: #d6d6d6; --back: #333; --edge: #9a9a9a; --focus: #8ab4f8; }
div.dark.attested { --text: #a5e6b4; --back: #10351c; --edge: #55a870; }
div.dark.simulated { --text: #f6d880; --back: #3b2f08; --edge: #b5963a; }
div.dark.refused { --text: #ffb9b9; --back: #4a1212; --edge: #d86a6a; }
div.dark.stale { --text: #ffc59e; --back: #47230a; --edge: #d08a55; }
@media (forced-colors: active) { .area { fill: ButtonText; } .line { stroke: ButtonFace; } }
`;

/** Attributes that would take the indicator from people; JupyterLab sets none of them there. */
const UNWANTED = ['inert', 'aria-hidden', 'hidden', 'style'];

/** The names of classes: a state's may have a blank. */
const CLASSES: Readonly<Record<ShownState, string>> = {
  attested: 'attested',
  simulated: 'simulated',
  'not attested': 'not-attested',
  refused: 'refused',
  starting: 'starting',
  none: 'none',
  unknown: 'unknown'
};

/**
 * Shows one {@link Trust}: a form, a word, a colour.
 *
 * Drawn in a closed shadow tree, by functions that were captured at load. The page's styles do not get in, and what a
 * script does to the host element (attributes, its place, its neighbours) is undone. See the README for what a script
 * in the page can do all the same.
 */
export class TrustChip {
  /** The element that the page sees; nothing of the state is in it. */
  readonly host: HTMLElement;

  private readonly _frame = element('div');
  private readonly _button = element('button');
  private readonly _shape = element('span');
  private readonly _word = element('span');
  private readonly _said = element('span');
  private readonly _unwatch: () => void;
  private _dark = false;
  private _trust: Trust | null = null;

  /**
   * @param box - Where it stays, alone.
   * @param words - What it says.
   * @param announced - Whether screen readers hear of a change; one of a page's chips is enough.
   * @param clicked - Called by a click, the Enter and the Space key.
   */
  constructor(
    box: HTMLElement,
    private readonly _words: Words,
    announced: boolean,
    clicked: () => void
  ) {
    this.host = element('span');
    const shadow = closedShadow(this.host);
    const style = element('style');
    setText(style, STYLE);
    append(shadow, style);
    setAttribute(this._button, 'type', 'button');
    append(this._button, this._shape);
    append(this._button, this._word);
    append(this._frame, this._button);
    setAttribute(this._said, 'class', 'said');
    if (announced) {
      setAttribute(this._said, 'role', 'status');
      setAttribute(this._said, 'aria-live', 'polite');
      append(this._frame, this._said);
    }
    append(shadow, this._frame);
    listen(this._button, 'click', clicked);
    append(box, this.host);

    const keep = () => {
      setOnlyChild(box, this.host);
      removeAttributes(this.host);
      // Not drawn, as the shadow tree has no slot for it; but read by whoever reads the page's text.
      removeChildren(this.host);
      for (let i = 0; i < UNWANTED.length; i++) {
        removeAttribute(box, UNWANTED[i]);
      }
    };
    const ends = [
      watchChanges(this.host, { attributes: true, childList: true }, keep),
      watchChanges(box, { childList: true, attributeFilter: UNWANTED }, keep)
    ];
    this._unwatch = () => ends.forEach(end => end());
  }

  /** Which theme's colours to use. */
  set dark(dark: boolean) {
    if (dark !== this._dark) {
      this._dark = dark;
      const trust = this._trust;
      this._trust = null;
      if (trust) {
        this.show(trust);
      }
    }
  }

  /** Show what the server said. */
  show(trust: Trust): void {
    const words = this._words;
    const before = this._trust;
    this._trust = trust;
    const stale = trust.stale !== '' && (trust.state === 'attested' || trust.state === 'simulated' || trust.state === 'not attested');
    const word = (stale ? words.staleStates : words.states)[trust.state];
    const why = trust.explanation || (trust.state === 'unknown' ? words.unknown : '');
    const name = words.title + ': ' + word + '. ' + (why ? why + ' ' : '');
    if (before !== null && before.state === trust.state && before.stale === trust.stale && before.explanation === trust.explanation) {
      return;
    }
    setAttribute(this._frame, 'class', CLASSES[trust.state] + (stale ? ' stale' : '') + (this._dark ? ' dark' : ''));
    setAttribute(this._button, 'class', CLASSES[trust.state] + (stale ? ' stale' : ''));
    setAttribute(this._button, 'aria-label', name + words.action);
    setAttribute(this._button, 'title', why);
    setOnlyChild(this._shape, drawShape(stale ? 'stale' : trust.state));
    setText(this._word, word);
    setText(this._said, words.title + ': ' + word);
  }

  /** Stop watching the page. */
  dispose(): void {
    this._unwatch();
  }
}
