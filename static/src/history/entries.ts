import type { JobRecord } from '../api/records';
import type { NodeData } from '../document/schema';

/** A line of a node's history. */
export interface Entry {
  readonly job: JobRecord;
  /** Its picture is the one the node shows. */
  readonly shown: boolean;
  /** For a run that went back: when the picture was made that it went back to. */
  readonly madeAt: number | null;
}

/** The runs of a node as its history tells them, newest first; each of them once. */
export function entriesOf(jobs: readonly JobRecord[], data: Pick<NodeData, 'pictures'>): Entry[] {
  const seen = new Set<string>();
  const once = jobs.filter((job) => !seen.has(job.jobId) && seen.add(job.jobId));
  const url = data.pictures[0]?.url ?? null;
  // A run that went back shows the same picture as the one that made it, which is where people look for it.
  const shown = url === null ? null : (once.findLast((job) => job.pictures[0]?.url === url)?.jobId ?? null);
  return once.map((job) => ({
    job,
    shown: job.jobId === shown,
    madeAt: job.restored ? madeAt(once, job) : null,
  }));
}

/** When the picture was made that a run put back; null when that was further back than is known here. */
function madeAt(jobs: readonly JobRecord[], restored: JobRecord): number | null {
  let from: JobRecord | undefined = restored;
  // What was put back may have been put back before.
  for (let steps = 0; from?.restored === true && steps < jobs.length; steps += 1) {
    const { restoredFrom }: JobRecord = from;
    from = jobs.find((job) => job.jobId === restoredFrom);
  }
  return from?.restored === false ? (from.finishedAt ?? from.createdAt) : null;
}

/** A page of older runs behind those already known; a run that was told twice stays where it is. */
export function joined(known: readonly JobRecord[], more: readonly JobRecord[]): JobRecord[] {
  const ids = new Set(known.map((job) => job.jobId));
  return [...known, ...more.filter((job) => !ids.has(job.jobId))];
}

/** The newest page, before what older pages told. */
export function renewed(known: readonly JobRecord[], newest: readonly JobRecord[]): JobRecord[] {
  const last = newest.at(-1)?.jobId;
  const at = last === undefined ? -1 : known.findIndex((job) => job.jobId === last);
  // Without a run in common the pages do not meet: what lies between is asked for anew.
  return at === -1 ? [...newest] : [...newest, ...known.slice(at + 1)];
}
