import { stageWord } from '../runs/phase';
import { makerFor } from '../runs/makers';
import { useLive, useMayEdit, useSession } from '../session/context';
import { useCell, useCellOf } from '../store/hooks';
import { useNow, useSeconds } from '../ui/clock';
import { IconButton } from '../ui/Button';
import { Icon } from '../ui/Icon';
import { pauseOf, waitingWords } from './waiting';
import type { Work } from './work';

/** One picture in the making: what it is, how far, and what may be done to it. */
export function QueueRow({ work, onShow }: { work: Work; onShow: () => void }) {
  const { runs, steering, person, makers, queue } = useSession();
  const asked = useCellOf(runs.asked, work.nodeId);
  const me = useCell(person);
  const offered = useCell(makers);
  const state = useCell(queue.state);
  const mayEdit = useMayEdit();
  const live = useLive();
  const now = useNow();
  const seconds = useSeconds(work.runId, work.run?.startedAt ?? null, true);
  const cancelling = asked?.kind === 'cancel' && asked.runId === work.runId;
  const { run } = work;
  // That everything is paused stands above the list once; the row keeps its place in line.
  const told = run?.held === 'paused' && pauseOf(state, null, now) !== null;
  const standing = run !== null && told ? { ...run, held: null } : run;
  const maker = makerFor(offered, work);
  const words = work.waiting ? waitingWords({ run: standing, maker, queue: state, now }) : null;
  const title = cancelling ? 'Cancelling' : (words?.title ?? atWork(work));
  const by = run?.by == null ? '' : run.by === me.name ? 'you' : run.by;
  const more = words === null ? (run === null ? '' : `${seconds} s`) : words.more;
  const prompt = work.prompt.trim() || 'No prompt';
  return (
    <li className="queue-row" data-testid="queue-row" data-waiting={work.waiting || undefined}>
      <button type="button" className="queue-show" title="Show it on the canvas" onClick={onShow}>
        <Icon name={cancelling ? 'stop' : !work.waiting ? 'develop' : run?.held === 'paused' ? 'pause' : 'pending'} size={16} />
        <span className="queue-words">
          <span className="queue-prompt">{prompt}</span>
          <small className="times">{[title, more, by].filter((part) => part !== '').join(' · ')}</small>
        </span>
      </button>
      {mayEdit && work.waiting && (run?.place ?? 1) > 1 && (
        <IconButton
          name="Make it next"
          icon="first"
          aria-label={`Make it next: ${prompt.slice(0, 60)}`}
          disabled={!live || cancelling}
          onClick={() => void steering.next(work.runId)}
        />
      )}
      {mayEdit && (
        <IconButton
          name="Cancel"
          icon="close"
          aria-label={`Cancel: ${prompt.slice(0, 60)}`}
          disabled={cancelling}
          onClick={(event) => {
            // The row goes with its button; the keyboard stays in the panel.
            event.currentTarget.closest<HTMLElement>('.queue')?.focus({ preventScroll: true });
            void runs.cancel(work.nodeId);
          }}
        />
      )}
    </li>
  );
}

function atWork({ run }: Work): string {
  const percent = run?.progress == null ? '' : ` ${Math.round(run.progress * 100)} %`;
  return `${stageWord({ phase: 'running', busy: true, run })}${percent}`;
}
