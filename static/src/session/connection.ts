import type { WebsocketProvider } from 'y-websocket';

import { Cell } from '../store/cell';
import type { Closing } from './closing';
import { reconnect } from './wire';

export type Link = 'connecting' | 'live' | 'offline' | 'refused';

export interface Connection {
  readonly link: Link;
  /** Whether the canvas was ever received, so that an empty one is known to be empty. */
  readonly seen: boolean;
  /** Whether the server takes edits from here. */
  readonly mayEdit: boolean;
  /** Why the server let this page go for good; it is there while `link` is `refused`. */
  readonly refusal: Closing | null;
}

/** How long a first connection may take before the page says that there is none. */
const PATIENCE_MS = 4_000;

export const UNKNOWN: Connection = { link: 'connecting', seen: false, mayEdit: true, refusal: null };

/** Watches the websocket. */
export function watchConnection(cell: Cell<Connection>, provider: WebsocketProvider): void {
  const patch = (change: Partial<Connection>): void => cell.set({ ...cell.get(), ...change });
  const lose = (): void => {
    if (cell.get().link !== 'refused') patch({ link: 'offline' });
  };

  provider.on('sync', (synced: boolean) => {
    if (synced) patch({ link: 'live', seen: true, refusal: null });
  });
  provider.on('status', ({ status }) => {
    if (status === 'disconnected') lose();
    // Only somebody who brought another token tries again after a refusal.
    if (status === 'connecting' && cell.get().link === 'refused') patch({ link: 'connecting' });
  });
  provider.on('connection-error', lose);
  provider.on('closed', (refusal) => patch({ link: 'refused', refusal }));
  setTimeout(() => {
    if (cell.get().link === 'connecting') lose();
  }, PATIENCE_MS);

  // A laptop that wakes up or a phone that leaves a tunnel need not wait for the next attempt.
  const hurry = (): void => {
    if (!provider.wsconnected && cell.get().link !== 'refused') provider.connect();
  };
  window.addEventListener('online', hurry);
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') hurry();
  });
  // A dead connection may look alive for long. Asking anew tells; a server on this very machine answers at once.
  window.addEventListener('offline', () => {
    if (cell.get().link !== 'refused') reconnect(provider);
  });
}
