import { useReactFlow } from '@xyflow/react';
import { useMemo } from 'react';

import type { FlowEdge, FlowNode } from '../binding/view';
import { useMayEdit, useSession } from '../session/context';
import { FIT, freePlace, placeBeside, reveal } from './view';

export interface Actions {
  addPicture(): void;
  addNote(): void;
  runSelected(): void;
  deleteSelected(): void;
  /** Copies beside the originals: same prompts, no pictures. */
  duplicate(ids: readonly string[]): void;
  selectAll(): void;
  fit(): void;
}

/** What the toolbar and the keyboard do alike. */
export function useActions(): Actions {
  const { flow, edits, runs, toasts } = useSession();
  const mayEdit = useMayEdit();
  const instance = useReactFlow<FlowNode, FlowEdge>();
  return useMemo(
    () => ({
      addPicture: () => {
        if (!mayEdit) return;
        const place = freePlace(instance, 320, 400);
        focusText(edits.addPicture(place));
        reveal(instance, place, 320, 400);
      },
      addNote: () => {
        if (!mayEdit) return;
        const place = freePlace(instance, 240, 80);
        focusText(edits.addNote(place));
        reveal(instance, place, 240, 80);
      },
      runSelected: () => {
        const chosen = flow.selected().filter((id) => flow.node(id)?.type === 'image');
        if (mayEdit && chosen.length === 0) toasts.tell('Select a picture to develop.');
        for (const id of chosen) void runs.generate(id);
      },
      deleteSelected: () => {
        const edges = flow.edges.get().filter((edge) => edge.selected === true);
        edits.remove(
          flow.selected(),
          edges.map((edge) => edge.id),
        );
      },
      duplicate: (ids) => {
        if (!mayEdit || ids.length === 0) return;
        const box = instance.getNodesBounds([...ids]);
        const place = placeBeside(instance, box);
        edits.paste(edits.copy(ids), { x: place.x - Math.round(box.x), y: place.y - Math.round(box.y) });
        reveal(instance, place, box.width, box.height);
      },
      selectAll: () => flow.select(new Set(flow.nodes.get().map((node) => node.id))),
      fit: () => void instance.fitView(FIT),
    }),
    [edits, flow, instance, mayEdit, runs, toasts],
  );
}

/** Puts the caret into a node, which may just be being drawn. */
export function focusText(id: string, tries = 20): void {
  const field = document.querySelector<HTMLTextAreaElement>(`[data-node-id="${CSS.escape(id)}"] textarea`);
  // React Flow hides a node until it is measured, and what is hidden takes no focus.
  field?.focus({ preventScroll: true });
  if (document.activeElement !== field && tries > 0) requestAnimationFrame(() => focusText(id, tries - 1));
}
