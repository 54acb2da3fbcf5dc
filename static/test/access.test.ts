import { expect, test } from 'vitest';

import { accessToken, changeToken, readPasted, takeToken } from '../src/api/token';

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

const claims = (workflows: unknown): string => `e30.${btoa(JSON.stringify({ workflows })).replace(/=+$/, '')}.c2ln`;

test.each([
  ['a link', `https://rooms.example/w/one#token=${claims(['one'])}`, 'one'],
  ['a link with the token in its query', `https://rooms.example/w/one?token=${claims('*')}`, 'one'],
  ['a link to the front door', `https://rooms.example/#token=${claims('*')}`, null],
  ['a token for one canvas', `  ${claims(['two'])}\n`, 'two'],
  ['a token for several', claims(['one', 'two']), null],
])('%s can be pasted', (_what, text, workflowId) => {
  const pasted = readPasted(text);
  expect(pasted?.workflowId).toBe(workflowId);
  expect(text).toContain(pasted?.token);
});

test.each(['', 'hello', 'https://rooms.example/w/one', 'https://rooms.example/w/one#token=', 'javascript:alert(1)'])(
  'there is no token in %s',
  (text) => expect(readPasted(text)).toBeNull(),
);

test('another token is used from now on', () => {
  changeToken('t2', browser('', '').places.storage);
  expect(accessToken()).toBe('t2');
});
