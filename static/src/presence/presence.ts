import type { Awareness } from 'y-protocols/awareness';

import type { Point } from '../document/schema';
import type { Person } from '../session/identity';
import { Cell, CellMap } from '../store/cell';
import { readPeer, readServerState, sameProgress, type Peer, type Refusal, type RunProgress } from './states';

const CURSOR_INTERVAL_MS = 50;

/** Who else is here and what the server is making, from the awareness states of all peers. */
export class Presence {
  /** One entry per open page of somebody else; changes with every cursor, so React only sees `people`. */
  readonly peers = new Map<number, Peer>();
  readonly people = new Cell<readonly Peer[]>([]);
  /** Others who have a node selected, by node. */
  readonly selecting = new CellMap<readonly Peer[]>();
  /** Runs in the making, by node. */
  readonly runs = new CellMap<RunProgress>();
  /** All of them; changes whenever one does. */
  readonly allRuns = new Cell<ReadonlyMap<string, RunProgress>>(new Map());
  readonly refusals = new Cell<ReadonlyMap<string, Refusal>>(new Map());
  readonly #awareness: Awareness;
  readonly #watchers = new Set<(peers: ReadonlyMap<number, Peer>) => void>();
  #cursor: Point | null = null;
  #cursorTimer: ReturnType<typeof setTimeout> | null = null;

  constructor(awareness: Awareness, person: Cell<Person>) {
    this.#awareness = awareness;
    const announce = (): void => {
      const { id, name, color } = person.get();
      awareness.setLocalStateField('user', { id, name, color });
    };
    awareness.setLocalState({ user: person.get(), cursor: null, selection: [], mode: 'edit' });
    person.subscribe(announce);
    awareness.on('change', () => this.#read());
    this.#read();
  }

  /** Tells the others whether this page may change anything. */
  tellMode(mayEdit: boolean): void {
    this.#awareness.setLocalStateField('mode', mayEdit ? 'edit' : 'view');
  }

  /** Calls back at every change of any cursor, outside of React. */
  watch(watcher: (peers: ReadonlyMap<number, Peer>) => void): () => void {
    this.#watchers.add(watcher);
    watcher(this.peers);
    return () => void this.#watchers.delete(watcher);
  }

  point(cursor: Point | null): void {
    if (cursor === null && this.#cursor === null) return;
    this.#cursor = cursor && { x: Math.round(cursor.x * 10) / 10, y: Math.round(cursor.y * 10) / 10 };
    if (this.#cursorTimer !== null) return;
    this.#tellCursor();
    this.#cursorTimer = setTimeout(() => {
      this.#cursorTimer = null;
      this.#tellCursor();
    }, CURSOR_INTERVAL_MS);
  }

  select(ids: readonly string[]): void {
    const now: unknown = this.#awareness.getLocalState()?.['selection'];
    if (Array.isArray(now) && now.length === ids.length && ids.every((id, index) => now[index] === id)) return;
    this.#awareness.setLocalStateField('selection', ids);
  }

  #tellCursor(): void {
    if (this.#awareness.getLocalState()?.['cursor'] === this.#cursor) return;
    this.#awareness.setLocalStateField('cursor', this.#cursor);
  }

  #read(): void {
    const runs = new Map<string, RunProgress>();
    const refusals = new Map<string, Refusal>();
    this.peers.clear();
    for (const [clientId, state] of this.#awareness.getStates()) {
      if (clientId === this.#awareness.clientID) continue;
      const server = readServerState(state);
      if (server !== null) {
        for (const [nodeId, run] of server.runs) runs.set(nodeId, run);
        for (const [id, refusal] of server.refusals) refusals.set(id, refusal);
        continue;
      }
      const peer = readPeer(clientId, state);
      if (peer !== null) this.peers.set(clientId, peer);
    }
    this.#tellRuns(runs);
    this.#tellPeople();
    if (refusals.size > 0 || this.refusals.get().size > 0) this.refusals.set(refusals);
    for (const watcher of this.#watchers) watcher(this.peers);
  }

  #tellRuns(runs: ReadonlyMap<string, RunProgress>): void {
    let news = false;
    const tell = (nodeId: string, run: RunProgress | undefined): void => {
      news = true;
      this.runs.set(nodeId, run);
    };
    for (const nodeId of this.runs.keys()) if (!runs.has(nodeId)) tell(nodeId, undefined);
    for (const [nodeId, run] of runs) if (!sameProgress(this.runs.get(nodeId), run)) tell(nodeId, run);
    if (news) this.allRuns.set(runs);
  }

  #tellPeople(): void {
    const byPerson = new Map<string, Peer>();
    const byNode = new Map<string, Peer[]>();
    for (const peer of this.peers.values()) {
      if (!byPerson.has(peer.id) || peer.cursor !== null) byPerson.set(peer.id, peer);
      for (const nodeId of peer.selection) byNode.set(nodeId, [...(byNode.get(nodeId) ?? []), peer]);
    }
    const people = [...byPerson.values()];
    if (!sameFaces(people, this.people.get())) this.people.set(people);
    for (const nodeId of this.selecting.keys()) if (!byNode.has(nodeId)) this.selecting.set(nodeId, undefined);
    for (const [nodeId, peers] of byNode) {
      if (!sameFaces(peers, this.selecting.get(nodeId) ?? [])) this.selecting.set(nodeId, peers);
    }
  }
}

function sameFaces(a: readonly Peer[], b: readonly Peer[]): boolean {
  return (
    a.length === b.length &&
    a.every((peer, index) => {
      const other = b[index];
      return (
        other !== undefined &&
        peer.clientId === other.clientId &&
        peer.name === other.name &&
        peer.color === other.color &&
        (peer.cursor === null) === (other.cursor === null)
      );
    })
  );
}
