const STORED = 'darkroom.token';
const NAME = 'token';

/** Parts of the browser that hold a token; given by tests. */
export interface Places {
  readonly location: Pick<Location, 'pathname' | 'search' | 'hash'>;
  readonly history: Pick<History, 'replaceState' | 'state'>;
  /** A browser may refuse even to name it. */
  readonly storage: () => Pick<Storage, 'getItem' | 'setItem'>;
}

let current: string | null = null;

/** The access token of this tab; null where none is used. */
export function accessToken(): string | null {
  return current;
}

/** Takes the token of the link that was followed out of the address bar, or the one this tab had before. */
export function takeToken({ location, history, storage }: Places): string | null {
  const query = new URLSearchParams(location.search);
  const fragment = new URLSearchParams(location.hash.slice(1));
  const given = fragment.get(NAME) ?? query.get(NAME);
  if (given !== null) {
    query.delete(NAME);
    fragment.delete(NAME);
    // Out of sight: an address is copied, photographed and kept in the browser's history.
    history.replaceState(history.state, '', location.pathname + prefixed('?', query) + prefixed('#', fragment));
  }
  current = given === null || given === '' ? read(storage) : keep(storage, given);
  return current;
}

function prefixed(mark: string, params: URLSearchParams): string {
  const text = params.toString();
  return text === '' ? '' : mark + text;
}

function keep(storage: Places['storage'], token: string): string {
  try {
    storage().setItem(STORED, token);
  } catch {
    // Storage may be switched off; the token then lasts as long as the page.
  }
  return token;
}

function read(storage: Places['storage']): string | null {
  try {
    return storage().getItem(STORED);
  } catch {
    return null;
  }
}
