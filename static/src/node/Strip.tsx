import type { Maker } from '../api/records';
import { waitingWords, type WaitingWords } from '../queue/waiting';
import { stageWord, type View } from '../runs/phase';
import { useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button } from '../ui/Button';
import { useNow } from '../ui/clock';
import { Icon, type IconName } from '../ui/Icon';

interface StripProps {
  readonly view: View;
  /** Who is to make the picture. */
  readonly maker: Maker | null;
  readonly seconds: number;
  readonly me: string;
  readonly onCancel: () => void;
}

/** Along the lower edge of a sheet in the making: what happens, since when, who asked, and the way out. */
export function Strip({ view, maker, seconds, me, onCancel }: StripProps) {
  const { phase, run } = view;
  const mayEdit = useMayEdit();
  const { queue } = useSession();
  const state = useCell(queue.state);
  const now = useNow();
  if (phase === 'waiting') {
    return (
      <div className="strip">
        <Icon name="cloudOff" size={16} />
        <span className="stage">
          Waiting
          <small>Will run when you are back</small>
        </span>
        <Button word="Cancel" onClick={onCancel} />
      </div>
    );
  }
  const percent = run?.progress == null ? null : Math.round(run.progress * 100);
  const words = phase === 'pending' ? waitingWords({ run, maker, queue: state, now }) : null;
  const details = detailsOf(run, words, seconds, me);
  return (
    <div className="strip" data-held={words === null ? undefined : (run?.held ?? undefined)}>
      <Icon name={run?.held === 'paused' && phase === 'pending' ? 'pause' : iconOf(phase)} size={16} />
      <span className="stage" title={[words?.title ?? stageWord(view), ...details].join(', ')}>
        {words?.title ?? stageWord(view)}
        {percent !== null && phase === 'running' && <span className="times"> {percent} %</span>}
        <small className="times">{details.join(', ')}</small>
      </span>
      {mayEdit && phase !== 'starting' && <Button word="Cancel" disabled={phase === 'cancelling'} onClick={onCancel} />}
      {/* In line nothing moves: only what is being made has a line that does. */}
      {(words === null || run === null) && <ProgressLine percent={phase === 'running' ? percent : null} />}
    </div>
  );
}

function detailsOf(run: View['run'], words: WaitingWords | null, seconds: number, me: string): string[] {
  if (run === null) return [];
  const asked = run.by === null ? [] : [run.by === me ? 'asked by you' : `asked by ${run.by}`];
  // What holds a run back matters more than who asked for it, and there is room for one of them.
  if (words !== null && run.held !== null && words.more !== '') return [words.more];
  const when = words === null ? `${seconds} s` : words.more;
  return [...(when === '' ? [] : [when]), ...asked];
}

function ProgressLine({ percent }: { percent: number | null }) {
  if (percent === null) {
    return <div className="line open" role="progressbar" aria-label="Progress" />;
  }
  return (
    <div
      className="line"
      role="progressbar"
      aria-label="Progress"
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
    >
      <i style={{ transform: `scaleX(${percent / 100})` }} />
    </div>
  );
}

function iconOf(phase: View['phase']): IconName {
  if (phase === 'cancelling') return 'stop';
  return phase === 'running' ? 'develop' : 'pending';
}
