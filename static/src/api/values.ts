/** Narrow readers of what HTTP answers hold, besides those of the document. */

/** A moment in ISO 8601 as milliseconds since the epoch. */
export function timeOf(value: unknown): number | null {
  const time = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(time) ? null : time;
}

/** Those of a list that can be read; nothing of anything else. */
export function listOf<V>(value: unknown, read: (item: unknown) => V | null): V[] {
  if (!Array.isArray(value)) return [];
  return value.map((item: unknown) => read(item)).filter((item): item is Awaited<V> & V => item !== null);
}
