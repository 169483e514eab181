import type { ISessionContext } from '@jupyterlab/apputils';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import type { IProgress } from './api';

const MEDIA_TYPE = 'application/vnd.sealbook.progress+json';
const DISPLAY = 'sealbook-spark-';

/**
 * The Spark jobs of the running cell, as the kernel reports them below it.
 *
 * The kernel's own word: shown as that, and nothing of the trust display depends on it.
 */
export class JobProgress implements IDisposable {
  /** Emitted after a report. */
  readonly changed = new Signal<this, void>(this);
  private _last: IProgress | null = null;
  private _disposed = false;

  constructor(private readonly _session: ISessionContext) {
    _session.iopubMessage.connect(this._onMessage, this);
    _session.kernelChanged.connect(this._clear, this);
    _session.statusChanged.connect(this._onStatus, this);
  }

  /** The last report of a cell that still runs; null if there is none. */
  get last(): IProgress | null {
    return this._last;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    this._disposed = true;
    this._session.iopubMessage.disconnect(this._onMessage, this);
    this._session.kernelChanged.disconnect(this._clear, this);
    this._session.statusChanged.disconnect(this._onStatus, this);
    Signal.clearData(this);
  }

  private _onMessage(_: unknown, message: KernelMessage.IMessage): void {
    const type = message.header.msg_type;
    if (type !== 'display_data' && type !== 'update_display_data') {
      return;
    }
    const content = message.content as KernelMessage.IDisplayDataMsg['content'];
    const id = content.transient?.display_id;
    const report = content.data?.[MEDIA_TYPE] as Partial<Record<keyof IProgress, unknown>> | undefined;
    if (typeof id !== 'string' || !id.startsWith(DISPLAY) || report === null || typeof report !== 'object') {
      return;
    }
    const count = (value: unknown) => (typeof value === 'number' && value >= 0 ? Math.floor(value) : 0);
    this._last = report.ended
      ? null
      : {
          where: String(report.where ?? '').slice(0, 100),
          jobs: count(report.jobs),
          active: count(report.active),
          stages: count(report.stages),
          tasks: count(report.tasks),
          done: count(report.done),
          running: count(report.running),
          ended: false
        };
    this.changed.emit();
  }

  private _onStatus(_: unknown, status: Kernel.Status): void {
    if (status !== 'busy') {
      this._clear();
    }
  }

  private _clear(): void {
    if (this._last) {
      this._last = null;
      this.changed.emit();
    }
  }
}
