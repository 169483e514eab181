import { Clipboard } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { copyIcon } from '@jupyterlab/ui-components';
import React from 'react';

/** Every text of the panel goes through it. */
export type Translation = TranslationBundle;

/** One section of the panel, with a heading. */
export function Section(props: { name: string; title: string; children: React.ReactNode }): JSX.Element {
  const id = `sealbook-${props.name}`;
  return (
    <section className="sealbook-Section" aria-labelledby={id} data-section={props.name}>
      <h3 id={id}>{props.title}</h3>
      {props.children}
    </section>
  );
}

/** Names and values. */
export function Facts(props: { children: React.ReactNode }): JSX.Element {
  return <dl className="sealbook-Facts">{props.children}</dl>;
}

/** One name and its value; `copy` adds a button that copies the value. */
export function Fact(props: {
  name: string;
  value: string | number | null | undefined;
  trans?: Translation;
  code?: boolean;
  copy?: boolean;
}): JSX.Element | null {
  const { name, value, trans } = props;
  if (value === null || value === undefined || value === '') {
    return null;
  }
  const label = trans?.__('Copy %1', name) ?? '';
  return (
    <div className={props.code && String(value).length > 24 ? 'sealbook-mod-wide' : undefined}>
      <dt>{name}</dt>
      <dd>
        {props.code ? <code>{value}</code> : <span>{value}</span>}
        {props.copy && (
          <button
            type="button"
            className="sealbook-Copy"
            title={label}
            aria-label={label}
            onClick={() => Clipboard.copyToSystem(String(value))}
          >
            <copyIcon.react tag="span" aria-hidden="true" />
          </button>
        )}
      </dd>
    </div>
  );
}

/** A table of facts; says `empty` where there are none. */
export function Table(props: {
  caption: string;
  columns: readonly string[];
  rows: readonly (readonly (string | number)[])[];
  empty: string;
}): JSX.Element {
  if (props.rows.length === 0) {
    return <p className="sealbook-Empty">{props.empty}</p>;
  }
  return (
    <div className="sealbook-Scroll" tabIndex={0} role="group" aria-label={props.caption}>
      <table>
        <thead>
          <tr>
            {props.columns.map(column => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row, index) => (
            <tr key={index}>
              {row.map((cell, place) => (
                <td key={place}>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A date as people here write it; the ISO text where it is no date. */
export function localTime(iso: string | null): string {
  const date = new Date(iso ?? '');
  return Number.isNaN(date.getTime()) ? (iso ?? '') : date.toLocaleString();
}

/** The same, the time of day alone. */
export function timeOfDay(iso: string): string {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? iso : date.toLocaleTimeString();
}

/** A size in bytes as people read it. */
export function readableSize(size: number | null): string {
  if (size === null) {
    return '';
  }
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = size;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
