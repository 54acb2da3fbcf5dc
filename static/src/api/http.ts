import { isRecord } from '../document/values';
import { accessToken } from './token';

/** What the server says went wrong (RFC 9457), or that it could not be reached. */
export class Problem extends Error {
  readonly status: number;
  /** Last part of the problem's `type`, such as `stale-request`. */
  readonly code: string;
  readonly body: Readonly<Record<string, unknown>>;
  /** After so many seconds the same may be asked again; null when the server says nothing of it. */
  readonly retryAfterS: number | null;

  constructor(
    status: number,
    code: string,
    message: string,
    body: Readonly<Record<string, unknown>> = {},
    retryAfterS: number | null = null,
  ) {
    super(message);
    this.name = 'Problem';
    this.status = status;
    this.code = code;
    this.body = body;
    this.retryAfterS = retryAfterS;
  }
}

const TIMEOUT_MS = 20_000;

/**
 * Asks the server and reads its JSON.
 *
 * Raises:
 *   Problem: Refused, or (with status 0) not reached.
 */
export async function request(method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await send(method, path, body);
  const value: unknown = await response.json().catch(() => null);
  if (!response.ok) throw problemOf(response, value);
  return value;
}

async function send(method: string, path: string, body: unknown): Promise<Response> {
  const headers = new Headers({ Accept: 'application/json' });
  const token = accessToken();
  if (token !== null) headers.set('Authorization', `Bearer ${token}`);
  const init: RequestInit = { method, signal: AbortSignal.timeout(TIMEOUT_MS), headers };
  if (body !== undefined) {
    headers.set('Content-Type', 'application/json');
    init.body = JSON.stringify(body);
  }
  try {
    return await fetch(path, init);
  } catch {
    throw new Problem(0, 'unreachable', 'The server could not be reached.');
  }
}

function problemOf(response: Response, value: unknown): Problem {
  const { status } = response;
  const body = isRecord(value) ? value : {};
  const type = typeof body['type'] === 'string' ? body['type'] : '';
  const detail = [body['detail'], body['title']].find((text) => typeof text === 'string' && text !== '');
  const code = type.split('/').at(-1) ?? '';
  const message = typeof detail === 'string' ? detail : `The server answered ${status}.`;
  return new Problem(status, code, message, body, secondsOf(response.headers.get('Retry-After')));
}

/** A Retry-After in seconds, as this server sends it. */
function secondsOf(header: string | null): number | null {
  return header !== null && /^\d{1,6}$/.test(header.trim()) ? Number(header) : null;
}
