import * as Y from 'yjs';

import { Cell } from '../store/cell';
import { LOCAL } from './origin';

const TYPING_PAUSE_MS = 500;

export interface Steps {
  readonly undo: boolean;
  readonly redo: boolean;
}

/** Undo and redo of one's own edits; a gesture is one step however long it takes. */
export class History {
  readonly steps = new Cell<Steps>({ undo: false, redo: false });
  readonly #manager: Y.UndoManager;
  #gestures = 0;

  constructor(scope: Y.AbstractType<unknown>[]) {
    this.#manager = new Y.UndoManager(scope, {
      trackedOrigins: new Set([LOCAL]),
      captureTimeout: TYPING_PAUSE_MS,
    });
    for (const event of ['stack-item-added', 'stack-item-popped', 'stack-cleared'] as const) {
      this.#manager.on(event, () => this.#tell());
    }
  }

  /** Whatever follows is a step of its own. */
  cut(): void {
    if (this.#gestures === 0) this.#manager.stopCapturing();
  }

  begin(): void {
    this.cut();
    this.#gestures += 1;
    this.#manager.captureTimeout = Number.MAX_SAFE_INTEGER;
  }

  end(): void {
    this.#gestures = Math.max(0, this.#gestures - 1);
    if (this.#gestures > 0) return;
    this.#manager.captureTimeout = TYPING_PAUSE_MS;
    this.#manager.stopCapturing();
  }

  undo(): void {
    this.#manager.undo();
  }

  redo(): void {
    this.#manager.redo();
  }

  #tell(): void {
    const undo = this.#manager.canUndo();
    const redo = this.#manager.canRedo();
    const now = this.steps.get();
    if (now.undo !== undo || now.redo !== redo) this.steps.set({ undo, redo });
  }
}
