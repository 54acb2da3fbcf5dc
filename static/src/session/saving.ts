import { Cell } from '../store/cell';
import type { Ledger } from './ledger';

/** `saving` is how it should be for a moment; `unsaved` is longer than that. */
export type SavingState = 'saved' | 'saving' | 'unsaved';

export interface Saving {
  readonly state: SavingState;
  /** Own edits that are not safe yet. */
  readonly waiting: number;
  /** When the oldest of them was made (ms). */
  readonly since: number | null;
}

/** A commit takes a tenth of this; whoever reads words that come and go faster learns nothing. */
export const SAVING_AFTER_MS = 400;
export const UNSAVED_AFTER_MS = 2_000;

export function savingOf(ledger: Pick<Ledger, 'waiting' | 'since'>, now: number): Saving {
  const { waiting, since } = ledger;
  const age = since === null ? 0 : now - since;
  const late = age >= UNSAVED_AFTER_MS ? 'unsaved' : 'saving';
  return { waiting, since, state: waiting === 0 || age < SAVING_AFTER_MS ? 'saved' : late };
}

/** Whether what was done here is safe, for everyone to see; `look` after anything that may change it. */
export class SavingWatch {
  readonly cell = new Cell<Saving>({ state: 'saved', waiting: 0, since: null });
  readonly #ledger: Ledger;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
    this.cell.subscribe(() => this.#guard());
  }

  look(): void {
    const now = Date.now();
    const next = savingOf(this.#ledger, now);
    const known = this.cell.get();
    if (next.state !== known.state || next.waiting !== known.waiting || next.since !== known.since) this.cell.set(next);
    if (this.#timer !== null || next.since === null || next.state === 'unsaved') return;
    const due = next.since + (next.state === 'saved' ? SAVING_AFTER_MS : UNSAVED_AFTER_MS);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.look();
    }, Math.max(0, due - now));
  }

  /** Leaving the page now would lose something: the browser asks. Only then, since asking has a price. */
  #guard(): void {
    if (this.cell.get().waiting > 0) window.addEventListener('beforeunload', ask);
    else window.removeEventListener('beforeunload', ask);
  }
}

function ask(event: BeforeUnloadEvent): void {
  event.preventDefault();
}
