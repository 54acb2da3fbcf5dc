import { useMayEdit } from '../session/context';
import { Button } from '../ui/Button';
import { Icon, type IconName } from '../ui/Icon';
import { stageWord, type View } from '../runs/phase';

interface StripProps {
  readonly view: View;
  readonly seconds: number;
  readonly me: string;
  readonly onCancel: () => void;
}

/** Along the lower edge of a sheet in the making: what happens, since when, who asked, and the way out. */
export function Strip({ view, seconds, me, onCancel }: StripProps) {
  const { phase, run } = view;
  const mayEdit = useMayEdit();
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
  const details = detailsOf(run, seconds, me);
  return (
    <div className="strip">
      <Icon name={iconOf(phase)} size={16} />
      <span className="stage">
        {stageWord(view)}
        {percent !== null && phase === 'running' && <span className="times"> {percent} %</span>}
        <small className="times">{details.join(', ')}</small>
      </span>
      {mayEdit && phase !== 'starting' && <Button word="Cancel" disabled={phase === 'cancelling'} onClick={onCancel} />}
      <ProgressLine percent={phase === 'running' ? percent : null} />
    </div>
  );
}

function detailsOf(run: View['run'], seconds: number, me: string): string[] {
  if (run === null) return [];
  const asked = run.by === null ? [] : [run.by === me ? 'asked by you' : `asked by ${run.by}`];
  return [`${seconds} s`, ...asked];
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
