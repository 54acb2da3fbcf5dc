import { applyEdgeChanges, applyNodeChanges, type EdgeChange, type NodeChange } from '@xyflow/react';
import * as Y from 'yjs';

import { readEdge, readNode } from '../document/read';
import { edgesOf, moveNodes, nodesOf, removeEdges, removeNodes, resizeNode } from '../document/write';
import type { History } from '../session/history';
import { LOCAL } from '../session/origin';
import { Cell } from '../store/cell';
import { noteDirty, type Dirty } from './dirty';
import { PositionWriter } from './positions';
import { inOrder, toFlowEdge, toFlowNode, type FlowEdge, type FlowNode } from './view';

type Schedule = (flush: () => void) => void;

/**
 * The shared canvas as React Flow state.
 *
 * Local changes show at once and are written to the document afterwards; changes from elsewhere are collected per
 * node and shown once per frame. A node that did not change keeps its object, so React skips it.
 */
export class FlowBinding {
  readonly nodes: Cell<FlowNode[]>;
  readonly edges: Cell<FlowEdge[]>;
  readonly #doc: Y.Doc;
  readonly #history: History;
  readonly #schedule: Schedule;
  readonly #positions: PositionWriter;
  readonly #dirty: Dirty = new Map();
  readonly #dragging = new Set<string>();
  readonly #selectNext = new Set<string>();
  #edgesDirty = true;
  #scheduled = false;

  constructor(doc: Y.Doc, history: History, schedule: Schedule = nextFrame) {
    this.#doc = doc;
    this.#history = history;
    this.#schedule = schedule;
    this.nodes = new Cell<FlowNode[]>([]);
    this.edges = new Cell<FlowEdge[]>([]);
    this.#positions = new PositionWriter((moved) => doc.transact(() => moveNodes(doc, moved), LOCAL));
    for (const id of nodesOf(doc).keys()) this.#dirty.set(id, 'all');
    this.#flush();
    nodesOf(doc).observeDeep((events, transaction) => {
      noteDirty(this.#dirty, events, transaction.origin === LOCAL);
      if (this.#dirty.size > 0) this.#ask();
    });
    edgesOf(doc).observeDeep(() => {
      this.#edgesDirty = true;
      this.#ask();
    });
  }

  changeNodes(changes: NodeChange<FlowNode>[]): void {
    const gone = new Set<string>();
    for (const change of changes) {
      if (change.type === 'position') this.#follow(change.id, change.dragging === true);
      if (change.type === 'position' && change.position) this.#positions.put(change.id, change.position);
      if (change.type === 'remove') gone.add(change.id);
      if (change.type === 'dimensions' && change.setAttributes && change.dimensions) {
        const { width, height } = change.dimensions;
        this.#doc.transact(() => resizeNode(this.#doc, change.id, width, height), LOCAL);
      }
    }
    this.nodes.set(applyNodeChanges(changes, this.nodes.get()));
    this.#settle(changes);
    if (gone.size > 0) this.remove(gone, new Set());
  }

  changeEdges(changes: EdgeChange<FlowEdge>[]): void {
    const gone = changes.filter((change) => change.type === 'remove').map((change) => change.id);
    this.edges.set(applyEdgeChanges(changes, this.edges.get()));
    if (gone.length > 0) this.remove(new Set(), new Set(gone));
  }

  /** Deletes nodes, their edges and further edges as one step. */
  remove(nodes: ReadonlySet<string>, edges: ReadonlySet<string>): void {
    this.#history.cut();
    this.#doc.transact(() => {
      removeEdges(this.#doc, edges);
      removeNodes(this.#doc, nodes);
    }, LOCAL);
    this.#history.cut();
  }

  /** Makes these nodes the selection, those included that are only about to appear. */
  select(ids: ReadonlySet<string>): void {
    this.#selectNext.clear();
    for (const id of ids) this.#selectNext.add(id);
    this.nodes.set(
      this.nodes.get().map((node) => {
        const selected = ids.has(node.id);
        if (selected) this.#selectNext.delete(node.id);
        return (node.selected ?? false) === selected ? node : { ...node, selected };
      }),
    );
    this.edges.set(this.edges.get().map((edge) => (edge.selected === true ? { ...edge, selected: false } : edge)));
  }

  node(id: string): FlowNode | undefined {
    return this.nodes.get().find((node) => node.id === id);
  }

  selected(): string[] {
    return this.nodes.get().flatMap((node) => (node.selected === true ? [node.id] : []));
  }

  /** Shows everything that waits, without waiting for the frame. */
  catchUp(): void {
    this.#flush();
  }

  #follow(id: string, dragging: boolean): void {
    if (dragging && !this.#dragging.has(id)) {
      if (this.#dragging.size === 0) this.#history.begin();
      this.#dragging.add(id);
    }
  }

  #settle(changes: readonly NodeChange<FlowNode>[]): void {
    const positioned = changes.filter((change) => change.type === 'position');
    if (positioned.length === 0) return;
    const wasDragging = this.#dragging.size > 0;
    for (const change of positioned) if (change.dragging !== true) this.#dragging.delete(change.id);
    if (this.#dragging.size > 0) return;
    this.#positions.flush();
    if (wasDragging) this.#history.end();
    // After the drop the document decides: somebody else may have moved the node meanwhile.
    for (const change of positioned) if (!this.#dirty.has(change.id)) this.#dirty.set(change.id, 'position');
    this.#ask();
  }

  #ask(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#schedule(() => this.#flush());
  }

  #flush(): void {
    this.#scheduled = false;
    const structural = this.#flushNodes();
    if (structural || this.#edgesDirty) this.#flushEdges();
  }

  #flushNodes(): boolean {
    if (this.#dirty.size === 0) return false;
    const dirty = new Map(this.#dirty);
    this.#dirty.clear();
    const shared = nodesOf(this.#doc);
    const before = this.nodes.get();
    const next: FlowNode[] = [];
    for (const node of before) {
      const extent = dirty.get(node.id);
      dirty.delete(node.id);
      if (extent === undefined) {
        next.push(node);
        continue;
      }
      const read = readNode(node.id, shared.get(node.id));
      if (read === null) this.#dropped(node.id);
      else if (extent === 'all') next.push(toFlowNode(read, node));
      else next.push(node.dragging === true ? node : moved(node, read.position));
    }
    const kept = next.length;
    for (const id of dirty.keys()) {
      const read = readNode(id, shared.get(id));
      if (read !== null) next.push(this.#appeared(toFlowNode(read, undefined)));
    }
    this.nodes.set(inOrder(next));
    return kept !== before.length || next.length !== kept;
  }

  #flushEdges(): void {
    this.#edgesDirty = false;
    const previous = new Map(this.edges.get().map((edge) => [edge.id, edge]));
    const present = new Set(this.nodes.get().map((node) => node.id));
    const next: FlowEdge[] = [];
    for (const [id, value] of edgesOf(this.#doc).entries()) {
      const edge = readEdge(id, value);
      // A link added while its end was being deleted dangles: it stays in the document and off the screen.
      if (edge === null || !present.has(edge.source) || !present.has(edge.target)) continue;
      next.push(toFlowEdge(edge, previous.get(id)));
    }
    this.edges.set(next);
  }

  #appeared(node: FlowNode): FlowNode {
    return this.#selectNext.delete(node.id) ? { ...node, selected: true } : node;
  }

  #dropped(id: string): void {
    if (this.#dragging.delete(id) && this.#dragging.size === 0) this.#history.end();
  }
}

function moved(node: FlowNode, position: FlowNode['position']): FlowNode {
  if (node.position.x === position.x && node.position.y === position.y) return node;
  return { ...node, position };
}

/** Once per frame; the timer stands in for frames that a hidden page does not get. */
function nextFrame(flush: () => void): void {
  let done = false;
  const once = (): void => {
    if (done) return;
    done = true;
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    flush();
  };
  const frame = requestAnimationFrame(once);
  const timer = setTimeout(once, 250);
}
