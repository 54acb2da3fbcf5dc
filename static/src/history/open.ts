import { Cell } from '../store/cell';

/** The node whose earlier pictures are shown at the side, if any. */
export const historyOf = new Cell<string | null>(null);

/** Opens the earlier pictures of the one selected node, or closes them. */
export function toggleHistory(selected: readonly string[]): void {
  const [only] = selected;
  if (historyOf.get() !== null && (only === undefined || historyOf.get() === only)) historyOf.set(null);
  else if (only !== undefined && selected.length === 1) historyOf.set(only);
}
