import { expect, test } from 'vitest';

const sources = import.meta.glob<string>('../src/**/*.{css,ts,tsx}', { query: '?raw', import: 'default', eager: true });
const tokens = sources['../src/theme/tokens.css'] ?? '';

function color(name: string, theme: 'light' | 'dark'): string {
  const value = new RegExp(`--${name}: ([^;]+);`).exec(tokens)?.[1] ?? '';
  const pair = /^light-dark\((#\w+), (#\w+)\)$/.exec(value);
  return (theme === 'light' ? pair?.[1] : pair?.[2]) ?? value;
}

function luminance(hex: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
    const channel = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [low = 0, high = 0] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

const GROUNDS = ['room', 'surface', 'raised', 'paper'];
const THEMES = ['light', 'dark'] as const;

test.each(THEMES)('words can be read in the %s theme', (theme) => {
  for (const ground of GROUNDS) {
    for (const ink of ['text', 'muted', 'bad', 'warn', 'good']) {
      const value = contrast(color(ink, theme), color(ground, theme));
      expect(value, `${ink} on ${ground}`).toBeGreaterThanOrEqual(4.5);
    }
  }
  expect(contrast(color('on-safelight', theme), color('safelight', theme))).toBeGreaterThanOrEqual(4.5);
  expect(contrast(color('on-safelight', theme), color('safelight-hover', theme))).toBeGreaterThanOrEqual(4.5);
});

test.each(THEMES)('controls, focus and people stand out in the %s theme', (theme) => {
  const marks = ['safelight', 'line-strong', ...Array.from({ length: 8 }, (_, index) => `presence-${index + 1}`)];
  for (const mark of marks) {
    expect(contrast(color(mark, theme), color('room', theme)), mark).toBeGreaterThanOrEqual(3);
  }
});

test('names on presence colours can be read', () => {
  for (let hue = 1; hue <= 8; hue += 1) {
    const value = contrast(color('presence-ink', 'dark'), color(`presence-${hue}`, 'dark'));
    expect(value, String(hue)).toBeGreaterThanOrEqual(4.5);
  }
});

test('only the tokens hold a colour', () => {
  const literal = /#(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})\b(?!\()|\brgba?\(|\bhsla?\(/i;
  const offenders = Object.entries(sources)
    .filter(([file]) => !file.endsWith('tokens.css'))
    .flatMap(([file, text]) => text.split('\n').map((line) => `${file}: ${line}`))
    .filter((line) => literal.test(line) && !/\/\^#|`#rrggbb`/.test(line));
  expect(offenders).toEqual([]);
});

test('every file stays readable in one sitting', () => {
  expect(Object.keys(sources).length).toBeGreaterThan(50);
  const long = Object.entries(sources).filter(([, text]) => text.split('\n').length > 400);
  expect(long.map(([file]) => file)).toEqual([]);
});
