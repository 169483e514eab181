import type { ISessionContext } from '@jupyterlab/apputils';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { Kernel } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';

import { isAmong, listen, now, pageHidden, secondsOf, startTimer, stopTimer } from './natives';
import type { Server } from './server';
import { Trust } from './trust';

/** Seconds between two questions while nothing happens. */
const INTERVAL = 60;
/** The same while a kernel starts. */
const SOON = 1;
/** The same while the server does not answer. */
const RETRY = 5;
/** Seconds after which an answer that nothing confirmed is shown no longer, should the page be kept from asking. */
const LIFETIME = 150;

/**
 * Seconds after the beginning of a restart in which the attestation of before does not count, whatever the status:
 * the kernel that ends still says "busy" and "idle" of that.
 */
const RESTART = 30;

/** The statuses of a kernel that is there and not on its way to another one. */
const SETTLED: readonly Kernel.Status[] = ['idle', 'busy', 'unknown'];

/** What JupyterLab says of a notebook that is about to get a kernel. */
const COMING: readonly string[] = ['initializing', 'connecting', 'starting'];

const ASKING = new Trust(JSON.parse('{"state": "starting"}'));
const UNKNOWN = new Trust(undefined);

/**
 * What is known about the kernel of one notebook.
 *
 * Asks the server when something happens and once a minute, while someone sees the answer. An answer is not kept over
 * anything that may have changed it: until the next one, the state is "starting" or "unknown". Nothing here talks to
 * the kernel or believes it anything.
 */
export class TrustModel implements IDisposable {
  private readonly _poll: Poll;
  private readonly _views: { readonly visible: () => boolean; readonly update: () => void }[] = [];
  private _trust = ASKING;
  private _outdated = '';
  private _outdatedAt = 0;
  private _question = 0;
  private _lifetime = 0;
  private _staleTimer = 0;
  private _answeredAt = 0;
  private _disposed = false;

  constructor(
    private readonly _session: ISessionContext,
    private readonly _document: Pick<DocumentRegistry.Context, 'path' | 'pathChanged'> | null,
    private readonly _server: Server
  ) {
    this._poll = new Poll({
      auto: false,
      name: '@sealbook:trust',
      factory: () => this._ask(),
      frequency: { interval: INTERVAL * 1000, backoff: false },
      standby: () => (this._seen ? 'when-hidden' : true)
    });
    _session.kernelChanged.connect(this._forget, this);
    _session.statusChanged.connect(this._onStatus, this);
    _session.connectionStatusChanged.connect(this._onConnection, this);
    _session.disposed.connect(this.dispose, this);
    _document?.pathChanged.connect(this._forget, this);
    listen(document, 'visibilitychange', () => {
      if (!pageHidden()) {
        this.seen();
      }
    });
    void this._poll.start();
  }

  /** What may be shown now. */
  get trust(): Trust {
    return this._trust;
  }

  /** The kernel's id; empty if there is none. */
  get kernel(): string {
    return this._session.session?.kernel?.id ?? '';
  }

  /** The notebook's path. */
  get path(): string {
    return this._document?.path ?? this._session.path;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /**
   * Tell someone of every change.
   *
   * @param visible - Whether they can be seen now: the server is asked only while someone can.
   * @param update - Called after each change.
   * @returns what ends it
   */
  show(visible: () => boolean, update: () => void): () => void {
    const view = { visible, update };
    // No methods of arrays, nor signals: a page can replace both.
    this._views[this._views.length] = view;
    update();
    return () => {
      const index = this._views.indexOf(view);
      if (index >= 0) {
        this._views.splice(index, 1);
      }
    };
  }

  /** Ask because someone looks again: what was found before they looked away is not shown first. */
  seen(): void {
    if (this._seen) {
      if (now() - this._answeredAt > SOON) {
        this._set(ASKING);
      }
      this.refresh();
    }
  }

  /** Ask now. */
  refresh(): void {
    if (!this._disposed) {
      void this._poll.refresh();
    }
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    this._poll.dispose();
    stopTimer(this._lifetime);
    stopTimer(this._staleTimer);
    this._session.kernelChanged.disconnect(this._forget, this);
    this._session.statusChanged.disconnect(this._onStatus, this);
    this._session.connectionStatusChanged.disconnect(this._onConnection, this);
    this._session.disposed.disconnect(this.dispose, this);
    this._document?.pathChanged.disconnect(this._forget, this);
    this._set(UNKNOWN);
  }

  private get _seen(): boolean {
    for (let i = 0; i < this._views.length; i++) {
      if (this._views[i].visible()) {
        return true;
      }
    }
    return false;
  }

  /** What was true of the kernel before says nothing of the one that is there now. */
  private _forget(): void {
    this._question++;
    this._set(ASKING);
    this.refresh();
  }

  private _onStatus(_: unknown, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting' || status === 'terminating' || status === 'dead') {
      // The server may not know yet: its last attestation does not count until the kernel is back.
      this._outdated = this._trust.evidence || this._outdated;
      this._outdatedAt = now();
      this._forget();
    } else if (this._outdated || this._trust.state === 'starting') {
      this.refresh();
    }
  }

  private _onConnection(_: unknown, status: Kernel.ConnectionStatus): void {
    if (status !== 'connected' || this._trust.state === 'unknown') {
      this._forget();
    }
  }

  /** Ask the server once; settles when it has answered or its time is over. */
  private _ask(): Promise<void> {
    const question = ++this._question;
    return new Promise(resolve => {
      this._server.trust(this.kernel, this.path, trust => {
        if (question === this._question && !this._disposed) {
          this._answered(trust);
        }
        resolve();
      });
    });
  }

  private _answered(trust: Trust): void {
    let shown = trust;
    if (this._outdated && trust.evidence === this._outdated) {
      const status = this._session.session?.kernel?.status ?? 'unknown';
      shown = isAmong(status, SETTLED) && now() - this._outdatedAt > RESTART ? trust : ASKING;
    }
    if (shown === trust && trust.evidence) {
      this._outdated = '';
    }
    if (trust.state === 'none' && isAmong<string>(this._session.kernelDisplayStatus, COMING)) {
      shown = ASKING;
    }
    this._answeredAt = now();
    stopTimer(this._lifetime);
    this._lifetime = startTimer(LIFETIME, () => this._set(UNKNOWN));
    stopTimer(this._staleTimer);
    const left = trust.freshUntil && !trust.stale ? secondsOf(trust.freshUntil) - now() : 0;
    if (left > 0) {
      this._staleTimer = startTimer(left + 0.5, () => this._forget());
    }
    this._set(shown);
    const wait = shown.state === 'starting' ? SOON : shown.state === 'unknown' ? RETRY : INTERVAL;
    this._poll.frequency = { interval: wait * 1000, backoff: false, max: wait * 1000 };
  }

  private _set(trust: Trust): void {
    this._trust = trust;
    for (let i = 0; i < this._views.length; i++) {
      this._views[i].update();
    }
  }
}
