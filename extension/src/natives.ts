/**
 * The browser's own functions, as they were before any output of a kernel could run.
 *
 * JupyterLab loads this module with its other extensions, before it opens a notebook. A script that comes later,
 * in the output of a cell, may replace `fetch`, `JSON.parse` or the setters of `Node.prototype`; what draws the trust
 * indicator goes through the references here and is not changed by that. For the same reason nothing on that way
 * spreads or iterates arrays, awaits a promise, or reads a property that an object does not have itself: each of these
 * would ask a prototype that the page can change.
 */

const { apply, getOwnPropertyDescriptor } = Reflect;
const { freeze } = Object;

type Getter<T> = (this: unknown) => T;
type Setter<T> = (this: unknown, value: T) => void;

function setterOf<T>(prototype: object, name: string): Setter<T> {
  return getOwnPropertyDescriptor(prototype, name)!.set as Setter<T>;
}

function getterOf<T>(prototype: object, name: string): Getter<T> {
  return getOwnPropertyDescriptor(prototype, name)!.get as Getter<T>;
}

const native = freeze({
  document,
  window,
  fetch: window.fetch,
  text: Response.prototype.text,
  ok: getterOf<boolean>(Response.prototype, 'ok'),
  then: Promise.prototype.then,
  parse: JSON.parse,
  hasOwn: Object.prototype.hasOwnProperty,
  now: Date.now,
  parseDate: Date.parse,
  setTimeout: window.setTimeout,
  clearTimeout: window.clearTimeout,
  Abort: AbortController,
  abort: AbortController.prototype.abort,
  signal: getterOf<AbortSignal>(AbortController.prototype, 'signal'),
  cookie: getterOf<string>(Document.prototype, 'cookie'),
  hidden: getterOf<boolean>(Document.prototype, 'hidden'),
  createElement: Document.prototype.createElement,
  createElementNS: Document.prototype.createElementNS,
  elementFromPoint: Document.prototype.elementFromPoint,
  appendChild: Node.prototype.appendChild,
  removeChild: Node.prototype.removeChild,
  parentNode: getterOf<Node | null>(Node.prototype, 'parentNode'),
  childNodes: getterOf<NodeListOf<ChildNode>>(Node.prototype, 'childNodes'),
  isConnected: getterOf<boolean>(Node.prototype, 'isConnected'),
  setText: setterOf<string>(Node.prototype, 'textContent'),
  setAttribute: Element.prototype.setAttribute,
  removeAttribute: Element.prototype.removeAttribute,
  attributeNames: Element.prototype.getAttributeNames,
  closest: Element.prototype.closest,
  countOf: getterOf<number>(NodeList.prototype, 'length'),
  rectangle: Element.prototype.getBoundingClientRect,
  left: getterOf<number>(DOMRectReadOnly.prototype, 'left'),
  top: getterOf<number>(DOMRectReadOnly.prototype, 'top'),
  width: getterOf<number>(DOMRectReadOnly.prototype, 'width'),
  height: getterOf<number>(DOMRectReadOnly.prototype, 'height'),
  attachShadow: Element.prototype.attachShadow,
  listen: EventTarget.prototype.addEventListener,
  Mutations: MutationObserver,
  observeMutations: MutationObserver.prototype.observe,
  disconnectMutations: MutationObserver.prototype.disconnect,
  takeMutations: MutationObserver.prototype.takeRecords,
  Intersections: IntersectionObserver,
  observeIntersections: IntersectionObserver.prototype.observe,
  disconnectIntersections: IntersectionObserver.prototype.disconnect,
  showPopover: HTMLElement.prototype.showPopover as (() => void) | undefined,
  hidePopover: HTMLElement.prototype.hidePopover as (() => void) | undefined,
  indexOf: String.prototype.indexOf,
  substring: String.prototype.substring,
  encode: encodeURIComponent,
  startsWith: String.prototype.startsWith,
  body: getterOf<HTMLElement>(Document.prototype, 'body'),
  getAttribute: Element.prototype.getAttribute,
  querySelectorAll: Document.prototype.querySelectorAll,
  visible: Element.prototype.checkVisibility as ((options?: object) => boolean) | undefined,
  List: Array,
  mapGet: WeakMap.prototype.get,
  mapSet: WeakMap.prototype.set
});

/** The attribute of the body that says of JupyterLab's theme whether it is a light one. */
const THEME = 'data-jp-theme-light';

/** Call a function of the browser that was captured at load. */
function call<R>(f: (...args: never[]) => R, self: unknown, args: readonly unknown[]): R {
  return apply(f as (...args: unknown[]) => R, self, args);
}

/** Return an object's own property; undefined if it has none of this name, whatever its prototype says. */
export function own(object: unknown, name: string): unknown {
  if (object === null || typeof object !== 'object' || !call(native.hasOwn, object, [name])) {
    return undefined;
  }
  return (object as Record<string, unknown>)[name];
}

/** Return an own property that is text; the empty string for anything else. */
export function ownText(object: unknown, name: string): string {
  const value = own(object, name);
  return typeof value === 'string' ? value : '';
}

/** The value of a cookie; empty if there is none. The last of a name counts, as for the server. */
function cookie(name: string): string {
  let rest = '; ' + call(native.cookie, native.document, []);
  const mark = '; ' + name + '=';
  let value = '';
  for (let at = call(native.indexOf, rest, [mark]); at >= 0; at = call(native.indexOf, rest, [mark])) {
    rest = call(native.substring, rest, [at + mark.length]);
    const end = call(native.indexOf, rest, [';']);
    value = end < 0 ? rest : call(native.substring, rest, [0, end]);
  }
  return value;
}

/** Percent-encode text for a URL. */
export function encode(text: string): string {
  return call(native.encode, undefined, [text]);
}

/**
 * Get JSON from the server.
 *
 * @param url - Where.
 * @param token - The server's token; empty where the cookie says who asks.
 * @param seconds - How long the server may take.
 * @param done - Called once: with the parsed answer, or with undefined if there was none in time, or another status
 *   than success, or something that is no JSON.
 */
export function getJson(url: string, token: string, seconds: number, done: (answer: unknown) => void): void {
  let open = true;
  const finish = (answer: unknown) => {
    if (open) {
      open = false;
      stopTimer(timer);
      done(answer);
    }
  };
  const failed = () => finish(undefined);
  const abort = new native.Abort();
  const timer = startTimer(seconds, () => {
    failed();
    call(native.abort, abort, []);
  });
  const read = (text: string) => {
    let answer: unknown;
    try {
      answer = call(native.parse, undefined, [text]);
    } catch {
      answer = undefined;
    }
    finish(answer);
  };
  // Null prototypes: `fetch` would take members that are missing here from Object.prototype.
  const headers: Record<string, string> = { __proto__: null as never };
  if (token) {
    headers['Authorization'] = 'token ' + token;
  }
  const xsrf = cookie('_xsrf');
  if (xsrf) {
    headers['X-XSRFToken'] = xsrf;
  }
  const init = {
    __proto__: null,
    method: 'GET',
    mode: 'same-origin',
    credentials: 'same-origin',
    cache: 'no-store',
    redirect: 'error',
    headers,
    signal: call(native.signal, abort, [])
  };
  const received = (response: Response) => {
    if (call(native.ok, response, [])) {
      call(native.then, call(native.text, response, []), [read, failed]);
    } else {
      failed();
    }
  };
  try {
    call(native.then, call(native.fetch as never, native.window, [url, init]), [received, failed]);
  } catch {
    failed();
  }
}

/** Call `f` after some seconds. */
export function startTimer(seconds: number, f: () => void): number {
  // What browsers keep is a 32 bit number of milliseconds.
  const milliseconds = seconds < 2e6 ? seconds * 1000 : 2e9;
  return call(native.setTimeout as never, native.window, [f, milliseconds]);
}

/** Forget a timer of {@link startTimer}. */
export function stopTimer(timer: number): void {
  call(native.clearTimeout as never, native.window, [timer]);
}

/** Seconds since 1970, by this browser's clock. */
export function now(): number {
  return call(native.now, undefined, []) / 1000;
}

/** Seconds since 1970 of an ISO date; NaN if it is none. */
export function secondsOf(date: string): number {
  return call(native.parseDate, undefined, [date]) / 1000;
}

/** Whether nobody sees this page now. */
export function pageHidden(): boolean {
  return call(native.hidden, native.document, []);
}

/** Make an element of HTML. */
export function element(name: string): HTMLElement {
  return call(native.createElement as never, native.document, [name]);
}

/** Make an element of SVG. */
export function svgElement(name: string): SVGElement {
  return call(native.createElementNS as never, native.document, ['http://www.w3.org/2000/svg', name]);
}

/** Set an attribute. */
export function setAttribute(node: Element, name: string, value: string): void {
  call(native.setAttribute, node, [name, value]);
}

/** Remove an attribute. */
export function removeAttribute(node: Element, name: string): void {
  call(native.removeAttribute, node, [name]);
}

/** The names of an element's attributes. */
export function attributeNames(node: Element): readonly string[] {
  return call(native.attributeNames, node, []);
}

/** Whether text begins with another one. */
export function startsWith(text: string, start: string): boolean {
  return call(native.startsWith, text, [start]);
}

/** Replace what an element contains by text. */
export function setText(node: Node, text: string): void {
  call(native.setText, node, [text]);
}

/** Put a node at the end of another one. */
export function append(parent: Node, child: Node): void {
  call(native.appendChild as never, parent, [child]);
}

/** Let a node have exactly one child. */
export function setOnlyChild(parent: Node, child: Node): void {
  for (;;) {
    const children = call(native.childNodes, parent, []);
    if (call(native.countOf, children, []) === 1 && children[0] === child) {
      return;
    }
    if (parentOf(child) !== parent) {
      append(parent, child);
      continue;
    }
    call(native.removeChild as never, parent, [children[0] === child ? children[1] : children[0]]);
  }
}

/** Remove all that is in a node. */
export function removeChildren(parent: Node): void {
  for (;;) {
    const children = call(native.childNodes, parent, []);
    if (call(native.countOf, children, []) === 0) {
      return;
    }
    call(native.removeChild as never, parent, [children[0]]);
  }
}

/** Take a node out of where it is. */
export function removeNode(node: Node): void {
  const parent = parentOf(node);
  if (parent !== null) {
    call(native.removeChild as never, parent, [node]);
  }
}

/** The page's body. */
export function pageBody(): HTMLElement {
  return call(native.body, native.document, []);
}

/** Whether JupyterLab says in its body's attributes that its theme is a dark one. */
export function darkTheme(): boolean {
  return call(native.getAttribute, pageBody(), [THEME]) === 'false';
}

/**
 * Call `changed` after each change of the theme.
 *
 * @returns what ends it
 */
export function watchTheme(changed: () => void): () => void {
  return watchChanges(pageBody(), { attributeFilter: [THEME] }, changed);
}

/** The node in which a node is. */
export function parentOf(node: Node): Node | null {
  return call(native.parentNode, node, []);
}

/** Whether a node is in the page. */
export function isConnected(node: Node): boolean {
  return call(native.isConnected, node, []);
}

/** Give an element a shadow tree that the page cannot get at. */
export function closedShadow(host: Element): ShadowRoot {
  return call(native.attachShadow, host, [{ __proto__: null, mode: 'closed', delegatesFocus: true }]);
}

/** Listen for an event. */
export function listen(target: EventTarget, type: string, listener: (event: Event) => void): void {
  call(native.listen, target, [type, listener]);
}

/**
 * Call `changed` after each change of a node's attributes or children.
 *
 * @returns what ends it
 */
export function watchChanges(node: Node, options: MutationObserverInit, changed: () => void): () => void {
  const observer = new native.Mutations(() => {
    changed();
    // What `changed` did itself is no reason to call it again.
    call(native.takeMutations, observer, []);
  });
  call(native.observeMutations, observer, [node, { __proto__: null, ...options }]);
  return () => call(native.disconnectMutations, observer, []);
}

/** What {@link watchSight} says. */
export interface ISight {
  /** Whether any of it is within what the window shows. */
  readonly within: boolean;
  /** Whether it is certain that nothing covers, fades or distorts it; null where the browser cannot say. */
  readonly clear: boolean | null;
}

const withinOf = getterOf<boolean>(IntersectionObserverEntry.prototype, 'isIntersecting');
const canSeeCovers = 'isVisible' in IntersectionObserverEntry.prototype;
const clearOf = canSeeCovers ? getterOf<boolean>(IntersectionObserverEntry.prototype, 'isVisible') : null;

/**
 * Call `changed` when an element gets into sight, out of sight, or is covered.
 *
 * @returns what ends it
 */
export function watchSight(node: Element, changed: (sight: ISight) => void): () => void {
  const observer = new native.Intersections(
    (entries: IntersectionObserverEntry[]) => {
      const last = entries[entries.length - 1];
      changed({ within: call(withinOf, last, []), clear: clearOf === null ? null : call(clearOf, last, []) });
    },
    { __proto__: null, threshold: 0, trackVisibility: true, delay: 200 } as IntersectionObserverInit
  );
  call(native.observeIntersections, observer, [node]);
  return () => call(native.disconnectIntersections, observer, []);
}

/** The width of an element on the screen, in pixels. */
export function widthOf(node: Element): number {
  return call(native.width, call(native.rectangle, node, []), []);
}

/** Whether an element has no size on the screen. */
export function isCollapsed(node: Element): boolean {
  const box = call(native.rectangle, node, []);
  return call(native.width, box, []) < 1 || call(native.height, box, []) < 1;
}

/**
 * The topmost elements over a node, its left end, its middle and its right end.
 *
 * @returns what a click there would meet; the node itself where nothing is over it
 */
export function elementsOver(node: Element): (Element | null)[] {
  const box = call(native.rectangle, node, []);
  const width = call(native.width, box, []);
  const y = call(native.top, box, []) + call(native.height, box, []) / 2;
  const at = (part: number): Element | null =>
    call(native.elementFromPoint, native.document, [call(native.left, box, []) + width * part, y]);
  return [at(0.1), at(0.5), at(0.9)];
}

/** Whether an element or something around it matches a selector. */
export function isWithin(node: Element, selector: string): boolean {
  return nearest(node, selector) !== null;
}

/** The nearest element around a node, itself too, that matches a selector. */
export function nearest(node: Element, selector: string): Element | null {
  return call(native.closest as never, node, [selector]);
}

/** All elements of the page that match a selector. */
export function allMatching(selector: string): readonly Element[] {
  const found: NodeListOf<Element> = call(native.querySelectorAll as never, native.document, [selector]);
  const count = call(native.countOf, found, []);
  const all: Element[] = new native.List(count);
  for (let i = 0; i < count; i++) {
    all[i] = found[i];
  }
  return all;
}

/** Whether an element is drawn, and its rectangle and another one's have a place in common. */
export function meets(one: Element, other: Element): boolean {
  if (native.visible !== undefined && !call(native.visible, one, [{ __proto__: null, visibilityProperty: true }])) {
    return false;
  }
  const a = call(native.rectangle, one, []);
  const b = call(native.rectangle, other, []);
  const side = (start: (this: unknown) => number, size: (this: unknown) => number): boolean =>
    call(start, a, []) < call(start, b, []) + call(size, b, []) &&
    call(start, b, []) < call(start, a, []) + call(size, a, []);
  return side(native.left, native.width) && side(native.top, native.height);
}

/** Show a popover above everything else in the page. False where the browser has no popovers. */
export function showInTopLayer(node: HTMLElement): boolean {
  if (native.showPopover === undefined) {
    return false;
  }
  try {
    call(native.showPopover, node, []);
  } catch {
    return false;
  }
  return true;
}

/** Take a popover out of the top layer. */
export function leaveTopLayer(node: HTMLElement): void {
  if (native.hidePopover !== undefined) {
    try {
      call(native.hidePopover, node, []);
    } catch {
      // It is not there.
    }
  }
}

/** Whether a list has a value. */
export function isAmong<T>(value: T, list: readonly T[]): boolean {
  for (let i = 0; i < list.length; i++) {
    if (list[i] === value) {
      return true;
    }
  }
  return false;
}

/** A weak map that a page cannot answer for. */
export class Weak<K extends object, V> {
  readonly #map = new WeakMap<K, V>();

  get(key: K): V | undefined {
    return call(native.mapGet as never, this.#map, [key]);
  }

  set(key: K, value: V): void {
    call(native.mapSet as never, this.#map, [key, value]);
  }
}
freeze(Weak.prototype);
freeze(Weak);
