import type { Point } from '../document/schema';
import { readPoint } from '../document/read';
import { asName, asNumber, asPositive, asUrl, isRecord } from '../document/values';

/** Somebody else on the canvas. */
export interface Peer {
  readonly clientId: number;
  readonly id: string;
  readonly name: string;
  /** A colour they asked for, as `#rrggbb`; null lets the page choose. */
  readonly color: string | null;
  readonly cursor: Point | null;
  readonly selection: readonly string[];
}

/** Why a run waits though others are served: somebody paused it, its maker asked for a pause, or takes no more at once. */
export type Held = 'paused' | 'rate_limit' | 'limit';
const HELD: readonly Held[] = ['paused', 'rate_limit', 'limit'];

/** What the server says about a run in the making. */
export interface RunProgress {
  readonly runId: string;
  readonly stage: string;
  /** Its place in the line of its maker, from 1; null once it is served, and far down the line. */
  readonly place: number | null;
  /** How long until it is served, as far as anybody can tell (seconds). */
  readonly waitS: number | null;
  readonly held: Held | null;
  readonly progress: number | null;
  readonly previewUrl: string | null;
  readonly startedAt: number | null;
  readonly by: string | null;
}

export interface Refusal {
  readonly nodeId: string;
  readonly code: string;
  readonly message: string;
}

export interface ServerState {
  readonly runs: ReadonlyMap<string, RunProgress>;
  readonly refusals: ReadonlyMap<string, Refusal>;
}

const MOST_SELECTED = 200;

/** A person from an awareness state that any peer may have made up; null when it is not one. */
export function readPeer(clientId: number, state: unknown): Peer | null {
  if (!isRecord(state) || state['server'] === true || !isRecord(state['user'])) return null;
  const user = state['user'];
  const name = asName(user['name'])?.trim().slice(0, 40);
  const color = asName(user['color']);
  const selection = Array.isArray(state['selection']) ? state['selection'] : [];
  return {
    clientId,
    id: asName(user['id']) ?? `client-${clientId}`,
    name: name === undefined || name === '' ? 'Guest' : name,
    color: color !== null && /^#[0-9a-f]{6}$/i.test(color) ? color : null,
    cursor: readPoint(state['cursor']),
    selection: selection.filter((id): id is string => typeof id === 'string').slice(0, MOST_SELECTED),
  };
}

/** The server's own awareness state; null for anybody else's. */
export function readServerState(state: unknown): ServerState | null {
  if (!isRecord(state) || state['server'] !== true) return null;
  return { runs: readEach(state['runs'], readProgress), refusals: readEach(state['refusals'], readRefusal) };
}

function readProgress(value: unknown): RunProgress | null {
  if (!isRecord(value)) return null;
  const runId = asName(value['runId']);
  if (runId === null) return null;
  const progress = asNumber(value['progress']);
  const startedAt = typeof value['startedAt'] === 'string' ? Date.parse(value['startedAt']) : Number.NaN;
  const by = isRecord(value['by']) ? value['by']['name'] : value['by'];
  return {
    runId,
    stage: asName(value['stage']) ?? '',
    place: placeOf(value['place']),
    waitS: asPositive(value['waitS']),
    held: HELD.find((known) => known === value['held']) ?? null,
    progress: progress === null ? null : Math.min(1, Math.max(0, progress)),
    previewUrl: asUrl(value['previewUrl']),
    startedAt: Number.isNaN(startedAt) ? null : startedAt,
    by: asName(by)?.slice(0, 40) ?? null,
  };
}

function placeOf(value: unknown): number | null {
  const place = asPositive(value);
  return place === null ? null : Math.max(1, Math.floor(place));
}

function readRefusal(value: unknown): Refusal | null {
  if (!isRecord(value)) return null;
  return {
    nodeId: asName(value['nodeId']) ?? '',
    code: asName(value['code']) ?? '',
    message: asName(value['message']) ?? 'The server refused this.',
  };
}

function readEach<V>(value: unknown, read: (item: unknown) => V | null): ReadonlyMap<string, V> {
  const found = new Map<string, V>();
  if (!isRecord(value)) return found;
  for (const [key, item] of Object.entries(value)) {
    const one = read(item);
    if (one !== null) found.set(key, one);
  }
  return found;
}

export function sameProgress(a: RunProgress | undefined, b: RunProgress | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (Object.keys(a) as (keyof RunProgress)[]).every((key) => a[key] === b[key]);
}
