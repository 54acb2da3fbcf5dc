import { useReactFlow } from '@xyflow/react';
import { useEffect, useMemo, useRef, type KeyboardEvent } from 'react';

import type { FlowEdge, FlowNode } from '../binding/view';
import { reveal } from '../canvas/view';
import { useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button, IconButton } from '../ui/Button';
import { entriesOf } from './entries';
import { EntryRow } from './EntryRow';
import { historyOf } from './open';
import { useHistory } from './useHistory';

/** On a phone the drawer comes from below and leaves so much of the screen to the canvas, at least. */
const SHEET_TOP = 0.44;

/** The earlier pictures of one node, at the side of the canvas. */
export function History() {
  const { flow } = useSession();
  const nodeId = useCell(historyOf);
  const nodes = useCell(flow.nodes);
  const node = nodeId === null ? undefined : nodes.find((one) => one.id === nodeId);
  // Somebody may delete the node while its history is open.
  const gone = nodeId !== null && node === undefined;
  useEffect(() => {
    if (gone) historyOf.set(null);
  }, [gone]);
  return node === undefined ? null : <Drawer key={node.id} node={node} />;
}

function Drawer({ node }: { node: FlowNode }) {
  const { data } = node;
  const history = useHistory(node.id, `${data.runId} ${data.status}`);
  const entries = useMemo(() => entriesOf(history.jobs, data), [history.jobs, data]);
  const drawer = useRef<HTMLElement>(null);
  const instance = useReactFlow<FlowNode, FlowEdge>();
  const opener = useRef<Element | null>(null);

  useEffect(() => {
    opener.current = document.activeElement;
    drawer.current?.focus({ preventScroll: true });
    const back = opener.current;
    return () => {
      if (back instanceof HTMLElement && back.isConnected) back.focus({ preventScroll: true });
    };
  }, []);

  // The node whose pictures these are stays in sight.
  useEffect(() => {
    const box = drawer.current?.getBoundingClientRect();
    const { x, y, width, height } = instance.getNodesBounds([node.id]);
    if (box === undefined) return;
    const below = box.left < window.innerWidth / 3;
    const covered = below
      ? { right: 24, bottom: window.innerHeight * (1 - SHEET_TOP) + 12 }
      : { right: window.innerWidth - box.left + 24, bottom: 84 };
    reveal(instance, { x, y }, width, height, covered);
  }, []);

  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    historyOf.set(null);
  };
  return (
    <aside
      ref={drawer}
      className="history"
      aria-label="Earlier pictures"
      tabIndex={-1}
      data-testid="history"
      onKeyDown={onKeyDown}
    >
      <header>
        <h2>Earlier pictures</h2>
        <IconButton name="Close" icon="close" onClick={() => historyOf.set(null)} />
      </header>
      {history.state === 'failed' && (
        <div className="history-note" role="alert">
          <p>{history.problem}</p>
          <Button word="Load again" icon="retry" look="outline" onClick={history.again} />
        </div>
      )}
      {history.state === 'loading' && entries.length === 0 && <p className="history-note">Loading</p>}
      {history.state === 'ready' && entries.length === 0 && (
        <p className="history-note">No picture was asked for here yet.</p>
      )}
      <ol aria-label="Runs, newest first">
        {entries.map((entry) => (
          <EntryRow key={entry.job.jobId} entry={entry} node={node} jobs={history.jobs} />
        ))}
      </ol>
      {history.next !== null && <Button word="Show older ones" onClick={history.older} />}
    </aside>
  );
}
