import type { MouseEvent } from 'react';

import type { JobRecord } from '../api/records';
import type { FlowNode } from '../binding/view';
import { focusText } from '../canvas/useActions';
import { isActive } from '../document/schema';
import { openLightbox } from '../lightbox/open';
import { modelName } from '../runs/makers';
import { useLive, useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button, IconButton } from '../ui/Button';
import { useNow } from '../ui/clock';
import { Icon, type IconName } from '../ui/Icon';
import { dollars } from '../ui/money';
import { agoWords, momentWords } from '../ui/words';
import type { Entry } from './entries';

interface EntryProps {
  readonly entry: Entry;
  readonly node: FlowNode;
  readonly jobs: readonly JobRecord[];
}

/** One run: its picture or why there is none, what was asked, by whom and when, and what may be done with it. */
export function EntryRow({ entry, node, jobs }: EntryProps) {
  const { makers, person } = useSession();
  const offered = useCell(makers);
  const me = useCell(person);
  const now = useNow();
  const { job, shown } = entry;
  const at = job.createdAt === null ? '' : agoWords(job.createdAt, now);
  const by = job.by === null ? '' : job.by === me.name ? 'you' : job.by;
  if (job.restored) return <Restored entry={entry} by={by} at={at} now={now} />;

  const cost = job.costUsd === null ? '' : job.costUsd === 0 ? 'Free' : dollars(job.costUsd);
  const facts = [modelName(offered, job.model), by, seconds(job)];
  return (
    <li className="entry" tabIndex={-1} data-status={job.status} data-shown={shown || undefined} data-testid="entry">
      <Thumb job={job} node={node} jobs={jobs} at={at} />
      <div className="entry-words">
        <p className="entry-line times">
          <time dateTime={job.createdAt === null ? undefined : new Date(job.createdAt).toISOString()}>{at}</time>
          <span className="spring" />
          {cost}
        </p>
        <p className="entry-prompt" title={job.prompt}>
          {job.prompt.trim() || 'No prompt'}
        </p>
        {job.error !== null && <p className="entry-reason">{job.error.message}</p>}
        <p className="entry-facts times" title={by === '' ? undefined : `Asked by ${by}`}>{facts.filter((fact) => fact !== '').join(' · ')}</p>
        <Actions entry={entry} node={node} />
      </div>
    </li>
  );
}

/** Somebody went back to an earlier picture: one line, since the picture itself stands further down. */
function Restored({ entry, by, at, now }: { entry: Entry; by: string; at: string; now: number }) {
  const who = by === '' ? 'Somebody' : by === 'you' ? 'You' : by;
  const made = entry.madeAt === null ? undefined : `The picture of ${momentWords(entry.madeAt, now)}`;
  return (
    <li className="entry went-back" data-testid="entry" title={made}>
      <Icon name="undo" size={14} />
      <p>{who} put an earlier picture back</p>
      <span className="times">{at}</span>
    </li>
  );
}

const NO_PICTURE: Readonly<Record<string, readonly [IconName, string]>> = {
  pending: ['pending', 'Waiting'],
  running: ['develop', 'In the making'],
  failed: ['alert', 'Failed'],
  cancelled: ['stop', 'Cancelled'],
};

function Thumb({ job, node, jobs, at }: { job: JobRecord; node: FlowNode; jobs: readonly JobRecord[]; at: string }) {
  const [picture] = job.pictures;
  if (picture === undefined) {
    const [icon, word] = NO_PICTURE[job.status] ?? ['image', 'No picture'];
    return (
      <div className="entry-blank">
        <Icon name={icon} size={18} />
        <span>{word}</span>
      </div>
    );
  }
  return (
    <button
      type="button"
      className="entry-thumb"
      aria-label={`Open the picture of ${at}`}
      onClick={() => openLightbox({ nodeId: node.id, index: 0, url: picture.url, known: jobs })}
    >
      <img src={picture.thumbnailUrl ?? picture.url} alt="" loading="lazy" decoding="async" draggable={false} />
      {job.pictures.length > 1 && <span className="times">{job.pictures.length}</span>}
    </button>
  );
}

function Actions({ entry, node }: { entry: Entry; node: FlowNode }) {
  const { steering, runs, edits } = useSession();
  const mayEdit = useMayEdit();
  const live = useLive();
  const { job, shown } = entry;
  if (shown) {
    return (
      <p className="entry-shown">
        <Icon name="check" size={14} />
        On the canvas
      </p>
    );
  }
  if (!mayEdit) return null;
  if (isActive(job.status)) {
    return (
      <div className="entry-actions">
        {job.jobId === node.data.runId && <Button word="Cancel" onClick={() => void runs.cancel(node.id)} />}
      </div>
    );
  }
  // One run at a time: what is in the making would put its picture over the one chosen here.
  const busy = isActive(node.data.status) || !live;
  const use = job.status === 'completed' && job.pictures.length > 0;
  // The same again would be refused again: there the prompt or the settings have to change first.
  const hopeless = job.error?.action === 'change_prompt' || job.error?.action === 'change_settings';
  const takePrompt = (): void => {
    edits.writePrompt(node.id, job.prompt);
    focusText(node.id);
  };
  // A button goes once it has done its work; whoever pressed it by the keyboard stays at its line.
  const act =
    (action: () => unknown) =>
    (event: MouseEvent<HTMLButtonElement>): void => {
      event.currentTarget.closest<HTMLElement>('.entry')?.focus({ preventScroll: true });
      void action();
    };
  const again = act(() => steering.again(job.jobId));
  const other = job.prompt !== '' && job.prompt !== node.data.prompt;
  return (
    <div className="entry-actions">
      {use && (
        <Button
          word="Use this picture"
          look="outline"
          disabled={busy}
          onClick={act(() => steering.use(node.id, job.jobId))}
        />
      )}
      {use && (
        <IconButton name="Make again" title="Make again with this prompt" icon="retry" disabled={busy} onClick={again} />
      )}
      {!use && !hopeless && <Button word="Try again" look="outline" disabled={busy} onClick={again} />}
      {hopeless && other && <Button word="Change the prompt" look="outline" onClick={takePrompt} />}
      {!hopeless && other && (
        <IconButton name="Use this prompt" title="Use this prompt" icon="note" onClick={takePrompt} />
      )}
    </div>
  );
}

function seconds(job: JobRecord): string {
  if (job.seconds === null || job.status !== 'completed') return '';
  return `${job.seconds < 10 ? job.seconds.toFixed(1) : Math.round(job.seconds)} s`;
}
