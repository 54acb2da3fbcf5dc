import * as Y from 'yjs';

/** Narrow readers of values that any peer may have written. */

export type Fields = (key: string) => unknown;

/** Reads a shared map or a plain object alike; null for anything else. */
export function fieldsOf(value: unknown): Fields | null {
  if (value instanceof Y.Map) return (key) => value.get(key);
  if (isRecord(value)) return (key) => (Object.hasOwn(value, key) ? value[key] : undefined);
  return null;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

export function asText(value: unknown): string {
  if (value instanceof Y.Text) return value.toString();
  return typeof value === 'string' ? value : '';
}

export function asName(value: unknown): string | null {
  return typeof value === 'string' && value !== '' && value.length <= 256 ? value : null;
}

export function asNumber(value: unknown): number | null {
  if (typeof value === 'bigint') return Number(value);
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

export function asPositive(value: unknown): number | null {
  const number = asNumber(value);
  return number !== null && number > 0 ? number : null;
}

/** Whole numbers arrive as number, bigint or digits, depending on who wrote them and how large they are. */
export function asDigits(value: unknown): string | null {
  if (typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value))) return String(value);
  return typeof value === 'string' && /^-?\d{1,20}$/.test(value) ? value : null;
}

/** An address that is safe to show and to follow: http, https or a path on this server. */
export function asUrl(value: unknown): string | null {
  if (typeof value !== 'string' || value.length > 4096) return null;
  if (value.startsWith('/') && !value.startsWith('//') && !value.startsWith('/\\')) return value;
  return /^https?:\/\/[^/]/i.test(value) && URL.canParse(value) ? value : null;
}
