import { describe, expect, test, vi } from 'vitest';

import { readQueue, type QueueState } from '../src/api/queue';
import { Problem } from '../src/api/http';
import type { FlowNode } from '../src/binding/view';
import { readNode } from '../src/document/read';
import { readServerState, type Held, type RunProgress } from '../src/presence/states';
import { pausedWords, pauseOf, placeWords, waitingWords } from '../src/queue/waiting';
import { QueueWatch } from '../src/queue/watch';
import { workOf } from '../src/queue/work';
import { problemWords } from '../src/runs/problems';
import { costWords } from '../src/ui/money';
import { aboutWords, agoWords, momentWords } from '../src/ui/words';

const NOW = new Date(2026, 4, 12, 11, 59, 30).getTime();
const at = (hours: number, minutes: number): string => new Date(2026, 4, 12, hours, minutes).toISOString();
const openai = { name: 'openai', label: 'OpenAI' };
const nothing: QueueState = { pauses: [], makers: new Map() };

function waits(run: { place?: number; waitS?: number; held?: Held }, queue: QueueState | null = nothing): string {
  const progress = { place: null, waitS: null, held: null, ...run };
  const { title, more } = waitingWords({ run: progress, maker: openai, queue, now: NOW });
  return more === '' ? title : `${title}: ${more}`.replaceAll('\u00a0', ' ');
}

describe('a run that waits', () => {
  test('says its place and about how long', () => {
    expect(waits({ place: 1 })).toBe('Next in line');
    expect(waits({ place: 3, waitS: 21 })).toBe('3rd in line: about 20 s');
    expect(waits({ waitS: 240 })).toBe('In the tray: about 4 min');
    expect(waits({ place: 2, held: 'limit' })).toBe('2nd in line');
    expect([11, 12, 13, 21, 22, 101, 112].map(placeWords).join(' ')).toBe(
      '11th in line 12th in line 13th in line 21st in line 22nd in line 101st in line 112th in line',
    );
  });

  test('says who paused it, or until when its maker asks to wait', () => {
    const paused = readQueue({ paused: [{ workflowId: 'w', by: 'Ada', until: at(12, 3), reason: 'Lunch' }] }, 'w');
    expect(waits({ held: 'paused' }, paused)).toMatch(/^Paused: by Ada until 12:03.*: Lunch$/);
    expect(waits({ held: 'paused' }, null)).toBe('Paused');
    const slow = readQueue({ providers: [{ name: 'openai', pausedUntil: at(12, 3) }] }, 'w');
    expect(waits({ held: 'rate_limit' }, slow)).toMatch(/^Waiting for OpenAI: OpenAI asks us to wait until 12:03/);
    expect(waits({ held: 'rate_limit' })).toBe('Waiting for OpenAI: OpenAI asks us to slow down');
  });

  test('is not told of a pause of another canvas or maker, nor of one that is over', () => {
    const others = [{ workflowId: 'x' }, { provider: 'ideogram' }];
    expect(pauseOf(readQueue({ paused: others }, 'w'), 'openai', NOW)).toBeNull();
    const maker = readQueue({ paused: [...others, { provider: 'openai', by: { name: 'Ops' } }] }, 'w');
    expect(pausedWords(pauseOf(maker, 'openai', NOW), 'OpenAI', NOW)).toEqual({ title: 'OpenAI is paused', more: 'by Ops' });
    const past = readQueue({ paused: [{ all: true, until: at(11, 0) }] }, 'w');
    expect(pauseOf(past, null, NOW)).toBeNull();
    const asked = readQueue({ paused: [{ provider: 'openai', kind: 'rate_limit', until: at(12, 3) }] }, 'w');
    expect(pauseOf(asked, 'openai', NOW)).toBeNull();
  });
});

test('what the server says of a place is only believed as far as it makes sense', () => {
  const told = { runId: 'r', stage: 'queued', place: 2.7, waitS: -3, held: 'for ransom' };
  const state = readServerState({ server: true, runs: { n: told, m: { ...told, place: 0, held: 'limit' } } });
  expect(state?.runs.get('n')).toMatchObject({ place: 2, waitS: null, held: null });
  expect(state?.runs.get('m')).toMatchObject({ place: null, held: 'limit' });
  expect(readQueue({ paused: [7, null], providers: 'x' }, 'w')).toEqual({ pauses: [], makers: new Map() });
});

function picture(id: string, data: Record<string, unknown>): FlowNode {
  const node = readNode(id, { type: 'image', position: { x: 0, y: 0 }, data });
  return { id, type: 'image', position: { x: 0, y: 0 }, data: node!.data };
}

test('what is in the making comes first, then the line in its order', () => {
  const run = (runId: string, place: number | null): RunProgress => ({
    ...{ runId, stage: 'queued', progress: null, previewUrl: null, startedAt: null, by: null },
    ...{ place, waitS: null, held: null },
  });
  const nodes = [
    picture('a', { status: 'pending', runId: '1' }),
    picture('b', { status: 'pending', runId: '2' }),
    picture('c', { status: 'running', runId: '3' }),
    picture('d', { status: 'completed', runId: '4' }),
    picture('e', { status: 'pending', runId: '5' }),
  ];
  const runs = new Map([['a', run('1', 9)], ['b', run('2', 2)], ['e', run('old', 1)]]);
  expect(workOf(nodes, runs).map((work) => [work.nodeId, work.run?.place ?? null])).toEqual([
    ['c', null],
    ['b', 2],
    ['a', 9],
    ['e', null],
  ]);
});

test('the queue is asked for once for many hints, and again for what came meanwhile', async () => {
  vi.useFakeTimers();
  const answers: ((state: QueueState) => void)[] = [];
  const watch = new QueueWatch(() => new Promise((resolve) => answers.push(resolve)));
  const held = (why: Held | null): Map<string, RunProgress> =>
    new Map([['n', { runId: 'r', held: why } as RunProgress]]);
  watch.heard(held(null));
  expect(answers).toHaveLength(0);
  for (let round = 0; round < 5; round += 1) watch.heard(held('paused'));
  expect(answers).toHaveLength(1);
  watch.heard(held(null));
  expect(answers).toHaveLength(1);
  answers[0]?.(nothing);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(watch.state.get()).toBe(nothing);
  expect(answers).toHaveLength(2);
  answers[1]?.(nothing);
  await vi.advanceTimersByTimeAsync(5_000);
  expect(answers).toHaveLength(2);
  vi.useRealTimers();
});

test('a refusal ends with what to do', () => {
  const words = (status: number, message: string, retryAfterS: number | null = null): string =>
    problemWords(new Problem(status, '', message, {}, retryAfterS), NOW).replaceAll('\u00a0', ' ');
  expect(words(402, 'the budget of this canvas is used up: $5.00 of $5.00')).toMatch(
    /^The budget .* \$5\.00\. Ask whoever runs this server/,
  );
  expect(words(402, 'The budget is used up; an admin can raise it.')).toBe('The budget is used up; an admin can raise it.');
  expect(words(429, '10,000 pictures wait already', 20)).toBe('10,000 pictures wait already. Try again in 20 s.');
  expect(words(429, '10,000 pictures wait already', 240)).toMatch(/already\. Try again at 12:03/);
  expect(words(429, 'Full.')).toBe('Full. Wait for some pictures to finish, or cancel a few.');
  expect(words(0, 'The server could not be reached.')).toMatch(/Try again once you are back\.$/);
  expect(words(409, 'this node is at work')).toBe('This node is at work.');
});

test('costs tell apart what is spent and what is held back', () => {
  expect(costWords({ spentUsd: 0, reservedUsd: 0 })).toBe('nothing');
  expect(costWords({ spentUsd: 1.236, reservedUsd: 0 })).toBe('$1.24');
  expect(costWords({ spentUsd: 0.004, reservedUsd: 0.08 })).toBe('$0.0040, up to $0.08 more for those in the making');
});

test('times are said as people say them', () => {
  const about = (seconds: number): string => aboutWords(seconds).replaceAll('\u00a0', ' ');
  expect([0.2, 7.4, 22, 88, 91, 3_000, 7_300].map(about)).toEqual([
    ...['about 1 s', 'about 7 s', 'about 20 s', 'about 90 s', 'about 2 min', 'about 50 min', 'about 2 h'],
  ]);
  const ago = (seconds: number): string => agoWords(NOW - seconds * 1_000, NOW).replaceAll('\u00a0', ' ');
  expect([-5, 30, 61, 3_599, 7_000].map(ago)).toEqual(['Just now', 'Just now', '1 min ago', '60 min ago', '2 h ago']);
  expect(ago(200_000)).toBe(momentWords(NOW - 200_000_000, NOW).replaceAll('\u00a0', ' '));
  expect(momentWords(NOW - 200_000_000, NOW)).toContain('10');
});
