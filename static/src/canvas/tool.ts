import { Cell } from '../store/cell';

export type Tool = 'hand' | 'select';

/** What dragging over the empty canvas does: move it, or draw a box around nodes. */
export const tool = new Cell<Tool>('hand');
