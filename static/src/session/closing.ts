/** What a closed connection asks of this page; the codes are those of README, "Websocket close codes". */

export interface Closing {
  readonly code: number;
  readonly reason: string;
}

const RESTART = 1012;
/** A text frame, and a message that is too large: the same would happen again. */
const OURS = new Set([1003, 1009]);

const LEAST_MS = 50;
const FIRST_MS = 300;
const GROWTH = 1.6;
const MOST_MS = 30_000;
const RESTART_MS = 900;
/** So many restarts in a row are an accident, and waited for as any. */
const RESTARTS = 3;

/** Whether coming back changes nothing: the server decided against this page, or the page is at fault. */
export function isFinal(code: number): boolean {
  return (code >= 4400 && code < 4500) || OURS.has(code);
}

/**
 * How long to wait before the next attempt: full jitter, so that a thousand pages do not come back as one.
 *
 * Args:
 *   failures: Attempts that led to nothing since the connection was last good.
 *   code: The close code; null when there was none.
 *   chance: In [0, 1); the caller draws it.
 */
export function pauseMs(failures: number, code: number | null, chance: number): number {
  const growing = FIRST_MS * GROWTH ** Math.min(failures, 60);
  const span = code === RESTART && failures < RESTARTS ? RESTART_MS : Math.min(MOST_MS, growing);
  return LEAST_MS + chance * (span - LEAST_MS);
}
