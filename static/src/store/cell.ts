type Listener = () => void;

/** One observable value. */
export class Cell<T> {
  #value: T;
  readonly #listeners = new Set<Listener>();

  constructor(initial: T) {
    this.#value = initial;
  }

  readonly get = (): T => this.#value;

  readonly subscribe = (listener: Listener): Listener => {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };

  set(value: T): void {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const listener of [...this.#listeners]) listener();
  }
}

/** Observable values by key, so that a change of one wakes only those who look at it. */
export class CellMap<V> {
  readonly #values = new Map<string, V>();
  readonly #listeners = new Map<string, Set<Listener>>();

  get(key: string): V | undefined {
    return this.#values.get(key);
  }

  keys(): string[] {
    return [...this.#values.keys()];
  }

  set(key: string, value: V | undefined): void {
    if (Object.is(value, this.#values.get(key))) return;
    if (value === undefined) this.#values.delete(key);
    else this.#values.set(key, value);
    for (const listener of [...(this.#listeners.get(key) ?? [])]) listener();
  }

  subscribe(key: string, listener: Listener): Listener {
    const listeners = this.#listeners.get(key) ?? new Set();
    this.#listeners.set(key, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(key) === listeners) this.#listeners.delete(key);
    };
  }
}
