import { useEffect, useRef, useState, type KeyboardEvent } from 'react';

import { readTitle } from '../document/read';
import { metaOf } from '../document/write';
import { useSession } from '../session/context';
import type { Connection } from '../session/connection';
import { useCell } from '../store/hooks';
import { nextTheme, theme, type Theme } from '../theme/theme';
import { IconButton } from './Button';
import { help } from './Help';
import { Mark } from './Mark';
import { People } from './People';
import type { IconName } from './Icon';

const THEME_ICON: Readonly<Record<Theme, IconName>> = { system: 'system', light: 'sun', dark: 'moon' };
const THEME_WORD: Readonly<Record<Theme, string>> = { system: 'as the system', light: 'light', dark: 'dark' };

export function TopBar() {
  const chosen = useCell(theme);
  return (
    <header className="top">
      <div className="bar title-bar">
        <Mark />
        <Title />
        <LinkState />
      </div>
      <div className="bar people-bar tip-below tip-end">
        <People />
        <IconButton
          name={`Theme: ${THEME_WORD[chosen]}`}
          icon={THEME_ICON[chosen]}
          onClick={() => theme.set(nextTheme(chosen))}
        />
        <IconButton name="Help" icon="help" hotkey="?" onClick={() => help.set(true)} />
      </div>
    </header>
  );
}

/** The name of the canvas, edited in place. */
function Title() {
  const { doc, api, edits } = useSession();
  const [title, setTitle] = useState(() => readTitle(metaOf(doc)));
  const [draft, setDraft] = useState<string | null>(null);
  const field = useRef<HTMLInputElement>(null);

  useEffect(() => {
    const meta = metaOf(doc);
    const read = (): void => setTitle(readTitle(meta));
    read();
    meta.observe(read);
    return () => meta.unobserve(read);
  }, [doc]);

  useEffect(() => {
    document.title = title === '' ? 'Darkroom' : `${title} · Darkroom`;
  }, [title]);

  const keep = (): void => {
    const wanted = (draft ?? title).trim().slice(0, 200);
    setDraft(null);
    if (wanted === '' || wanted === title) return;
    edits.entitle(wanted);
    // The document carries the name to everyone; the list of canvases learns it from the server.
    api.rename(wanted).catch(() => undefined);
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') setDraft(null);
    if (event.key === 'Escape' || event.key === 'Enter') requestAnimationFrame(() => field.current?.blur());
  };
  const shown = draft ?? title;
  return (
    <label className="title" data-value={shown || 'Untitled'}>
      <input
        ref={field}
        aria-label="Canvas name"
        placeholder="Untitled"
        maxLength={200}
        size={1}
        value={shown}
        onChange={(event) => setDraft(event.target.value)}
        onKeyDown={onKeyDown}
        onBlur={keep}
      />
    </label>
  );
}

const LINK_WORD: Readonly<Record<Connection['link'], string>> = {
  connecting: 'Connecting',
  live: 'Live',
  offline: 'Offline',
  refused: 'Closed',
};

function LinkState() {
  const { connection } = useSession();
  const { link, unsent } = useCell(connection);
  const kept = unsent === 0 ? '' : `, ${unsent} ${unsent === 1 ? 'edit' : 'edits'} kept`;
  return (
    <span className="link-state" data-testid="connection" data-link={link} role="status">
      <i aria-hidden="true" />
      {LINK_WORD[link]}
      {link === 'offline' && <span className="kept">{kept}</span>}
    </span>
  );
}
