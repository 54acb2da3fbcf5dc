import { asName, asNumber, asText, isRecord } from '../document/values';
import { listOf, timeOf } from './values';

/** Somebody, or a maker, lets no run begin: of this canvas, of one maker, or none at all. */
export interface Pause {
  readonly scope: 'canvas' | 'maker' | 'all';
  /** Name of the maker where it is about one. */
  readonly provider: string | null;
  readonly until: number | null;
  readonly reason: string | null;
  readonly by: string | null;
  /** Set by somebody, and not by a maker that asked for time. */
  readonly byPerson: boolean;
}

export interface MakerLine {
  readonly name: string;
  readonly pausedUntil: number | null;
  readonly reason: string | null;
  readonly waiting: number;
  readonly running: number;
}

/** What holds runs back, and how long the lines are. */
export interface QueueState {
  readonly pauses: readonly Pause[];
  readonly makers: ReadonlyMap<string, MakerLine>;
}

/** `GET /api/queue` as this canvas is concerned: pauses of other canvases are left out. */
export function readQueue(value: unknown, workflowId: string): QueueState {
  const body = isRecord(value) ? value : {};
  const pauses = listOf(body['paused'], (item) => readPause(item, workflowId));
  const lines = listOf(body['providers'], readLine);
  return { pauses, makers: new Map(lines.map((line) => [line.name, line])) };
}

function readPause(value: unknown, workflowId: string): Pause | null {
  if (!isRecord(value)) return null;
  const provider = asName(value['provider']);
  const canvas = asName(value['workflowId']);
  if (canvas !== null && canvas !== workflowId) return null;
  const by = isRecord(value['by']) ? value['by']['name'] : value['by'];
  return {
    scope: canvas !== null ? 'canvas' : provider !== null ? 'maker' : 'all',
    provider,
    until: timeOf(value['until']),
    reason: asName(asText(value['reason']).slice(0, 200)),
    by: asName(by)?.slice(0, 40) ?? null,
    byPerson: value['kind'] !== 'rate_limit',
  };
}

function readLine(value: unknown): MakerLine | null {
  if (!isRecord(value)) return null;
  const name = asName(value['name']);
  if (name === null) return null;
  return {
    name,
    pausedUntil: timeOf(value['pausedUntil']),
    reason: asName(asText(value['reason']).slice(0, 200)),
    waiting: asNumber(value['waiting']) ?? 0,
    running: asNumber(value['running']) ?? 0,
  };
}
