/** One replaced stretch of a text. */
export interface TextEdit {
  readonly index: number;
  readonly removed: number;
  readonly inserted: string;
}

/**
 * The smallest single replacement that turns one text into another.
 *
 * Args:
 *   caret: Where the caret stands afterwards; settles which of several equal letters was typed.
 */
export function diffText(before: string, after: string, caret = after.length): TextEdit | null {
  if (before === after) return null;
  // What stands right of the caret was there before: matching it first puts a repeated letter where it was typed.
  const longestSuffix = Math.min(before.length, after.length - Math.min(caret, after.length));
  let suffix = commonSuffix(before, after, longestSuffix);
  const prefix = commonPrefix(before, after, Math.min(before.length, after.length) - suffix);
  suffix += commonSuffix(
    before.slice(prefix, before.length - suffix),
    after.slice(prefix, after.length - suffix),
    Math.min(before.length, after.length) - suffix - prefix,
  );
  return whole(before, after, prefix, suffix);
}

/**
 * Moves an edit made on the same base as another one to where it belongs once the other is applied.
 *
 * What the other one inserted stays; an edit around it becomes two, to be applied in the given order.
 */
export function rebaseEdit(edit: TextEdit, other: TextEdit): readonly TextEdit[] {
  const shift = other.inserted.length - other.removed;
  const otherEnd = other.index + other.removed;
  const end = edit.index + edit.removed;
  if (end <= other.index) return [edit];
  if (edit.index >= otherEnd) return [{ ...edit, index: edit.index + shift }];
  const left = Math.max(0, other.index - edit.index);
  const right = Math.max(0, end - otherEnd);
  const afterOther = { index: other.index + other.inserted.length, removed: right };
  if (left === 0) return [{ ...afterOther, inserted: edit.inserted }];
  const beforeOther = { index: edit.index, removed: left, inserted: edit.inserted };
  return right === 0 ? [beforeOther] : [{ ...afterOther, inserted: '' }, beforeOther];
}

/** Where a caret stands after an edit by somebody else. */
export function moveCaret(caret: number, edit: TextEdit): number {
  if (caret <= edit.index) return caret;
  if (caret >= edit.index + edit.removed) return caret + edit.inserted.length - edit.removed;
  return edit.index;
}

function commonPrefix(a: string, b: string, most: number): number {
  let length = 0;
  while (length < most && a.charCodeAt(length) === b.charCodeAt(length)) length += 1;
  return length;
}

function commonSuffix(a: string, b: string, most: number): number {
  let length = 0;
  while (length < most && a.charCodeAt(a.length - 1 - length) === b.charCodeAt(b.length - 1 - length)) length += 1;
  return length;
}

/** Never cuts a surrogate pair in half: half a character cannot be encoded. */
function whole(before: string, after: string, prefix: number, suffix: number): TextEdit {
  let from = prefix;
  let rest = suffix;
  if (isHigh(before, from - 1) || isHigh(after, from - 1)) from -= 1;
  if (isLow(before, before.length - rest) || isLow(after, after.length - rest)) rest -= 1;
  return {
    index: from,
    removed: before.length - rest - from,
    inserted: after.slice(from, after.length - rest),
  };
}

function isHigh(text: string, index: number): boolean {
  const code = text.charCodeAt(index);
  return code >= 0xd800 && code <= 0xdbff;
}

function isLow(text: string, index: number): boolean {
  const code = text.charCodeAt(index);
  return code >= 0xdc00 && code <= 0xdfff;
}
