import { useCallback, useEffect, useRef, useState } from 'react';

import type { Phase } from '../runs/phase';

const FADE_MS = 450;
/** A finished picture that never loads does not keep the sheet developing for ever. */
const PATIENCE_MS = 20_000;

/**
 * Keeps the developing picture in place from the end of a run until the finished one has come up over it.
 *
 * Returns:
 *   held: The developing picture still has to be shown.
 *   printed: To be called when the finished picture is on screen.
 */
export function useDeveloped(busy: boolean, url: string | null, phase: Phase) {
  const [held, setHeld] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const urlBefore = useRef(url);
  const release = useCallback((afterMs: number) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setHeld(false), afterMs);
  }, []);

  useEffect(() => {
    if (busy) {
      clearTimeout(timer.current);
      urlBefore.current = url;
      setHeld(true);
    } else {
      release(phase === 'completed' && urlBefore.current !== url ? PATIENCE_MS : FADE_MS);
    }
    // The picture of before a run is what a new one is compared with: its later changes are no sign.
  }, [busy, phase, release]);

  useEffect(() => () => clearTimeout(timer.current), []);

  return { held, printed: useCallback(() => !busy && release(FADE_MS), [busy, release]) };
}
