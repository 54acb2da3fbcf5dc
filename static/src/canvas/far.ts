import { Cell } from '../store/cell';

/** The canvas is so far away and so full that no word can be read: sheets then show their picture only. */
export const far = new Cell(false);

const FAR_ZOOM = 0.25;
const MANY = 100;

export function lookFrom(zoom: number, nodes: number): void {
  far.set(zoom < FAR_ZOOM && nodes > MANY);
}
