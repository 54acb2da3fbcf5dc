import * as Y from 'yjs';

import { Api } from '../api/client';
import type { Makers } from '../api/records';
import { accessToken, changeToken } from '../api/token';
import { FlowBinding } from '../binding/flow';
import { edgesOf, metaOf, nodesOf } from '../document/write';
import { Presence } from '../presence/presence';
import { Steering } from '../queue/steering';
import { QueueWatch } from '../queue/watch';
import { watchWork, type Work } from '../queue/work';
import { RunCommands } from '../runs/commands';
import { Cell } from '../store/cell';
import { UNKNOWN, watchConnection, type Connection } from './connection';
import { CanvasEdits } from './edits';
import { History } from './history';
import { loadPerson, type Person } from './identity';
import { Ledger } from './ledger';
import { SavingWatch, type Saving } from './saving';
import { Toasts } from './toasts';
import { openWire } from './wire';

/** Everything one open canvas consists of; made once per page, outside of React. */
export interface Session {
  readonly workflowId: string;
  readonly doc: Y.Doc;
  readonly api: Api;
  readonly flow: FlowBinding;
  readonly edits: CanvasEdits;
  readonly history: History;
  readonly presence: Presence;
  readonly connection: Cell<Connection>;
  readonly saving: Cell<Saving>;
  readonly person: Cell<Person>;
  readonly makers: Cell<Makers | null>;
  readonly runs: RunCommands;
  /** Unfinished runs of the canvas. */
  readonly work: Cell<readonly Work[]>;
  readonly queue: QueueWatch;
  readonly steering: Steering;
  readonly toasts: Toasts;
  /** Tries to connect now, with another token if there is one. */
  retry(token?: string): void;
}

export function openSession(workflowId: string): Session {
  const doc = new Y.Doc();
  const token = accessToken();
  const connection = new Cell<Connection>(UNKNOWN);
  const ledger = new Ledger();
  const saving = new SavingWatch(ledger);
  const provider = openWire(doc, {
    url: socketOrigin(),
    room: workflowId,
    params: token === null ? {} : { token },
    ledger,
    onLedger: () => saving.look(),
    onAccess: (mayEdit) => {
      connection.set({ ...connection.get(), mayEdit });
      presence.tellMode(mayEdit);
    },
  });
  watchConnection(connection, provider);
  const toasts = new Toasts();
  const api = new Api(workflowId);
  const person = loadPerson();
  const presence = new Presence(provider.awareness, person);
  const mayEdit = (): boolean => connection.get().mayEdit;
  const history = new History([nodesOf(doc), edgesOf(doc)] as unknown as Y.AbstractType<unknown>[]);
  const flow = new FlowBinding(doc, history);
  const makers = loadMakers(api, connection);
  const edits = new CanvasEdits({ doc, flow, history, mayEdit });
  const runs = new RunCommands({ doc, api, person, makers, connection, toasts, presence });
  const queue = watchQueue(api, connection, presence);
  const steering = new Steering({ api, person, connection, toasts, queue });
  const work = watchWork(flow.nodes, presence);
  metaOf(doc);
  const retry = (next?: string): void => {
    if (next !== undefined) provider.params = { ...provider.params, token: changeToken(next) };
    provider.connect();
  };
  return {
    ...{ workflowId, doc, api, flow, edits, history, presence, person, makers, runs, toasts },
    ...{ connection, saving: saving.cell, retry, work, queue, steering },
  };
}

function socketOrigin(): string {
  const { protocol, host } = window.location;
  return `${protocol === 'https:' ? 'wss:' : 'ws:'}//${host}/ws`;
}

/** What the server can make pictures with; asked again whenever the connection comes back. */
function loadMakers(api: Api, connection: Cell<Connection>): Cell<Makers | null> {
  const makers = new Cell<Makers | null>(null);
  const load = (): void => {
    api.makers().then(
      (found) => makers.set(found),
      // The pictures on the canvas need no makers; the next connection asks again.
      () => undefined,
    );
  };
  load();
  onceLive(connection, () => {
    if (makers.get() === null) load();
  });
  return makers;
}

/** What holds runs back; somebody may have paused the canvas while this page was away. */
function watchQueue(api: Api, connection: Cell<Connection>, presence: Presence): QueueWatch {
  const queue = new QueueWatch(() => api.queue());
  onceLive(connection, () => queue.refresh());
  presence.allRuns.subscribe(() => queue.heard(presence.allRuns.get()));
  return queue;
}

/** Calls back each time the connection is made. */
function onceLive(connection: Cell<Connection>, act: () => void): void {
  let live = false;
  connection.subscribe(() => {
    const now = connection.get().link === 'live';
    if (now && !live) act();
    live = now;
  });
}
