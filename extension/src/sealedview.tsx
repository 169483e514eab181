import { ReactWidget } from '@jupyterlab/apputils';
import { ABCWidgetFactory, DocumentWidget, type DocumentRegistry } from '@jupyterlab/docregistry';
import type { Contents } from '@jupyterlab/services';
import React from 'react';

import { sealedIcon } from './icons';
import { Fact, Facts, localTime, readableSize, words, type Translation } from './parts';
import type { ISealedHeader, SealedFiles } from './sealedfiles';

/** The name of the factory, as the "Open With" menu shows it. */
export const FACTORY = 'Sealed file';
/** The name of the provider of no content. */
export const PROVIDER = 'sealbook-header';

/**
 * Gives a sealed file's place and size to JupyterLab, and none of its bytes: a document that is opened would otherwise
 * be read as a whole.
 */
export class NoContent {
  constructor(private readonly _drive: Contents.IDrive) {}

  async get(path: string, options?: Contents.IFetchOptions): Promise<Contents.IModel> {
    const model = await this._drive.get(path, { ...options, contentProviderId: undefined, content: false });
    return { ...model, content: '', format: 'text', mimetype: 'text/plain' };
  }

  save(): Promise<Contents.IModel> {
    return Promise.reject(new Error('A sealed file cannot be edited.'));
  }
}

/** What a sealed file says about itself. */
export class SealedView extends ReactWidget {
  private _header: ISealedHeader | null = null;
  private _error = '';

  constructor(
    private readonly _context: DocumentRegistry.Context,
    private readonly _files: SealedFiles,
    private readonly _trans: Translation
  ) {
    super();
    this.addClass('sealbook-SealedView');
    this.node.tabIndex = 0;
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _trans.__('Sealed file'));
    void this._read();
    _context.pathChanged.connect(() => void this._read());
    _context.fileChanged.connect(() => void this._read());
  }

  protected render(): JSX.Element {
    const trans = this._trans;
    const header = this._header;
    return (
      <div className="sealbook-Content">
        <h2>{this._context.path}</h2>
        {this._error && <p className="sealbook-Refusal">{this._error}</p>}
        {header && (
          <>
            <p>{header.note}</p>
            <Facts>
              <Fact name={trans.__('Size')} value={readableSize(header.size)} />
              <Fact name={trans.__('Holds')} value={header.codec} />
              <Fact name={trans.__('Algorithm')} value={header.algorithm} />
              <Fact name={trans.__('Opens with')} value={header.keys.map(key => `${key.name} v${key.version}`).join(', ')} />
              <Fact name={trans.__('Sealed')} value={localTime(header.sealed_at)} />
              <Fact name={trans.__('File id')} value={header.file_id} trans={trans} code copy />
            </Facts>
            {this._more(trans.__('Sealed by'), header.sealer)}
            {this._more(trans.__('Context'), header.context)}
            <div className="sealbook-Actions">
              <button
                type="button"
                className="jp-mod-styled sealbook-Button"
                onClick={() => void this._files.unseal(this._context.path)}
              >
                {trans.__('Unseal to…')}
              </button>
              <button
                type="button"
                className="jp-mod-styled sealbook-Button"
                onClick={() => void this._files.rekey(this._context.path).then(() => this._read())}
              >
                {trans.__('Rekey…')}
              </button>
            </div>
          </>
        )}
      </div>
    );
  }

  private _more(title: string, facts: Readonly<Record<string, unknown>> | null): JSX.Element | null {
    if (!facts || Object.keys(facts).length === 0) {
      return null;
    }
    return (
      <section>
        <h3>{title}</h3>
        <Facts>
          {Object.entries(facts).map(([name, value]) => (
            <Fact key={name} name={name} value={this._value(value)} code />
          ))}
        </Facts>
      </section>
    );
  }

  private _value(value: unknown): string {
    return typeof value === 'boolean' ? (value ? this._trans.__('yes') : this._trans.__('no')) : words(value);
  }

  private async _read(): Promise<void> {
    try {
      this._header = await this._files.inspect(this._context.path);
      this._error = '';
    } catch (error) {
      this._header = null;
      this._error = error instanceof Error ? error.message : String(error);
    }
    this.update();
  }
}

/** Opens sealed files in a {@link SealedView}. */
export class SealedViewFactory extends ABCWidgetFactory<DocumentWidget<SealedView>> {
  constructor(
    options: DocumentRegistry.IWidgetFactoryOptions<DocumentWidget<SealedView>>,
    private readonly _files: SealedFiles,
    private readonly _trans: Translation
  ) {
    super(options);
  }

  protected createNewWidget(context: DocumentRegistry.Context): DocumentWidget<SealedView> {
    const widget = new DocumentWidget({ content: new SealedView(context, this._files, this._trans), context });
    widget.title.icon = sealedIcon;
    return widget;
  }
}
