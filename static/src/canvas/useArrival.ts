import { useNodesInitialized, useReactFlow } from '@xyflow/react';
import { useEffect, useRef } from 'react';

import type { FlowEdge, FlowNode } from '../binding/view';
import { useSession } from '../session/context';
import { placedFirst } from './first';
import { FIT } from './view';

/** Shows the whole canvas once, when its first nodes are here; a first picture made on this page stays where it is. */
export function useArrival(): void {
  const { flow } = useSession();
  const instance = useReactFlow<FlowNode, FlowEdge>();
  const initialized = useNodesInitialized();
  const done = useRef(false);
  useEffect(() => {
    if (done.current || !initialized || flow.nodes.get().length === 0) return;
    done.current = true;
    if (!placedFirst.get()) void instance.fitView({ ...FIT, duration: 0 });
  }, [flow, initialized, instance]);
}
