import { memo, useEffect, useRef } from 'react';

import { css, tonesOf, type Tones as TonesOf } from '../runs/tones';

const SIDE = 96;

/** The prompt's tones, painted once and small; the sheet stretches and softens them. */
export const Tones = memo(function Tones({ prompt, aspect }: { prompt: string; aspect: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = Math.round(SIDE * Math.sqrt(aspect));
  const height = Math.round(SIDE / Math.sqrt(aspect));

  useEffect(() => {
    const context = canvas.current?.getContext('2d');
    if (context) paint(context, tonesOf(prompt), width, height);
  }, [prompt, width, height]);

  return <canvas ref={canvas} className="layer tones" width={width} height={height} aria-hidden="true" />;
});

function paint(context: CanvasRenderingContext2D, tones: TonesOf, width: number, height: number): void {
  const ground = context.createLinearGradient(0, 0, 0, height);
  ground.addColorStop(0, css(tones.top));
  ground.addColorStop(tones.horizon, css({ ...tones.top, l: Math.min(0.95, tones.top.l + 0.08) }));
  ground.addColorStop(Math.min(1, tones.horizon + 0.04), css(tones.bottom));
  ground.addColorStop(1, css({ ...tones.bottom, l: tones.bottom.l * 0.7 }));
  context.fillStyle = ground;
  context.fillRect(0, 0, width, height);
  for (const blot of tones.blots) {
    context.save();
    context.translate(blot.x * width, blot.y * height);
    context.rotate(blot.turn);
    context.scale(blot.rx * width, blot.ry * height);
    const spread = context.createRadialGradient(0, 0, 0, 0, 0, 1);
    spread.addColorStop(0, css(blot.tone, 0.9));
    spread.addColorStop(0.55, css(blot.tone, 0.75));
    spread.addColorStop(1, css(blot.tone, 0));
    context.fillStyle = spread;
    context.fillRect(-1, -1, 2, 2);
    context.restore();
  }
}
