import { useCallback, useEffect, useState } from 'react';

import { PAGE } from '../api/client';
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
  /** There may be older ones. */
  readonly more: boolean;
  older(): void;
  again(): void;
}

type Told = Omit<History, 'older' | 'again'>;
const NOTHING: Told = { jobs: [], state: 'loading', problem: '', more: false };

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
      (newest) => {
        if (!current) return;
        setTold((before) => {
          const jobs = renewed(before.jobs, newest);
          const more = jobs.length === newest.length ? newest.length === PAGE : before.more;
          return { jobs, state: 'ready', problem: '', more };
        });
      },
      (error: unknown) => current && setTold((before) => ({ ...before, ...failure(error) })),
    );
    return () => {
      current = false;
    };
  }, [api, nodeId, stamp, tries]);

  const last = told.jobs.at(-1)?.jobId ?? null;
  const older = useCallback(() => {
    if (last === null) return;
    api.history(nodeId, last).then(
      (page) =>
        setTold((before) => ({
          ...before,
          jobs: joined(before.jobs, page),
          more: page.length === PAGE && joined(before.jobs, page).length > before.jobs.length,
        })),
      (error: unknown) => setTold((before) => ({ ...before, ...failure(error) })),
    );
  }, [api, nodeId, last]);
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
