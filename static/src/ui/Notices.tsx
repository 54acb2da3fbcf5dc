import { useEffect, useState } from 'react';

import { onlyDemo } from '../runs/makers';
import { useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button, IconButton } from './Button';
import { Icon } from './Icon';
import { troubleWords } from './saved';

const BACK_SHOWN_MS = 2_500;

/** The connection and the store, said only when they are not as they should be. */
export function Banner() {
  const session = useSession();
  const connection = useCell(session.connection);
  const saving = useCell(session.saving);
  const [away, setAway] = useState(false);
  const trouble = troubleWords({ ...connection, ...saving });
  const well = connection.link === 'live' && saving.state !== 'unsaved';
  const offline = connection.link === 'offline';
  const troubled = trouble !== null;

  useEffect(() => {
    if (troubled) setAway(true);
    if (!well) return;
    const timer = setTimeout(() => setAway(false), BACK_SHOWN_MS);
    return () => clearTimeout(timer);
  }, [troubled, well]);

  const back = well && away && saving.waiting === 0 ? 'Back. Everything is saved.' : null;
  const text = trouble ?? back;
  return (
    <div className="banner-place" role="status" aria-live="polite">
      {text !== null && (
        <div className={troubled ? 'banner' : 'banner back'} data-testid="banner">
          <Icon name={offline ? 'cloudOff' : troubled ? 'alert' : 'check'} size={16} />
          <p>{text}</p>
          {offline && <Button word="Try now" onClick={() => session.retry()} />}
        </div>
      )}
    </div>
  );
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
