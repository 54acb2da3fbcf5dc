import { Cell } from '../store/cell';

export interface Opened {
  readonly nodeId: string;
  readonly index: number;
}

/** Which picture is open large, if any. */
export const opened = new Cell<Opened | null>(null);

export function openLightbox(what: Opened): void {
  opened.set(what);
}

export function closeLightbox(): void {
  opened.set(null);
}
