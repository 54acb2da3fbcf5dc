import { useCallback, useRef } from 'react';

import { useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { useNow } from '../ui/clock';
import { Icon } from '../ui/Icon';
import { keyNames } from '../ui/keys';
import { Popover } from '../ui/Popover';
import { pictures } from '../ui/words';
import { queueOpen } from './open';
import { QueuePanel } from './QueuePanel';
import { pauseOf } from './waiting';

/** How many pictures are in the making, in the bar; a press shows them. */
export function QueueButton() {
  const { work, queue } = useSession();
  const list = useCell(work);
  const state = useCell(queue.state);
  const open = useCell(queueOpen);
  const anchor = useRef<HTMLButtonElement>(null);
  const close = useCallback(() => queueOpen.set(false), []);
  const now = useNow();
  const paused = pauseOf(state, null, now) !== null;
  const name = list.length === 0 ? 'Nothing in the making' : `${pictures(list.length)} in the making`;
  return (
    <>
      <button
        ref={anchor}
        type="button"
        className="icon-button queue-button"
        data-paused={paused || undefined}
        data-busy={list.length > 0 || undefined}
        data-testid="queue"
        aria-label={paused ? `${name}, paused` : name}
        aria-haspopup="dialog"
        aria-expanded={open}
        onClick={() => queueOpen.set(!open)}
      >
        <Icon name={paused ? 'pause' : 'stack'} />
        {paused && <span className="queue-word">Paused</span>}
        {list.length > 0 && <span className="times">{list.length > 999 ? '999+' : list.length}</span>}
        {!open && (
          <span className="tip" aria-hidden="true">
            {paused ? `${name}, paused` : name}
            <kbd>{keyNames('Q')}</kbd>
          </span>
        )}
      </button>
      {open && (
        <Popover anchor={anchor} label="Pictures in the making" onClose={close}>
          <QueuePanel />
        </Popover>
      )}
    </>
  );
}
