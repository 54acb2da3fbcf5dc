import { expect, test } from 'vitest';

import { diffText, moveCaret, rebaseEdit, type TextEdit } from '../src/document/text';

const apply = (text: string, edit: TextEdit): string =>
  text.slice(0, edit.index) + edit.inserted + text.slice(edit.index + edit.removed);

test('a diff turns one text into the other, and touches nothing else', () => {
  const pairs = [
    ['', 'a'],
    ['a', ''],
    ['fox', 'red fox'],
    ['red fox', 'red box'],
    ['aaa', 'aaaa'],
    ['same', 'same text'],
  ];
  for (const [before = '', after = ''] of pairs) {
    const edit = diffText(before, after);
    expect(edit && apply(before, edit)).toBe(after);
  }
  expect(diffText('same', 'same')).toBeNull();
  expect(diffText('red fox', 'red box')).toEqual({ index: 4, removed: 1, inserted: 'b' });
});

test('a repeated letter is inserted where the caret stands', () => {
  expect(diffText('aaaa', 'aaaaa', 2)).toEqual({ index: 1, removed: 0, inserted: 'a' });
  expect(diffText('aaaa', 'aaaaa', 5)).toEqual({ index: 4, removed: 0, inserted: 'a' });
});

test('half a character is never cut out', () => {
  const edit = diffText('a😀b', 'a😁b');
  expect(edit).toEqual({ index: 1, removed: 2, inserted: '😁' });
});

test('an edit made on an older text lands where it belongs', () => {
  const base = 'a red fox';
  const theirs = diffText(base, 'see a red fox');
  const mine = diffText(base, 'a red foxes');
  if (theirs === null || mine === null) throw new Error('both texts differ');
  const merged = rebaseEdit(mine, theirs).reduce(apply, apply(base, theirs));
  expect(merged).toBe('see a red foxes');
});

test('what somebody else wrote inside a replaced stretch stays', () => {
  const theirs = { index: 3, removed: 0, inserted: 'X' };
  const mine = { index: 0, removed: 6, inserted: 'new' };
  expect(rebaseEdit(mine, theirs).reduce(apply, apply('abcdef', theirs))).toBe('newX');
});

test('a stretch both removed is removed once', () => {
  const both = { index: 1, removed: 3, inserted: '' };
  expect(rebaseEdit(both, both).reduce(apply, apply('abcde', both))).toBe('ae');
});

test('the caret moves with the words around it', () => {
  expect(moveCaret(5, { index: 0, removed: 0, inserted: 'ab' })).toBe(7);
  expect(moveCaret(5, { index: 6, removed: 0, inserted: 'ab' })).toBe(5);
  expect(moveCaret(5, { index: 3, removed: 4, inserted: '' })).toBe(3);
});
