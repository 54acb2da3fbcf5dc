import { expect, test } from 'vitest';

import { readJob, readMakers } from '../src/api/records';
import { readNode } from '../src/document/read';
import type { NodeData } from '../src/document/schema';
import { aspectFor, sheetSize } from '../src/node/size';
import { readPeer, readServerState } from '../src/presence/states';
import { aspectOf, choiceOf, nearestSize, onlyDemo } from '../src/runs/makers';
import { development, stageWord, viewOf } from '../src/runs/phase';
import { tonesOf } from '../src/runs/tones';

const data = (fields: Record<string, unknown>): NodeData => {
  const node = readNode('n', { type: 'image', data: fields });
  if (node === null) throw new Error('unreadable');
  return node.data;
};

const run = {
  ...{ runId: 'r2', stage: 'generating', progress: 0.4, previewUrl: null, startedAt: 0, by: 'Mara' },
  ...{ place: null, waitS: null, held: null },
};

test('the document says what a node shows', () => {
  for (const status of ['idle', 'pending', 'running', 'failed', 'cancelled']) {
    expect(viewOf(data({ status }), undefined, undefined, true).phase).toBe(status);
  }
  expect(viewOf(data({ status: 'completed', imageUrl: '/images/a.png' }), undefined, undefined, true).phase).toBe(
    'completed',
  );
});

test('a click shows at once and ends when the document catches up', () => {
  const asked = { kind: 'start', after: 'r1' } as const;
  expect(viewOf(data({ status: 'failed', runId: 'r1' }), undefined, asked, true).phase).toBe('starting');
  expect(viewOf(data({ status: 'failed', runId: 'r2' }), undefined, asked, true).phase).toBe('failed');
});

test('an intent waits while offline', () => {
  const waiting = data({ status: 'idle', request: { id: 'i', after: null } });
  expect(viewOf(waiting, undefined, undefined, false)).toMatchObject({ phase: 'waiting', busy: false });
  expect(viewOf(waiting, undefined, undefined, true)).toMatchObject({ phase: 'starting', busy: true });
  const cancelling = data({ status: 'running', runId: 'r2', request: { id: 'i', cancel: 'r2' } });
  expect(viewOf(cancelling, undefined, undefined, false).phase).toBe('cancelling');
});

test('progress counts only for the run the document names', () => {
  expect(viewOf(data({ status: 'running', runId: 'r2' }), run, undefined, true).run).toBe(run);
  expect(viewOf(data({ status: 'running', runId: 'r1' }), run, undefined, true).run).toBeNull();
  expect(viewOf(data({ status: 'failed', runId: 'r2' }), run, undefined, true).run).toBeNull();
});

test('every stage has words', () => {
  const view = viewOf(data({ status: 'running', runId: 'r2' }), { ...run, stage: 'something new' }, undefined, true);
  expect(stageWord(view)).toBe('Developing');
});

test('a guess grows, slows down and never arrives', () => {
  expect(development(0.3, 99)).toBe(0.3);
  const guesses = [0, 5, 20, 1000].map((seconds) => development(null, seconds));
  expect(guesses).toEqual([...guesses].sort((a, b) => a - b));
  expect(guesses.at(-1)).toBeLessThanOrEqual(0.7);
});

test('tones are the same for everyone and follow the words', () => {
  expect(tonesOf('A red fox')).toEqual(tonesOf('A red fox'));
  expect(tonesOf('A red fox')).not.toEqual(tonesOf('A blue sea'));
  expect(tonesOf('the sea').top.h).toBe(235);
});

test('a sheet has the shape of its picture', () => {
  expect(sheetSize(1)).toEqual({ width: 320, height: 320 });
  expect(sheetSize(1.5).width).toBeGreaterThan(sheetSize(1.5).height);
  const made = data({ params: { size: '512x1024' }, images: [{ url: '/images/a.png', width: 1024, height: 1024 }] });
  const choice = choiceOf(null, made);
  expect(aspectFor(made, choice, false)).toBe(1);
  expect(aspectFor(made, choice, true)).toBe(0.5);
});

const makers = readMakers({
  providers: [
    {
      name: 'demo',
      label: 'Demo',
      demo: true,
      models: [{ id: 'd1', label: 'D', sizes: ['1024x1024', '1536x1024'], defaultSize: '1024x1024', supports: [] }],
    },
    {
      name: 'openai',
      label: 'OpenAI',
      models: [{ id: 'o1', sizes: ['512x512'], supports: ['edit'] }, { broken: true }],
    },
  ],
  default: { provider: 'openai', model: 'o1' },
});

test('what a node leaves open comes from the defaults', () => {
  expect(choiceOf(makers, data({}))).toMatchObject({ maker: { name: 'openai' }, model: { id: 'o1' }, size: '512x512' });
  expect(choiceOf(makers, data({ model: 'd1' }))).toMatchObject({ maker: { name: 'demo' }, model: { id: 'd1' } });
  expect(choiceOf(makers, data({ provider: 'gone' }))).toMatchObject({ maker: null, model: null });
  expect(onlyDemo(makers)).toBe(false);
  expect(onlyDemo({ ...makers, list: makers.list.slice(0, 1) })).toBe(true);
});

test('another model gets the size closest in shape', () => {
  const demo = makers.list[0]?.models[0];
  expect(demo && nearestSize(demo, '1280x720')).toBe('1536x1024');
  expect(aspectOf('3:2')).toBe(1.5);
  expect(aspectOf('large')).toBeNull();
});

test('a job is read whatever it leaves out', () => {
  expect(
    readJob({
      jobId: 'j',
      status: 'failed',
      error: { code: 'POLICY', message: 'No.', vendorCode: 'v', kind: 'POLICY' },
    }),
  ).toMatchObject({
    jobId: 'j',
    pictures: [],
    error: { message: 'No.', vendorCode: 'v', reason: 'POLICY' },
  });
  expect(readJob({ status: 'failed' })).toBeNull();
});

test('awareness states that make no sense are left out', () => {
  for (const state of [null, 7, 'x', {}, { user: 'Eve' }, { server: true, user: { name: 'x' } }]) {
    expect(readPeer(1, state)).toBeNull();
  }
  const eve = readPeer(2, {
    user: { id: 'e', name: ' ', color: 'url(x)' },
    cursor: { x: 'a' },
    selection: [1, 'n', null],
  });
  expect(eve).toMatchObject({ name: 'Guest', color: null, cursor: null, selection: ['n'] });
});

test('only the server speaks about runs', () => {
  expect(readServerState({ runs: { n: run } })).toBeNull();
  const state = readServerState({
    server: true,
    runs: { n: { ...run, progress: 7, previewUrl: 'javascript:1', startedAt: 'x' }, m: 3 },
  });
  expect([...(state?.runs ?? [])]).toEqual([['n', { ...run, progress: 1, previewUrl: null, startedAt: null }]]);
});
