import { useEffect, useRef, useState, type PointerEvent } from 'react';

import { closeLightbox } from './open';
import { pan, WHOLE, zoomAt, type Zoom } from './zoom';

interface StageProps {
  readonly url: string;
  readonly thumbnailUrl: string | null;
  readonly alt: string;
}

const CLICK_PX = 4;

/** The picture itself: the wheel zooms to the pointer, dragging moves it, a click beside it closes. */
export function Stage({ url, thumbnailUrl, alt }: StageProps) {
  const stage = useRef<HTMLDivElement>(null);
  const [zoom, setZoom] = useState<Zoom>(WHOLE);
  const [loaded, setLoaded] = useState(false);
  const [broken, setBroken] = useState(false);
  const pointers = useRef(new Map<number, { x: number; y: number }>());
  const travelled = useRef(0);

  useEffect(() => {
    const element = stage.current;
    if (element === null) return;
    const onWheel = (event: WheelEvent): void => {
      event.preventDefault();
      const factor = Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0022));
      setZoom((now) => zoomAt(now, factor, fromMiddle(element, event.clientX, event.clientY)));
    };
    element.addEventListener('wheel', onWheel, { passive: false });
    return () => element.removeEventListener('wheel', onWheel);
  }, []);

  const onPointerDown = (event: PointerEvent<HTMLDivElement>): void => {
    if (pointers.current.size === 0) travelled.current = 0;
    pointers.current.set(event.pointerId, { x: event.clientX, y: event.clientY });
    event.currentTarget.setPointerCapture(event.pointerId);
  };
  const onPointerMove = (event: PointerEvent<HTMLDivElement>): void => {
    const before = pointers.current.get(event.pointerId);
    if (before === undefined) return;
    const element = event.currentTarget;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...pointers.current].find(([id]) => id !== event.pointerId)?.[1];
    pointers.current.set(event.pointerId, now);
    travelled.current += Math.hypot(now.x - before.x, now.y - before.y);
    if (other === undefined) {
      setZoom((zoomed) => pan(zoomed, now.x - before.x, now.y - before.y, element.getBoundingClientRect()));
      return;
    }
    const spread = (point: { x: number; y: number }): number => Math.hypot(point.x - other.x, point.y - other.y);
    const middle = fromMiddle(element, (now.x + other.x) / 2, (now.y + other.y) / 2);
    setZoom((zoomed) => zoomAt(zoomed, spread(now) / Math.max(1, spread(before)), middle));
  };
  const onPointerUp = (event: PointerEvent<HTMLDivElement>): void => {
    pointers.current.delete(event.pointerId);
    if (travelled.current > CLICK_PX || event.type === 'pointercancel') return;
    const hit = document.elementsFromPoint(event.clientX, event.clientY);
    if (!hit.some((element) => element instanceof HTMLImageElement)) closeLightbox();
  };
  const style = { transform: `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})` };

  return (
    <div
      ref={stage}
      className={zoom.scale > 1 ? 'stage-area zoomed' : 'stage-area'}
      onPointerDown={onPointerDown}
      onPointerMove={onPointerMove}
      onPointerUp={onPointerUp}
      onPointerCancel={onPointerUp}
      onDoubleClick={(event) => {
        const point = fromMiddle(event.currentTarget, event.clientX, event.clientY);
        setZoom((now) => (now.scale > 1 ? WHOLE : zoomAt(now, 2.5, point)));
      }}
    >
      <div className="mount" style={style}>
        {!loaded && thumbnailUrl !== null && <img className="stand-in" src={thumbnailUrl} alt="" draggable={false} />}
        <img
          className="full"
          data-loaded={loaded}
          src={url}
          alt={alt}
          draggable={false}
          onLoad={() => setLoaded(true)}
          onError={() => setBroken(true)}
        />
      </div>
      {broken && <p className="lightbox-broken">The picture could not be loaded.</p>}
    </div>
  );
}

function fromMiddle(element: HTMLElement, x: number, y: number): { x: number; y: number } {
  const box = element.getBoundingClientRect();
  return { x: x - box.left - box.width / 2, y: y - box.top - box.height / 2 };
}
