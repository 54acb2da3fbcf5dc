import type { Edge, Node } from '@xyflow/react';

import type { CanvasEdge, CanvasNode, NodeData } from '../document/schema';
import { roughSize } from '../node/size';

/** What React Flow is given: the shared node under what only this screen knows (selection, dragging, measures). */
export type FlowNode = Node<NodeData, FlowKind>;
export type FlowKind = 'image' | 'note' | 'other';
export type FlowEdge = Edge;

export function flowKind(type: string): FlowKind {
  return type === 'image' || type === 'note' ? type : 'other';
}

export function toFlowNode(node: CanvasNode, previous: FlowNode | undefined): FlowNode {
  const { width, height } = roughSize(node.data);
  const view: FlowNode = {
    id: node.id,
    type: flowKind(node.type),
    initialWidth: width,
    initialHeight: height,
    position: previous?.dragging === true ? previous.position : node.position,
    data: node.data,
    ariaLabel: describe(node.data),
  };
  if (node.parentId !== null) view.parentId = node.parentId;
  if (node.zIndex !== null) view.zIndex = node.zIndex;
  if (node.hidden) view.hidden = true;
  return previous === undefined ? view : { ...view, ...localOf(previous) };
}

export function toFlowEdge(edge: CanvasEdge, previous: FlowEdge | undefined): FlowEdge {
  const view: FlowEdge = { id: edge.id, source: edge.source, target: edge.target };
  if (edge.label !== '') view.label = edge.label;
  if (previous?.selected !== undefined) view.selected = previous.selected;
  return view;
}

/** Parents before children, as React Flow wants them; a node whose parent is gone stands on its own. */
export function inOrder(nodes: readonly FlowNode[]): FlowNode[] {
  if (nodes.every((node) => node.parentId === undefined)) return [...nodes];
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const done = new Map<string, FlowNode>();
  const place = (node: FlowNode, above: ReadonlySet<string>): void => {
    if (done.has(node.id)) return;
    const parent = node.parentId === undefined ? undefined : byId.get(node.parentId);
    if (parent === undefined || above.has(parent.id)) {
      const { parentId: _gone, ...alone } = node;
      done.set(node.id, alone);
      return;
    }
    place(parent, new Set(above).add(node.id));
    done.set(node.id, node);
  };
  for (const node of nodes) place(node, new Set([node.id]));
  return [...done.values()];
}

function localOf(previous: FlowNode): Partial<FlowNode> {
  const local: Partial<FlowNode> = {};
  if (previous.selected !== undefined) local.selected = previous.selected;
  if (previous.dragging !== undefined) local.dragging = previous.dragging;
  if (previous.measured !== undefined) local.measured = previous.measured;
  return local;
}

function describe(data: NodeData): string {
  const words = (data.prompt || data.text || data.label || 'empty').slice(0, 80);
  return data.kind === 'image' ? `Picture, ${data.status}: ${words}` : `${data.kind}: ${words}`;
}
