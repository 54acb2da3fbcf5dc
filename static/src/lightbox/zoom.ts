export interface Zoom {
  readonly scale: number;
  readonly x: number;
  readonly y: number;
}

export const WHOLE: Zoom = { scale: 1, x: 0, y: 0 };
const LARGEST = 12;

/** Zooms by a factor so that the point under the pointer stays there; `x` and `y` count from the middle. */
export function zoomAt(zoom: Zoom, factor: number, point: { readonly x: number; readonly y: number }): Zoom {
  const scale = Math.min(LARGEST, Math.max(1, zoom.scale * factor));
  if (scale === 1) return WHOLE;
  const by = scale / zoom.scale;
  return { scale, x: point.x - (point.x - zoom.x) * by, y: point.y - (point.y - zoom.y) * by };
}

/** Moves the picture, never further than its own half. */
export function pan(
  zoom: Zoom,
  dx: number,
  dy: number,
  box: { readonly width: number; readonly height: number },
): Zoom {
  const reach = (length: number): number => (length * (zoom.scale - 1)) / 2 + length * 0.1;
  const within = (value: number, most: number): number => Math.min(most, Math.max(-most, value));
  if (zoom.scale === 1) return zoom;
  return { ...zoom, x: within(zoom.x + dx, reach(box.width)), y: within(zoom.y + dy, reach(box.height)) };
}
