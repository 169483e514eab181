import React from 'react';

import type { TrustModel } from './model';
import { append, darkTheme, element, removeChildren, setAttribute, setText } from './natives';
import { drawShape } from './shapes';
import { PALETTE, guardedShadow } from './shadow';
import { CLASSES, isStale } from './trust';
import type { Words } from './words';

const STYLE =
  PALETTE +
  `
:host { display: block !important; margin: 4px 0 !important; }
.frame { box-sizing: border-box; padding: 6px 10px; border: 1px solid var(--edge); border-left-width: 5px; border-radius: 3px;
  background: var(--back); color: var(--text); overflow-wrap: anywhere;
  font: 13px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
.frame.stale { border-left-style: dotted; }
.head { display: flex; align-items: center; gap: 6px; font-weight: 700; }
p { margin: 4px 0; }
ul { margin: 4px 0; padding-left: 20px; }
.why { font-weight: 600; }
`;

/** What the server said of a kernel, at the head of the panel: where no style of the page gets in. */
class StateBox {
  readonly #frame = element('div');
  readonly #words: Words;
  readonly #end: () => void;
  #model: TrustModel | null = null;

  constructor(host: HTMLElement, words: Words) {
    this.#words = words;
    const { root, end } = guardedShadow(host, STYLE, () => this.#draw());
    append(root, this.#frame);
    this.#end = end;
    Object.freeze(this);
  }

  /**
   * Show a kernel's state from now on.
   *
   * @returns what ends it
   */
  follow(model: TrustModel): () => void {
    this.#model = model;
    // The panel asks for more than this does: nothing is asked because of it alone.
    return model.show(
      () => false,
      () => this.#draw()
    );
  }

  dispose(): void {
    this.#end();
  }

  #draw(): void {
    const model = this.#model;
    if (model === null) {
      return;
    }
    const words = this.#words;
    const frame = this.#frame;
    const trust = model.trust;
    const stale = isStale(trust);
    setAttribute(frame, 'class', 'frame ' + CLASSES[trust.state] + (stale ? ' stale' : '') + (darkTheme() ? ' dark' : ''));
    removeChildren(frame);
    add(frame, 'p', model.path);
    const head = add(frame, 'p', '', 'head');
    append(head, drawShape(stale ? 'stale' : trust.state));
    add(head, 'span', (stale ? words.staleStates : words.states)[trust.state]);
    add(frame, 'p', trust.state === 'unknown' ? words.unknown : trust.summary);
    if (trust.stale) {
      add(frame, 'p', trust.stale, 'why');
    }
    if (trust.refusals.length > 1) {
      const list = add(frame, 'ul', '');
      for (let i = 0; i < trust.refusals.length; i++) {
        add(list, 'li', trust.refusals[i], 'why');
      }
    }
  }
}
Object.freeze(StateBox.prototype);
Object.freeze(StateBox);

/** Put an element with text into another one. */
function add(parent: Element, name: string, text: string, kind = ''): Element {
  const made = element(name);
  setText(made, text);
  if (kind) {
    setAttribute(made, 'class', kind);
  }
  append(parent, made);
  return made;
}

/** What the server said of a kernel, as an element of the panel's. */
export function StateLine(props: { model: TrustModel; words: Words }): JSX.Element {
  const { model, words } = props;
  const host = React.useRef<HTMLDivElement>(null);
  const box = React.useRef<StateBox | null>(null);
  React.useLayoutEffect(() => {
    // An element has one shadow tree for ever: so the box is made once, and follows one model after another.
    const made = new StateBox(host.current!, words);
    box.current = made;
    return () => made.dispose();
  }, []);
  React.useLayoutEffect(() => box.current?.follow(model), [model]);
  return <div ref={host} className="sealbook-StateLine" />;
}
