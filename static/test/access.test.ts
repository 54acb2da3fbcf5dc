import { expect, test } from 'vitest';

import { accessToken, takeToken } from '../src/api/token';

function browser(search: string, hash: string, stored: string | null = null) {
  const kept = new Map<string, string>(stored === null ? [] : [['darkroom.token', stored]]);
  const addresses: unknown[] = [];
  const places = {
    location: { pathname: '/w/a', search, hash },
    history: { state: null, replaceState: (_state: unknown, _title: string, url?: unknown) => void addresses.push(url) },
    storage: () => ({
      getItem: (name: string) => kept.get(name) ?? null,
      setItem: (name: string, value: string) => void kept.set(name, value),
    }),
  };
  return { places, kept, addresses };
}

test.each([
  ['', '#token=t1', '/w/a'],
  ['?token=t1', '', '/w/a'],
  ['?x=1&token=t1', '#y=2', '/w/a?x=1#y=2'],
  ['?token=other', '#token=t1', '/w/a'],
])('a token in the address is kept for this tab and leaves the address: %s%s', (search, hash, address) => {
  const { places, kept, addresses } = browser(search, hash);
  expect(takeToken(places)).toBe('t1');
  expect(accessToken()).toBe('t1');
  expect(kept.get('darkroom.token')).toBe('t1');
  expect(addresses).toEqual([address]);
});

test('without one in the address the tab goes on with the one it has', () => {
  const { places, addresses } = browser('', '#', 't0');
  expect(takeToken(places)).toBe('t0');
  expect(addresses).toEqual([]);
  expect(takeToken(browser('', '').places)).toBeNull();
});

test('a browser without storage keeps the token as long as the page', () => {
  const { places } = browser('', '#token=t1');
  const broken = () => {
    throw new Error('switched off');
  };
  expect(takeToken({ ...places, storage: broken })).toBe('t1');
});
