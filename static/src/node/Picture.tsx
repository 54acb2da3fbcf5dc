import { useRef } from 'react';

import type { Picture as PictureData } from '../document/schema';
import { openLightbox } from '../lightbox/open';
import { Print } from './Print';

interface PictureProps {
  readonly nodeId: string;
  readonly picture: PictureData;
  readonly count: number;
  readonly sharp: boolean;
  readonly prompt: string;
  readonly onShown: () => void;
}

/** The picture of a node; a click opens it large. */
export function Picture({ nodeId, picture, count, sharp, prompt, onShown }: PictureProps) {
  const touched = useRef(false);
  const url = sharp ? picture.url : (picture.thumbnailUrl ?? picture.url);
  return (
    <button
      type="button"
      className="open"
      aria-label={`Open picture: ${prompt.slice(0, 80) || 'no prompt'}`}
      onPointerDown={(event) => {
        // A finger first selects, which shows the controls; the second touch opens.
        const selected = event.currentTarget.closest('.sheet')?.classList.contains('selected') === true;
        touched.current = event.pointerType === 'touch' && !selected;
      }}
      onClick={(event) => {
        if (touched.current || event.shiftKey || event.ctrlKey || event.metaKey) return;
        openLightbox({ nodeId, index: 0 });
      }}
    >
      <Print url={url} picture={picture.url} alt={prompt} onShown={onShown} />
      {count > 1 && <span className="count times">{count} pictures</span>}
    </button>
  );
}
