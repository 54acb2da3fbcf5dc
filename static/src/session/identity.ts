import { Cell } from '../store/cell';

export interface Person {
  readonly id: string;
  readonly name: string;
  readonly color: string;
}

const STORED = 'darkroom.person';
export const HUES = 8;

const FIRST = ['Amber', 'Quiet', 'Silver', 'Early', 'Distant', 'Gentle', 'Northern', 'Velvet', 'Hazel', 'Bright'];
const SECOND = ['Heron', 'Fern', 'Harbor', 'Lantern', 'Otter', 'Meadow', 'Finch', 'Comet', 'Willow', 'Pebble'];

/** Who this browser is to the others, remembered between visits. */
export function loadPerson(): Cell<Person> {
  const stored = readStored();
  const id = stored?.id ?? crypto.randomUUID();
  const name = stored?.name ?? invented(id);
  const cell = new Cell<Person>({ id, name, color: hueColor(hueOf(id)) });
  const keep = (): void => {
    try {
      localStorage.setItem(STORED, JSON.stringify({ id: cell.get().id, name: cell.get().name }));
    } catch {
      // Storage may be switched off; the name then lasts as long as the page.
    }
  };
  keep();
  cell.subscribe(keep);
  return cell;
}

export function rename(cell: Cell<Person>, name: string): void {
  const short = name.trim().replace(/\s+/g, ' ').slice(0, 40);
  if (short !== '') cell.set({ ...cell.get(), name: short });
}

/** One of the presence hues, always the same for the same id. */
export function hueOf(id: string): number {
  return (hash(id) % HUES) + 1;
}

/** The colour behind a hue: the tokens hold it, other people's pages need its value. */
export function hueColor(hue: number): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--presence-${hue}`).trim();
}

export function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters.map((word) => [...(word ?? '')][0]?.toUpperCase() ?? '').join('') || '?';
}

function invented(id: string): string {
  const seed = hash(id);
  return `${FIRST[seed % FIRST.length]} ${SECOND[(seed >>> 8) % SECOND.length]}`;
}

function hash(text: string): number {
  let value = 2166136261;
  for (let index = 0; index < text.length; index += 1) {
    value = Math.imul(value ^ text.charCodeAt(index), 16777619);
  }
  return (value ^ (value >>> 15)) >>> 0;
}

function readStored(): { id: string; name: string } | null {
  try {
    const value: unknown = JSON.parse(localStorage.getItem(STORED) ?? 'null');
    if (typeof value !== 'object' || value === null) return null;
    const { id, name } = value as Record<string, unknown>;
    if (typeof id !== 'string' || id === '' || typeof name !== 'string' || name === '') return null;
    return { id: id.slice(0, 64), name: name.slice(0, 40) };
  } catch {
    return null;
  }
}
