import { expect, test } from 'vitest';

import { isFinal, pauseMs } from '../src/session/closing';
import { Ledger } from '../src/session/ledger';
import { SAVING_AFTER_MS, savingOf, UNSAVED_AFTER_MS } from '../src/session/saving';
import { savedWords, troubleWords } from '../src/ui/saved';
import { stopWords } from '../src/ui/stopped';

/** A page and its connection: edits are sent as they are made while it is open. */
class Page {
  readonly ledger = new Ledger();
  open = false;

  connect(): void {
    this.ledger.opened();
    this.open = true;
    this.ledger.sent(true);
  }

  edit(now = 0): void {
    this.ledger.edited(now);
    if (this.open) this.ledger.sent(false);
  }
}

test('an edit waits until the message that holds it is acknowledged', () => {
  const page = new Page();
  page.connect();
  page.edit();
  page.edit();
  expect(page.ledger.waiting).toBe(2);
  page.ledger.acknowledged(1);
  expect(page.ledger.waiting).toBe(2);
  page.ledger.acknowledged(2);
  expect(page.ledger.waiting).toBe(1);
  page.ledger.acknowledged(3);
  expect(page.ledger.waiting).toBe(0);
});

test('edits made offline are safe with the whole answer of the next connection', () => {
  const page = new Page();
  page.edit();
  page.edit();
  page.connect();
  page.edit();
  page.ledger.acknowledged(1);
  expect(page.ledger.waiting).toBe(1);
});

test('a message before the whole answer says nothing of what was made before it', () => {
  const page = new Page();
  page.edit();
  page.ledger.opened();
  page.open = true;
  page.edit();
  page.ledger.acknowledged(1);
  expect(page.ledger.waiting).toBe(2);
  page.ledger.sent(true);
  page.ledger.acknowledged(2);
  expect(page.ledger.waiting).toBe(0);
});

test('what was sent over a connection that was lost counts with the next one only', () => {
  const page = new Page();
  page.connect();
  page.edit();
  page.edit();
  page.ledger.opened();
  page.ledger.acknowledged(3);
  expect(page.ledger.waiting).toBe(2);
  page.connect();
  page.ledger.acknowledged(1);
  expect(page.ledger.waiting).toBe(0);
});

test('an older acknowledgement takes nothing back', () => {
  const page = new Page();
  page.connect();
  page.edit();
  page.ledger.acknowledged(2);
  page.ledger.acknowledged(1);
  page.ledger.acknowledged(0);
  expect(page.ledger.waiting).toBe(0);
});

test('the oldest edit that is not safe says since when', () => {
  const page = new Page();
  expect(page.ledger.since).toBeNull();
  page.connect();
  page.edit(1_000);
  page.edit(5_000);
  expect(page.ledger.since).toBe(1_000);
  page.ledger.acknowledged(2);
  expect(page.ledger.since).toBe(5_000);
  page.ledger.acknowledged(3);
  expect(page.ledger.since).toBeNull();
});

test('a database that is gone for long costs little memory and nothing is called safe too early', () => {
  const page = new Page();
  page.connect();
  for (let edit = 0; edit < 5_000; edit += 1) page.edit(edit * 20);
  page.ledger.acknowledged(1_000);
  expect(page.ledger.waiting).toBeGreaterThanOrEqual(5_000 - 999);
  page.ledger.acknowledged(5_000);
  expect(page.ledger.waiting).toBeGreaterThanOrEqual(1);
  page.ledger.acknowledged(5_001);
  expect(page.ledger.waiting).toBe(0);
});

test('the page says saved, saving and not saved after one another', () => {
  const at = (age: number) => savingOf({ waiting: 1, since: 0 }, age).state;
  expect([at(0), at(SAVING_AFTER_MS), at(UNSAVED_AFTER_MS)]).toEqual(['saved', 'saving', 'unsaved']);
  expect(savingOf({ waiting: 0, since: null }, 9_000).state).toBe('saved');
});

test.each([
  [4400, true],
  [4401, true],
  [4404, true],
  [4499, true],
  [1003, true],
  [1009, true],
  [1000, false],
  [1001, false],
  [1006, false],
  [1011, false],
  [1012, false],
  [1013, false],
  [4500, false],
  [4599, false],
])('the close code %i ends it: %s', (code, final) => {
  expect(isFinal(code)).toBe(final);
});

test('after a restart a page is back within a second, and not with all others', () => {
  expect(pauseMs(0, 1012, 0)).toBeGreaterThan(0);
  expect(pauseMs(0, 1012, 0.999)).toBeLessThan(1_000);
  expect(pauseMs(0, 1012, 0.9) - pauseMs(0, 1012, 0.1)).toBeGreaterThan(500);
});

test('repeated failures wait longer and longer, up to half a minute, each time by chance', () => {
  const longest = Array.from({ length: 40 }, (_, failures) => pauseMs(failures, null, 0.999_999));
  expect(longest[0]).toBeLessThan(400);
  for (let n = 1; n < longest.length; n += 1) expect(longest[n]).toBeGreaterThanOrEqual(longest[n - 1] ?? 0);
  expect(longest.at(-1)).toBeCloseTo(30_000, -2);
  expect(pauseMs(30, 1012, 0.999)).toBeGreaterThan(20_000);
  expect(pauseMs(30, null, 0)).toBeLessThan(100);
});

test('the bar is quiet while all is well and plain when it is not', () => {
  const well = { link: 'live', mayEdit: true, state: 'saved', waiting: 0 } as const;
  expect(savedWords(well).word).toBe('Saved');
  expect(savedWords({ ...well, state: 'saving', waiting: 1 }).word).toBe('Saving…');
  const late = savedWords({ ...well, state: 'unsaved', waiting: 2 });
  expect(late.word + late.more).toBe('Not saved – trying again');
  const gone = savedWords({ ...well, link: 'offline', state: 'unsaved', waiting: 3 });
  expect(gone.word + gone.more).toBe('Offline, 3\u00a0edits kept');
  expect(savedWords({ ...well, mayEdit: false }).word).toBe('View only');
  expect(troubleWords({ ...well, seen: true })).toBeNull();
  expect(troubleWords({ ...well, seen: true, state: 'unsaved', waiting: 1 })).toContain('1\u00a0edit is kept here');
});

test.each([
  [4401, 'missing: an access token is required', /need a link/, 'paste'],
  [4401, 'expired: the access token has expired', /expired/, 'paste'],
  [4401, 'revoked: the access token was withdrawn', /withdrawn/, 'paste'],
  [4401, 'anything', /does not work/, 'paste'],
  [4403, 'forbidden: your token does not reach this', /another canvas/, 'paste'],
  [4404, 'not-found: there is no workflow', /no canvas/, 'new'],
  [1009, '', /too large/, 'reload'],
  [4400, 'bad-message: truncated', /do not understand/, 'reload'],
] as const)('who was refused with %i %s reads why and what to do', (code, reason, title, next) => {
  const words = stopWords({ code, reason });
  expect(words.title).toMatch(title);
  expect(words.next).toBe(next);
  expect(words.text).not.toBe('');
});
