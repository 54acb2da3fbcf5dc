import { useEffect } from 'react';

import { toggleHistory } from '../history/open';
import { queueOpen } from '../queue/open';
import { useSession } from '../session/context';
import { help } from '../ui/Help';
import { tool } from './tool';
import { isTyping } from './typing';
import { useActions } from './useActions';

/** The keys of the canvas; none of them acts while somebody types. */
export function useKeyboard(): void {
  const { history, flow } = useSession();
  const actions = useActions();

  useEffect(() => {
    const plain: Readonly<Record<string, () => void>> = {
      delete: actions.deleteSelected,
      backspace: actions.deleteSelected,
      '.': actions.fit,
      f: actions.fit,
      p: actions.addPicture,
      n: actions.addNote,
      v: () => tool.set('select'),
      h: () => tool.set('hand'),
      q: () => queueOpen.set(!queueOpen.get()),
      e: () => toggleHistory(flow.selected()),
      '?': () => help.set(true),
      escape: () => flow.select(new Set()),
    };
    const command: Readonly<Record<string, () => void>> = {
      enter: actions.runSelected,
      a: actions.selectAll,
      d: () => actions.duplicate(flow.selected()),
      y: () => history.redo(),
      z: () => history.undo(),
    };
    const onKey = (event: KeyboardEvent): void => {
      if (isTyping(event) || event.altKey || event.defaultPrevented) return;
      const key = event.key.toLowerCase();
      const held = event.ctrlKey || event.metaKey;
      const act = held && event.shiftKey && key === 'z' ? () => history.redo() : held ? command[key] : plain[key];
      if (act === undefined) return;
      event.preventDefault();
      act();
    };
    document.addEventListener('keydown', onKey);
    return () => document.removeEventListener('keydown', onKey);
  }, [actions, flow, history]);
}
