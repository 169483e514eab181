import { attributeNames, closedShadow, element, append, removeAttribute, removeChildren, setText, startsWith, watchChanges, watchTheme } from './natives';

/** Text on background at 4.5:1 or more (WCAG 2.2 AA) in each of the two themes. */
export const PALETTE = `
.frame { --text: #3a3a3a; --back: #ececec; --edge: #6b6b6b; --focus: #0b57d0; }
.frame.attested { --text: #0a5221; --back: #ddf3e2; --edge: #1d7a3c; }
.frame.simulated { --text: #5f4100; --back: #fdf0c8; --edge: #8f6a10; }
.frame.refused { --text: #8c1010; --back: #fde2e2; --edge: #b32020; }
.frame.stale { --text: #7a2f00; --back: #ffe5d3; --edge: #b05413; }
.frame.dark { --text: #d6d6d6; --back: #333; --edge: #9a9a9a; --focus: #8ab4f8; }
.frame.dark.attested { --text: #a5e6b4; --back: #10351c; --edge: #55a870; }
.frame.dark.simulated { --text: #f6d880; --back: #3b2f08; --edge: #b5963a; }
.frame.dark.refused { --text: #ffb9b9; --back: #4a1212; --edge: #d86a6a; }
.frame.dark.stale { --text: #ffc59e; --back: #47230a; --edge: #d08a55; }
svg { display: block; flex: none; }
.area { fill: var(--text); }
.line { fill: none; stroke: var(--back); stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round; }
.none .line { stroke: var(--text); stroke-dasharray: 3 3; }
.not-attested .line { stroke: var(--text); }
@media (forced-colors: active) { .area { fill: ButtonText; } .line { stroke: ButtonFace; } }
`;

/** A page can style the element itself: here it is told what it may not be. An inner rule wins where both are important. */
const HOST = `
:host { all: initial !important; visibility: visible !important; opacity: 1 !important; direction: ltr !important;
  unicode-bidi: isolate !important; pointer-events: auto !important; }
:host::before, :host::after { display: none !important; content: none !important; }
`;

/** A closed shadow tree, and what ends its guard and the watch on the theme. */
export interface IGuardedShadow {
  readonly root: ShadowRoot;
  readonly end: () => void;
}

/**
 * Give an element a closed shadow tree, and undo what a page does to the element.
 *
 * The classes and data attributes that JupyterLab gives its widgets stay: they have no effect on what is drawn.
 *
 * @param host - The element.
 * @param style - CSS of the tree.
 * @param draw - Called after each change of the theme.
 */
export function guardedShadow(host: HTMLElement, style: string, draw: () => void): IGuardedShadow {
  const root = closedShadow(host);
  const sheet = element('style');
  setText(sheet, HOST + style);
  append(root, sheet);
  const keep = () => {
    const names = attributeNames(host);
    for (let i = 0; i < names.length; i++) {
      if (names[i] !== 'class' && names[i] !== 'id' && !startsWith(names[i], 'data-')) {
        removeAttribute(host, names[i]);
      }
    }
    // Not drawn, as the tree has no slot for it; but read by whoever reads the page's text.
    removeChildren(host);
  };
  const unguard = watchChanges(host, { attributes: true, childList: true }, keep);
  const unwatch = watchTheme(draw);
  return {
    root,
    end: () => {
      unguard();
      unwatch();
    }
  };
}
