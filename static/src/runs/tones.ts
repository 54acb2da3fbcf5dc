/** The tones of a picture that nobody has seen yet, read from its prompt. Deterministic, so everyone sees the same. */

export interface Tone {
  /** Lightness in [0, 1], chroma and hue of OKLCH. */
  readonly l: number;
  readonly c: number;
  readonly h: number;
}

export interface Blot {
  readonly x: number;
  readonly y: number;
  readonly rx: number;
  readonly ry: number;
  readonly turn: number;
  readonly tone: Tone;
}

export interface Tones {
  readonly top: Tone;
  readonly bottom: Tone;
  readonly horizon: number;
  readonly blots: readonly Blot[];
}

/** Words that name a colour without saying it: hue, chroma, lightness. */
const HINTS: readonly (readonly [RegExp, number, number, number])[] = [
  [/\b(sea|ocean|lake|river|water|wave|harbou?r|coast|beach|shore|rain|blue)/i, 235, 0.09, 0.52],
  [/\b(sky|cloud|air|wind|morning|winter)/i, 240, 0.05, 0.76],
  [/\b(forest|wood|moss|jungle|garden|leaf|leaves|grass|meadow|tree|fern|green|frog)/i, 142, 0.09, 0.46],
  [/\b(sun|sunset|sunrise|dawn|dusk|desert|sand|dune|fire|flame|autumn|fox|orange|amber|copper)/i, 55, 0.13, 0.66],
  [/\b(gold|yellow|lemon|honey|wheat|straw|bee|lion)/i, 88, 0.13, 0.78],
  [/\b(red|rose|blood|cherry|apple|brick|poppy|tomato|mars)/i, 27, 0.16, 0.5],
  [/\b(pink|blossom|flamingo|coral|peach|candy)/i, 5, 0.1, 0.74],
  [/\b(purple|violet|lavender|plum|magic|galaxy|nebula)/i, 305, 0.11, 0.45],
  [/\b(night|midnight|dark|moon|star|space|shadow|cave|black|raven|noir)/i, 275, 0.05, 0.22],
  [/\b(snow|ice|white|milk|paper|ghost|marble|mist|fog|glacier|pale|swan)/i, 225, 0.02, 0.9],
  [/\b(coffee|earth|wood|bear|chocolate|leather|rust|old|oak|brown)/i, 55, 0.06, 0.36],
  [/\b(neon|cyber|city|electric|glow)/i, 330, 0.17, 0.55],
];

export function tonesOf(prompt: string): Tones {
  const words = prompt.trim().toLowerCase();
  const random = generator(words);
  const named = HINTS.filter(([pattern]) => pattern.test(words)).map(([, h, c, l]) => ({ h, c, l }));
  const base = random() * 360;
  const free = (): Tone => ({
    h: (base + random() * 90 - 45 + 360) % 360,
    c: 0.05 + random() * 0.06,
    l: 0.4 + random() * 0.35,
  });
  const palette = [...named, free(), free(), free()].slice(0, Math.max(4, named.length));
  const pick = (): Tone => palette[Math.floor(random() * palette.length)] ?? free();
  const shade = (tone: Tone, by: number): Tone => ({ ...tone, l: Math.min(0.95, Math.max(0.1, tone.l + by)) });
  const first = palette[0] ?? free();
  const second = palette[1] ?? free();
  const blots = Array.from({ length: 9 }, (_, index): Blot => {
    const near = index / 9;
    return {
      x: random(),
      y: 0.25 + random() * 0.7,
      rx: 0.34 - near * 0.24 + random() * 0.08,
      ry: 0.22 - near * 0.14 + random() * 0.1,
      turn: (random() - 0.5) * 1.6,
      tone: shade(pick(), (random() - 0.5) * 0.3),
    };
  });
  return { top: shade(first, 0.12), bottom: shade(second, -0.12), horizon: 0.35 + random() * 0.3, blots };
}

export function css({ l, c, h }: Tone, alpha = 1): string {
  return `oklch(${l.toFixed(3)} ${c.toFixed(3)} ${h.toFixed(1)} / ${alpha})`;
}

/** Small and seeded: the same words give the same numbers on every screen. */
function generator(words: string): () => number {
  let state = 2166136261;
  for (let index = 0; index < words.length; index += 1) state = Math.imul(state ^ words.charCodeAt(index), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 4294967296;
  };
}
