import { Handle, Position, type NodeProps } from '@xyflow/react';
import { memo } from 'react';

import type { FlowNode } from '../binding/view';
import { Marks } from './Marks';
import { PromptField } from './PromptField';

/** A few words beside the pictures. */
export const NoteNode = memo(function NoteNode({ id, data, selected }: NodeProps<FlowNode>) {
  return (
    <article className={selected === true ? 'slip selected' : 'slip'} data-node-id={id} data-testid="note-node">
      <Handle type="target" position={Position.Left} />
      <Handle type="source" position={Position.Right} />
      <Marks nodeId={id} />
      <PromptField nodeId={id} textKey="text" label="Note" placeholder="Write a note" value={data.text} />
    </article>
  );
});

/** A node of a kind this page does not draw: shown by its words, kept as it is. */
export const OtherNode = memo(function OtherNode({ id, data, selected }: NodeProps<FlowNode>) {
  return (
    <article className={selected === true ? 'slip selected' : 'slip'} data-node-id={id} data-testid="other-node">
      <Handle type="target" position={Position.Left} />
      <Handle type="source" position={Position.Right} />
      <Marks nodeId={id} />
      <p className="kind">{data.kind}</p>
      <p className="words">{data.label || data.prompt || data.text}</p>
    </article>
  );
});
