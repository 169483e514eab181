import { own, ownText } from './natives';

/** What the server can say of a kernel. */
export type ServerState = 'attested' | 'simulated' | 'not attested' | 'refused' | 'starting' | 'none';

/** What the indicator can show: what the server said, or that it said nothing that counts. */
export type ShownState = ServerState | 'unknown';

const STATES: readonly ServerState[] = ['attested', 'simulated', 'not attested', 'refused', 'starting', 'none'];

/** One answer of `GET sealbook/api/trust`, read strictly. */
export class Trust {
  /** The kernel's state. */
  readonly state: ShownState;
  /** Why the state does not count any more, in one sentence; empty where it does. */
  readonly stale: string;
  /** One line for a person. */
  readonly summary: string;
  /** What the server calls this attestation; another one after each. */
  readonly evidence: string;
  /** When it was verified, as an ISO date; empty if it was not. */
  readonly verifiedAt: string;
  /** When it turns stale, as an ISO date; empty if it does not. */
  readonly freshUntil: string;
  /** Why it was refused: sentence by sentence. */
  readonly refusals: readonly string[];

  /**
   * @param answer - Anything. What is not an answer of the server's kind is the state "unknown".
   */
  constructor(answer: unknown) {
    let state: ShownState = 'unknown';
    const said = own(answer, 'state');
    for (let i = 0; i < STATES.length; i++) {
      if (said === STATES[i]) {
        state = STATES[i];
      }
    }
    this.state = state;
    const stale = own(answer, 'stale');
    this.stale = stale ? sentence(ownText(stale, 'reason'), ownText(stale, 'remedy')) || 'stale' : '';
    this.summary = ownText(answer, 'summary');
    this.evidence = ownText(answer, 'evidence');
    this.verifiedAt = ownText(answer, 'verified_at');
    this.freshUntil = ownText(answer, 'fresh_until');
    const refusals: string[] = [];
    const list = own(answer, 'refusals');
    const count = own(list, 'length');
    for (let i = 0; typeof count === 'number' && i < count; i++) {
      const refusal = own(list, `${i}`);
      refusals[i] = sentence(ownText(refusal, 'reason'), ownText(refusal, 'remedy'));
    }
    this.refusals = Object.freeze(refusals);
    Object.freeze(this);
  }

  /** What a person reads when they ask for more than the state. */
  get explanation(): string {
    if (this.stale) {
      return this.stale;
    }
    return this.state === 'refused' && this.refusals.length > 0 ? this.refusals[0] : this.summary;
  }
}
Object.freeze(Trust.prototype);
Object.freeze(Trust);

/** Join what is wrong and what to do about it. */
function sentence(reason: string, remedy: string): string {
  return remedy ? reason + ' ' + remedy : reason;
}

/** Whether the state is one that counted and does not any more. */
export function isStale(trust: Trust): boolean {
  const { state, stale } = trust;
  return stale !== '' && (state === 'attested' || state === 'simulated' || state === 'not attested');
}

/** The names of classes in CSS: a state's may have a blank. */
export const CLASSES: Readonly<Record<ShownState, string>> = Object.freeze({
  attested: 'attested',
  simulated: 'simulated',
  'not attested': 'not-attested',
  refused: 'refused',
  starting: 'starting',
  none: 'none',
  unknown: 'unknown'
});
