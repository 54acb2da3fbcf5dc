import { useStoreApi } from '@xyflow/react';
import { useEffect, useRef } from 'react';

import { peerColor } from '../presence/colors';
import type { Peer } from '../presence/states';
import { useSession } from '../session/context';

const IDLE_MS = 20_000;
/** Share of the remaining way a cursor keeps after 100 ms. */
const TRAIL = 0.12;
const ARROW = 'M1.5 1.5 7.4 17.5 9.9 10.4 17 7.9Z';

interface Mark {
  readonly element: HTMLElement;
  readonly label: HTMLElement;
  x: number;
  y: number;
  toX: number;
  toY: number;
  movedAt: number;
}

/** The pointers of others, moved by hand: they change too often for React. */
export function Cursors() {
  const { presence } = useSession();
  const store = useStoreApi();
  const layer = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const host = layer.current;
    if (host === null) return;
    const marks = new Map<number, Mark>();
    const still = window.matchMedia('(prefers-reduced-motion: reduce)');
    let frame = 0;
    let last = 0;

    const draw = (time: number): void => {
      const [left, top, zoom] = store.getState().transform;
      const keep = still.matches ? 0 : TRAIL ** (Math.min(100, time - last) / 100);
      let moving = false;
      for (const mark of marks.values()) {
        mark.x = mark.toX + (mark.x - mark.toX) * keep;
        mark.y = mark.toY + (mark.y - mark.toY) * keep;
        moving ||= Math.abs(mark.x - mark.toX) + Math.abs(mark.y - mark.toY) > 0.1;
        mark.element.style.transform = `translate(${mark.x * zoom + left}px, ${mark.y * zoom + top}px)`;
      }
      last = time;
      frame = moving ? requestAnimationFrame(draw) : 0;
    };
    const ask = (): void => {
      if (frame !== 0) return;
      last = performance.now();
      frame = requestAnimationFrame(draw);
    };
    const update = (peers: ReadonlyMap<number, Peer>): void => {
      for (const [id, mark] of marks) {
        if (peers.get(id)?.cursor != null) continue;
        mark.element.remove();
        marks.delete(id);
      }
      for (const [id, peer] of peers) if (peer.cursor !== null) place(marks, host, id, peer);
      ask();
    };
    const fade = setInterval(() => {
      const now = Date.now();
      for (const mark of marks.values()) mark.element.dataset['idle'] = String(now - mark.movedAt > IDLE_MS);
    }, 2_000);
    const stopWatching = presence.watch(update);
    const stopFollowing = store.subscribe((state, previous) => {
      if (state.transform !== previous.transform) ask();
    });
    return () => {
      stopWatching();
      stopFollowing();
      clearInterval(fade);
      cancelAnimationFrame(frame);
      host.replaceChildren();
    };
  }, [presence, store]);

  return <div ref={layer} className="cursors" aria-hidden="true" />;
}

function place(marks: Map<number, Mark>, host: HTMLElement, id: number, peer: Peer): void {
  if (peer.cursor === null) return;
  const { x, y } = peer.cursor;
  const known = marks.get(id);
  const mark = known ?? { ...newMark(host), x, y, toX: x, toY: y, movedAt: Date.now() };
  if (known === undefined || known.toX !== x || known.toY !== y) {
    mark.toX = x;
    mark.toY = y;
    mark.movedAt = Date.now();
    mark.element.dataset['idle'] = 'false';
  }
  mark.element.style.setProperty('--peer', peerColor(peer));
  if (mark.label.textContent !== peer.name) mark.label.textContent = peer.name;
  marks.set(id, mark);
}

function newMark(host: HTMLElement): { element: HTMLElement; label: HTMLElement } {
  const element = document.createElement('div');
  element.className = 'cursor';
  element.dataset['testid'] = 'cursor';
  const arrow = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  arrow.setAttribute('width', '20');
  arrow.setAttribute('height', '20');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', ARROW);
  arrow.append(path);
  const label = document.createElement('span');
  element.append(arrow, label);
  host.append(element);
  return { element, label };
}
