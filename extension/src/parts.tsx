import { Clipboard } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { checkIcon, copyIcon } from '@jupyterlab/ui-components';
import React, { useEffect, useState } from 'react';

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

/** How long it shows that something was copied, in milliseconds. */
const COPIED = 1500;

/** A button that copies a value, and shows that it did. */
function Copy(props: { name: string; value: string; trans: Translation }): JSX.Element {
  const { name, value, trans } = props;
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    const timer = copied ? window.setTimeout(() => setCopied(false), COPIED) : 0;
    return () => window.clearTimeout(timer);
  }, [copied]);
  const label = copied ? trans.__('%1 is copied', name) : trans.__('Copy %1', name);
  const Icon = copied ? checkIcon : copyIcon;
  return (
    <button
      type="button"
      className="sealbook-Copy"
      title={label}
      aria-label={label}
      onClick={() => {
        Clipboard.copyToSystem(value);
        setCopied(true);
      }}
    >
      <Icon.react tag="span" aria-hidden="true" />
    </button>
  );
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
  return (
    <div className={props.code && String(value).length > 18 ? 'sealbook-mod-wide' : undefined}>
      <dt>{name}</dt>
      <dd>
        {props.code ? <code>{value}</code> : <span>{value}</span>}
        {props.copy && trans && <Copy name={name} value={String(value)} trans={trans} />}
      </dd>
    </div>
  );
}

/** One entry of a list: what happened, when, and what is to be said about it. */
export interface IEntry {
  readonly head: string;
  /** An ISO date; empty where there is none. */
  readonly time: string;
  readonly lines: readonly string[];
}

/** A list of entries, each a block of its own: a table would be too wide for a side panel. Says `empty` for none. */
export function Entries(props: { caption: string; entries: readonly IEntry[]; empty: string }): JSX.Element {
  if (props.entries.length === 0) {
    return <p className="sealbook-Empty">{props.empty}</p>;
  }
  return (
    <div className="sealbook-Scroll" tabIndex={0} role="group" aria-label={props.caption}>
      <ul className="sealbook-Entries">
        {props.entries.map((entry, index) => (
          <li key={index}>
            <div className="sealbook-Head">
              <b>{entry.head}</b>
              {entry.time && (
                <time dateTime={entry.time} title={localTime(entry.time)}>
                  {timeOfDay(entry.time)}
                </time>
              )}
            </div>
            {entry.lines.filter(Boolean).map((line, place) => (
              <p key={place}>{line}</p>
            ))}
          </li>
        ))}
      </ul>
    </div>
  );
}

/** Who says what a section shows. */
export function Source(props: { children: React.ReactNode }): JSX.Element {
  return <p className="sealbook-Source">{props.children}</p>;
}

/** Any JSON value as words. */
export function words(value: unknown): string {
  if (Array.isArray(value)) {
    return value.map(words).join(' ');
  }
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value)
      .map(([name, part]) => [name, words(part)])
      .filter(([, said]) => said !== '')
      .map(([name, said]) => `${name}: ${said}`)
      .join(', ');
  }
  return value === null || value === undefined ? '' : String(value);
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
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = size;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
