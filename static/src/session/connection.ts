import type { WebsocketProvider } from 'y-websocket';
import type * as Y from 'yjs';

import { Cell } from '../store/cell';

export type Link = 'connecting' | 'live' | 'offline' | 'refused';

export interface Connection {
  readonly link: Link;
  /** Own edits made since the connection was lost; they are sent once it is back. */
  readonly unsent: number;
  /** Whether the canvas was ever received, so that an empty one is known to be empty. */
  readonly seen: boolean;
}

/** How long a first connection may take before the page says that there is none. */
const PATIENCE_MS = 4_000;

/** Watches the websocket and counts what waits for it. */
export function watchConnection(doc: Y.Doc, provider: WebsocketProvider): Cell<Connection> {
  const cell = new Cell<Connection>({ link: 'connecting', unsent: 0, seen: false });
  const patch = (change: Partial<Connection>): void => cell.set({ ...cell.get(), ...change });
  const lose = (): void => {
    if (cell.get().link !== 'refused') patch({ link: 'offline' });
  };

  provider.on('sync', (synced: boolean) => {
    if (synced) patch({ link: 'live', unsent: 0, seen: true });
  });
  provider.on('status', ({ status }) => {
    if (status === 'disconnected') lose();
  });
  provider.on('connection-error', lose);
  provider.on('closed', () => patch({ link: 'refused' }));
  doc.on('update', (_update: Uint8Array, origin: unknown) => {
    if (origin !== provider && cell.get().link !== 'live') patch({ unsent: cell.get().unsent + 1 });
  });
  setTimeout(() => {
    if (cell.get().link === 'connecting') lose();
  }, PATIENCE_MS);

  // A laptop that wakes up or a phone that leaves a tunnel need not wait for the next attempt.
  window.addEventListener('online', () => {
    if (!provider.wsconnected && cell.get().link !== 'refused') provider.connect();
  });
  // A dead connection may look alive for long. Asking anew tells; a server on this very machine answers at once.
  window.addEventListener('offline', () => {
    if (cell.get().link === 'refused') return;
    provider.disconnect();
    provider.connect();
  });
  return cell;
}
