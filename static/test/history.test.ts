import { expect, test } from 'vitest';

import { readJob, readJobs, type JobRecord } from '../src/api/records';
import { entriesOf, joined, renewed } from '../src/history/entries';
import { historyOf, toggleHistory } from '../src/history/open';
import { pagesOf } from '../src/lightbox/pages';
import { readNode } from '../src/document/read';

function job(jobId: string, fields: Record<string, unknown> = {}): JobRecord {
  const read = readJob({ jobId, nodeId: 'n', status: 'completed', promptSpec: { basePrompt: jobId }, ...fields });
  if (read === null) throw new Error('not a job');
  return read;
}

const made = (jobId: string, url: string, minute: number): JobRecord =>
  job(jobId, { imageUrl: url, images: [{ url }], createdAt: `2026-05-12T10:0${minute}:00Z` });
const first = made('first', '/images/1.png', 1);
const second = made('second', '/images/2.png', 2);
const back = job('back', { kind: 'restore', restoredFrom: 'first', images: [{ url: '/images/1.png' }], createdAt: '2026-05-12T10:05:00Z' });
const failed = job('failed', { status: 'failed', error: { code: 'POLICY', message: 'No.' } });

function node(url: string | null) {
  const data = { status: 'completed', runId: 'back', imageUrl: url };
  const read = readNode('n', { type: 'image', position: { x: 0, y: 0 }, data });
  return { id: 'n', type: 'image' as const, position: { x: 0, y: 0 }, data: read!.data };
}

test('the picture a node shows is marked where it was made, also after going back to it', () => {
  const entries = entriesOf([back, failed, second, first], node('/images/1.png').data);
  expect(entries.map((entry) => [entry.job.jobId, entry.shown])).toEqual([
    ['back', false],
    ['failed', false],
    ['second', false],
    ['first', true],
  ]);
  expect(entries[0]?.madeAt).toBe(Date.parse('2026-05-12T10:01:00Z'));
  expect(entriesOf([second, first], node(null).data).some((entry) => entry.shown)).toBe(false);
});

test('a picture that was put back twice is still the one that was made once', () => {
  const twice = job('twice', { kind: 'restore', restoredFrom: 'back' });
  expect(entriesOf([twice, back, first], node(null).data)[0]?.madeAt).toBe(Date.parse('2026-05-12T10:01:00Z'));
  const loop = job('loop', { kind: 'restore', restoredFrom: 'loop' });
  expect(entriesOf([loop], node(null).data)[0]?.madeAt).toBeNull();
});

test('going back to a picture that is not loaded yet is still told', () => {
  expect(entriesOf([back], node('/images/1.png').data)).toMatchObject([{ madeAt: null }]);
});

test('pages are put together without gaps and without a run twice', () => {
  const ids = (jobs: readonly JobRecord[]): string => jobs.map((one) => one.jobId).join();
  const [a, b, c, d, e] = ['a', 'b', 'c', 'd', 'e'].map((id) => job(id)) as [JobRecord, JobRecord, JobRecord, JobRecord, JobRecord];
  expect(ids(joined([a, b], [b, c]))).toBe('a,b,c');
  expect(ids(renewed([b, c, d], [a, b]))).toBe('a,b,c,d');
  expect(ids(renewed([c, d], [a, b]))).toBe('a,b');
  expect(ids(renewed([], [e]))).toBe('e');
  expect(ids(renewed([a], []))).toBe('');
});

test('a page says where the next one begins', () => {
  expect(readJobs({ runs: [{ jobId: 'j', status: 'failed' }, 7], next: '12' })).toMatchObject({ next: '12', jobs: [{}] });
  expect(readJobs(null)).toEqual({ jobs: [], next: null });
});

test('a picture that somebody went back to is one page of the lightbox, not two', () => {
  const pages = pagesOf(node('/images/1.png'), [back, second, first]);
  expect(pages.map((page) => [page.picture.url, page.earlier, page.jobId])).toEqual([
    ['/images/1.png', false, 'first'],
    ['/images/2.png', true, 'second'],
  ]);
});

test('the key opens the one selected node, and closes', () => {
  toggleHistory([]);
  expect(historyOf.get()).toBeNull();
  toggleHistory(['a', 'b']);
  expect(historyOf.get()).toBeNull();
  toggleHistory(['a']);
  expect(historyOf.get()).toBe('a');
  toggleHistory(['b']);
  expect(historyOf.get()).toBe('b');
  toggleHistory(['b']);
  expect(historyOf.get()).toBeNull();
});
