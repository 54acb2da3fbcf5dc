import * as Y from 'yjs';

import { readPoint } from './read';
import { SERVER_KEYS, type Point } from './schema';
import { asName, isRecord } from './values';
import { nodesOf, edgesOf, type Json, type NewEdge, type NewNode } from './write';

/** A piece of a canvas as it travels by clipboard: React Flow's shape under a mark of ours. */
export interface Piece {
  readonly nodes: readonly NewNode[];
  readonly edges: readonly NewEdge[];
}

const MARK = 'darkroom';
const MOST_NODES = 500;
const LOCAL_KEYS: ReadonlySet<string> = new Set([
  'id',
  'type',
  'position',
  'data',
  'selected',
  'dragging',
  'resizing',
  'measured',
  'internals',
  'parentId',
  'extent',
]);

/** The chosen nodes, the edges between them, and nothing the server owns. */
export function takePiece(doc: Y.Doc, ids: ReadonlySet<string>): Piece {
  const nodes = [...ids].map((id) => toNode(id, plain(nodesOf(doc).get(id)))).filter((node) => node !== null);
  const edges = [...edgesOf(doc).entries()]
    .map(([id, value]) => toEdge(id, plain(value)))
    .filter((edge) => edge !== null)
    .filter((edge) => ids.has(edge.source) && ids.has(edge.target));
  return { nodes, edges };
}

/** The same piece with ids of its own, moved by an offset. */
export function freshPiece(piece: Piece, offset: Point, newId: () => string): Piece {
  const ids = new Map(piece.nodes.map((node) => [node.id, newId()]));
  return {
    nodes: piece.nodes.map((node) => ({
      ...node,
      id: ids.get(node.id) ?? newId(),
      position: { x: node.position.x + offset.x, y: node.position.y + offset.y },
    })),
    edges: piece.edges.flatMap((edge) => {
      const source = ids.get(edge.source);
      const target = ids.get(edge.target);
      return source === undefined || target === undefined ? [] : [{ id: newId(), source, target }];
    }),
  };
}

export function pieceToText(piece: Piece): string {
  const nodes = piece.nodes.map(({ extra, ...node }) => ({ ...extra, ...node }));
  return JSON.stringify({ [MARK]: 1, nodes, edges: piece.edges });
}

/** Reads a piece from clipboard text; null when it is something else. */
export function pieceFromText(text: string): Piece | null {
  if (!text.startsWith('{')) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(value) || value[MARK] !== 1 || !Array.isArray(value['nodes'])) return null;
  const nodes = value['nodes'].slice(0, MOST_NODES).map((node: unknown) => {
    return isRecord(node) && asName(node['id']) !== null ? toNode(String(node['id']), node) : null;
  });
  const edges = Array.isArray(value['edges']) ? value['edges'].slice(0, MOST_NODES * 4) : [];
  return {
    nodes: nodes.filter((node) => node !== null),
    edges: edges.map((edge: unknown) => toEdge('', edge)).filter((edge) => edge !== null),
  };
}

/** The middle of a piece, by the corners of its nodes. */
export function middleOf(piece: Piece): Point {
  const xs = piece.nodes.map((node) => node.position.x);
  const ys = piece.nodes.map((node) => node.position.y);
  return { x: (Math.min(...xs) + Math.max(...xs)) / 2, y: (Math.min(...ys) + Math.max(...ys)) / 2 };
}

function toNode(id: string, value: unknown): NewNode | null {
  if (!isRecord(value)) return null;
  const position = readPoint(value['position']);
  if (position === null) return null;
  const data = isRecord(value['data']) ? value['data'] : {};
  const kept = Object.entries(data).filter(([key]) => !SERVER_KEYS.has(key));
  const extra = Object.entries(value).filter(([key]) => !LOCAL_KEYS.has(key));
  return {
    id,
    type: asName(value['type']) ?? 'image',
    position,
    data: Object.fromEntries(kept) as Record<string, Json>,
    extra: Object.fromEntries(extra) as Record<string, Json>,
  };
}

function toEdge(id: string, value: unknown): NewEdge | null {
  if (!isRecord(value)) return null;
  const source = asName(value['source']);
  const target = asName(value['target']);
  return source === null || target === null ? null : { id, source, target };
}

function plain(value: unknown): unknown {
  return value instanceof Y.AbstractType ? value.toJSON() : value;
}
