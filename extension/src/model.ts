import type { ISessionContext } from '@jupyterlab/apputils';
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { Kernel } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';

import { isAmong, listen, now, pageHidden, secondsOf, startTimer, stopTimer } from './natives';
import type { Server } from './server';
import { Trust } from './trust';

/** Seconds between two questions while nothing happens. */
const INTERVAL = 10;
/** The same while a kernel starts. */
const SOON = 1;
/** The same while the server does not answer. */
const RETRY = 5;
/** Seconds after which an answer that nothing confirmed is shown no longer, should the page be kept from asking. */
const LIFETIME = 35;

/**
 * Seconds after the beginning of a restart in which the attestation of before does not count, whatever the status:
 * the kernel that ends still says "busy" and "idle" of that.
 */
const RESTART = 30;

/** The statuses of a kernel that is there and not on its way to another one. */
const SETTLED: readonly Kernel.Status[] = ['idle', 'busy', 'unknown'];

/** What JupyterLab says of a notebook that is about to get a kernel. */
const COMING: readonly string[] = ['initializing', 'connecting', 'starting'];

/** Someone who sees the state. */
interface IView {
  readonly visible: () => boolean;
  readonly update: () => void;
  next: IView | null;
}

const ASKING = new Trust(JSON.parse('{"state": "starting"}'));
const UNKNOWN = new Trust(undefined);

/**
 * What is known about the kernel of one notebook.
 *
 * Asks the server when something happens and every ten seconds (another client may have restarted the kernel), while
 * someone sees the answer. An answer is not kept over
 * anything that may have changed it: until the next one, the state is "starting" or "unknown". Nothing here talks to
 * the kernel or believes it anything.
 */
export class TrustModel implements IDisposable {
  readonly #session: ISessionContext;
  readonly #document: Pick<DocumentRegistry.Context, 'path' | 'pathChanged'> | null;
  readonly #server: Server;
  readonly #poll: Poll;
  readonly #disconnect: () => void;
  /** A chain, not an array: a page can change what arrays do. */
  #views: IView | null = null;
  #trust = ASKING;
  #outdated = '';
  #outdatedAt = 0;
  #question = 0;
  #lifetime = 0;
  #staleTimer = 0;
  #answeredAt = 0;
  #disposed = false;

  constructor(
    session: ISessionContext,
    context: Pick<DocumentRegistry.Context, 'path' | 'pathChanged'> | null,
    server: Server
  ) {
    this.#session = session;
    this.#document = context;
    this.#server = server;
    this.#poll = new Poll({
      auto: false,
      name: '@sealbook:trust',
      factory: () => this.#ask(),
      frequency: { interval: INTERVAL * 1000, backoff: false },
      standby: () => (this.#seen ? 'when-hidden' : true)
    });
    // Closures: what a page gets hold of through a signal is not this object.
    const forget = () => this.#forget();
    const onStatus = (_: unknown, status: Kernel.Status) => this.#onStatus(status);
    const onConnection = (_: unknown, status: Kernel.ConnectionStatus) => this.#onConnection(status);
    const end = () => this.dispose();
    session.kernelChanged.connect(forget);
    session.statusChanged.connect(onStatus);
    session.connectionStatusChanged.connect(onConnection);
    session.disposed.connect(end);
    context?.pathChanged.connect(forget);
    this.#disconnect = () => {
      session.kernelChanged.disconnect(forget);
      session.statusChanged.disconnect(onStatus);
      session.connectionStatusChanged.disconnect(onConnection);
      session.disposed.disconnect(end);
      context?.pathChanged.disconnect(forget);
    };
    listen(document, 'visibilitychange', () => {
      if (!pageHidden()) {
        this.seen();
      }
    });
    Object.freeze(this);
    void this.#poll.start();
  }

  /** What may be shown now. */
  get trust(): Trust {
    return this.#trust;
  }

  /** The kernel's id; empty if there is none. */
  get kernel(): string {
    return this.#session.session?.kernel?.id ?? '';
  }

  /** The notebook's path. */
  get path(): string {
    return this.#document?.path ?? this.#session.path;
  }

  get isDisposed(): boolean {
    return this.#disposed;
  }

  /**
   * Tell someone of every change.
   *
   * @param visible - Whether they can be seen now: the server is asked only while someone can.
   * @param update - Called after each change.
   * @returns what ends it
   */
  show(visible: () => boolean, update: () => void): () => void {
    const view: IView = { visible, update, next: this.#views };
    this.#views = view;
    update();
    return () => {
      if (this.#views === view) {
        this.#views = view.next;
      }
      for (let other = this.#views; other !== null; other = other.next) {
        if (other.next === view) {
          other.next = view.next;
        }
      }
    };
  }

  /** Ask because someone looks again: what was found before they looked away is not shown first. */
  seen(): void {
    if (this.#seen) {
      if (now() - this.#answeredAt > SOON) {
        this.#set(ASKING);
      }
      this.refresh();
    }
  }

  /** Ask now. */
  refresh(): void {
    if (!this.#disposed) {
      void this.#poll.refresh();
    }
  }

  dispose(): void {
    if (this.#disposed) {
      return;
    }
    this.#disposed = true;
    this.#poll.dispose();
    stopTimer(this.#lifetime);
    stopTimer(this.#staleTimer);
    this.#disconnect();
    this.#set(UNKNOWN);
  }

  get #seen(): boolean {
    for (let view = this.#views; view !== null; view = view.next) {
      if (view.visible()) {
        return true;
      }
    }
    return false;
  }

  /** What was true of the kernel before says nothing of the one that is there now. */
  #forget(): void {
    this.#question++;
    this.#set(ASKING);
    this.refresh();
  }

  #onStatus(status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting' || status === 'terminating' || status === 'dead') {
      // The server may not know yet: its last attestation does not count until the kernel is back.
      this.#outdated = this.#trust.evidence || this.#outdated;
      this.#outdatedAt = now();
      this.#forget();
    } else if (this.#outdated || this.#trust.state === 'starting') {
      this.refresh();
    }
  }

  #onConnection(status: Kernel.ConnectionStatus): void {
    if (status !== 'connected' || this.#trust.state === 'unknown') {
      this.#forget();
    }
  }

  /** Ask the server once; settles when it has answered or its time is over. */
  #ask(): Promise<void> {
    const question = ++this.#question;
    return new Promise(resolve => {
      this.#server.trust(this.kernel, this.path, trust => {
        if (question === this.#question && !this.#disposed) {
          this.#answered(trust);
        }
        resolve();
      });
    });
  }

  #answered(trust: Trust): void {
    let shown = trust;
    if (this.#outdated && trust.evidence === this.#outdated) {
      const status = this.#session.session?.kernel?.status ?? 'unknown';
      shown = isAmong(status, SETTLED) && now() - this.#outdatedAt > RESTART ? trust : ASKING;
    }
    if (shown === trust && trust.evidence) {
      this.#outdated = '';
    }
    if (trust.state === 'none' && isAmong<string>(this.#session.kernelDisplayStatus, COMING)) {
      shown = ASKING;
    }
    this.#answeredAt = now();
    stopTimer(this.#lifetime);
    this.#lifetime = startTimer(LIFETIME, () => this.#set(UNKNOWN));
    stopTimer(this.#staleTimer);
    const left = trust.freshUntil && !trust.stale ? secondsOf(trust.freshUntil) - now() : 0;
    if (left > 0) {
      this.#staleTimer = startTimer(left + 0.5, () => this.#forget());
    }
    this.#set(shown);
    const wait = shown.state === 'starting' ? SOON : shown.state === 'unknown' ? RETRY : INTERVAL;
    this.#poll.frequency = { interval: wait * 1000, backoff: false, max: wait * 1000 };
  }

  #set(trust: Trust): void {
    this.#trust = trust;
    for (let view = this.#views; view !== null; view = view.next) {
      view.update();
    }
  }
}
Object.freeze(TrustModel.prototype);
Object.freeze(TrustModel);
