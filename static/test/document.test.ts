import { expect, test } from 'vitest';
import * as Y from 'yjs';

import { freshPiece, pieceFromText, pieceToText, takePiece } from '../src/document/copy';
import { readEdge, readNode } from '../src/document/read';
import { asUrl } from '../src/document/values';
import {
  addEdge,
  addNode,
  edgesOf,
  findText,
  moveNodes,
  nodesOf,
  removeNodes,
  setData,
  setParam,
  sharedText,
} from '../src/document/write';

function canvas(): Y.Doc {
  const doc = new Y.Doc();
  addNode(doc, {
    id: 'a',
    type: 'image',
    position: { x: 1, y: 2 },
    data: { prompt: 'a fox', params: { size: '512x512' } },
  });
  addNode(doc, { id: 'b', type: 'image', position: { x: 3, y: 4 }, data: { prompt: 'a hen' } });
  addEdge(doc, { id: 'e', source: 'a', target: 'b' });
  return doc;
}

const read = (doc: Y.Doc, id: string) => readNode(id, nodesOf(doc).get(id));

test('a node is written as nested maps with a shared text', () => {
  const node = nodesOf(canvas()).get('a') as Y.Map<unknown>;
  const data = node.get('data') as Y.Map<unknown>;
  expect(data.get('prompt')).toBeInstanceOf(Y.Text);
  expect(data.get('params')).toBeInstanceOf(Y.Map);
  expect(node.get('position')).toEqual({ x: 1, y: 2 });
});

test('plain objects are read like nested maps', () => {
  const plain = {
    type: 'image',
    position: { x: 1, y: 2 },
    data: { prompt: 'a fox', status: 'completed', imageUrl: '/images/x.png' },
  };
  const node = readNode('p', plain);
  expect(node?.data.prompt).toBe('a fox');
  expect(node?.data.pictures[0]?.url).toBe('/images/x.png');
});

test('a plain node is nested before it is written to, and loses nothing', () => {
  const doc = new Y.Doc();
  nodesOf(doc).set('p', { type: 'image', position: { x: 1, y: 2 }, data: { prompt: 'a fox', extra: 7 } });
  doc.transact(() => {
    moveNodes(doc, new Map([['p', { x: 9, y: 9 }]]));
    setParam(doc, 'p', 'size', '512x512');
    sharedText(doc, 'p', 'prompt')?.insert(5, '!');
  });
  expect(nodesOf(doc).toJSON()['p']).toEqual({
    type: 'image',
    position: { x: 9, y: 9 },
    data: { prompt: 'a fox!', extra: 7, params: { size: '512x512' } },
  });
});

test('nonsense in a document is read as a calm empty node, or as none', () => {
  expect(readNode('x', 'text')).toBeNull();
  expect(readNode('x', new Date())).toBeNull();
  const node = readNode('x', {
    position: { x: 'NaN' },
    data: { status: 'exploded', images: [{ url: 'javascript:alert(1)' }], params: 3 },
  });
  expect(node?.position).toEqual({ x: 0, y: 0 });
  expect(node?.data.status).toBe('idle');
  expect(node?.data.pictures).toEqual([]);
  expect(readEdge('e', { source: 'a' })).toBeNull();
});

test('only web addresses and paths of this server are followed', () => {
  expect(asUrl('/images/a.png')).toBe('/images/a.png');
  expect(asUrl('https://a.example/x.png')).toBe('https://a.example/x.png');
  for (const bad of ['//a.example/x', '/\\a.example', 'javascript:1', 'data:image/png;base64,x', 'http:///x', 7]) {
    expect(asUrl(bad)).toBeNull();
  }
});

test('large seeds survive as digits', () => {
  const node = readNode('x', { data: { params: { seed: 2n ** 60n }, images: [{ url: '/images/a.png', seed: 5 }] } });
  expect(node?.data.params.seed).toBe('1152921504606846976');
  expect(node?.data.pictures[0]?.seed).toBe('5');
});

test('deleting a node takes its edges along', () => {
  const doc = canvas();
  doc.transact(() => removeNodes(doc, new Set(['b'])));
  expect([...nodesOf(doc).keys()]).toEqual(['a']);
  expect(edgesOf(doc).size).toBe(0);
});

test('server-owned keys are never written', () => {
  const doc = canvas();
  setData(doc, 'a', 'status', 'completed');
  setData(doc, 'a', 'imageUrl', '/images/x.png');
  addNode(doc, {
    id: 'c',
    type: 'image',
    position: { x: 0, y: 0 },
    data: { status: 'completed', runId: 'r', prompt: 'x' },
  });
  expect(read(doc, 'a')?.data.status).toBe('idle');
  expect(nodesOf(doc).toJSON()['c']).toEqual({ type: 'image', position: { x: 0, y: 0 }, data: { prompt: 'x' } });
});

test('reading a text does not make one', () => {
  const doc = canvas();
  expect(findText(doc, 'a', 'text')).toBeNull();
  expect(findText(doc, 'gone', 'prompt')).toBeNull();
  expect(nodesOf(doc).toJSON()['a'].data).not.toHaveProperty('text');
});

test('a copy travels by clipboard with new ids, its edges and no picture', () => {
  const doc = canvas();
  const data = (nodesOf(doc).get('a') as Y.Map<Y.Map<unknown>>).get('data');
  data?.set('status', 'completed');
  data?.set('imageUrl', '/images/x.png');
  const piece = pieceFromText(pieceToText(takePiece(doc, new Set(['a', 'b']))));
  let next = 0;
  const fresh = piece && freshPiece(piece, { x: 10, y: 20 }, () => `new-${next++}`);
  expect(fresh?.nodes[0]).toMatchObject({
    id: 'new-0',
    position: { x: 11, y: 22 },
    data: { prompt: 'a fox', params: { size: '512x512' } },
  });
  expect(fresh?.nodes[0]?.data).not.toHaveProperty('status');
  expect(fresh?.nodes[0]?.data).not.toHaveProperty('imageUrl');
  expect(fresh?.edges).toMatchObject([{ source: 'new-0', target: 'new-1' }]);
});

test('other text on the clipboard is no piece of a canvas', () => {
  for (const text of ['a fox', '{"nodes": []}', '{broken', '[1]']) expect(pieceFromText(text)).toBeNull();
});
