import { useCallback, useEffect, useRef, useState } from 'react';

import { Problem } from '../api/http';
import type { JobRecord } from '../api/records';
import type { RunError } from '../document/schema';
import { modelLabel } from '../runs/makers';
import { useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button } from '../ui/Button';
import { Icon } from '../ui/Icon';
import { Popover } from '../ui/Popover';

interface FailureProps {
  readonly error: RunError;
  readonly runId: string | null;
  /** Over an older picture: one line at its lower edge. */
  readonly over: boolean;
  readonly onRetry: () => void;
}

/** Why there is no picture, in one plain sentence; the maker's own words are a click away. */
export function Failure({ error, runId, over, onRetry }: FailureProps) {
  const [open, setOpen] = useState(false);
  const mayEdit = useMayEdit();
  const anchor = useRef<HTMLDivElement>(null);
  const close = useCallback(() => setOpen(false), []);
  return (
    <div className={over ? 'failure over' : 'failure'}>
      <p className="badge bad">
        <Icon name="alert" size={16} />
        Failed
      </p>
      <p className="reason" title={error.message}>
        {error.message}
      </p>
      <div className="actions nodrag" ref={anchor}>
        {mayEdit && <Button word="Retry" icon="retry" look="outline" onClick={onRetry} />}
        <Button word="Details" aria-expanded={open} onClick={() => setOpen(!open)} />
      </div>
      {open && (
        <Popover anchor={anchor} label="Why it failed" onClose={close}>
          <Details error={error} runId={runId} />
        </Popover>
      )}
    </div>
  );
}

function Details({ error, runId }: { error: RunError; runId: string | null }) {
  const { api, makers } = useSession();
  const offered = useCell(makers);
  const [job, setJob] = useState<JobRecord | null>(null);
  const [note, setNote] = useState(runId === null ? null : 'Loading');

  useEffect(() => {
    if (runId === null) return;
    let current = true;
    api.job(runId).then(
      (found) => {
        if (!current) return;
        setJob(found);
        setNote(null);
      },
      (problem: unknown) => {
        if (current) setNote(problem instanceof Problem ? problem.message : 'The details could not be loaded.');
      },
    );
    return () => {
      current = false;
    };
  }, [api, runId]);

  const code = job?.error?.vendorCode ?? error.code;
  const kind = job?.error?.reason?.toLowerCase().replaceAll('_', ' ');
  const rows: (readonly [string, string | null | undefined])[] = [
    ['What helps', /again/.test(error.message) ? null : ADVICE[error.action ?? '']],
    ['Code', code],
    ['Kind', kind === code ? null : kind],
    ['Stage', job?.error?.stage],
    ['Maker', job && modelLabel(offered, job.model)],
    ['Attempts', job?.attempt?.toString()],
    ['Run', runId],
  ];
  return (
    <div className="details">
      <p>{error.message}</p>
      <dl>
        {rows.map(([name, value]) =>
          value == null || value === '' ? null : (
            <div key={name}>
              <dt>{name}</dt>
              <dd>{value}</dd>
            </div>
          ),
        )}
      </dl>
      {note !== null && <p className="note-line">{note}</p>}
    </div>
  );
}

const ADVICE: Readonly<Record<string, string>> = {
  retry: 'Try again.',
  wait: 'Wait a moment, then try again.',
  change_prompt: 'Change the prompt and try again.',
  change_settings: 'Choose another size or model.',
  check_key: 'Check the key set on the server.',
  add_credit: 'Add credit at the maker.',
};
