import type { JobRecord } from '../api/records';
import { Cell } from '../store/cell';

export interface Opened {
  readonly nodeId: string;
  readonly index: number;
  /** The picture meant, where its place among the others is not known yet ... */
  readonly url?: string;
  /** ... and the runs of the node that are already known. */
  readonly known?: readonly JobRecord[];
}

/** Which picture is open large, if any. */
export const opened = new Cell<Opened | null>(null);

export function openLightbox(what: Opened): void {
  opened.set(what);
}

export function closeLightbox(): void {
  opened.set(null);
}
