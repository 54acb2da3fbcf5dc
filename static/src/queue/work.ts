import type { FlowNode } from '../binding/view';
import { isActive } from '../document/schema';
import { sameProgress, type RunProgress } from '../presence/states';
import type { Presence } from '../presence/presence';
import { Cell } from '../store/cell';

/** A run of this canvas that has not ended. */
export interface Work {
  readonly nodeId: string;
  readonly runId: string;
  readonly prompt: string;
  readonly provider: string | null;
  readonly model: string | null;
  readonly waiting: boolean;
  readonly run: RunProgress | null;
}

/** Unfinished runs of the canvas: those at work first, then in the order of their places in line. */
export function workOf(nodes: readonly FlowNode[], runs: ReadonlyMap<string, RunProgress>): Work[] {
  const found: Work[] = [];
  for (const { id, data } of nodes) {
    if (!isActive(data.status) || data.runId === null) continue;
    const run = runs.get(id);
    found.push({
      nodeId: id,
      runId: data.runId,
      prompt: data.prompt,
      provider: data.provider,
      model: data.model,
      waiting: data.status === 'pending',
      run: run?.runId === data.runId ? run : null,
    });
  }
  const rank = (work: Work): number => (work.waiting ? (work.run?.place ?? Number.MAX_SAFE_INTEGER) : 0);
  return found.sort((a, b) => rank(a) - rank(b));
}

/** Keeps the unfinished runs of the canvas in a cell that changes only when they do. */
export function watchWork(nodes: Cell<readonly FlowNode[]>, presence: Presence): Cell<readonly Work[]> {
  const cell = new Cell<readonly Work[]>([]);
  const look = (): void => {
    const now = workOf(nodes.get(), presence.allRuns.get());
    if (!sameWork(now, cell.get())) cell.set(now);
  };
  nodes.subscribe(look);
  presence.allRuns.subscribe(look);
  look();
  return cell;
}

function sameWork(a: readonly Work[], b: readonly Work[]): boolean {
  return (
    a.length === b.length &&
    a.every((one, index) => {
      const other = b[index];
      return (
        other !== undefined &&
        one.runId === other.runId &&
        one.waiting === other.waiting &&
        one.prompt === other.prompt &&
        sameProgress(one.run ?? undefined, other.run ?? undefined)
      );
    })
  );
}
