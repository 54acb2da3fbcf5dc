import { expect, test } from 'vitest';
import * as Y from 'yjs';

import { FlowBinding } from '../src/binding/flow';
import { addEdge, addNode, edgesOf, moveNodes, nodesOf, setData, sharedText } from '../src/document/write';
import { History } from '../src/session/history';
import { COMMAND, LOCAL } from '../src/session/origin';

function build() {
  const doc = new Y.Doc();
  const history = new History([nodesOf(doc), edgesOf(doc)] as unknown as Y.AbstractType<unknown>[]);
  const waiting: (() => void)[] = [];
  const flow = new FlowBinding(doc, history, (flush) => void waiting.push(flush));
  const frame = (): void => waiting.splice(0).forEach((flush) => flush());
  const add = (id: string, x = 0): void => {
    doc.transact(() => addNode(doc, { id, type: 'image', position: { x, y: 0 }, data: { prompt: id } }), 'elsewhere');
  };
  const at = (id: string): unknown => (nodesOf(doc).get(id) as Y.Map<unknown>).get('position');
  return { doc, history, flow, frame, add, at, waiting };
}

const settle = (): Promise<void> => new Promise((resolve) => queueMicrotask(resolve));

test('many changes are shown in one frame, and what did not change keeps its object', () => {
  const { doc, flow, frame, add, waiting } = build();
  add('a');
  add('b');
  frame();
  const [a, b] = flow.nodes.get();
  for (let x = 1; x < 20; x += 1) doc.transact(() => moveNodes(doc, new Map([['a', { x, y: 0 }]])), 'elsewhere');
  expect(waiting).toHaveLength(1);
  frame();
  expect(flow.nodes.get()[0]?.position.x).toBe(19);
  expect(flow.nodes.get()[0]?.data).toBe(a?.data);
  expect(flow.nodes.get()[1]).toBe(b);
});

test('a drag shows at once, is written to the document, and is one step of undo', async () => {
  const { history, flow, frame, add, at } = build();
  add('a');
  frame();
  for (let x = 1; x <= 5; x += 1) {
    flow.changeNodes([{ type: 'position', id: 'a', position: { x, y: 0 }, dragging: true }]);
    expect(flow.nodes.get()[0]?.position.x).toBe(x);
    await settle();
  }
  flow.changeNodes([{ type: 'position', id: 'a', dragging: false }]);
  expect(at('a')).toEqual({ x: 5, y: 0 });
  history.undo();
  expect(at('a')).toEqual({ x: 0, y: 0 });
  frame();
  expect(flow.nodes.get()[0]?.position.x).toBe(0);
});

test('a node being dragged keeps its place but takes the news of the server', () => {
  const { doc, flow, frame, add } = build();
  add('a');
  frame();
  flow.changeNodes([{ type: 'position', id: 'a', position: { x: 50, y: 0 }, dragging: true }]);
  doc.transact(() => {
    moveNodes(doc, new Map([['a', { x: -9, y: 0 }]]));
    (nodesOf(doc).get('a') as Y.Map<Y.Map<unknown>>).get('data')?.set('status', 'running');
  }, 'elsewhere');
  frame();
  expect(flow.nodes.get()[0]?.position.x).toBe(50);
  expect(flow.nodes.get()[0]?.data.status).toBe('running');
});

test('undo takes back own steps and never those of others or of the server', () => {
  const { doc, history, frame, add, at } = build();
  add('a');
  doc.transact(() => moveNodes(doc, new Map([['a', { x: 7, y: 0 }]])), LOCAL);
  doc.transact(() => setData(doc, 'a', 'request', { id: 'i', after: null }), COMMAND);
  doc.transact(() => sharedText(doc, 'a', 'prompt')?.insert(0, 'the '), 'elsewhere');
  history.undo();
  frame();
  expect(at('a')).toEqual({ x: 0, y: 0 });
  expect(nodesOf(doc).toJSON()['a'].data).toMatchObject({ prompt: 'the a', request: { id: 'i' } });
  expect(history.steps.get()).toEqual({ undo: false, redo: true });
});

test('an edge without both ends is not shown', () => {
  const { doc, flow, frame, add } = build();
  add('a');
  add('b');
  doc.transact(() => {
    addEdge(doc, { id: 'whole', source: 'a', target: 'b' });
    addEdge(doc, { id: 'dangling', source: 'a', target: 'gone' });
  }, 'elsewhere');
  frame();
  expect(flow.edges.get().map((edge) => edge.id)).toEqual(['whole']);
  doc.transact(() => nodesOf(doc).delete('b'), 'elsewhere');
  frame();
  expect(flow.edges.get()).toEqual([]);
});

test('deleting nodes and their edges is one step that undo brings back whole', () => {
  const { doc, history, flow, frame, add } = build();
  add('a');
  add('b');
  doc.transact(() => addEdge(doc, { id: 'e', source: 'a', target: 'b' }), 'elsewhere');
  frame();
  flow.remove(new Set(['a']), new Set());
  frame();
  expect(flow.nodes.get().map((node) => node.id)).toEqual(['b']);
  history.undo();
  frame();
  expect(
    flow.nodes
      .get()
      .map((node) => node.id)
      .sort(),
  ).toEqual(['a', 'b']);
  expect(flow.edges.get().map((edge) => edge.id)).toEqual(['e']);
});

test('selection and measures stay on this screen', () => {
  const { doc, flow, frame, add } = build();
  add('a');
  frame();
  flow.select(new Set(['a']));
  flow.changeNodes([{ type: 'dimensions', id: 'a', dimensions: { width: 320, height: 400 } }]);
  doc.transact(() => sharedText(doc, 'a', 'prompt')?.insert(0, 'x'), 'elsewhere');
  frame();
  expect(flow.nodes.get()[0]).toMatchObject({ selected: true, measured: { width: 320, height: 400 } });
  expect(Object.keys(nodesOf(doc).toJSON()['a']).sort()).toEqual(['data', 'position', 'type']);
});
