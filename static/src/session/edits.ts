import type * as Y from 'yjs';

import type { FlowBinding } from '../binding/flow';
import { freshPiece, takePiece, type Piece } from '../document/copy';
import type { Point } from '../document/schema';
import { addEdge, addNode, metaOf, setData, setParam, sharedText, type Json, type NewNode } from '../document/write';
import type { History } from './history';
import { LOCAL } from './origin';

const newId = (): string => crypto.randomUUID();

/** What a new picture starts with: the maker and size last chosen on this page. */
export interface Taste {
  provider?: string;
  model?: string;
  size?: string;
}

/** One's own edits of the canvas; each is one step of undo. */
export class CanvasEdits {
  readonly #doc: Y.Doc;
  readonly #flow: FlowBinding;
  readonly #history: History;
  readonly #mayEdit: () => boolean;
  readonly #taste: Taste = {};

  constructor(parts: { doc: Y.Doc; flow: FlowBinding; history: History; mayEdit: () => boolean }) {
    this.#doc = parts.doc;
    this.#flow = parts.flow;
    this.#history = parts.history;
    this.#mayEdit = parts.mayEdit;
  }

  addPicture(position: Point, prompt = ''): string {
    const { provider, model, size } = this.#taste;
    const data: Record<string, Json> = { prompt, params: size === undefined ? {} : { size } };
    if (provider !== undefined) data['provider'] = provider;
    if (model !== undefined) data['model'] = model;
    return this.#add({ id: newId(), type: 'image', position, data });
  }

  addNote(position: Point): string {
    return this.#add({ id: newId(), type: 'note', position, data: { text: '' } });
  }

  connect(source: string, target: string): void {
    const same = this.#flow.edges.get().some((edge) => edge.source === source && edge.target === target);
    if (source === target || same) return;
    this.#step(() => addEdge(this.#doc, { id: newId(), source, target }));
  }

  remove(nodes: readonly string[], edges: readonly string[]): void {
    if (this.#mayEdit() && (nodes.length > 0 || edges.length > 0)) this.#flow.remove(new Set(nodes), new Set(edges));
  }

  copy(ids: readonly string[]): Piece {
    return takePiece(this.#doc, new Set(ids));
  }

  paste(piece: Piece, offset: Point): void {
    const fresh = freshPiece(piece, offset, newId);
    if (fresh.nodes.length === 0) return;
    this.#step(() => {
      for (const node of fresh.nodes) addNode(this.#doc, node);
      for (const edge of fresh.edges) addEdge(this.#doc, edge);
    });
    this.#flow.select(new Set(fresh.nodes.map((node) => node.id)));
  }

  chooseMaker(id: string, provider: string, model: string, size: string): void {
    Object.assign(this.#taste, { provider, model });
    this.#step(() => {
      setData(this.#doc, id, 'provider', provider);
      setData(this.#doc, id, 'model', model);
      setParam(this.#doc, id, 'size', size);
    });
  }

  chooseSize(id: string, size: string): void {
    this.#taste.size = size;
    this.#step(() => setParam(this.#doc, id, 'size', size));
  }

  /** Replaces the prompt of a node, as one step however different the two are. */
  writePrompt(id: string, prompt: string): void {
    this.#step(() => {
      const text = sharedText(this.#doc, id, 'prompt');
      text?.delete(0, text.length);
      text?.insert(0, prompt);
    });
  }

  entitle(title: string): void {
    if (this.#mayEdit()) this.#doc.transact(() => metaOf(this.#doc).set('title', title), LOCAL);
  }

  #add(node: NewNode): string {
    this.#step(() => addNode(this.#doc, node));
    this.#flow.select(new Set([node.id]));
    this.#flow.catchUp();
    return node.id;
  }

  /** Of somebody who may only look nothing is written: the server would refuse it, and the screen would lie. */
  #step(write: () => void): void {
    if (!this.#mayEdit()) return;
    this.#history.cut();
    this.#doc.transact(write, LOCAL);
    this.#history.cut();
  }
}
