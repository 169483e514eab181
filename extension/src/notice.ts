import { append, closedShadow, element, listen, parentOf, setAttribute, setText, showInTopLayer } from './natives';
import type { Words } from './words';

const STYLE = `
:host { all: initial !important; display: block !important; position: fixed !important; inset: 2px auto auto 50% !important;
  transform: translateX(-50%) !important; visibility: visible !important; opacity: 1 !important; z-index: 2147483647 !important; }
div { display: flex; gap: 12px; align-items: center; padding: 6px 12px; border: 2px solid #b32020; border-radius: 6px;
  background: #fff4f4; color: #6d0c0c; font: 500 13px/18px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Arial, sans-serif; }
button { font: inherit; padding: 2px 8px; border: 1px solid #b32020; border-radius: 4px; background: #fff; color: #6d0c0c; cursor: pointer; }
button:focus-visible { outline: 2px solid #0b57d0; outline-offset: 1px; }
`;

/** Says, above everything else in the page, that the indicator is covered. */
export class CoverNotice {
  private readonly _host = element('div');
  private readonly _covered: object[] = [];
  private _dismissed = false;

  constructor(words: Words) {
    const shadow = closedShadow(this._host);
    const style = element('style');
    setText(style, STYLE);
    append(shadow, style);
    const box = element('div');
    setAttribute(box, 'role', 'alert');
    const text = element('span');
    setText(text, words.covered);
    const button = element('button');
    setText(button, words.dismiss);
    listen(button, 'click', () => {
      this._dismissed = true;
      this._hide();
    });
    append(box, text);
    append(box, button);
    append(shadow, box);
  }

  /**
   * Say that one of the indicators is covered, or is not any more.
   *
   * @param who - The indicator.
   */
  set(who: object, covered: boolean): void {
    const index = this._covered.indexOf(who);
    if (covered && index < 0) {
      this._covered[this._covered.length] = who;
    } else if (!covered && index >= 0) {
      this._covered.splice(index, 1);
    }
    if (this._covered.length === 0) {
      this._dismissed = false;
      this._hide();
    } else if (!this._dismissed) {
      this._show();
    }
  }

  private _show(): void {
    const body = document.body;
    if (parentOf(this._host) !== body) {
      setAttribute(this._host, 'popover', 'manual');
      append(body, this._host);
      showInTopLayer(this._host);
    }
  }

  private _hide(): void {
    this._host.remove();
  }
}
