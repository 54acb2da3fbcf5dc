import type * as Y from 'yjs';

import type { Api, By, RunBody } from '../api/client';
import { Problem } from '../api/http';
import type { Makers } from '../api/records';
import { readNode } from '../document/read';
import { isActive, type NodeData } from '../document/schema';
import { nodesOf, setData, type Json } from '../document/write';
import type { Presence } from '../presence/presence';
import type { Connection } from '../session/connection';
import type { Person } from '../session/identity';
import { COMMAND } from '../session/origin';
import type { Toasts } from '../session/toasts';
import { CellMap, type Cell } from '../store/cell';
import { choiceOf } from './makers';
import { viewOf, type Asked } from './phase';
import { problemWords } from './problems';

/** A node made a moment ago may reach the server after the request for its picture. */
const RETRY_UNKNOWN_MS = [80, 200, 500, 1_000, 2_000];
/** How long "starting" may outlive the server's answer before the document is believed again. */
const SETTLE_MS = 5_000;

/** Asks for pictures: over HTTP while connected, else by an intent in the document that runs on return. */
export class RunCommands {
  readonly asked = new CellMap<Asked>();
  readonly #doc: Y.Doc;
  readonly #api: Api;
  readonly #person: Cell<Person>;
  readonly #makers: Cell<Makers | null>;
  readonly #connection: Cell<Connection>;
  readonly #toasts: Toasts;
  readonly #intents = new Set<string>();

  constructor(parts: {
    doc: Y.Doc;
    api: Api;
    person: Cell<Person>;
    makers: Cell<Makers | null>;
    connection: Cell<Connection>;
    toasts: Toasts;
    presence: Presence;
  }) {
    this.#doc = parts.doc;
    this.#api = parts.api;
    this.#person = parts.person;
    this.#makers = parts.makers;
    this.#connection = parts.connection;
    this.#toasts = parts.toasts;
    parts.presence.refusals.subscribe(() => {
      for (const [id, refusal] of parts.presence.refusals.get()) {
        if (this.#intents.delete(id)) this.#toasts.tell(refusal.message);
      }
    });
  }

  /** Starts a picture in a node, the first or another one. */
  async generate(nodeId: string): Promise<void> {
    const data = this.#data(nodeId);
    if (!this.#connection.get().mayEdit) return;
    if (data === null || viewOf(data, undefined, this.asked.get(nodeId), this.#live).busy) return;
    if (data.prompt.trim() === '') {
      this.#toasts.tell('Write a prompt first.');
      return;
    }
    const { id, name } = this.#person.get();
    const by = { id, name };
    if (!this.#live) {
      this.#intend(nodeId, { after: data.runId, by });
      return;
    }
    const asked: Asked = { kind: 'start', after: data.runId };
    this.asked.set(nodeId, asked);
    try {
      await this.#start(nodeId, this.#body(data, by));
      this.#forgetLater(nodeId, asked);
    } catch (error) {
      this.#forget(nodeId, asked);
      this.#failed(error, nodeId, { after: data.runId, by });
    }
  }

  /** Stops the run of a node, or takes back a wish that was not sent yet. */
  async cancel(nodeId: string): Promise<void> {
    const data = this.#data(nodeId);
    if (data === null || !this.#connection.get().mayEdit) return;
    if (!isActive(data.status) || data.runId === null) {
      if (data.request !== null) this.#write(nodeId, null);
      return;
    }
    const { id, name } = this.#person.get();
    if (!this.#live) {
      this.#intend(nodeId, { cancel: data.runId });
      return;
    }
    const asked: Asked = { kind: 'cancel', runId: data.runId };
    this.asked.set(nodeId, asked);
    try {
      await this.#api.cancel(data.runId, { id, name });
      this.#forgetLater(nodeId, asked);
    } catch (error) {
      this.#forget(nodeId, asked);
      this.#failed(error, nodeId, { cancel: data.runId });
    }
  }

  get #live(): boolean {
    return this.#connection.get().link === 'live';
  }

  async #start(nodeId: string, body: RunBody): Promise<void> {
    for (const pauseMs of RETRY_UNKNOWN_MS) {
      try {
        await this.#api.startRun(nodeId, body);
        return;
      } catch (error) {
        if (!(error instanceof Problem) || error.status !== 404) throw error;
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    }
    await this.#api.startRun(nodeId, body);
  }

  /** The prompt travels along, so that the run draws what its author sees even if the edit is still under way. */
  #body(data: NodeData, by: By): RunBody {
    const { maker, model, size } = choiceOf(this.#makers.get(), data);
    const spec: Record<string, Json> = { basePrompt: data.prompt };
    if (data.params.aspectRatio === null || data.params.size !== null) spec['size'] = size;
    if (data.negativePrompt !== '') spec['negativePrompt'] = data.negativePrompt;
    const provider = data.provider ?? maker?.name;
    const chosen = data.model ?? model?.id;
    return {
      after: data.runId,
      promptSpec: spec,
      by,
      ...(provider === undefined ? {} : { provider }),
      ...(chosen === undefined ? {} : { model: chosen }),
    };
  }

  #failed(error: unknown, nodeId: string, intent: { readonly [key: string]: Json }): void {
    if (!(error instanceof Problem)) throw error;
    // Somebody else was quicker: their picture is coming, which is what was asked for.
    if (error.status === 409) return;
    if (error.status === 0 && !this.#live) this.#intend(nodeId, intent);
    else this.#toasts.tell(problemWords(error, Date.now()));
  }

  #intend(nodeId: string, intent: { readonly [key: string]: Json }): void {
    const id = crypto.randomUUID();
    this.#intents.add(id);
    this.#write(nodeId, { ...intent, id });
  }

  #write(nodeId: string, request: Json): void {
    this.#doc.transact(() => setData(this.#doc, nodeId, 'request', request), COMMAND);
  }

  #data(nodeId: string): NodeData | null {
    return readNode(nodeId, nodesOf(this.#doc).get(nodeId))?.data ?? null;
  }

  #forget(nodeId: string, asked: Asked): void {
    if (this.asked.get(nodeId) === asked) this.asked.set(nodeId, undefined);
  }

  #forgetLater(nodeId: string, asked: Asked): void {
    setTimeout(() => this.#forget(nodeId, asked), SETTLE_MS);
  }
}
