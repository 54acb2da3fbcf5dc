import { useReactFlow } from '@xyflow/react';
import { useEffect, useState } from 'react';

import type { Costs } from '../api/client';
import { useLive, useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { useNow } from '../ui/clock';
import { Button } from '../ui/Button';
import { Icon } from '../ui/Icon';
import { costWords } from '../ui/money';
import { QueueRow } from './QueueRow';
import { pauseOf, pausedWords } from './waiting';
import type { Work } from './work';

const MOST_ROWS = 60;

/** What runs and what waits on this canvas, with the ways to steer it. */
export function QueuePanel() {
  const { work, queue, flow } = useSession();
  const list = useCell(work);
  const { fitView } = useReactFlow();
  const costs = useCosts(list.length);
  const waiting = list.filter((one) => one.waiting).length;

  // Somebody else may have paused the canvas while nothing waited, which nobody is told of.
  useEffect(() => queue.refresh(), [queue]);

  const show = (nodeId: string): void => {
    flow.select(new Set([nodeId]));
    void fitView({ nodes: [{ id: nodeId }], duration: 400, maxZoom: 1.25, padding: 0.4 });
  };
  return (
    <section className="queue" tabIndex={-1} data-testid="queue-panel">
      <header>
        <h2>In the making</h2>
        <p className="times">{countWords(list.length - waiting, waiting)}</p>
      </header>
      <PauseNote />
      {list.length === 0 ? (
        <p className="queue-empty">Nothing is being made here now.</p>
      ) : (
        <ul>
          {list.slice(0, MOST_ROWS).map((one) => (
            <QueueRow key={one.runId} work={one} onShow={() => show(one.nodeId)} />
          ))}
          {list.length > MOST_ROWS && <li className="queue-more times">and {list.length - MOST_ROWS} more</li>}
        </ul>
      )}
      <Steer list={list} waiting={waiting} />
      {costs !== null && <p className="queue-cost times">This canvas so far: {costWords(costs)}</p>}
    </section>
  );
}

/** Who paused the canvas, where somebody did, and the way on. */
function PauseNote() {
  const { queue, steering } = useSession();
  const state = useCell(queue.state);
  const mayEdit = useMayEdit();
  const live = useLive();
  const now = useNow();
  const pause = pauseOf(state, null, now);
  if (pause === null) return null;
  const words = pausedWords(pause, null, now);
  return (
    <div className="queue-paused" data-testid="paused">
      <Icon name="pause" size={16} />
      <p>
        {pause.scope === 'canvas' ? 'This canvas is paused' : 'All canvases are paused'}
        {words.more !== '' && ` ${words.more}`}
        <small>New pictures wait; those being made are finished.</small>
      </p>
      {mayEdit && pause.scope === 'canvas' && (
        <Button word="Resume" look="outline" disabled={!live} onClick={() => void steering.resume()} />
      )}
    </div>
  );
}

/** The controls that concern the whole canvas. */
function Steer({ list, waiting }: { list: readonly Work[]; waiting: number }) {
  const { queue, steering } = useSession();
  const state = useCell(queue.state);
  const live = useLive();
  const now = useNow();
  const mayEdit = useMayEdit();
  const paused = pauseOf(state, null, now) !== null;
  if (!mayEdit || (paused && list.length === 0)) return null;
  return (
    <div className="queue-steer">
      {!paused && <Button word="Pause" icon="pause" disabled={!live} onClick={() => void steering.pause()} />}
      <span className="spring" />
      {waiting > 0 && waiting < list.length && (
        <Button word="Cancel waiting" disabled={!live} onClick={() => void steering.cancelAll('waiting')} />
      )}
      {list.length > 0 && <CancelAll count={list.length} live={live} />}
    </div>
  );
}

const MEANT_MS = 4_000;

/** Asks once more on the button itself: what is being made may be paid for already. */
function CancelAll({ count, live }: { count: number; live: boolean }) {
  const { steering } = useSession();
  const [sure, setSure] = useState(false);
  useEffect(() => {
    if (!sure) return;
    const timer = setTimeout(() => setSure(false), MEANT_MS);
    return () => clearTimeout(timer);
  }, [sure]);
  const act = (): void => {
    if (sure || count === 1) void steering.cancelAll(null);
    setSure(!sure && count > 1);
  };
  const word = sure ? `Really cancel ${count}?` : 'Cancel all';
  return <Button word={word} look={sure ? 'outline' : 'quiet'} disabled={!live} onClick={act} />;
}

/** What the canvas has cost; asked anew when a picture ends. */
function useCosts(unfinished: number): Costs | null {
  const { api } = useSession();
  const [costs, setCosts] = useState<Costs | null>(null);
  useEffect(() => {
    let current = true;
    api.costs().then(
      (told) => current && setCosts(told),
      // Who may not know it is not shown it.
      () => undefined,
    );
    return () => {
      current = false;
    };
  }, [api, unfinished]);
  return costs;
}

function countWords(running: number, waiting: number): string {
  const parts = [running > 0 ? `${running} running` : '', waiting > 0 ? `${waiting} waiting` : ''];
  return parts.filter((part) => part !== '').join(', ');
}
