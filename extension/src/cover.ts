import {
  allMatching,
  elementsOver,
  isCollapsed,
  isConnected,
  isWithin,
  meets,
  nearest,
  pageHidden,
  startTimer,
  stopTimer,
  watchSight,
  type ISight
} from './natives';

/** Seconds for which the indicator has to be covered before it is said: menus and animations come and go. */
const DELAY = 0.8;

/** Seconds between two looks while nothing is reported: that it was taken out of the page is not. */
const BEAT = 2;

/** What JupyterLab itself puts over its toolbars for a while. A script can make such elements too; see the README. */
const OWN_OVERLAYS =
  '.lm-Menu, .jp-Dialog, .lm-CommandPalette, .jp-ModalCommandPalette, .jp-HoverBox, .jp-Toolbar-responsive-popup, ' +
  '.jp-ToolbarPopup, .lm-cursor-backdrop, .lm-mod-drag-image, .lm-DockPanel-overlay, #jupyterlab-splash';
/** What a kernel's output, a document or an author of either can be in, and what JupyterLab keeps out of sight. */
const NO_OVERLAYS =
  '.jp-OutputArea, .jp-Notebook, .jp-RenderedHTML, .jp-RenderedHTMLCommon, .jp-RenderedMarkdown, .jp-MainAreaWidget, ' +
  '.jp-SideBar, .lm-mod-hidden';
/** Where JupyterLab puts the end of a toolbar that is too narrow. */
const POPUPS = '.jp-Toolbar-responsive-popup, .jp-ToolbarPopup';

/** Where an indicator belongs. */
export interface IPlace {
  /** Whether people see this place now. */
  readonly seen: () => boolean;
  /** Whether JupyterLab may have put it into a popup, for want of room. */
  readonly folds: () => boolean;
  /** The indicator that was the last to come there. */
  holder: Element | null;
}

/**
 * Notices that something is in front of the indicator, or that it was taken away.
 *
 * By the browser's own word (IntersectionObserver with `trackVisibility`), which nothing in a page can influence; in
 * browsers without it, by what a click would meet.
 */
export class CoverWatch {
  readonly #host: Element;
  readonly #place: IPlace;
  readonly #changed: (covered: boolean) => void;
  readonly #blind: () => boolean;
  #unwatch: () => void;
  #timer = 0;
  #sight: ISight = { within: false, clear: null };
  #ending = false;

  /**
   * @param host - The indicator.
   * @param place - Where it belongs.
   * @param changed - Called with whether it is covered.
   * @param blind - Whether the browser's word does not count now, as the notice is what it is about.
   */
  constructor(host: Element, place: IPlace, changed: (covered: boolean) => void, blind: () => boolean) {
    this.#host = host;
    this.#place = place;
    this.#changed = changed;
    this.#blind = blind;
    this.#unwatch = this.#watch();
    Object.freeze(this);
  }

  /** Look again: something changed that the browser does not report. */
  look(): void {
    stopTimer(this.#timer);
    if (isConnected(this.#host)) {
      this.#place.holder = this.#host;
    }
    if (this.#sight.clear === true && !this.#ending && isConnected(this.#host) && !isCollapsed(this.#host)) {
      this.#changed(false);
      this.#timer = startTimer(BEAT, () => this.look());
    } else {
      this.#timer = startTimer(DELAY, () => this.#check());
    }
  }

  /** Have the browser say anew what it sees, and look at that. */
  again(): void {
    this.#unwatch();
    this.#unwatch = this.#watch();
    stopTimer(this.#timer);
    this.#timer = startTimer(DELAY, () => this.#check());
  }

  /** The indicator was disposed of: the end of the watch, unless its place is still seen and has no other one. */
  end(): void {
    this.#ending = true;
    this.look();
  }

  #watch(): () => void {
    return watchSight(this.#host, sight => {
      this.#sight = sight;
      this.look();
    });
  }

  #check(): void {
    const covered = this.#covered();
    if (covered === undefined) {
      return;
    }
    this.#changed(covered === true);
    if (covered === false) {
      if (this.#ending) {
        this.#unwatch();
      } else {
        this.#timer = startTimer(BEAT, () => this.look());
      }
    } else if (!this.#blind()) {
      // Not everything that ends it is reported.
      this.again();
    }
  }

  /**
   * Whether it is covered; null where JupyterLab's own menus and dialogs are what is in front of it; undefined where
   * nobody can say.
   */
  #covered(): boolean | null | undefined {
    const host = this.#host;
    const { within, clear } = this.#sight;
    if (pageHidden() || this.#place.holder !== host || !this.#place.seen()) {
      return false;
    }
    if (!isConnected(host)) {
      return true;
    }
    if (isCollapsed(host) || !within) {
      // Nothing of it is drawn: it has no size, or what is around it cuts it off.
      return !(isWithin(host, POPUPS) && this.#place.folds());
    }
    if (clear === true) {
      return false;
    }
    const over = elementsOver(host);
    let hit = false;
    for (let i = 0; i < over.length; i++) {
      const top = over[i];
      if (top !== null && top !== host) {
        hit = true;
        const overlay = nearest(top, OWN_OVERLAYS);
        if (overlay === null || !excuses(overlay, host)) {
          return true;
        }
      }
    }
    if (hit) {
      return null;
    }
    if (clear !== false) {
      return false;
    }
    if (this.#blind()) {
      return undefined;
    }
    // What lets clicks through, fades or distorts: only the browser's own word tells.
    const overlays = allMatching(OWN_OVERLAYS);
    for (let i = 0; i < overlays.length; i++) {
      if (excuses(overlays[i], host)) {
        return null;
      }
    }
    return true;
  }
}
Object.freeze(CoverWatch.prototype);
Object.freeze(CoverWatch);

/** Whether an element of JupyterLab's is really in front of the indicator, and out of reach of a kernel's output. */
function excuses(overlay: Element, host: Element): boolean {
  return !isWithin(overlay, NO_OVERLAYS) && meets(overlay, host);
}
