import * as Y from 'yjs';

import { SERVER_KEYS, type Point } from './schema';
import { fieldsOf, isRecord } from './values';

/** Writers: always nested shared maps, never a server-owned key. Call them inside a transaction. */

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** A node as a plain description, ready to become shared types. */
export interface NewNode {
  readonly id: string;
  readonly type: string;
  readonly position: Point;
  readonly data: Readonly<Record<string, Json>>;
  readonly extra?: Readonly<Record<string, Json>>;
}

export interface NewEdge {
  readonly id: string;
  readonly source: string;
  readonly target: string;
}

/** Keys of `data` that two people may type into at once. */
const TEXT_KEYS: ReadonlySet<string> = new Set(['prompt', 'text']);
const MAP_KEYS: ReadonlySet<string> = new Set(['params']);

export const nodesOf = (doc: Y.Doc): Y.Map<unknown> => doc.getMap('nodes');
export const edgesOf = (doc: Y.Doc): Y.Map<unknown> => doc.getMap('edges');
export const metaOf = (doc: Y.Doc): Y.Map<unknown> => doc.getMap('meta');

export function addNode(doc: Y.Doc, node: NewNode): void {
  const shared = new Y.Map<unknown>();
  shared.set('type', node.type);
  shared.set('position', { x: node.position.x, y: node.position.y });
  for (const [key, value] of Object.entries(node.extra ?? {})) shared.set(key, value);
  shared.set('data', sharedData(node.data));
  nodesOf(doc).set(node.id, shared);
}

export function addEdge(doc: Y.Doc, edge: NewEdge): void {
  const shared = new Y.Map<unknown>();
  shared.set('source', edge.source);
  shared.set('target', edge.target);
  edgesOf(doc).set(edge.id, shared);
}

/** Removes nodes with every edge that touches one of them. */
export function removeNodes(doc: Y.Doc, ids: ReadonlySet<string>): void {
  const edges = edgesOf(doc);
  for (const [id, value] of [...edges.entries()]) {
    const fields = fieldsOf(value);
    if (fields === null) continue;
    if (ids.has(String(fields('source'))) || ids.has(String(fields('target')))) edges.delete(id);
  }
  for (const id of ids) nodesOf(doc).delete(id);
}

export function removeEdges(doc: Y.Doc, ids: Iterable<string>): void {
  for (const id of ids) edgesOf(doc).delete(id);
}

export function moveNodes(doc: Y.Doc, positions: ReadonlyMap<string, Point>): void {
  for (const [id, { x, y }] of positions) nestedNode(doc, id)?.set('position', { x, y });
}

export function resizeNode(doc: Y.Doc, id: string, width: number, height: number): void {
  const node = nestedNode(doc, id);
  node?.set('width', width);
  node?.set('height', height);
}

/** Sets a key of `data`; null removes it. */
export function setData(doc: Y.Doc, id: string, key: string, value: Json): void {
  const data = nestedData(doc, id);
  if (data === null || (SERVER_KEYS.has(key) && key !== 'request')) return;
  if (value === null) data.delete(key);
  else data.set(key, value);
}

/** Sets one generation parameter; null removes it. */
export function setParam(doc: Y.Doc, id: string, key: string, value: Json): void {
  const data = nestedData(doc, id);
  if (data === null) return;
  const params = nested(data, 'params');
  if (value === null) params.delete(key);
  else params.set(key, value);
}

/** The shared text under a key of `data`, made from a plain string when somebody wrote one. */
export function sharedText(doc: Y.Doc, id: string, key: string): Y.Text | null {
  const data = nestedData(doc, id);
  if (data === null) return null;
  const present = data.get(key);
  if (present instanceof Y.Text) return present;
  const text = new Y.Text(typeof present === 'string' ? present : '');
  data.set(key, text);
  return text;
}

/** The shared text under a key of `data` when there is one; reads only. */
export function findText(doc: Y.Doc, id: string, key: string): Y.Text | null {
  const text = fieldsOf(fieldsOf(nodesOf(doc).get(id))?.('data'))?.(key);
  return text instanceof Y.Text ? text : null;
}

function nestedNode(doc: Y.Doc, id: string): Y.Map<unknown> | null {
  const nodes = nodesOf(doc);
  const present = nodes.get(id);
  if (present instanceof Y.Map) return present as Y.Map<unknown>;
  if (!isRecord(present)) return null;
  return nested(nodes, id);
}

function nestedData(doc: Y.Doc, id: string): Y.Map<unknown> | null {
  const node = nestedNode(doc, id);
  return node && nested(node, 'data');
}

/** The shared map under a key; a plain object there is turned into one first. */
function nested(parent: Y.Map<unknown>, key: string): Y.Map<unknown> {
  const present = parent.get(key);
  if (present instanceof Y.Map) return present as Y.Map<unknown>;
  const map = new Y.Map<unknown>();
  for (const [name, value] of Object.entries(isRecord(present) ? present : {})) map.set(name, value);
  parent.set(key, map);
  return map;
}

function sharedData(data: Readonly<Record<string, Json>>): Y.Map<unknown> {
  const shared = new Y.Map<unknown>();
  for (const [key, value] of Object.entries(data)) {
    if (SERVER_KEYS.has(key) && key !== 'request') continue;
    if (TEXT_KEYS.has(key) && typeof value === 'string') shared.set(key, new Y.Text(value));
    else if (MAP_KEYS.has(key) && isRecord(value)) shared.set(key, new Y.Map(Object.entries(value)));
    else shared.set(key, value);
  }
  return shared;
}
