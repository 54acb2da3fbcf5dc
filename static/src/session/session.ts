import * as Y from 'yjs';
import { WebsocketProvider } from 'y-websocket';

import { Api } from '../api/client';
import type { Makers } from '../api/records';
import { accessToken } from '../api/token';
import { FlowBinding } from '../binding/flow';
import { edgesOf, metaOf, nodesOf } from '../document/write';
import { Presence } from '../presence/presence';
import { RunCommands } from '../runs/commands';
import { Cell } from '../store/cell';
import { watchConnection, type Connection } from './connection';
import { CanvasEdits } from './edits';
import { History } from './history';
import { loadPerson, type Person } from './identity';
import { Toasts } from './toasts';

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
  readonly person: Cell<Person>;
  readonly makers: Cell<Makers | null>;
  readonly runs: RunCommands;
  readonly toasts: Toasts;
}

export function openSession(workflowId: string): Session {
  const doc = new Y.Doc();
  const token = accessToken();
  const provider = new WebsocketProvider(socketOrigin(), workflowId, doc, {
    disableBc: true,
    params: token === null ? {} : { token },
  });
  const toasts = new Toasts();
  const api = new Api(workflowId);
  const person = loadPerson();
  const connection = watchConnection(doc, provider);
  const presence = new Presence(provider.awareness, person);
  const history = new History([nodesOf(doc), edgesOf(doc)] as unknown as Y.AbstractType<unknown>[]);
  const flow = new FlowBinding(doc, history);
  const makers = loadMakers(api, connection);
  const edits = new CanvasEdits({ doc, flow, history });
  const runs = new RunCommands({ doc, api, person, makers, connection, toasts, presence });
  metaOf(doc);
  return { workflowId, doc, api, flow, edits, history, presence, connection, person, makers, runs, toasts };
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
  let live = false;
  connection.subscribe(() => {
    const now = connection.get().link === 'live';
    if (now && !live && makers.get() === null) load();
    live = now;
  });
  return makers;
}
