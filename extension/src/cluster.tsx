import React, { useState } from 'react';

import type { ICluster, IProgress } from './api';
import { Entries, Fact, Facts, Source, localTime, type Translation } from './parts';

/** Where the code of the notebook runs, what it runs there now, and the switch to another place. */
export function Cluster(props: {
  cluster: ICluster;
  progress: IProgress | null;
  trans: Translation;
  /** Called with the name of a cluster, or with the empty string for this machine. */
  choose: (name: string) => void;
}): JSX.Element {
  const { cluster, progress, trans } = props;
  const here = cluster.where === 'cluster' ? cluster.name : cluster.where === 'local' ? '' : null;
  return (
    <>
      <Source>{trans.__('As the kernel reports it.')}</Source>
      <Facts>
        <Fact name={trans.__('Spark code runs')} value={place(cluster, trans)} />
        <Fact name={trans.__('Master')} value={cluster.master} code />
      </Facts>
      {cluster.note && <p>{cluster.note}</p>}
      {cluster.nodes.length > 0 && (
        <Entries
          caption={trans.__('Nodes')}
          entries={cluster.nodes.map(node => ({
            head: `${node.role} ${node.address}`,
            time: '',
            lines: [
              node.label,
              node.measurement && trans.__('Measurement %1', node.measurement),
              node.certificate_until && trans.__('Certificate until %1', localTime(node.certificate_until))
            ]
          }))}
          empty=""
        />
      )}
      {progress && (
        <div className="sealbook-Progress">
          <label>
            {trans.__('Spark job of the running cell, as the kernel reports it:')}{' '}
            <progress max={Math.max(progress.tasks, 1)} value={progress.done} />
          </label>
          <span>
            {trans.__(
              '%1 of %2 tasks, %3 running, %4',
              String(progress.done),
              String(progress.tasks),
              String(progress.running),
              trans._n('%1 stage', '%1 stages', progress.stages)
            )}
          </span>
        </div>
      )}
      {cluster.choices.length > 0 && <Switch key={here ?? '?'} here={here} {...props} />}
    </>
  );
}

/** Where Spark code runs, or would once it starts. */
function place(cluster: ICluster, trans: Translation): string {
  switch (cluster.where) {
    case 'local':
      return cluster.started ? trans.__('in this kernel') : trans.__('in this kernel, once Spark starts');
    case 'cluster':
      return cluster.started
        ? trans.__('on the cluster %1', cluster.name)
        : trans.__('on the cluster %1, once Spark starts', cluster.name);
    default:
      return trans.__('not known here');
  }
}

function Switch(props: {
  /** The cluster; empty for this machine, null where that is not known. */
  here: string | null;
  cluster: ICluster;
  trans: Translation;
  choose: (name: string) => void;
}): JSX.Element {
  const { here, cluster, trans } = props;
  const [wanted, setWanted] = useState(here ?? '');
  return (
    <div className="sealbook-Switch">
      <label>
        {trans.__('Run on')}{' '}
        <select value={wanted} onChange={event => setWanted(event.target.value)}>
          <option value="">{trans.__('this machine')}</option>
          {cluster.choices.map(choice => (
            <option key={choice.name} value={choice.name}>
              {choice.name}
            </option>
          ))}
        </select>
      </label>
      <button
        type="button"
        className="jp-mod-styled sealbook-Button"
        disabled={wanted === here}
        onClick={() => props.choose(wanted)}
      >
        {trans.__('Switch…')}
      </button>
    </div>
  );
}
