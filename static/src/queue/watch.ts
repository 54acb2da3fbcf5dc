import type { QueueState } from '../api/queue';
import type { RunProgress } from '../presence/states';
import { Cell } from '../store/cell';

const LEAST_MS = 1_000;

/**
 * What the server says of its queue, asked for only when something hints at news: a run that is held, one that no
 * longer is, the connection that came back, somebody who looks. One question at a time, at most one a second.
 */
export class QueueWatch {
  readonly state = new Cell<QueueState | null>(null);
  readonly #ask: () => Promise<QueueState>;
  #asking = false;
  #again = false;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #held = '';

  constructor(ask: () => Promise<QueueState>) {
    this.#ask = ask;
  }

  /** Runs were told anew: asks when what holds them has changed. */
  heard(runs: ReadonlyMap<string, RunProgress>): void {
    const held = [...new Set([...runs.values()].map((run) => run.held).filter((why) => why !== null))].sort().join();
    if (held === this.#held) return;
    this.#held = held;
    this.refresh();
  }

  refresh(): void {
    if (this.#asking || this.#timer !== null) {
      this.#again = true;
      return;
    }
    this.#asking = true;
    this.#ask().then(
      (state) => this.#told(state),
      // Without it the page only knows less about waiting; the next hint asks again.
      () => this.#told(null),
    );
  }

  #told(state: QueueState | null): void {
    this.#asking = false;
    if (state !== null) this.state.set(state);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (!this.#again) return;
      this.#again = false;
      this.refresh();
    }, LEAST_MS);
  }
}
