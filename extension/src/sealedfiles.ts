import { Dialog, Notification, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { ServerConnection, type Contents } from '@jupyterlab/services';

import { FileDialog } from './filedialog';
import type { Translation } from './parts';
import type { Server } from './server';

/** How the names of sealed files end. */
export const SUFFIX = '.sealed';

/** A key that files can be sealed with. */
interface IKey {
  readonly name: string;
  readonly guard: string;
  readonly version: number;
  readonly description: string;
}

/** The header of a sealed file, read without a key. */
export interface ISealedHeader {
  readonly path: string;
  readonly size: number;
  readonly codec: string;
  readonly algorithm: string;
  readonly keys: readonly { readonly name: string; readonly version: number }[];
  readonly sealed_at: string;
  readonly sealer: Readonly<Record<string, unknown>> | null;
  readonly context: Readonly<Record<string, unknown>> | null;
  readonly file_id: string;
  readonly note: string;
}

/** What a file's context menu can do: the server seals, unseals and rekeys, as the command line does. */
export class SealedFiles {
  constructor(
    private readonly _server: Server,
    private readonly _contents: Contents.IManager,
    private readonly _trans: Translation
  ) {}

  /**
   * Read a sealed file's header.
   *
   * @throws Error with the server's sentence.
   */
  inspect(path: string): Promise<ISealedHeader> {
    return this._server.get<ISealedHeader>('sealed', { path: this._contents.localPath(path) });
  }

  /** Ask for a key and a name, and seal a file. */
  async seal(path: string): Promise<void> {
    const trans = this._trans;
    await this._do(trans.__('Seal'), 'seal', async () => {
      const keys = await this._keys();
      return this._ask(trans.__('Seal'), trans.__('Encrypt %1 for those who get the key. The file itself stays.', PathExt.basename(path)), [
        { name: 'key', label: trans.__('Key'), value: keys[0]?.value ?? '', choices: keys },
        { name: 'target', label: trans.__('Sealed file'), value: this._contents.localPath(path) + SUFFIX }
      ]);
    }, path);
  }

  /** Ask for a name, and write the content of a sealed file there in clear. */
  async unseal(path: string): Promise<void> {
    const trans = this._trans;
    const local = this._contents.localPath(path);
    const target = local.endsWith(SUFFIX) ? local.slice(0, -SUFFIX.length) : local + '.opened';
    await this._do(trans.__('Unseal'), 'unseal', () =>
      this._ask(trans.__('Unseal'), trans.__('Write the content of %1 in clear, where every program can read it.', PathExt.basename(path)), [
        { name: 'target', label: trans.__('Unseal to'), value: target }
      ])
    , path);
  }

  /** Ask for a key, and let a sealed file open with that one. */
  async rekey(path: string): Promise<void> {
    const trans = this._trans;
    await this._do(trans.__('Rekey'), 'rekey', async () => {
      const keys = await this._keys();
      return this._ask(trans.__('Rekey'), trans.__('Let another key open %1. Its content is not encrypted again.', PathExt.basename(path)), [
        { name: 'to', label: trans.__('Key'), value: keys[0]?.value ?? '', choices: keys }
      ]);
    }, path);
  }

  private async _keys(): Promise<{ value: string; label: string }[]> {
    const trans = this._trans;
    const { keys } = await this._server.get<{ keys: IKey[] }>('keys');
    if (keys.length === 0) {
      throw new Error(trans.__('You have no key yet: make one with `sealbook keys create NAME`.'));
    }
    return keys.map(key => ({
      value: key.name,
      label:
        `${key.name} (v${key.version})` +
        (key.guard && key.guard !== 'none' ? ' – ' + trans.__('only for attested kernels') : '') +
        (key.description ? ` – ${key.description}` : '')
    }));
  }

  private async _ask(
    title: string,
    text: string,
    questions: ConstructorParameters<typeof FileDialog>[1]
  ): Promise<Record<string, string> | null> {
    const result = await showDialog({
      title,
      body: new FileDialog(text, questions),
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: title })],
      focusNodeSelector: 'select, input'
    });
    return result.button.accept ? result.value : null;
  }

  /** Ask what is to be asked, let the server do it, say what came of it. */
  private async _do(
    title: string,
    command: string,
    ask: () => Promise<Record<string, string> | null>,
    path: string
  ): Promise<void> {
    try {
      const answers = await ask();
      if (!answers) {
        return;
      }
      const body = { ...answers, path: this._contents.localPath(path) };
      let done: { message: string } | null;
      try {
        done = await this._server.post<{ message: string }>(`sealed/${command}`, body);
      } catch (error) {
        done = await this._overwrite(error, command, body);
      }
      if (done) {
        Notification.success(done.message, { autoClose: 6000 });
      }
    } catch (error) {
      await showErrorMessage(title, error instanceof Error ? error.message : String(error));
    }
  }

  /** Where a file is in the way, ask; throws any other error again. */
  private async _overwrite(error: unknown, command: string, body: object): Promise<{ message: string } | null> {
    if (!(error instanceof ServerConnection.ResponseError) || error.response.status !== 409) {
      throw error;
    }
    const trans = this._trans;
    const answer = await showDialog({
      title: trans.__('Overwrite?'),
      body: error.message,
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: trans.__('Overwrite') })]
    });
    return answer.button.accept ? this._server.post(`sealed/${command}`, { ...body, force: true }) : null;
  }
}
