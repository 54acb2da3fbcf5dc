import { useCallback, useEffect, useRef, type RefObject } from 'react';
import * as Y from 'yjs';

import { diffText, moveCaret, rebaseEdit, type TextEdit } from '../document/text';
import { findText, nodesOf, sharedText } from '../document/write';
import { useSession } from '../session/context';
import { LOCAL } from '../session/origin';

interface SharedText {
  readonly field: RefObject<HTMLTextAreaElement | null>;
  readonly onInput: () => void;
  readonly onCompositionStart: () => void;
  readonly onCompositionEnd: () => void;
}

/**
 * Ties a text field to a shared text, letter by letter in both directions.
 *
 * The field is not controlled by React: its value is set only when somebody else typed, and the caret then moves
 * with the words it stands in. While an input method composes, the field is left alone and catches up afterwards.
 *
 * Args:
 *   value: The text as last read from the document; a change of it is the sign to look again.
 */
export function useSharedText(nodeId: string, key: string, value: string): SharedText {
  const { doc } = useSession();
  const field = useRef<HTMLTextAreaElement>(null);
  const base = useRef(value);
  const composing = useRef(false);

  const show = useCallback((text: string) => {
    const element = field.current;
    if (element === null) return;
    base.current = text;
    if (element.value === text) return;
    const edit = diffText(element.value, text);
    const { selectionStart, selectionEnd } = element;
    element.value = text;
    if (edit === null || document.activeElement !== element) return;
    element.setSelectionRange(moveCaret(selectionStart, edit), moveCaret(selectionEnd, edit));
  }, []);

  const push = useCallback(() => {
    const element = field.current;
    if (element === null || composing.current) return;
    const mine = diffText(base.current, element.value, element.selectionEnd);
    if (mine === null || !nodesOf(doc).has(nodeId)) return;
    doc.transact(() => {
      const text = sharedText(doc, nodeId, key);
      if (text === null) return;
      const theirs = diffText(base.current, text.toString());
      for (const edit of theirs === null ? [mine] : rebaseEdit(mine, theirs)) apply(text, edit);
    }, LOCAL);
    show(findText(doc, nodeId, key)?.toString() ?? element.value);
  }, [doc, key, nodeId, show]);

  useEffect(() => {
    if (!composing.current) show(findText(doc, nodeId, key)?.toString() ?? value);
  }, [doc, key, nodeId, show, value]);

  return {
    field,
    onInput: push,
    onCompositionStart: useCallback(() => {
      composing.current = true;
    }, []),
    onCompositionEnd: useCallback(() => {
      composing.current = false;
      push();
    }, [push]),
  };
}

function apply(text: Y.Text, edit: TextEdit): void {
  if (edit.removed > 0) text.delete(edit.index, edit.removed);
  if (edit.inserted !== '') text.insert(edit.index, edit.inserted);
}
