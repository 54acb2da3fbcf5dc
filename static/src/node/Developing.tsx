import type { CSSProperties } from 'react';

import { Tones } from './Tones';
import { Preview } from './Preview';

interface DevelopingProps {
  readonly prompt: string;
  readonly aspect: number;
  readonly previewUrl: string | null;
  /** How far the picture has come up, in [0, 1]. */
  readonly level: number;
  /** The sheet still lies in the tray: nothing of the picture shows yet. */
  readonly blank: boolean;
}

/** The picture coming up out of the paper: blur and contrast follow the progress. */
export function Developing({ prompt, aspect, previewUrl, level, blank }: DevelopingProps) {
  const style = { '--level': level.toFixed(3) } as CSSProperties;
  return (
    <div className={blank ? 'layer developing blank' : 'layer developing'} style={style}>
      <Tones prompt={prompt} aspect={aspect} />
      {previewUrl !== null && <Preview url={previewUrl} />}
    </div>
  );
}
