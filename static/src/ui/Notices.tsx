import { useEffect, useState } from 'react';

import { onlyDemo } from '../runs/makers';
import { useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { IconButton } from './Button';
import { Icon } from './Icon';

const BACK_SHOWN_MS = 2_500;

/** The connection, said only when it is not as it should be. */
export function Banner() {
  const { connection } = useSession();
  const { link, unsent, seen } = useCell(connection);
  const [away, setAway] = useState(false);

  useEffect(() => {
    if (link === 'offline') setAway(true);
    if (link !== 'live') return;
    const timer = setTimeout(() => setAway(false), BACK_SHOWN_MS);
    return () => clearTimeout(timer);
  }, [link]);

  const text = textOf(link, unsent, seen, away);
  return (
    <div className="banner-place" role="status" aria-live="polite">
      {text !== null && (
        <p className={link === 'live' ? 'banner back' : 'banner'}>
          <Icon name={link === 'live' ? 'check' : 'cloudOff'} size={16} />
          {text}
        </p>
      )}
    </div>
  );
}

function textOf(link: string, unsent: number, seen: boolean, away: boolean): string | null {
  if (link === 'refused') return 'This canvas cannot be opened here. If you came by a link, ask for a new one.';
  if (link === 'offline') {
    if (!seen) return 'The server cannot be reached. Trying again.';
    if (unsent === 0) return 'Gone offline. Your edits are kept.';
    return `Gone offline. ${unsent} ${unsent === 1 ? 'edit is' : 'edits are'} kept.`;
  }
  if (link === 'live' && away) return 'Back. Everything is sent.';
  return null;
}

export function ToastList() {
  const { toasts } = useSession();
  const list = useCell(toasts.list);
  const announced = useCell(toasts.announced);
  return (
    <>
      <ul className="toasts" aria-live="polite" aria-label="Messages">
        {list.map((toast) => (
          <li key={toast.id} className="toast" data-testid="toast">
            <Icon name="alert" size={16} />
            <span>{toast.text}</span>
            <IconButton name="Dismiss" icon="close" onClick={() => toasts.dismiss(toast.id)} />
          </li>
        ))}
      </ul>
      <p className="unseen" role="status" aria-live="polite" data-testid="announcer">
        {announced}
      </p>
    </>
  );
}

/** Says that pictures come from the demo, and how to get real ones. */
export function DemoBadge() {
  const { makers } = useSession();
  const offered = useCell(makers);
  if (!onlyDemo(offered)) return null;
  return (
    <details className="demo" data-testid="demo-badge">
      <summary>
        <i aria-hidden="true" />
        Demo pictures
      </summary>
      <p>
        Drawn on this machine, by no model. For real ones set <code>OPENAI_API_KEY</code> and start the server again.
      </p>
    </details>
  );
}
