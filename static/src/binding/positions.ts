import type { Point } from '../document/schema';

type Write = (positions: ReadonlyMap<string, Point>) => void;

/** Collects positions and writes them at most once per interval, the first at once and the last always. */
export class PositionWriter {
  readonly #write: Write;
  readonly #intervalMs: number;
  #waiting = new Map<string, Point>();
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(write: Write, intervalMs = 50) {
    this.#write = write;
    this.#intervalMs = intervalMs;
  }

  put(id: string, position: Point): void {
    this.#waiting.set(id, position);
    if (this.#timer !== null) return;
    // Changes of one pointer move arrive together; the microtask lets them all into the first write.
    queueMicrotask(() => {
      if (this.#timer === null) this.#beat();
    });
  }

  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#send();
  }

  #beat(): void {
    if (this.#waiting.size === 0) return;
    this.#send();
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#beat();
    }, this.#intervalMs);
  }

  #send(): void {
    if (this.#waiting.size === 0) return;
    const positions = this.#waiting;
    this.#waiting = new Map();
    this.#write(positions);
  }
}
