import type { TranslationBundle } from '@jupyterlab/translation';

import type { ShownState } from './trust';

/**
 * Every word of the indicator, translated when JupyterLab starts: what a page does to the translator later has no
 * effect on them.
 */
export class Words {
  /** What each state is called. */
  readonly states: Readonly<Record<ShownState, string>>;
  /** The same where the state does not count any more. */
  readonly staleStates: Readonly<Record<ShownState, string>>;
  /** What the indicator is. */
  readonly title: string;
  /** What a click on it does. */
  readonly action: string;
  /** Said when something is in front of the indicator. */
  readonly covered: string;
  /** The indicator's word while something is in front of it. */
  readonly coveredState: string;
  /** What dismisses that notice. */
  readonly dismiss: string;
  /** Why nothing is known. */
  readonly unknown: string;

  constructor(trans: TranslationBundle) {
    const states: Record<ShownState, string> = {
      attested: trans.__('Attested'),
      simulated: trans.__('Simulated'),
      'not attested': trans.__('Not attested'),
      refused: trans.__('Refused'),
      starting: trans.__('Verifying…'),
      none: trans.__('No kernel'),
      unknown: trans.__('Not known')
    };
    this.states = Object.freeze(states);
    this.staleStates = Object.freeze({
      ...states,
      attested: trans.__('Attested, stale'),
      simulated: trans.__('Simulated, stale'),
      'not attested': trans.__('Not attested, stale')
    });
    this.title = trans.__('Kernel trust');
    this.action = trans.__('Open the kernel trust panel.');
    this.covered = trans.__('Something in this page covers the kernel’s trust indicator.');
    this.coveredState = trans.__('Covered');
    this.dismiss = trans.__('Dismiss');
    this.unknown = trans.__('The server does not say what it found about this kernel.');
    Object.freeze(this);
  }
}
