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

  private readonly _poll: Poll;
  private readonly _unshow: () => void;
  private _facts: IFacts | null = null;
  private _audit: readonly IAuditEntry[] = [];
  private _kernel = '';
  private _evidence = '';
  private _last = 0;
  private _error = '';
  private _disposed = false;

  /**
   * @param trust - What the indicator shows of the same kernel.
   * @param session - Its notebook's session.
   * @param server - Who is asked.
   * @param visible - Whether someone looks; nothing is asked otherwise.
   */
  constructor(
    readonly trust: TrustModel,
    readonly session: ISessionContext,
    private readonly _server: Server,
    visible: () => boolean
  ) {
    this.progress = new JobProgress(session);
    this.progress.changed.connect(this._emit, this);
    this._poll = new Poll({
      auto: false,
      name: '@sealbook:details',
      factory: () => this._ask(),
      frequency: { interval: INTERVAL * 1000, backoff: false },
      standby: () => (visible() ? 'when-hidden' : true)
    });
    this._unshow = trust.show(visible, () => {
      const evidence = trust.trust.evidence;
      if (evidence !== this._evidence || trust.kernel !== this._kernel) {
        // What was found about another start is not shown beside this one's state.
        this._evidence = evidence;
        this._forget();
      }
      this._emit();
    });
    void this._poll.start();
  }

  /** The last answer about the kernel that is there now. */
  get facts(): IFacts | null {
    return this._facts;
  }

  /** Entries of the audit log, the oldest first. */
  get audit(): readonly IAuditEntry[] {
    return this._audit;
  }

  /** Why there is no answer. */
  get error(): string {
    return this._error;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  /** Ask now. */
  refresh(): void {
    if (!this._disposed) {
      void this._poll.refresh();
    }
  }

  dispose(): void {
    if (!this._disposed) {
      this._disposed = true;
      this._poll.dispose();
      this._unshow();
      this.progress.dispose();
      Signal.clearData(this);
    }
  }

  private _forget(): void {
    this._facts = null;
    this._audit = [];
    this._last = 0;
    this._error = '';
    this._kernel = this.trust.kernel;
    this.refresh();
  }

  private async _ask(): Promise<void> {
    const kernel = this.trust.kernel;
    if (kernel !== this._kernel) {
      this._forget();
    }
    if (!kernel || this._disposed) {
      return;
    }
    const since = this._last;
    try {
      const facts = await this._server.get<IFacts>(`kernels/${encodeURIComponent(kernel)}/attestation`, {
        since: String(since)
      });
      if (kernel !== this._kernel || since !== this._last || this._disposed) {
        return;
      }
      if (facts.trust.evidence !== this._evidence) {
        // Attested again since the indicator asked: it shall say the same.
        this.trust.refresh();
        this._evidence = facts.trust.evidence;
      }
      this._facts = facts;
      this._last = facts.last;
      this._audit = [...this._audit, ...facts.audit].slice(-ENTRIES);
      this._error = '';
    } catch (error) {
      if (kernel === this._kernel) {
        this._facts = null;
        this._error = error instanceof Error ? error.message : String(error);
      }
    }
    this._emit();
  }

  private _emit(): void {
    if (!this._disposed) {
      this.changed.emit();
    }
  }
}
