import { Cell } from '../store/cell';

/** Whether the first picture of this canvas was made here, on the sheet in the middle of the screen. */
export const placedFirst = new Cell(false);
