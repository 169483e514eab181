import React from 'react';

import type { ICheck, ILink } from './api';
import { Fact, Facts, type Translation } from './parts';

type Verdict = 'passed' | 'failed' | 'open';

/** A tick in a disc, a cross in an octagon, an empty dashed ring. */
function Mark(props: { verdict: Verdict }): JSX.Element {
  return (
    <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true" className={`sealbook-mod-${props.verdict}`}>
      {props.verdict === 'passed' && (
        <>
          <circle className="sealbook-area" cx="8" cy="8" r="7" />
          <path className="sealbook-line" d="M4.5 8.2l2.4 2.4 4.6-4.8" />
        </>
      )}
      {props.verdict === 'failed' && (
        <>
          <path className="sealbook-area" d="M5 1h6l4 4v6l-4 4H5l-4-4V5z" />
          <path className="sealbook-line" d="M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2" />
        </>
      )}
      {props.verdict === 'open' && <circle className="sealbook-ring" cx="8" cy="8" r="6" />}
    </svg>
  );
}

function verdictOf(check: ICheck): Verdict {
  return check.passed === null ? 'open' : check.passed ? 'passed' : 'failed';
}

/** The link that each link at the side judges: it is drawn below that one. */
const JUDGES: Readonly<Record<string, string>> = {
  Policy: 'Quote',
  'QE identity': 'Quoting enclave',
  'TCB info': 'PCK certificate',
  'TCB signer': 'PCK certificate',
  'Revocation lists': 'PCK certificate'
};

/** Put each link at the side behind the one that it judges; those that judge none of these come last. */
export function drawnOrder(chain: readonly ILink[]): readonly ILink[] {
  const main = chain.filter(link => !link.side);
  const known = new Set(main.map(link => link.name));
  const judged = (link: ILink) => (Object.hasOwn(JUDGES, link.name) ? JUDGES[link.name] : '');
  const side = chain.filter(link => link.side);
  return [
    ...main.flatMap(link => [link, ...side.filter(other => judged(other) === link.name)]),
    ...side.filter(other => !known.has(judged(other)))
  ];
}

/** What is to be said of a link as a whole: one failed check is enough, and one that was not reached, or none at all. */
export function verdictOfLink(link: ILink): Verdict {
  const verdicts = link.checks.map(verdictOf);
  return verdicts.includes('failed') ? 'failed' : verdicts.includes('open') || verdicts.length === 0 ? 'open' : 'passed';
}

function Link(props: { link: ILink; trans: Translation }): JSX.Element {
  const { link, trans } = props;
  const words: Record<Verdict, string> = {
    passed: trans.__('passed'),
    failed: trans.__('failed'),
    open: trans.__('not reached')
  };
  const verdict = verdictOfLink(link);
  const partly = verdict === 'open' && link.checks.some(check => check.passed);
  return (
    <li
      className={`sealbook-Link sealbook-mod-${verdict}${link.side ? ' sealbook-mod-side' : ''}`}
      data-verdict={verdict}
    >
      <details open={verdict === 'failed'}>
        <summary>
          <Mark verdict={verdict} />
          <b>{link.name}</b>
          <span className="sealbook-Verdict">
            {link.checks.length > 0 && (partly ? trans.__('passed in part') : words[verdict])}
          </span>
        </summary>
        <p>{link.title}</p>
        <Facts>
          {link.facts.map(([name, value], index) => (
            <Fact key={index} name={name} value={value} code />
          ))}
        </Facts>
        <ul className="sealbook-Checks">
          {link.checks.map((check, index) => (
            <li key={index} data-check={check.name} data-verdict={verdictOf(check)}>
              <Mark verdict={verdictOf(check)} />
              <span>
                <b>{words[verdictOf(check)]}</b>: {check.title}
                {check.reason && ` ${check.reason}`}
              </span>
            </li>
          ))}
        </ul>
      </details>
    </li>
  );
}

/**
 * The chain of trust, drawn from the quote down to the root: one box a link, with the checks on it. What joins from the
 * side, such as TCB info, stands to the right of the line, below the link that it judges.
 */
export function Chain(props: { chain: readonly ILink[]; note: string; trans: Translation }): JSX.Element {
  const { chain, note, trans } = props;
  if (chain.length === 0) {
    return <p className="sealbook-Empty">{note || trans.__('There is no evidence: nothing leads to a root.')}</p>;
  }
  return (
    <ol className="sealbook-Chain">
      {drawnOrder(chain).map((link, index) => (
        <Link key={`${index}-${link.name}`} link={link} trans={trans} />
      ))}
    </ol>
  );
}
