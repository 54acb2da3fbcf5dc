import { Cell } from '../store/cell';

/** Whether the panel of running and waiting pictures is open. */
export const queueOpen = new Cell(false);
