import { useEffect, useRef, useState, type KeyboardEvent } from 'react';

import { readTitle } from '../document/read';
import { metaOf } from '../document/write';
import { QueueButton } from '../queue/QueueButton';
import { useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { nextTheme, theme, type Theme } from '../theme/theme';
import { IconButton } from './Button';
import { clockTime } from './clock';
import { help } from './Help';
import { Mark } from './Mark';
import { People } from './People';
import { Icon, type IconName } from './Icon';
import { savedWords } from './saved';

const THEME_ICON: Readonly<Record<Theme, IconName>> = { system: 'system', light: 'sun', dark: 'moon' };
const THEME_WORD: Readonly<Record<Theme, string>> = { system: 'as the system', light: 'light', dark: 'dark' };

export function TopBar() {
  const chosen = useCell(theme);
  return (
    <header className="top">
      <div className="bar title-bar">
        <Mark />
        <Title />
        <SavedState />
      </div>
      <div className="bar people-bar tip-below tip-end">
        <People />
        <QueueButton />
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
  const mayEdit = useMayEdit();
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
        readOnly={!mayEdit}
        size={1}
        value={shown}
        onChange={(event) => setDraft(event.target.value)}
        onKeyDown={onKeyDown}
        onBlur={keep}
      />
    </label>
  );
}

/** Whether what was done here is safe: quiet while it is, plain words when it is not. */
function SavedState() {
  const { connection, saving } = useSession();
  const { link, mayEdit } = useCell(connection);
  const { state, waiting, since } = useCell(saving);
  const { look, word, more } = savedWords({ link, mayEdit, state, waiting });
  return (
    <span
      className="saved-state"
      data-testid="connection"
      data-link={link}
      data-waiting={waiting}
      data-look={look}
      title={since === null ? undefined : `Since ${clockTime(since)}`}
    >
      {look === 'view' ? <Icon name="eye" size={14} /> : <i aria-hidden="true" />}
      {word}
      {more !== '' && <span className="more">{more}</span>}
    </span>
  );
}
