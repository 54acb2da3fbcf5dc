import { useCallback, useEffect, useState } from 'react';

import { Problem } from '../api/http';
import type { JobRecord } from '../api/records';
import { problemWords } from '../runs/problems';
import { useSession } from '../session/context';
import { joined, renewed } from './entries';

export interface History {
  readonly jobs: readonly JobRecord[];
  readonly state: 'loading' | 'ready' | 'failed';
  /** Why it could not be had. */
  readonly problem: string;
  /** How to ask for older ones; null when there are none. */
  readonly next: string | null;
  older(): void;
  again(): void;
}

type Told = Omit<History, 'older' | 'again'>;
const NOTHING: Told = { jobs: [], state: 'loading', problem: '', next: null };

/**
 * The runs of a node, newest first, page by page.
 *
 * Args:
 *   stamp: Whatever changes when the node's newest runs do.
 */
export function useHistory(nodeId: string, stamp: string): History {
  const { api } = useSession();
  const [told, setTold] = useState<Told>(NOTHING);
  const [tries, setTries] = useState(0);

  useEffect(() => {
    let current = true;
    api.history(nodeId).then(
      (page) => {
        if (!current) return;
        setTold((before) => {
          const jobs = renewed(before.jobs, page.jobs);
          const next = jobs.length === page.jobs.length ? page.next : before.next;
          return { jobs, state: 'ready', problem: '', next };
        });
      },
      (error: unknown) => current && setTold((before) => ({ ...before, ...failure(error) })),
    );
    return () => {
      current = false;
    };
  }, [api, nodeId, stamp, tries]);

  const { next } = told;
  const older = useCallback(() => {
    if (next === null) return;
    api.history(nodeId, next).then(
      (page) => setTold((before) => ({ ...before, jobs: joined(before.jobs, page.jobs), next: page.next })),
      (error: unknown) => setTold((before) => ({ ...before, ...failure(error) })),
    );
  }, [api, nodeId, next]);
  const again = useCallback(() => {
    setTold((before) => ({ ...before, state: 'loading', problem: '' }));
    setTries((count) => count + 1);
  }, []);
  return { ...told, older, again };
}

function failure(error: unknown): Pick<Told, 'state' | 'problem'> {
  if (!(error instanceof Problem)) throw error;
  return { state: 'failed', problem: problemWords(error, Date.now()) };
}
