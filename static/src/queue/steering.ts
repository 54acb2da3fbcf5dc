import type { Api, By } from '../api/client';
import { Problem } from '../api/http';
import { problemWords } from '../runs/problems';
import type { Connection } from '../session/connection';
import type { Person } from '../session/identity';
import type { Toasts } from '../session/toasts';
import type { Cell } from '../store/cell';
import { pictures } from '../ui/words';
import type { QueueWatch } from './watch';

const MOST_ROUNDS = 20;

/** What people may do to runs besides starting and cancelling one; each says what became of it. */
export class Steering {
  readonly #api: Api;
  readonly #person: Cell<Person>;
  readonly #connection: Cell<Connection>;
  readonly #toasts: Toasts;
  readonly #queue: QueueWatch;

  constructor(parts: {
    api: Api;
    person: Cell<Person>;
    connection: Cell<Connection>;
    toasts: Toasts;
    queue: QueueWatch;
  }) {
    this.#api = parts.api;
    this.#person = parts.person;
    this.#connection = parts.connection;
    this.#toasts = parts.toasts;
    this.#queue = parts.queue;
  }

  async cancelAll(only: 'waiting' | null): Promise<void> {
    await this.#act(async (by) => {
      let count = 0;
      // The server answers after some seconds, and says what it has not come to.
      for (let round = 0; round < MOST_ROUNDS; round += 1) {
        const { cancelled, remaining } = await this.#api.cancelAll(only, by);
        count += cancelled;
        if (cancelled === 0 || remaining === 0) break;
      }
      return count === 0 ? 'Nothing was left to cancel.' : `Cancelled ${pictures(count)}.`;
    });
  }

  async next(runId: string): Promise<void> {
    await this.#act(async () => {
      await this.#api.move(runId, 'front');
      return 'Moved to the front of the line.';
    });
  }

  async pause(): Promise<void> {
    await this.#act(async (by) => {
      await this.#api.pause(by);
      return 'Paused. New pictures of this canvas wait.';
    });
    this.#queue.refresh();
  }

  async resume(): Promise<void> {
    await this.#act(async () => {
      await this.#api.resume();
      return 'Resumed.';
    });
    this.#queue.refresh();
  }

  /** Asks again for what a run was asked for, in its node. */
  async again(runId: string): Promise<boolean> {
    return this.#act(async (by) => {
      await this.#api.retry(runId, by);
      return 'Asked for again.';
    });
  }

  /** Puts the picture of an earlier run back. */
  async use(nodeId: string, runId: string): Promise<boolean> {
    return this.#act(async (by) => {
      await this.#api.use(nodeId, runId, by);
      return 'The earlier picture is back.';
    });
  }

  async #act(action: (by: By) => Promise<string>): Promise<boolean> {
    const { link, mayEdit } = this.#connection.get();
    if (!mayEdit) return false;
    if (link !== 'live') {
      this.#toasts.tell('This needs the server. Try again once you are back.');
      return false;
    }
    const { id, name } = this.#person.get();
    try {
      this.#toasts.announce(await action({ id, name }));
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#toasts.tell(problemWords(error, Date.now()));
      return false;
    }
  }
}
