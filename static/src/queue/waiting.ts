import type { Pause, QueueState } from '../api/queue';
import type { RunProgress } from '../presence/states';
import { aboutWords, momentWords } from '../ui/words';

export interface WaitingWords {
  /** Where the run stands, or what holds it. */
  readonly title: string;
  /** How long, and by whom; empty when nothing is known. */
  readonly more: string;
}

interface Facts {
  readonly run: Pick<RunProgress, 'place' | 'waitS' | 'held'> | null;
  /** Name and label of the maker that the run waits for. */
  readonly maker: { readonly name: string; readonly label: string } | null;
  readonly queue: QueueState | null;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

const PLAIN: WaitingWords = { title: 'In the tray', more: '' };

/** What a waiting run says: its place and about how long, or who holds it back and until when. */
export function waitingWords({ run, maker, queue, now }: Facts): WaitingWords {
  if (run === null) return PLAIN;
  const estimate = run.waitS === null ? '' : aboutWords(run.waitS);
  if (run.held === 'paused') return pausedWords(pauseOf(queue, maker?.name ?? null, now), maker?.label ?? null, now);
  if (run.held === 'rate_limit') {
    const who = maker?.label ?? 'The maker';
    const until = queue?.makers.get(maker?.name ?? '')?.pausedUntil ?? null;
    const wait = until !== null && until > now ? `wait until ${momentWords(until, now)}` : 'slow down';
    return { title: `Waiting for ${maker?.label ?? 'the maker'}`, more: `${who} asks us to ${wait}` };
  }
  if (run.place === null) return { title: PLAIN.title, more: estimate };
  return { title: placeWords(run.place), more: estimate };
}

/** The pause by which people hold the runs of this canvas at a maker: the nearest to them first. */
export function pauseOf(queue: QueueState | null, provider: string | null, now: number): Pause | null {
  const pauses = queue?.pauses.filter((pause) => pause.byPerson && (pause.until === null || pause.until > now)) ?? [];
  const about = (scope: Pause['scope']): Pause | undefined =>
    pauses.find((pause) => pause.scope === scope && (scope !== 'maker' || pause.provider === provider));
  return about('canvas') ?? about('maker') ?? about('all') ?? null;
}

/** What a pause says of itself: what is paused, then who paused it, until when and why. */
export function pausedWords(pause: Pause | null, maker: string | null, now: number): WaitingWords {
  if (pause === null) return { title: 'Paused', more: '' };
  const title = pause.scope === 'maker' ? `${maker ?? 'Its maker'} is paused` : 'Paused';
  const until = pause.until !== null && pause.until > now ? `until ${momentWords(pause.until, now)}` : '';
  const by = pause.by === null ? '' : `by ${pause.by}`;
  const who = [by, until].filter((part) => part !== '').join(' ');
  return { title, more: [who, pause.reason ?? ''].filter((part) => part !== '').join(': ') };
}

/** "Next in line", "2nd in line". */
export function placeWords(place: number): string {
  return place <= 1 ? 'Next in line' : `${ordinal(place)} in line`;
}

function ordinal(number: number): string {
  const teens = number % 100 >= 11 && number % 100 <= 13;
  const ending = teens ? 'th' : (['th', 'st', 'nd', 'rd'][number % 10] ?? 'th');
  return `${number.toLocaleString('en')}${ending}`;
}
