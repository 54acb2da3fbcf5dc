import { useReactFlow } from '@xyflow/react';
import { useEffect } from 'react';

import type { FlowEdge, FlowNode } from '../binding/view';
import { middleOf, pieceFromText, pieceToText } from '../document/copy';
import { useSession } from '../session/context';
import { isTyping } from './typing';
import { freePlace, middleOfView, reveal } from './view';

const LONGEST_PROMPT = 4_000;

/** Copy, cut and paste of nodes as text, so that they travel between canvases; pasted words become a prompt. */
export function useClipboard(): void {
  const { flow, edits, connection } = useSession();
  const instance = useReactFlow<FlowNode, FlowEdge>();

  useEffect(() => {
    const take = (event: ClipboardEvent): boolean => {
      const ids = flow.selected();
      if (ids.length === 0 || isTyping(event) || window.getSelection()?.isCollapsed === false) return false;
      event.clipboardData?.setData('text/plain', pieceToText(edits.copy(ids)));
      event.preventDefault();
      return true;
    };
    const onCopy = (event: ClipboardEvent): void => void take(event);
    const onCut = (event: ClipboardEvent): void => {
      if (take(event)) edits.remove(flow.selected(), []);
    };
    const onPaste = (event: ClipboardEvent): void => {
      const text = event.clipboardData?.getData('text/plain') ?? '';
      if (isTyping(event) || text.trim() === '' || !connection.get().mayEdit) return;
      event.preventDefault();
      const piece = pieceFromText(text);
      if (piece === null) {
        const place = freePlace(instance, 320, 400);
        edits.addPicture(place, text.trim().slice(0, LONGEST_PROMPT));
        reveal(instance, place, 320, 400);
      } else if (piece.nodes.length > 0) {
        const here = middleOfView(instance);
        const from = middleOf(piece);
        edits.paste(piece, { x: Math.round(here.x - from.x - 120), y: Math.round(here.y - from.y - 120) });
      }
    };
    document.addEventListener('copy', onCopy);
    document.addEventListener('cut', onCut);
    document.addEventListener('paste', onPaste);
    return () => {
      document.removeEventListener('copy', onCopy);
      document.removeEventListener('cut', onCut);
      document.removeEventListener('paste', onPaste);
    };
  }, [connection, edits, flow, instance]);
}
