import { ReactWidget, UseSignal } from '@jupyterlab/apputils';
import type { Message } from '@lumino/messaging';
import React from 'react';

import type { Actions } from './actions';
import { Chain } from './chain';
import { Cluster } from './cluster';
import type { Details } from './details';
import type { IFacts } from './api';
import { trustIcon } from './icons';
import { Entries, Fact, Facts, Section, Source, localTime, readableSize, words, type Translation } from './parts';
import { StateLine } from './stateline';
import type { Words } from './words';

/** The side panel: everything that the server found about the kernel of the current notebook. */
export class TrustPanel extends ReactWidget {
  private _details: Details | null = null;

  constructor(
    private readonly _actions: Actions,
    private readonly _words: Words,
    private readonly _trans: Translation
  ) {
    super();
    this.id = 'sealbook-panel';
    this.addClass('sealbook-Panel');
    this.title.icon = trustIcon;
    this.title.caption = this._words.title;
    // In the element itself: JupyterLab's own rule for its side areas is stronger than one of a style sheet.
    this.node.style.minWidth = '320px';
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', this._words.title);
  }

  /** What it shows; null for no notebook. The panel disposes of what it showed before. */
  get details(): Details | null {
    return this._details;
  }
  set details(details: Details | null) {
    if (details !== this._details) {
      this._details?.dispose();
      this._details = details;
      details?.refresh();
      this.update();
    }
  }

  dispose(): void {
    this._details?.dispose();
    super.dispose();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._details?.trust.seen();
    this._details?.refresh();
  }

  protected render(): JSX.Element {
    const details = this._details;
    return (
      <div className="sealbook-Content">
        <h2>{this._words.title}</h2>
        {details ? (
          <UseSignal signal={details.changed}>{() => this._body(details)}</UseSignal>
        ) : (
          <p className="sealbook-Empty">{this._trans.__('Open a notebook to see what was found about its kernel.')}</p>
        )}
      </div>
    );
  }

  private _body(details: Details): JSX.Element {
    const trans = this._trans;
    const kernel = details.trust.kernel;
    const { state, evidence } = details.trust.trust;
    const facts = details.facts;
    const placed = facts ?? details.before;
    return (
      <>
        <StateLine model={details.trust} words={this._words} />
        {details.error && <p className="sealbook-Refusal">{details.error}</p>}
        <div className="sealbook-Actions" role="group" aria-label={trans.__('What you can do')}>
          <button
            type="button"
            className="jp-mod-styled sealbook-Button"
            disabled={!kernel || (state === 'not attested' && !evidence)}
            onClick={() => void this._actions.attestAgain(details)}
          >
            {trans.__('Attest again now')}
          </button>
          <button
            type="button"
            className="jp-mod-styled sealbook-Button"
            disabled={!facts?.channel || facts.chain.length === 0}
            onClick={() => void this._actions.exportEvidence(details)}
          >
            {trans.__('Export evidence')}
          </button>
          <button
            type="button"
            className="jp-mod-styled sealbook-Button"
            disabled={!facts?.channel || !facts.identity}
            onClick={() => void this._actions.copyPolicy(details)}
          >
            {trans.__('Copy as policy')}
          </button>
        </div>
        {!facts && state === 'none' && (
          <p className="sealbook-Empty">{trans.__('No kernel runs here: there is nothing else to show.')}</p>
        )}
        {placed && (
          // While the answer of before does not count, it keeps its room, out of sight: what was opened stays open.
          <div className={facts ? '' : 'sealbook-mod-asking'} aria-hidden={!facts}>
            {this._sections(details, placed)}
          </div>
        )}
      </>
    );
  }

  private _sections(details: Details, facts: IFacts): JSX.Element {
    const trans = this._trans;
    const { identity, platform, channel, cluster } = facts;
    const simulated = identity?.root === 'simulated';
    const refused = facts.trust.state === 'refused';
    // Of a kernel of another kind the key broker knows nothing.
    const ours = facts.trust.state !== 'not attested' || channel !== null;
    return (
      <>
        {identity && (
          <Section name="identity" title={trans.__('Identity')}>
            {refused && (
              <Source>{trans.__('As the evidence says that was refused: nothing of it is proven.')}</Source>
            )}
            <Facts>
              <Fact name="MRENCLAVE" value={identity.mrenclave} trans={trans} code copy />
              <Fact name="MRSIGNER" value={identity.mrsigner} trans={trans} code copy />
              <Fact name={trans.__('Product id')} value={identity.isv_prod_id} trans={trans} copy />
              <Fact name={trans.__('Security version (SVN)')} value={identity.isv_svn} trans={trans} copy />
              <Fact name={trans.__('Admitted by')} value={identity.entry} />
              <Fact name={trans.__('Policy')} value={identity.policy} />
              <Fact name={trans.__('Digest of the policy')} value={identity.policy_digest} trans={trans} code copy />
              <Fact name={trans.__('Root of trust')} value={identity.root} />
              <Fact name={trans.__('Fingerprint of the root')} value={identity.root_fingerprint} trans={trans} code copy />
              <Fact name={refused ? trans.__('Judged') : trans.__('Verified')} value={localTime(facts.trust.verified_at)} />
              <Fact name={trans.__('Counts until')} value={localTime(facts.trust.fresh_until)} />
            </Facts>
          </Section>
        )}
        {platform && (
          <Section name="platform" title={trans.__('Platform')}>
            <Facts>
              <Fact name={trans.__('TCB status')} value={platform.tcb_status} />
            </Facts>
            <p>{platform.meaning}</p>
            <Facts>
              <Fact name="FMSPC" value={platform.fmspc} code />
              <Fact name={trans.__('TCB date')} value={localTime(platform.tcb_date)} />
              <Fact name={trans.__('Collateral expires')} value={localTime(platform.collateral_expires_at)} />
              {platform.advisories.map(advisory => (
                <Fact key={advisory.id} name={advisory.id} value={advisory.meaning} />
              ))}
            </Facts>
            {platform.advisories.length === 0 && (
              <p className="sealbook-Empty">{trans.__('No advisories.')}</p>
            )}
          </Section>
        )}
        <Section name="chain" title={trans.__('Chain of trust')}>
          {simulated && (
            <Source>{trans.__('Simulated: every check is the real one, but no hardware made what is checked.')}</Source>
          )}
          <Chain chain={facts.chain} note={facts.chain_note ?? ''} trans={trans} />
        </Section>
        {cluster && (
          <Section name="cluster" title={trans.__('Where the code runs')}>
            <Cluster
              cluster={cluster}
              progress={details.progress.last}
              trans={trans}
              choose={name => void this._actions.scale(details, name)}
            />
          </Section>
        )}
        {ours && (
          <>
            <Section name="keys" title={trans.__('Keys')}>
              <Source>{trans.__('As the key broker decided.')}</Source>
              <Entries
                caption={trans.__('Keys asked for in this session')}
                entries={[...facts.keys].reverse().map(key => ({
                  head: trans.__(
                    '%1 %2, to %3',
                    key.decision,
                    key.version === null ? key.key : `${key.key} v${key.version}`,
                    key.purpose
                  ),
                  time: key.time,
                  lines: [key.why]
                }))}
                empty={trans.__('No key was asked for in this session.')}
              />
            </Section>
            <Section name="artifacts" title={trans.__('Sealed artifacts')}>
              <Source>{trans.__('As the kernel reports it.')}</Source>
              <Entries
                caption={trans.__('Sealed artifacts read and written')}
                entries={[...facts.artifacts].reverse().map(artifact => ({
                  head: `${artifact.action} ${artifact.path}`,
                  time: artifact.time,
                  lines: [[artifact.key, readableSize(artifact.size)].filter(Boolean).join(', ')]
                }))}
                empty={trans.__('No sealed artifact was read or written in this session.')}
              />
            </Section>
          </>
        )}
        {channel && (
          <Section name="channel" title={trans.__('Channel')}>
            <p>
              {!channel.bound
                ? trans.__('No evidence binds this channel.')
                : simulated
                  ? trans.__(
                      'The quote binds these keys: what you type goes to this simulated enclave, which does not keep out whoever has its machine.'
                    )
                  : trans.__('The quote binds these keys: what you type goes to this enclave and to nobody else.')}
            </p>
            <Facts>
              <Fact name={trans.__('Role')} value={channel.role} />
              <Fact name={trans.__('For')} value={channel.audience} />
              <Fact name="REPORTDATA" value={channel.report_data} trans={trans} code copy />
              {channel.claims.map(claim => (
                <div key={claim.name} className="sealbook-mod-wide">
                  <dt title={claim.meaning}>{claim.name}</dt>
                  <dd>
                    {claim.value === '' ? <span>{trans.__('(none)')}</span> : <code>{claim.value}</code>}
                  </dd>
                  <dd>
                    <small>{claim.meaning}</small>
                  </dd>
                </div>
              ))}
            </Facts>
          </Section>
        )}
        {ours && (
          <Section name="audit" title={trans.__('Audit log')}>
            <Source>{trans.__('As the key broker decided and was told; the newest first.')}</Source>
            <Entries
              caption={trans.__('Entries of the audit log')}
              entries={[...details.audit].reverse().map(({ seq, time, event, decision, ...more }) => ({
                head: decision ? `${seq}. ${event}: ${decision}` : `${seq}. ${event}`,
                time,
                lines: Object.entries(more)
                  .map(([name, value]) => [name, words(value)])
                  .filter(([, said]) => said !== '')
                  .map(([name, said]) => `${name}: ${said}`)
              }))}
              empty={trans.__('No entry of this kernel yet.')}
            />
          </Section>
        )}
      </>
    );
  }
}
