import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { encode, getJson, ownText } from './natives';
import { Trust } from './trust';

/** Seconds after which the server counts as one that does not answer. */
const PATIENCE = 10;

/**
 * Asks the server side of sealbook, which verified the quote.
 *
 * What the indicator shows is asked for by {@link trust}, which no script of the page can patch. The rest goes the way
 * of every other request of JupyterLab.
 */
export class Server {
  readonly #settings: ServerConnection.ISettings;
  readonly #trust: string;
  readonly #token: string;

  constructor(settings: ServerConnection.ISettings) {
    this.#settings = settings;
    this.#trust = URLExt.join(settings.baseUrl, 'sealbook/api/trust');
    this.#token = settings.token;
    Object.freeze(this);
  }

  /**
   * Ask for a kernel's state.
   *
   * @param kernel - Its id; empty for none.
   * @param path - The notebook's path: a kernel that was refused is known by that alone.
   * @param done - Called once, with the answer; its state is "unknown" if there was none.
   */
  trust(kernel: string, path: string, done: (trust: Trust) => void): void {
    const url = this.#trust + '?kernel=' + encode(kernel) + '&path=' + encode(path);
    getJson(url, this.#token, PATIENCE, answer => {
      // An answer about another kernel is none; of a kernel that the server does not know, it speaks without an id.
      const trust = new Trust(answer);
      const about = ownText(answer, 'kernel');
      const ended = about === '' && (trust.state === 'refused' || trust.state === 'none');
      done(about === kernel || ended ? trust : new Trust(undefined));
    });
  }

  /**
   * Get JSON.
   *
   * @throws Error with the server's sentence.
   */
  async get<T>(path: string, query: Record<string, string> = {}): Promise<T> {
    return (await this.#request(path, query, { method: 'GET' })).json();
  }

  /**
   * Get the content of a file.
   *
   * @throws Error with the server's sentence.
   */
  async download(path: string): Promise<{ name: string; content: Blob }> {
    const response = await this.#request(path, {}, { method: 'GET' });
    const name = /filename="?([^";]+)/.exec(response.headers.get('Content-Disposition') ?? '')?.[1];
    return { name: name ?? 'sealbook-evidence.json', content: await response.blob() };
  }

  /**
   * Post JSON.
   *
   * @throws Error with the server's sentence.
   */
  async post<T>(path: string, body: object = {}): Promise<T> {
    return (await this.#request(path, {}, { method: 'POST', body: JSON.stringify(body) })).json();
  }

  /** @throws Error with a sentence for a person. */
  async #request(path: string, query: Record<string, string>, init: RequestInit): Promise<Response> {
    const url = URLExt.join(this.#settings.baseUrl, 'sealbook/api', path) + URLExt.objectToQueryString(query);
    let response;
    try {
      response = await ServerConnection.makeRequest(url, init, this.#settings);
    } catch (error) {
      if (error instanceof ServerConnection.NetworkError) {
        throw new Error('The Jupyter server does not answer: start it again, or mend the connection to it.', {
          cause: error
        });
      }
      throw error;
    }
    if (!response.ok) {
      let message = `${response.status} ${response.statusText}`;
      try {
        message = ownText(await response.json(), 'message') || message;
      } catch {
        // No JSON: the status has to do.
      }
      throw new ServerConnection.ResponseError(response, message);
    }
    return response;
  }
}
Object.freeze(Server.prototype);
Object.freeze(Server);
