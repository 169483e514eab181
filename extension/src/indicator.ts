import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { TrustChip } from './chip';
import { CoverWatch, type IPlace } from './cover';
import type { TrustModel } from './model';
import { element, pageHidden } from './natives';
import type { CoverNotice } from './notice';
import { Trust } from './trust';
import type { Words } from './words';

const NOTHING = new Trust(JSON.parse('{"state": "none"}'));

/**
 * The indicator as a widget of JupyterLab's: in a notebook's toolbar, or in the status bar.
 *
 * A script can get hold of the widget. Nothing that it has lets it show another state: what it shows is given through
 * {@link TrustIndicator.IOptions.bind} alone.
 */
export class TrustIndicator extends Widget {
  readonly #chip: TrustChip;
  readonly #cover: CoverWatch;
  readonly #place: IPlace;
  #model: TrustModel | null = null;
  #unshow: (() => void) | null = null;

  constructor(options: TrustIndicator.IOptions) {
    const node = element('div');
    super({ node });
    this.addClass('sealbook-Indicator');
    const { place, notice } = options;
    this.#place = place;
    this.#chip = new TrustChip(node, options.words, options.announced, options.open);
    const teller = notice.teller(() => this.#cover.again());
    this.#cover = new CoverWatch(
      node,
      place,
      covered => {
        teller.tell(covered);
        this.#chip.covered = covered;
        if (!covered && this.isDisposed) {
          teller.leave();
        }
      },
      () => notice.raised
    );
    this.#show(options.model);
    options.bind?.(model => this.#show(model));
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.#unshow?.();
    this.#chip.dispose();
    super.dispose();
    this.#cover.end();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.#model?.seen();
    this.#cover.look();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.#model?.seen();
    this.#cover.look();
  }

  #show(model: TrustModel | null): void {
    if (model === this.#model && this.#unshow) {
      return;
    }
    this.#unshow?.();
    this.#model = model;
    this.#unshow = null;
    if (model) {
      this.#unshow = model.show(
        () => this.#place.seen() && !pageHidden(),
        () => this.#chip.show(model.trust)
      );
      model.seen();
    } else {
      this.#chip.show(NOTHING);
    }
  }
}
Object.freeze(TrustIndicator.prototype);
Object.freeze(TrustIndicator);

export namespace TrustIndicator {
  /** What an indicator needs. */
  export interface IOptions {
    /** What it shows; null for no notebook. */
    readonly model: TrustModel | null;
    /** Called with what lets it show another one. */
    readonly bind?: (show: (model: TrustModel | null) => void) => void;
    readonly words: Words;
    readonly notice: CoverNotice;
    readonly place: IPlace;
    /** Whether screen readers hear of its changes. */
    readonly announced: boolean;
    /** Opens the panel. */
    readonly open: () => void;
  }
}
