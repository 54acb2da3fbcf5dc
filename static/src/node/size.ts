import type { NodeData } from '../document/schema';
import { aspectOf, type Choice } from '../runs/makers';

export interface SheetSize {
  readonly width: number;
  readonly height: number;
}

const AREA = 320 * 320;
const NARROWEST = 240;
const WIDEST = 440;
const TALLEST = 560;
/** Prompt and controls under a picture. */
const UNDER_SHEET = 77;

/** The sheet for a shape: the same area for all, so that a wide picture weighs as much as a tall one. */
export function sheetSize(aspect: number, resized: number | null = null): SheetSize {
  if (resized !== null) return { width: resized, height: Math.round(resized / aspect) };
  const width = Math.min(WIDEST, Math.max(NARROWEST, Math.sqrt(AREA * aspect)));
  const height = Math.min(TALLEST, width / aspect);
  return { width: Math.round(width), height: Math.round(height) };
}

/** The shape a node has: that of its picture, or of the one to come. */
export function aspectFor(data: NodeData, choice: Choice, coming: boolean): number {
  const picture = data.pictures[0];
  const asked = aspectOf(data.params.size ?? data.params.aspectRatio) ?? aspectOf(choice.size) ?? 1;
  if (coming || picture === undefined) return asked;
  return picture.width !== null && picture.height !== null ? picture.width / picture.height : asked;
}

/** The place a node will take, near enough to decide whether it is in sight before it was ever drawn. */
export function roughSize(data: NodeData): SheetSize {
  if (data.kind !== 'image') return { width: 240, height: 80 };
  const picture = data.pictures[0];
  const made = picture?.width != null && picture.height !== null ? picture.width / picture.height : null;
  const { width, height } = sheetSize(made ?? aspectOf(data.params.size ?? data.params.aspectRatio) ?? 1, data.width);
  return { width, height: height + UNDER_SHEET };
}

/** "1024x1536" as people write it. */
export function sizeWords(size: string): string {
  return size.replace(/x/i, ' × ');
}

export function shapeWord(aspect: number): string {
  if (aspect > 1.05) return 'Wide';
  return aspect < 0.95 ? 'Tall' : 'Square';
}
