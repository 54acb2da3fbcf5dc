/** Edits are timed in steps of this length, so that hours offline stay few entries. */
const STEP_MS = 500;
/** Messages without an answer that are told apart; more are taken together. */
const MOST_MESSAGES = 1_000;
const MOST_STEPS = 10_000;

interface Mark {
  /** Own edits up to here ... */
  edits: number;
  /** ... are in this message of the connection, or were made since this moment. */
  readonly at: number;
}

/**
 * Counts own edits until the server has them safe.
 *
 * The server numbers the sync messages with an update that it gets over a connection and says how many of them are
 * committed. Which edits those hold is known here only: nothing of a connection counts before its first whole answer
 * (sync step 2), which brings whatever the server lacks; from there on each message holds the edits made until then.
 */
export class Ledger {
  #made = 0;
  #durable = 0;
  #messages = 0;
  #whole = false;
  #sent: Mark[] = [];
  #steps: Mark[] = [];

  /** Own edits that a crash of the server could still take back, or that never left this page. */
  get waiting(): number {
    return this.#made - this.#durable;
  }

  /** When the oldest of them was made; null when there are none. */
  get since(): number | null {
    return this.#steps[0]?.at ?? null;
  }

  /** An own edit was made, before it is sent. */
  edited(now: number): void {
    this.#made += 1;
    const last = this.#steps.at(-1);
    if (last !== undefined && (now - last.at < STEP_MS || this.#steps.length >= MOST_STEPS)) last.edits = this.#made;
    else this.#steps.push({ edits: this.#made, at: now });
  }

  /** A new connection: its messages are counted from one. */
  opened(): void {
    this.#messages = 0;
    this.#whole = false;
    this.#sent = [];
  }

  /** A message with an update left over this connection. */
  sent(whole: boolean): void {
    this.#messages += 1;
    this.#whole ||= whole;
    if (!this.#whole) return;
    if (this.#sent.length >= MOST_MESSAGES) this.#sent.pop();
    this.#sent.push({ edits: this.#made, at: this.#messages });
  }

  /** The server has the first so many messages of this connection safe. */
  acknowledged(messages: number): void {
    let covered = 0;
    while (covered < this.#sent.length && this.#sent[covered]!.at <= messages) covered += 1;
    const last = this.#sent[covered - 1];
    if (last === undefined) return;
    this.#sent.splice(0, covered);
    this.#durable = Math.max(this.#durable, last.edits);
    const open = this.#steps.findIndex((step) => step.edits > this.#durable);
    this.#steps.splice(0, open === -1 ? this.#steps.length : open);
  }
}
