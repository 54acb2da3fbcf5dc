import { useState } from 'react';

/** The maker's partial picture; the one before stays until the next is loaded. */
export function Preview({ url }: { url: string }) {
  const [shown, setShown] = useState<string | null>(null);
  const urls = shown === null || shown === url ? [url] : [shown, url];
  return urls.map((one) => (
    <img
      key={one}
      className="layer preview"
      data-loaded={one === shown}
      src={one}
      alt=""
      draggable={false}
      onLoad={() => setShown(one)}
    />
  ));
}
