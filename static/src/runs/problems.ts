import type { Problem } from '../api/http';
import { momentWords } from '../ui/words';

const OFFLINE = 0;
const BUDGET = 402;
const FORBIDDEN = 403;
const BUSY = 429;

/** Words that already tell what to do. */
const ADVICE = /\b(again|raise|ask|wait|resume|change|choose|use|cancel)\b/i;

/** A refusal in plain words that end with what helps. */
export function problemWords(problem: Problem, now: number): string {
  const said = sentence(problem.message);
  const told = ADVICE.test(said);
  switch (problem.status) {
    case OFFLINE:
      return `${said} Try again once you are back.`;
    case BUDGET:
      return told ? said : `${said} Ask whoever runs this server to raise the budget, or choose a cheaper model.`;
    case FORBIDDEN:
      return told ? said : `${said} Ask whoever shared this canvas.`;
    case BUSY: {
      const at = problem.retryAfterS === null ? null : now + problem.retryAfterS * 1_000;
      if (at !== null) return `${said} Try again ${soon(problem.retryAfterS ?? 0, at, now)}.`;
      return told ? said : `${said} Wait for some pictures to finish, or cancel a few.`;
    }
    default:
      return said;
  }
}

function soon(seconds: number, at: number, now: number): string {
  return seconds < 60 ? `in ${Math.max(1, Math.ceil(seconds))}\u00a0s` : `at ${momentWords(at, now)}`;
}

/** As a sentence of its own, whatever case and stop it came with. */
function sentence(text: string): string {
  const trimmed = text.trim();
  const first = trimmed.slice(0, 1).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
