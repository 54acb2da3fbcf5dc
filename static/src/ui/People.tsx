import { useReactFlow } from '@xyflow/react';
import { useCallback, useRef, useState, type CSSProperties, type FormEvent } from 'react';

import { peerColor } from '../presence/colors';
import type { Peer } from '../presence/states';
import { useSession } from '../session/context';
import { initials, rename } from '../session/identity';
import { useCell } from '../store/hooks';
import { Button } from './Button';
import { Popover } from './Popover';

const MOST_FACES = 4;

/** Who is here. A press on a face goes to where they are; one's own changes the name. */
export function People() {
  const { presence, person } = useSession();
  const people = useCell(presence.people);
  const me = useCell(person);
  const others = people.filter((peer) => peer.id !== me.id);
  const more = others.length - MOST_FACES;
  return (
    <ul className="people" aria-label="People here">
      {others.slice(0, MOST_FACES).map((peer) => (
        <li key={peer.id}>
          <Face peer={peer} />
        </li>
      ))}
      {more > 0 && <li className="more-people times">+{more}</li>}
      <li>
        <Myself />
      </li>
    </ul>
  );
}

function Face({ peer }: { peer: Peer }) {
  const { presence } = useSession();
  const { setCenter, getZoom, fitView } = useReactFlow();
  const go = (): void => {
    // The face shows who, not where: the cursor of this very moment is asked for on press.
    const now = presence.peers.get(peer.clientId);
    if (now?.cursor != null) void setCenter(now.cursor.x, now.cursor.y, { zoom: getZoom(), duration: 400 });
    else if (now !== undefined && now.selection.length > 0) {
      void fitView({ nodes: now.selection.map((id) => ({ id })), duration: 400, maxZoom: 1.25, padding: 0.3 });
    }
  };
  return (
    <button
      type="button"
      className="face"
      style={{ '--peer': peerColor(peer) } as CSSProperties}
      aria-label={`Go to ${peer.name}`}
      title={peer.name}
      onClick={go}
    >
      {initials(peer.name)}
    </button>
  );
}

function Myself() {
  const { person } = useSession();
  const me = useCell(person);
  const [open, setOpen] = useState(false);
  const anchor = useRef<HTMLButtonElement>(null);
  const close = useCallback(() => setOpen(false), []);
  const onSubmit = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    rename(person, String(new FormData(event.currentTarget).get('name') ?? ''));
    close();
  };
  return (
    <>
      <button
        ref={anchor}
        type="button"
        className="face me"
        style={{ '--peer': me.color } as CSSProperties}
        aria-label={`You: ${me.name}`}
        aria-haspopup="dialog"
        aria-expanded={open}
        title={`${me.name} (you)`}
        onClick={() => setOpen(!open)}
      >
        {initials(me.name)}
      </button>
      {open && (
        <Popover anchor={anchor} label="You" onClose={close}>
          <form className="name-form" onSubmit={onSubmit}>
            <label>
              Your name, as others see it
              <input name="name" defaultValue={me.name} maxLength={40} autoComplete="nickname" />
            </label>
            <Button word="Save" look="primary" type="submit" />
          </form>
        </Popover>
      )}
    </>
  );
}
