import { useEffect, useLayoutEffect, useRef, useState, type ReactNode, type RefObject } from 'react';
import { createPortal } from 'react-dom';

interface PopoverProps {
  readonly anchor: RefObject<HTMLElement | null>;
  readonly label: string;
  readonly onClose: () => void;
  readonly children: ReactNode;
}

const MARGIN = 12;
const GAP = 6;

/** A panel beside its button, of the same size at every zoom of the canvas. Esc and a press elsewhere close it. */
export function Popover({ anchor, label, onClose, children }: PopoverProps) {
  const panel = useRef<HTMLDivElement>(null);
  const [place, setPlace] = useState<Place | null>(null);

  useLayoutEffect(() => {
    const button = anchor.current?.getBoundingClientRect();
    const box = panel.current;
    if (button === undefined || box === null) return;
    // Clear of the whole bar, where the button stands in one.
    const bar = anchor.current?.closest('.bar')?.getBoundingClientRect() ?? button;
    setPlace(placeBeside(button, bar, box.offsetWidth, box.scrollHeight));
    box.querySelector<HTMLElement>('input:checked, button, input')?.focus({ preventScroll: true });
  }, [anchor]);

  useEffect(() => {
    const button = anchor.current;
    const onPress = (event: Event): void => {
      const target = event.target as globalThis.Node;
      if (panel.current?.contains(target) !== true && button?.contains(target) !== true) onClose();
    };
    const onKey = (event: KeyboardEvent): void => {
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      onClose();
      button?.focus({ preventScroll: true });
    };
    const onWheel = (event: Event): void => {
      if (panel.current?.contains(event.target as globalThis.Node) !== true) onClose();
    };
    document.addEventListener('pointerdown', onPress, true);
    document.addEventListener('keydown', onKey, true);
    document.addEventListener('wheel', onWheel, { capture: true, passive: true });
    window.addEventListener('resize', onClose);
    return () => {
      document.removeEventListener('pointerdown', onPress, true);
      document.removeEventListener('keydown', onKey, true);
      document.removeEventListener('wheel', onWheel, { capture: true });
      window.removeEventListener('resize', onClose);
    };
  }, [anchor, onClose]);

  return createPortal(
    <div
      ref={panel}
      className="popover"
      role="dialog"
      aria-label={label}
      style={place ?? { left: 0, top: 0, visibility: 'hidden' }}
    >
      {children}
    </div>,
    document.body,
  );
}

interface Place {
  readonly left: number;
  readonly top: number;
  readonly maxHeight: number;
}

function placeBeside(button: DOMRect, bar: DOMRect, width: number, height: number): Place {
  const below = window.innerHeight - bar.bottom - MARGIN - GAP;
  const above = bar.top - MARGIN - GAP;
  const under = below >= height || below >= above;
  const maxHeight = Math.max(120, under ? below : above);
  const shown = Math.min(height, maxHeight);
  const left = Math.min(Math.max(MARGIN, button.left), Math.max(MARGIN, window.innerWidth - width - MARGIN));
  return { left, top: under ? bar.bottom + GAP : bar.top - GAP - shown, maxHeight };
}
