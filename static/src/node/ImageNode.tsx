import { Handle, Position, useStore, type NodeProps } from '@xyflow/react';
import { memo, useEffect, useRef, useState, type CSSProperties } from 'react';

import type { FlowNode } from '../binding/view';
import { far } from '../canvas/far';
import { choiceOf } from '../runs/makers';
import { development, viewOf } from '../runs/phase';
import { useSession } from '../session/context';
import { useCell, useCellOf } from '../store/hooks';
import { useSeconds } from '../ui/clock';
import { Icon } from '../ui/Icon';
import { Developing } from './Developing';
import { Failure } from './Failure';
import { Foot } from './Foot';
import { Marks } from './Marks';
import { Picture } from './Picture';
import { PromptField } from './PromptField';
import { aspectFor, sheetSize } from './size';
import { Strip } from './Strip';
import { useDeveloped } from './useDeveloped';

/** Thumbnails are this large on their longer side; a sheet that covers more pixels loads the picture itself. */
const THUMBNAIL_PX = 300;

/** A sheet of paper on which a picture develops. */
export const ImageNode = memo(function ImageNode({ id, data, selected }: NodeProps<FlowNode>) {
  const session = useSession();
  const { link } = useCell(session.connection);
  const makers = useCell(session.makers);
  const me = useCell(session.person);
  const progress = useCellOf(session.presence.runs, id);
  const asked = useCellOf(session.runs.asked, id);
  const view = viewOf(data, progress, asked, link === 'live');
  const seconds = useSeconds(data.runId, view.run?.startedAt ?? null, view.busy);

  const { phase } = view;
  const choice = choiceOf(makers, data);
  const coming = view.busy || phase === 'waiting';
  const aspect = aspectFor(data, choice, coming);
  const size = sheetSize(aspect, data.width);
  const shown = data.pictures[0];
  const sharp = useStore((state) => state.transform[2] * size.width * window.devicePixelRatio > THUMBNAIL_PX);
  const { held, printed } = useDeveloped(view.busy, shown?.url ?? null, phase);
  const level = phase === 'running' ? development(view.run?.progress ?? null, seconds) : held && !view.busy ? 1 : 0;

  const run = (): void => void session.runs.generate(id);
  const cancel = (): void => void session.runs.cancel(id);
  const blank = shown === undefined && (phase === 'idle' || phase === 'cancelled');
  const distant = useCell(far);
  const failed = phase === 'failed' && data.error !== null;
  const action = failed ? null : shown === undefined ? 'Generate' : 'Regenerate';
  const style = { '--w': `${size.width}px`, '--h': `${size.height}px` } as CSSProperties;

  return (
    <article
      className={selected === true ? 'sheet selected' : 'sheet'}
      data-node-id={id}
      data-status={data.status}
      data-phase={phase}
      data-testid="image-node"
      data-blank={blank || undefined}
      data-distant={distant || undefined}
      style={style}
    >
      <Handle type="target" position={Position.Left} />
      <Handle type="source" position={Position.Right} />
      <div className="paper">
        {shown !== undefined && (
          <Picture
            nodeId={id}
            picture={shown}
            count={data.pictures.length}
            sharp={sharp}
            prompt={data.prompt}
            onShown={printed}
          />
        )}
        {(view.busy || held) && (
          <Developing
            prompt={data.prompt}
            aspect={aspect}
            previewUrl={view.run?.previewUrl ?? null}
            level={level}
            blank={phase !== 'running' && view.busy}
          />
        )}
        {(shown === undefined || view.busy) && <div className="layer grain" />}
        {failed && data.error !== null && (
          <Failure error={data.error} runId={data.runId} over={shown !== undefined} onRetry={run} />
        )}
        {phase === 'cancelled' && (
          <p className="badge calm">
            <Icon name="stop" size={14} />
            Cancelled
          </p>
        )}
        {coming && <Strip view={view} maker={choice.maker} seconds={seconds} me={me.name} onCancel={cancel} />}
      </div>
      <Marks nodeId={id} />
      {distant ? (
        <div className="prompt distant" />
      ) : (
        <PromptField
          nodeId={id}
          textKey="prompt"
          label="Prompt"
          placeholder="Describe a picture"
          value={data.prompt}
          onRun={run}
        />
      )}
      {coming || distant ? (
        <div className="foot" />
      ) : (
        <Foot nodeId={id} choice={choice} action={action} prompt={data.prompt} past={data.runId !== null} onRun={run} />
      )}
      <Announcement phase={phase} prompt={data.prompt} />
    </article>
  );
});

/** Tells screen readers about a picture of one's own once it is settled. */
function Announcement({ phase, prompt }: { phase: string; prompt: string }) {
  const { toasts } = useSession();
  const [mine, setMine] = useState(false);
  const before = useRef(phase);
  useEffect(() => {
    const previous = before.current;
    before.current = phase;
    if (phase === 'starting') setMine(true);
    if (!mine || previous === phase) return;
    if (phase === 'completed' || phase === 'failed' || phase === 'cancelled') {
      setMine(false);
      toasts.announce(`Picture ${phase}: ${prompt.slice(0, 80)}`);
    }
  }, [mine, phase, prompt, toasts]);
  return null;
}
