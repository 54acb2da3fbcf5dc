import { isRecord } from '../document/values';
import { workflowIdOf } from '../route';

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

/** Goes on with another token, in this tab and from now on. */
export function changeToken(token: string, storage: Places['storage'] = () => window.sessionStorage): string {
  current = keep(storage, token);
  return current;
}

/** A link or token that somebody pasted. */
export interface Pasted {
  readonly token: string;
  /** The canvas a link leads to. */
  readonly workflowId: string | null;
}

const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** What a pasted text lets in by; null when there is no token in it. */
export function readPasted(text: string): Pasted | null {
  const given = text.trim();
  if (TOKEN.test(given)) return { token: given, workflowId: soleWorkflow(given) };
  if (!URL.canParse(given)) return null;
  const { pathname, search, hash } = new URL(given);
  const token = new URLSearchParams(hash.slice(1)).get(NAME) ?? new URLSearchParams(search).get(NAME) ?? '';
  return TOKEN.test(token) ? { token, workflowId: workflowIdOf(pathname) ?? soleWorkflow(token) } : null;
}

/** The one canvas a token is for, as it says itself; whether that is true is for the server to say. */
function soleWorkflow(token: string): string | null {
  try {
    const claims: unknown = JSON.parse(atob((token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/')));
    const workflows = isRecord(claims) ? claims['workflows'] : null;
    return Array.isArray(workflows) && workflows.length === 1 && typeof workflows[0] === 'string' ? workflows[0] : null;
  } catch {
    return null;
  }
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
