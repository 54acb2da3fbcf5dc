import { useEffect, useState } from 'react';

import { Problem, request } from '../api/http';
import { accessToken, changeToken, readPasted } from '../api/token';
import { isRecord } from '../document/values';
import { LinkForm } from './LinkForm';
import { Mark } from './Mark';

/** The front door of a server that lets people in by links. */
export function Door() {
  const [refused, setRefused] = useState<string | null>(null);

  // Whoever came by a link before may start a canvas of their own, if that link lets them.
  useEffect(() => {
    if (accessToken() !== null) void startCanvas(setRefused);
  }, []);

  const go = (text: string): boolean => {
    const pasted = readPasted(text);
    if (pasted === null) return false;
    changeToken(pasted.token);
    if (pasted.workflowId === null) void startCanvas(setRefused);
    else window.location.assign(`/w/${encodeURIComponent(pasted.workflowId)}`);
    return true;
  };
  return (
    <main className="door">
      <div className="stop-card" data-testid="door">
        <Mark size={28} />
        <h1>Open a canvas</h1>
        <p>This server lets people in by link. Paste the one you were given.</p>
        <LinkForm onLink={go} />
        {refused !== null && <p role="alert">{refused}</p>}
        <details>
          <summary>Is this your server?</summary>
          <p>Make the first token on its machine and paste it here:</p>
          <code>darkroom token --role admin --workflows &apos;*&apos;</code>
        </details>
      </div>
    </main>
  );
}

async function startCanvas(refuse: (why: string) => void): Promise<void> {
  try {
    const made = await request('POST', '/api/workflows', {});
    const id = isRecord(made) ? made['id'] : null;
    if (typeof id === 'string') window.location.assign(`/w/${encodeURIComponent(id)}`);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    refuse(error.status === 403 ? 'That link does not let you start a canvas here; it is for looking or for another one.' : error.message);
  }
}
