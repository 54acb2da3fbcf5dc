import { useCallback, useSyncExternalStore } from 'react';

import type { Cell, CellMap } from './cell';

export function useCell<T>(cell: Cell<T>): T {
  return useSyncExternalStore(cell.subscribe, cell.get);
}

export function useCellOf<V>(cells: CellMap<V>, key: string): V | undefined {
  const subscribe = useCallback((listener: () => void) => cells.subscribe(key, listener), [cells, key]);
  return useSyncExternalStore(subscribe, () => cells.get(key));
}
