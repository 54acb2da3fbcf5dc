import { useEffect, useState, useSyncExternalStore } from 'react';

const listeners = new Set<() => void>();
let now = Date.now();
let timer: ReturnType<typeof setInterval> | undefined;

/** One clock for the page, ticking only while somebody looks. */
function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  if (timer === undefined) {
    now = Date.now();
    timer = setInterval(() => {
      now = Date.now();
      for (const tell of [...listeners]) tell();
    }, 500);
  }
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  };
}

const silent = (): (() => void) => () => undefined;
const MOST_PLAUSIBLE_MS = 30 * 60_000;

/**
 * Seconds since a run began.
 *
 * The start is the server's time. Where the two clocks plainly disagree, counting begins when this page saw the run.
 */
export function useSeconds(runId: string | null, startedAt: number | null, running: boolean): number {
  const time = useSyncExternalStore(running ? subscribe : silent, () => now);
  const [seen, setSeen] = useState({ runId, at: Date.now() });
  useEffect(() => setSeen({ runId, at: Date.now() }), [runId]);
  const age = startedAt === null ? 0 : seen.at - startedAt;
  const from = startedAt === null || age < 0 || age > MOST_PLAUSIBLE_MS ? seen.at : startedAt;
  return running ? Math.max(0, Math.floor((time - from) / 1000)) : 0;
}

const COARSE_MS = 30_000;

/** Now, near enough for words such as "3 min ago". */
export function useNow(): number {
  const [at, setAt] = useState(() => Date.now());
  useEffect(() => {
    const ticking = setInterval(() => setAt(Date.now()), COARSE_MS);
    return () => clearInterval(ticking);
  }, []);
  return at;
}

/** A moment as a clock on the wall shows it. */
export function clockTime(at: number): string {
  return new Date(at).toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit' });
}
