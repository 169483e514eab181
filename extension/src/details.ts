import type { ISessionContext } from '@jupyterlab/apputils';
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { Signal } from '@lumino/signaling';

import type { IAuditEntry, IFacts } from './api';
import type { TrustModel } from './model';
import { JobProgress } from './progress';
import type { Server } from './server';

/** Seconds between two questions while the panel is open. */
const INTERVAL = 2;
/** How many entries of the audit log the panel keeps. */
const ENTRIES = 200;

/** What the panel shows: everything about one notebook's kernel. */
export class Details implements IDisposable {
  /** Emitted after each change. */
  readonly changed = new Signal<this, void>(this);
  /** The jobs of the running cell. */
  readonly progress: JobProgress;

  readonly #server: Server;
  readonly #poll: Poll;
  readonly #unshow: () => void;
  #facts: IFacts | null = null;
  #before: IFacts | null = null;
  #audit: readonly IAuditEntry[] = [];
  #kernel = '';
  #evidence = '';
  #last = 0;
  #error = '';
  #disposed = false;

  /**
   * @param trust - What the indicator shows of the same kernel.
   * @param session - Its notebook's session.
   * @param server - Who is asked.
   * @param visible - Whether someone looks; nothing is asked otherwise.
   */
  constructor(
    readonly trust: TrustModel,
    readonly session: ISessionContext,
    server: Server,
    visible: () => boolean
  ) {
    this.#server = server;
    this.progress = new JobProgress(session);
    this.progress.changed.connect(() => this.#emit());
    this.#poll = new Poll({
      auto: false,
      name: '@sealbook:details',
      factory: () => this.#ask(),
      frequency: { interval: INTERVAL * 1000, backoff: false },
      standby: () => (visible() ? 'when-hidden' : true)
    });
    this.#unshow = trust.show(visible, () => {
      const evidence = trust.trust.evidence;
      if (evidence !== this.#evidence || trust.kernel !== this.#kernel) {
        // What was found about another start is not shown beside this one's state.
        this.#evidence = evidence;
        this.#forget();
      }
      this.#emit();
    });
    Object.freeze(this);
    void this.#poll.start();
  }

  /** The last answer about the kernel that is there now. */
  get facts(): IFacts | null {
    return this.#facts;
  }

  /** What was the answer about the same kernel before it attested itself anew; to keep its place, not to be read. */
  get before(): IFacts | null {
    return this.#before;
  }

  /** Entries of the audit log, the oldest first; like {@link before} while there are no facts. */
  get audit(): readonly IAuditEntry[] {
    return this.#audit;
  }

  /** Why there is no answer. */
  get error(): string {
    return this.#error;
  }

  get isDisposed(): boolean {
    return this.#disposed;
  }

  /** Ask now. */
  refresh(): void {
    if (!this.#disposed) {
      void this.#poll.refresh();
    }
  }

  dispose(): void {
    if (!this.#disposed) {
      this.#disposed = true;
      this.#poll.dispose();
      this.#unshow();
      this.progress.dispose();
      Signal.clearData(this);
    }
  }

  #forget(): void {
    if (this.trust.kernel === this.#kernel) {
      this.#before = this.#facts ?? this.#before;
    } else {
      this.#before = null;
      this.#audit = [];
    }
    this.#facts = null;
    this.#last = 0;
    this.#error = '';
    this.#kernel = this.trust.kernel;
    this.refresh();
  }

  async #ask(): Promise<void> {
    const kernel = this.trust.kernel;
    if (kernel !== this.#kernel) {
      this.#forget();
    }
    // A start that was refused left no kernel: it is known by the notebook's path.
    const refused = !kernel && this.trust.trust.state === 'refused';
    if (this.#disposed || !(kernel || refused)) {
      return;
    }
    const since = this.#last;
    const where = refused ? 'refused' : `kernels/${encodeURIComponent(kernel)}/attestation`;
    try {
      const facts = await this.#server.get<IFacts>(where, { since: String(since), path: this.trust.path });
      if (kernel !== this.#kernel || since !== this.#last || this.#disposed) {
        return;
      }
      if (facts.trust.evidence !== this.#evidence) {
        // Attested again since the indicator asked: it shall say the same.
        this.trust.refresh();
        this.#evidence = facts.trust.evidence;
      }
      this.#facts = facts;
      this.#last = facts.last;
      this.#audit = [...(since > 0 ? this.#audit : []), ...facts.audit].slice(-ENTRIES);
      this.#error = '';
    } catch (error) {
      if (kernel === this.#kernel) {
        this.#facts = null;
        this.#error = error instanceof Error ? error.message : String(error);
      }
    }
    this.#emit();
  }

  #emit(): void {
    if (!this.#disposed) {
      this.changed.emit();
    }
  }
}
Object.freeze(Details.prototype);
Object.freeze(Details);
