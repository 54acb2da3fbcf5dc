import type { Connection } from '../session/connection';
import type { Saving } from '../session/saving';

export type SavedLook = 'connecting' | 'saved' | 'saving' | 'unsaved' | 'offline' | 'view' | 'closed';

export interface SavedWords {
  readonly look: SavedLook;
  readonly word: string;
  /** Left out where there is little room. */
  readonly more: string;
}

type Facts = Pick<Connection, 'link' | 'mayEdit'> & Pick<Saving, 'state' | 'waiting'>;

/** What the bar says of edits and the connection, in a word or two. */
export function savedWords({ link, mayEdit, state, waiting }: Facts): SavedWords {
  if (link === 'refused') return { look: 'closed', word: 'Closed', more: '' };
  if (link === 'connecting') return { look: 'connecting', word: 'Connecting', more: '' };
  if (link === 'offline') return { look: 'offline', word: 'Offline', more: waiting === 0 ? '' : `, ${edits(waiting)} kept` };
  if (!mayEdit) return { look: 'view', word: 'View only', more: '' };
  if (state === 'unsaved') return { look: 'unsaved', word: 'Not saved', more: ' \u2013 trying again' };
  if (state === 'saving') return { look: 'saving', word: 'Saving\u2026', more: '' };
  return { look: 'saved', word: 'Saved', more: '' };
}

/** What stands in the middle while not all is well; null while it is. */
export function troubleWords({ link, seen, state, waiting }: Pick<Connection, 'link' | 'seen'> & Facts): string | null {
  if (link === 'offline') {
    if (!seen) return 'The server cannot be reached. Trying again.';
    return waiting === 0 ? 'Gone offline. Your edits are kept.' : `Gone offline. ${edits(waiting)} ${areKept(waiting)}.`;
  }
  if (link === 'live' && state === 'unsaved') {
    return `Not saved: the server cannot store edits just now. ${edits(waiting)} ${areKept(waiting)} here.`;
  }
  return null;
}

export function edits(count: number): string {
  // Not to be torn apart at the end of a line.
  return `${count}\u00a0${count === 1 ? 'edit' : 'edits'}`;
}

function areKept(count: number): string {
  return count === 1 ? 'is kept' : 'are kept';
}
