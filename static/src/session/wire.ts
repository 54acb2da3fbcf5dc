import * as decoding from 'lib0/decoding';
import { WebsocketProvider } from 'y-websocket';
import type * as Y from 'yjs';

import { isFinal, pauseMs } from './closing';
import type { Ledger } from './ledger';

/** Messages of the server's own, which it sends to those who connect with `ack=1` (ARCHITECTURE, "Durable"). */
const DARKROOM = 100;
const DURABLE = 0;
const ACCESS = 1;
const SYNC = 0;
const AUTH = 2;
const STEP_2 = 1;
const UPDATE = 2;
const QUERY_AWARENESS = 3;

/** A connection that lasted this long was a good one. */
const STEADY_MS = 5_000;
/** After such a silence the server is asked for a sign of life: sooner while something is not saved. */
const QUIET_MS = 10_000;
const QUIET_UNSAVED_MS = 2_000;
const ANSWER_MS = 4_000;
const LOOK_MS = 1_000;
/** The stock client waits for `2 ** n * 100` ms or `maxBackoffTime`, whichever is less: with this n, the latter. */
const FAR = 20;

export interface WireOptions {
  readonly url: string;
  readonly room: string;
  readonly params: Record<string, string>;
  readonly ledger: Ledger;
  /** The server said how far own edits are safe, or a new connection began. */
  readonly onLedger: () => void;
  readonly onAccess: (mayEdit: boolean) => void;
}

/** The stock y-websocket client with manners: jitter, close codes, signs of life, and knowledge of what is saved. */
export function openWire(doc: Y.Doc, options: WireOptions): WebsocketProvider {
  const { ledger, onLedger } = options;
  let provider: WebsocketProvider | null = null;
  // Before the provider's own listener: an edit is counted, then sent.
  doc.on('update', (_update: Uint8Array, origin: unknown) => {
    if (origin === provider) return;
    ledger.edited(Date.now());
    onLedger();
  });
  provider = new WebsocketProvider(options.url, options.room, doc, {
    connect: false,
    disableBc: true,
    params: { ...options.params, ack: '1' },
    shouldReconnect: ({ code }) => !isFinal(code),
    WebSocketPolyfill: countingSocket(ledger),
  });
  let lookedOnly = false;
  provider.on('status', ({ status }) => {
    if (status !== 'connecting') return;
    ledger.opened();
    lookedOnly = false;
  });
  provider.messageHandlers[DARKROOM] = (_encoder, decoder, here) => {
    const kind = decoding.readVarUint(decoder);
    const value = decoding.readVarUint(decoder);
    if (kind === DURABLE) ledger.acknowledged(value);
    if (kind === ACCESS) {
      options.onAccess(value === 1);
      // An edit that was refused meanwhile is not asked for again before a new connection begins.
      if (lookedOnly && value === 1) reconnect(here);
      lookedOnly = value !== 1;
    }
    onLedger();
  };
  // The stock client warns on the console. What is refused for good is told by ACCESS or a close code; a cursor that is
  // held back until an old connection of this very page is found dead concerns nobody.
  provider.messageHandlers[AUTH] = () => {};
  paceRetries(provider);
  watchPulse(provider, ledger);
  provider.connect();
  return provider;
}

/** Counts messages with an update just as the server does. */
function countingSocket(ledger: Ledger): typeof WebSocket {
  return class extends WebSocket {
    override send(data: string | ArrayBufferLike | Blob | ArrayBufferView<ArrayBufferLike>): void {
      super.send(data as Parameters<WebSocket['send']>[0]);
      if (!(data instanceof Uint8Array) || data[0] !== SYNC) return;
      if (data[1] === STEP_2 || data[1] === UPDATE) ledger.sent(data[1] === STEP_2);
    }
  };
}

function paceRetries(provider: WebsocketProvider): void {
  let failures = 0;
  let steady: ReturnType<typeof setTimeout> | undefined;
  provider.on('sync', (synced: boolean) => {
    clearTimeout(steady);
    if (synced) steady = setTimeout(() => (failures = 0), STEADY_MS);
  });
  provider.on('connection-close', (event) => {
    clearTimeout(steady);
    provider.maxBackoffTime = pauseMs(failures, event?.code ?? null, Math.random());
    provider.wsUnsuccessfulReconnects = FAR;
    failures += 1;
  });
}

/** A cut cable closes nothing: a connection that does not answer is given up and made anew. */
function watchPulse(provider: WebsocketProvider, ledger: Ledger): void {
  let askedAt: number | null = null;
  setInterval(() => {
    const { ws, wsconnected, wsLastMessageReceived: heardAt } = provider;
    const now = Date.now();
    if (!wsconnected || ws === null || (askedAt !== null && heardAt >= askedAt)) askedAt = null;
    if (!wsconnected || ws === null) return;
    if (askedAt !== null) {
      if (now - askedAt >= ANSWER_MS) reconnect(provider);
    } else if (now - heardAt >= (ledger.waiting > 0 ? QUIET_UNSAVED_MS : QUIET_MS)) {
      askedAt = now;
      ws.send(new Uint8Array([QUERY_AWARENESS]));
    }
  }, LOOK_MS);
}

/** Gives up a connection that may be dead without knowing it, and tries another one at once. */
export function reconnect(provider: WebsocketProvider): void {
  provider.disconnect();
  provider.connect();
}
