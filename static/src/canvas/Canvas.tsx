import {
  Background,
  BackgroundVariant,
  ReactFlow,
  SelectionMode,
  useReactFlow,
  useStoreApi,
  type Connection,
  type NodeTypes,
} from '@xyflow/react';
import { useCallback, useEffect, type PointerEvent } from 'react';

import type { FlowEdge, FlowNode } from '../binding/view';
import { ImageNode } from '../node/ImageNode';
import { NoteNode, OtherNode } from '../node/NoteNode';
import { useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { theme } from '../theme/theme';
import { Cursors } from './Cursors';
import { lookFrom } from './far';
import { tool } from './tool';
import { useArrival } from './useArrival';
import { useClipboard } from './useClipboard';
import { useKeyboard } from './useKeyboard';

const NODE_TYPES: NodeTypes = { image: ImageNode, note: NoteNode, other: OtherNode };
/** Above this many nodes only those in sight are put on the page. */
const MANY_NODES = 500;
const NO_KEY = null;
const MIDDLE_BUTTONS = [1, 2];
const EDGE_OPTIONS = { interactionWidth: 16 };
const PRO = { hideAttribution: true };

export function Canvas() {
  const session = useSession();
  const { flow, edits, presence } = session;
  const mayEdit = useMayEdit();
  const nodes = useCell(flow.nodes);
  const edges = useCell(flow.edges);
  const chosenTool = useCell(tool);
  const chosenTheme = useCell(theme);
  const store = useStoreApi();
  const { screenToFlowPosition } = useReactFlow<FlowNode, FlowEdge>();
  useKeyboard();
  useClipboard();
  useArrival();

  useEffect(() => flow.nodes.subscribe(() => presence.select(flow.selected())), [flow, presence]);

  useEffect(() => {
    const look = (): void => lookFrom(store.getState().transform[2], flow.nodes.get().length);
    const stop = [store.subscribe(look), flow.nodes.subscribe(look)];
    return () => stop.forEach((end) => end());
  }, [flow, store]);

  useEffect(() => {
    const leave = (): void => presence.point(null);
    window.addEventListener('blur', leave);
    return () => window.removeEventListener('blur', leave);
  }, [presence]);

  const onPointerMove = (event: PointerEvent): void => {
    presence.point(screenToFlowPosition({ x: event.clientX, y: event.clientY }, { snapToGrid: false }));
  };
  const onConnect = useCallback(({ source, target }: Connection) => edits.connect(source, target), [edits]);

  return (
    <main className="canvas" data-view-only={!mayEdit || undefined} onPointerMove={onPointerMove} onPointerLeave={() => presence.point(null)}>
      <ReactFlow<FlowNode, FlowEdge>
        nodes={nodes}
        edges={edges}
        nodeTypes={NODE_TYPES}
        defaultEdgeOptions={EDGE_OPTIONS}
        onNodesChange={(changes) => flow.changeNodes(changes)}
        onEdgesChange={(changes) => flow.changeEdges(changes)}
        onConnect={onConnect}
        nodesDraggable={mayEdit}
        nodesConnectable={mayEdit}
        onlyRenderVisibleElements={nodes.length > MANY_NODES}
        colorMode={chosenTheme}
        deleteKeyCode={NO_KEY}
        selectionMode={SelectionMode.Partial}
        selectionOnDrag={chosenTool === 'select'}
        panOnDrag={chosenTool === 'select' ? MIDDLE_BUTTONS : true}
        nodeDragThreshold={3}
        connectionRadius={28}
        zoomOnDoubleClick={false}
        minZoom={0.05}
        maxZoom={4}
        proOptions={PRO}
        aria-label="Canvas"
      >
        <Background variant={BackgroundVariant.Dots} gap={24} size={1.6} />
      </ReactFlow>
      <Cursors />
    </main>
  );
}
