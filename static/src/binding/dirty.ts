import type * as Y from 'yjs';

/** How much of a node changed: only where it stands, or anything. */
export type Extent = 'position' | 'all';

export type Dirty = Map<string, Extent>;

/**
 * Notes which nodes the events of one transaction touched.
 *
 * Args:
 *   echo: The transaction is this tab's own, so positions are on screen already.
 */
export function noteDirty(dirty: Dirty, events: readonly Y.YEvent<Y.AbstractType<unknown>>[], echo: boolean): void {
  for (const event of events) {
    const id = event.path[0];
    if (id === undefined) {
      for (const changed of event.changes.keys.keys()) dirty.set(changed, 'all');
    } else if (event.path.length === 1 && onlyPosition(event)) {
      if (!echo && !dirty.has(String(id))) dirty.set(String(id), 'position');
    } else {
      dirty.set(String(id), 'all');
    }
  }
}

function onlyPosition(event: Y.YEvent<Y.AbstractType<unknown>>): boolean {
  const keys = [...event.changes.keys.keys()];
  return keys.length === 1 && keys[0] === 'position';
}
