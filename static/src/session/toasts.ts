import { Cell } from '../store/cell';

export interface Toast {
  readonly id: number;
  readonly text: string;
}

const SHOWN_MS = 8_000;
const MOST = 3;

/** Short messages about one's own failures, and a quieter voice for screen readers. */
export class Toasts {
  readonly list = new Cell<readonly Toast[]>([]);
  readonly announced = new Cell('');
  #next = 0;

  tell(text: string): void {
    if (this.list.get().some((toast) => toast.text === text)) return;
    const toast = { id: this.#next++, text };
    this.list.set([...this.list.get(), toast].slice(-MOST));
    setTimeout(() => this.dismiss(toast.id), SHOWN_MS);
  }

  dismiss(id: number): void {
    this.list.set(this.list.get().filter((toast) => toast.id !== id));
  }

  /** Says something to screen readers only. */
  announce(text: string): void {
    this.announced.set(text);
  }
}
