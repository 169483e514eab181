import { elementsOver, isCollapsed, isConnected, isWithin, pageHas, pageHidden, startTimer, stopTimer, watchSight, type ISight } from './natives';

/** Seconds for which the indicator has to be covered before it is said: menus and animations come and go. */
const DELAY = 0.8;

/** What JupyterLab itself puts over its toolbars. A script can make such elements too; see the README. */
const OWN_OVERLAYS =
  '.lm-Menu, .jp-Dialog, .lm-CommandPalette, .jp-ModalCommandPalette, .jp-HoverBox, .jp-toastContainer, ' +
  '.Toastify__toast-container, .jp-Toolbar-responsive-popup, .jp-ToolbarPopup, .lm-cursor-backdrop, #jupyterlab-splash';
/** The same, where a click goes through them. */
const OWN_PASSING_OVERLAYS = '.lm-mod-drag-image, .lm-DockPanel-overlay:not(.lm-mod-hidden)';

/**
 * Notices that something is in front of the indicator, or that it was taken away.
 *
 * By the browser's own word (IntersectionObserver with `trackVisibility`), which nothing in a page can influence; in
 * browsers without it, by what a click would meet.
 */
export class CoverWatch {
  private _unwatch: () => void;
  private _timer = 0;
  private _sight: ISight = { within: false, clear: null };

  /**
   * @param host - The indicator.
   * @param expected - Whether it should be seen now, as far as JupyterLab knows.
   * @param changed - Called with whether it is covered.
   */
  constructor(
    private readonly _host: Element,
    private readonly _expected: () => boolean,
    private readonly _changed: (covered: boolean) => void
  ) {
    this._unwatch = this._watch();
  }

  /** Look again: something changed that the browser does not report. */
  look(): void {
    stopTimer(this._timer);
    if (this._sight.clear === true) {
      this._changed(false);
      return;
    }
    this._timer = startTimer(DELAY, () => {
      const covered = this._covered();
      this._changed(covered === true);
      if (covered !== false) {
        // Not everything that ends it is reported: have the browser say anew what it sees.
        this._unwatch();
        this._unwatch = this._watch();
      }
    });
  }

  dispose(): void {
    stopTimer(this._timer);
    this._unwatch();
  }

  private _watch(): () => void {
    return watchSight(this._host, sight => {
      this._sight = sight;
      this.look();
    });
  }

  /** Whether it is covered; null where JupyterLab's own menus and dialogs are what is in front of it. */
  private _covered(): boolean | null {
    const { within, clear } = this._sight;
    if (pageHidden() || !this._expected()) {
      return false;
    }
    if (!isConnected(this._host) || isCollapsed(this._host)) {
      return true;
    }
    if (!within || clear === true) {
      return false;
    }
    const over = elementsOver(this._host);
    let hit = false;
    for (let i = 0; i < over.length; i++) {
      const top = over[i];
      if (top !== null && top !== this._host) {
        hit = true;
        if (!isWithin(top, OWN_OVERLAYS)) {
          return true;
        }
      }
    }
    if (hit) {
      return null;
    }
    // What lets clicks through, fades or distorts: only the browser's own word tells.
    return clear === false ? (pageHas(OWN_PASSING_OVERLAYS) ? null : true) : false;
  }
}
