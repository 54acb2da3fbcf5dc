import { useEffect, useState } from 'react';

const FADE_MS = 450;

interface Layer {
  readonly url: string;
  readonly picture: string;
  readonly fresh: boolean;
}

interface PrintProps {
  /** What to load: the picture itself or its thumbnail. */
  readonly url: string;
  /** Which picture it is; a new one comes up slowly, a sharper copy of the same one at once. */
  readonly picture: string;
  readonly alt: string;
  readonly onShown: () => void;
}

/** The finished picture. The one before stays underneath until the new one has come up. */
export function Print({ url, picture, alt, onShown }: PrintProps) {
  const [layers, setLayers] = useState<readonly Layer[]>([{ url, picture, fresh: false }]);
  const [broken, setBroken] = useState<string | null>(null);
  const top = layers.at(-1);

  if (top?.url !== url) {
    const fresh = top !== undefined && top.picture !== picture;
    setLayers([...layers.filter((layer) => layer.url !== url).slice(-1), { url, picture, fresh }]);
  }

  useEffect(() => {
    if (layers.length < 2) return;
    const image = new Image();
    let timer: ReturnType<typeof setTimeout> | undefined;
    // The copy below is only let go once the one above is really on screen.
    image.src = url;
    const settle = (): void => {
      timer = setTimeout(() => setLayers((now) => now.slice(-1)), FADE_MS);
    };
    image.decode().then(settle, settle);
    return () => clearTimeout(timer);
  }, [layers.length, url]);

  return (
    <>
      {layers.map((layer, index) => (
        <img
          key={layer.url}
          className={layer.fresh ? 'layer print fresh' : 'layer print'}
          src={layer.url}
          alt={index === layers.length - 1 ? alt : ''}
          draggable={false}
          loading="lazy"
          decoding="async"
          onLoad={(event) => {
            event.currentTarget.dataset['loaded'] = 'true';
            if (layer.url === url) onShown();
          }}
          onError={() => setBroken(layer.url)}
        />
      ))}
      {broken === url && <p className="broken">The picture could not be loaded.</p>}
    </>
  );
}
