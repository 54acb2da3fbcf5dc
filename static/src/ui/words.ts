/** Times and amounts as people say them. */

const MINUTE_S = 60;
const HOUR_S = 3_600;
const DAY_S = 86_400;

/** "about 20 s", "about 3 min", "about 2 h": rounded as roughly as it is known. */
export function aboutWords(seconds: number): string {
  if (seconds < 10) return `about ${Math.max(1, Math.round(seconds))}\u00a0s`;
  if (seconds < 90) return `about ${Math.round(seconds / 5) * 5}\u00a0s`;
  if (seconds < HOUR_S) return `about ${Math.round(seconds / MINUTE_S)}\u00a0min`;
  return `about ${Math.round(seconds / HOUR_S)}\u00a0h`;
}

/** A moment to come: the time of day, with the day when it is another one. */
export function momentWords(at: number, now: number): string {
  const moment = new Date(at);
  const time = moment.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' });
  if (moment.toDateString() === new Date(now).toDateString()) return time;
  return `${moment.toLocaleDateString(undefined, { day: 'numeric', month: 'short' })}, ${time}`;
}

/** How long ago something was; from a day on, when. */
export function agoWords(at: number, now: number): string {
  const seconds = Math.max(0, (now - at) / 1_000);
  if (seconds < 45) return 'Just now';
  if (seconds < HOUR_S) return `${Math.max(1, Math.round(seconds / MINUTE_S))}\u00a0min ago`;
  if (seconds < DAY_S) return `${Math.round(seconds / HOUR_S)}\u00a0h ago`;
  return momentWords(at, now);
}

export function pictures(count: number): string {
  return `${count}\u00a0${count === 1 ? 'picture' : 'pictures'}`;
}
