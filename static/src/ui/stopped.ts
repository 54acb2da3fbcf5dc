import type { Closing } from '../session/closing';

/** What helps: a link, another canvas, or the page anew. */
export type NextStep = 'paste' | 'new' | 'reload';

export interface StopWords {
  readonly title: string;
  readonly text: string;
  readonly next: NextStep;
}

const NO_TOKEN = 4401;
const FORBIDDEN = 4403;
const NO_CANVAS = 4404;
const TOO_LARGE = 1009;

const BY_REASON: Readonly<Record<string, StopWords>> = {
  missing: {
    title: 'You need a link to open this canvas',
    text: 'Ask whoever works on it to share it with you, then paste the link here.',
    next: 'paste',
  },
  expired: {
    title: 'Your link has expired',
    text: 'Ask for a new one and paste it here.',
    next: 'paste',
  },
  revoked: {
    title: 'Your access was withdrawn',
    text: 'If that is a mistake, ask for a new link and paste it here.',
    next: 'paste',
  },
};

const INVALID: StopWords = {
  title: 'This link does not work here',
  text: 'Part of it may be missing, or it belongs to another server. Copy the whole link and paste it here.',
  next: 'paste',
};

/** Why the server let this page go for good, in plain words, and what to do about it. */
export function stopWords({ code, reason }: Closing): StopWords {
  if (code === NO_TOKEN) return BY_REASON[reason.split(':')[0] ?? ''] ?? INVALID;
  if (code === FORBIDDEN) {
    return {
      title: 'Your link is for another canvas',
      text: 'Ask whoever works on this one to share it with you, then paste the link here.',
      next: 'paste',
    };
  }
  if (code === NO_CANVAS) {
    return {
      title: 'There is no canvas here',
      text: 'The address may be mistyped, or nobody has begun this canvas yet.',
      next: 'new',
    };
  }
  if (code === TOO_LARGE) {
    return {
      title: 'An edit is too large to be saved',
      text: 'Load the page again and make it in smaller parts.',
      next: 'reload',
    };
  }
  return {
    title: 'This page and the server do not understand each other',
    text: 'The server may be newer than this page. Load the page again.',
    next: 'reload',
  };
}
