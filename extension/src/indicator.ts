import type { IThemeManager } from '@jupyterlab/apputils';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { TrustChip } from './chip';
import { CoverWatch } from './cover';
import type { TrustModel } from './model';
import { pageHidden } from './natives';
import type { CoverNotice } from './notice';
import { Trust } from './trust';
import type { Words } from './words';

const NOTHING = new Trust(JSON.parse('{"state": "none"}'));

/** The indicator as a widget of JupyterLab's: in a notebook's toolbar, or in the status bar. */
export class TrustIndicator extends Widget {
  private readonly _chip: TrustChip;
  private readonly _cover: CoverWatch;
  private _model: TrustModel | null = null;
  private _unshow: (() => void) | null = null;

  constructor(private readonly _options: TrustIndicator.IOptions) {
    super({ node: document.createElement('div') });
    this.addClass('sealbook-Indicator');
    this._chip = new TrustChip(this.node, _options.words, _options.announced, () => _options.open());
    this._cover = new CoverWatch(
      this._chip.host,
      () => this.isVisible && this._model !== null,
      covered => _options.notice.set(this, covered)
    );
    _options.themes?.themeChanged.connect(this._onTheme, this);
    this._onTheme();
    this.model = _options.model;
  }

  /** What it shows; null for no notebook. */
  get model(): TrustModel | null {
    return this._model;
  }
  set model(model: TrustModel | null) {
    if (model === this._model && this._unshow) {
      return;
    }
    this._unshow?.();
    this._model = model;
    this._unshow = model
      ? model.show(
          () => this.isVisible && !pageHidden(),
          () => this._chip.show(model.trust)
        )
      : null;
    if (model) {
      model.seen();
    } else {
      this._chip.show(NOTHING);
    }
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._unshow?.();
    this._cover.dispose();
    this._options.notice.set(this, false);
    this._options.themes?.themeChanged.disconnect(this._onTheme, this);
    this._chip.dispose();
    super.dispose();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._model?.seen();
    this._cover.look();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._model?.seen();
    this._cover.look();
  }

  private _onTheme(): void {
    const themes = this._options.themes;
    this._chip.dark = !!themes && !!themes.theme && !themes.isLight(themes.theme);
  }
}

export namespace TrustIndicator {
  /** What an indicator needs. */
  export interface IOptions {
    readonly model: TrustModel | null;
    readonly words: Words;
    readonly notice: CoverNotice;
    readonly themes: IThemeManager | null;
    /** Whether screen readers hear of its changes. */
    readonly announced: boolean;
    /** Opens the panel. */
    readonly open: () => void;
  }
}
