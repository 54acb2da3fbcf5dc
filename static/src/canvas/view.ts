import type { FitViewOptions, ReactFlowInstance } from '@xyflow/react';

import type { FlowEdge, FlowNode } from '../binding/view';
import type { Point } from '../document/schema';

export type Flow = ReactFlowInstance<FlowNode, FlowEdge>;

/** Largest zoom at which a picture is first shown. */
export const FIRST_ZOOM = 1.25;

/** Room is left for the bars, which lie over the canvas. */
export const FIT: FitViewOptions<FlowNode> = {
  padding: { top: '88px', bottom: '96px', x: '6%' },
  maxZoom: FIRST_ZOOM,
  duration: 300,
};

/** The point of the canvas in the middle of the screen. */
export function middleOfView(flow: Flow): Point {
  return flow.screenToFlowPosition({ x: window.innerWidth / 2, y: window.innerHeight / 2 });
}

interface Box extends Point {
  readonly width: number;
  readonly height: number;
}

const GAP = 40;
/** Pictures in a row before the next row begins: as many as the shape of the screen shows well. */
const rowLength = (): number => (window.innerWidth < window.innerHeight ? 2 : 5);

/** Where a new node goes: right of the selected or newest one, or mid-screen when that one is out of sight. */
export function freePlace(flow: Flow, width: number, height: number): Point {
  const nodes = flow.getNodes();
  const boxes = nodes.map(boxOf);
  const anchor = nodes.findLast((node) => node.selected === true) ?? nodes.at(-1);
  const from = anchor === undefined ? null : boxOf(anchor);
  if (from === null || !inSight(flow, from)) {
    const middle = middleOfView(flow);
    return clearOf(boxes, { x: Math.round(middle.x - width / 2), y: Math.round(middle.y - height / 2), width, height });
  }
  const left = Math.min(...boxes.map((box) => box.x));
  const place = clearOf(boxes, { x: from.x + from.width + GAP, y: from.y, width, height });
  if (place.x < left + rowLength() * (320 + GAP)) return place;
  const bottom = Math.max(...boxes.map((box) => box.y + box.height));
  return { x: left, y: bottom + GAP };
}

/** The place right of a box that is as large as the box itself. */
export function placeBeside(flow: Flow, box: Box): Point {
  return clearOf(flow.getNodes().map(boxOf), { ...box, x: box.x + box.width + GAP });
}

/** The box moved right until it covers nothing. */
function clearOf(boxes: readonly Box[], wanted: Box): Point {
  let x = wanted.x;
  for (let tries = 0; tries <= boxes.length; tries += 1) {
    const hit = boxes.find(
      (box) =>
        x < box.x + box.width &&
        box.x < x + wanted.width &&
        wanted.y < box.y + box.height &&
        box.y < wanted.y + wanted.height,
    );
    if (hit === undefined) break;
    x = hit.x + hit.width + GAP;
  }
  return { x: Math.round(x), y: Math.round(wanted.y) };
}

function boxOf(node: FlowNode): Box {
  return { ...node.position, width: node.measured?.width ?? 320, height: node.measured?.height ?? 400 };
}

function inSight(flow: Flow, box: Box): boolean {
  const { x, y, zoom } = flow.getViewport();
  const left = box.x * zoom + x;
  const top = box.y * zoom + y;
  return (
    left + box.width * zoom > 0 && left < window.innerWidth && top + box.height * zoom > 0 && top < window.innerHeight
  );
}

/** What lies over the canvas at its sides (pixels). */
export interface Covered {
  readonly right: number;
  readonly bottom: number;
}

const BARS: Covered = { right: 24, bottom: 84 };

/** Moves the canvas just as far as it takes to see a box between the bars, or beside whatever else covers it. */
export function reveal(flow: Flow, at: Point, width: number, height: number, covered: Covered = BARS): void {
  const { x, y, zoom } = flow.getViewport();
  const shift = (from: number, length: number, low: number, high: number): number => {
    if (from < low || length > high - low) return low - from;
    return Math.min(0, high - from - length);
  };
  const dx = shift(at.x * zoom + x, width * zoom, 24, window.innerWidth - covered.right);
  const dy = shift(at.y * zoom + y, height * zoom, 84, window.innerHeight - covered.bottom);
  if (dx !== 0 || dy !== 0) void flow.setViewport({ x: x + dx, y: y + dy, zoom }, { duration: 240 });
}
