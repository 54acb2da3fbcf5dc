import { expect, test } from 'vitest';

import { extensionOf, fileName } from '../src/lightbox/save';
import { pan, WHOLE, zoomAt } from '../src/lightbox/zoom';
import { workflowIdOf } from '../src/route';

test('the point under the pointer stays there', () => {
  const point = { x: 120, y: -40 };
  const once = zoomAt(WHOLE, 2, point);
  const onPicture = { x: (point.x - once.x) / once.scale, y: (point.y - once.y) / once.scale };
  expect(onPicture).toEqual(point);
  expect(zoomAt(once, 0.1, point)).toEqual(WHOLE);
});

test('a picture is not dragged out of sight', () => {
  const box = { width: 800, height: 600 };
  expect(pan(WHOLE, 50, 50, box)).toEqual(WHOLE);
  expect(Math.abs(pan(zoomAt(WHOLE, 2, { x: 0, y: 0 }), 9999, 0, box).x)).toBeLessThanOrEqual(480);
});

test('a saved picture is named by its prompt', () => {
  expect(fileName('A red fox, asleep!')).toBe('a-red-fox-asleep');
  expect(fileName('¿?')).toBe('picture');
  expect(extensionOf('image/jpeg')).toBe('jpg');
  expect(extensionOf('text/html')).toBe('png');
});

test('the address names the canvas', () => {
  expect(workflowIdOf('/w/abc')).toBe('abc');
  expect(workflowIdOf('/w/a%20b/')).toBe('a b');
  expect(workflowIdOf('/w/')).toBeNull();
  expect(workflowIdOf('/w/%E0%A4%A')).toBeNull();
});
