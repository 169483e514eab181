import { Clipboard, Dialog, Notification, showDialog, showErrorMessage } from '@jupyterlab/apputils';

import type { Details } from './details';
import type { Translation } from './parts';
import type { Server } from './server';

/** How clusters may be called: the name goes into a line that the kernel runs. */
const CLUSTER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** Characters of a kernel's error that are shown. */
const LONGEST = 500;

/** What the buttons of the panel do. */
export class Actions {
  constructor(
    private readonly _server: Server,
    private readonly _trans: Translation
  ) {}

  /** Let the kernel prove itself again, now. */
  async attestAgain(details: Details): Promise<void> {
    await this._try(this._trans.__('Attestation'), async () => {
      try {
        await this._server.post(`kernels/${encodeURIComponent(details.trust.kernel)}/attest`);
      } finally {
        details.trust.refresh();
        details.refresh();
      }
      Notification.success(this._trans.__('The kernel attested itself again.'), { autoClose: 4000 });
    });
  }

  /** Save what `sealbook verify` checks without this server. */
  async exportEvidence(details: Details): Promise<void> {
    await this._try(this._trans.__('Evidence'), async () => {
      const { name, content } = await this._server.download(
        `kernels/${encodeURIComponent(details.trust.kernel)}/evidence`
      );
      const url = URL.createObjectURL(content);
      const link = document.createElement('a');
      link.href = url;
      link.download = name;
      link.click();
      window.setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }

  /** Copy a policy that admits exactly this enclave. */
  async copyPolicy(details: Details): Promise<void> {
    await this._try(this._trans.__('Policy'), async () => {
      const { policy, name } = await this._server.get<{ policy: string; name: string }>(
        `kernels/${encodeURIComponent(details.trust.kernel)}/policy`
      );
      Clipboard.copyToSystem(policy);
      Notification.success(
        this._trans.__('A policy that admits exactly this enclave is in the clipboard: save it as %1.', name),
        { autoClose: 6000 }
      );
    });
  }

  /**
   * Let the notebook's code run elsewhere, as `%scale` does.
   *
   * @param name - The cluster; empty for this machine.
   */
  async scale(details: Details, name: string): Promise<void> {
    const trans = this._trans;
    const kernel = details.session.session?.kernel;
    if (!kernel || (name && !CLUSTER_NAME.test(name))) {
      return;
    }
    const answer = await showDialog({
      title: name ? trans.__('Run on the cluster %1?', name) : trans.__('Run on this machine?'),
      body: trans.__('The present Spark session ends, with its temporary views and cached tables.'),
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: trans.__('Switch') })]
    });
    if (!answer.button.accept) {
      return;
    }
    await this._try(trans.__('Switch'), async () => {
      const code = name ? `%scale cluster ${name}` : '%scale local';
      const reply = await kernel.requestExecute({ code, store_history: false, stop_on_error: false }).done;
      if (reply.content.status === 'error') {
        throw new Error(trans.__('The kernel says: %1', String(reply.content.evalue).slice(0, LONGEST)));
      }
      details.refresh();
    });
  }

  private async _try(title: string, action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      await showErrorMessage(title, error instanceof Error ? error.message : String(error));
    }
  }
}
