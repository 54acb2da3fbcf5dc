import { useEffect, useRef } from 'react';

import { readPasted } from '../api/token';
import { useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button } from './Button';
import { LinkForm } from './LinkForm';
import { Mark } from './Mark';
import { edits } from './saved';
import { stopWords } from './stopped';

/** The server let this page go for good: why, and the way on. What was done here stays behind it. */
export function Stop() {
  const { connection, saving, retry, workflowId } = useSession();
  const { refusal, seen } = useCell(connection);
  const { waiting } = useCell(saving);
  const dialog = useRef<HTMLDialogElement>(null);
  const open = refusal !== null;

  useEffect(() => {
    if (open) dialog.current?.showModal();
  }, [open]);
  if (refusal === null) return null;

  const words = stopWords(refusal);
  const go = (text: string): boolean => {
    const pasted = readPasted(text);
    if (pasted === null) return false;
    if (pasted.workflowId === null || pasted.workflowId === workflowId) retry(pasted.token);
    else window.location.assign(`/w/${encodeURIComponent(pasted.workflowId)}#token=${pasted.token}`);
    return true;
  };
  return (
    // Nothing else on the page works now: Esc would only hide why.
    <dialog ref={dialog} className="stop" data-seen={seen || undefined} onCancel={(event) => event.preventDefault()}>
      <div className="stop-card" data-testid="stop">
        <Mark size={28} />
        <h1>{words.title}</h1>
        <p>{words.text}</p>
        {waiting > 0 && (
          <p className="stop-kept">
            {edits(waiting)} {waiting === 1 ? 'is' : 'are'} not saved yet. Keep this page open: they are saved once you
            are back.
          </p>
        )}
        {words.next === 'paste' && <LinkForm onLink={go} />}
        {words.next === 'new' && <Button word="Start a new canvas" look="primary" onClick={() => leaveTo('/')} />}
        {words.next === 'reload' && (
          <Button word="Load again" look="primary" onClick={() => window.location.reload()} />
        )}
      </div>
    </dialog>
  );
}

function leaveTo(address: string): void {
  window.location.assign(address);
}
