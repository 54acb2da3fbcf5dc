import { isActive, type NodeData } from '../document/schema';
import type { RunProgress } from '../presence/states';

/** What this tab asked for and the document does not show yet. */
export type Asked =
  { readonly kind: 'start'; readonly after: string | null } | { readonly kind: 'cancel'; readonly runId: string };

/**
 * What a node shows. Between the statuses of the document lie three moments of this screen:
 * `waiting` (offline, runs on return), `starting` (asked, not yet confirmed) and `cancelling`.
 */
export type Phase =
  'idle' | 'waiting' | 'starting' | 'pending' | 'running' | 'cancelling' | 'completed' | 'failed' | 'cancelled';

export interface View {
  readonly phase: Phase;
  /** A run is under way or about to be: nothing can be started, the picture may be cancelled. */
  readonly busy: boolean;
  readonly run: RunProgress | null;
}

export function viewOf(data: NodeData, run: RunProgress | undefined, asked: Asked | undefined, live: boolean): View {
  const phase = phaseOf(data, asked, live);
  const busy = phase === 'starting' || phase === 'pending' || phase === 'running' || phase === 'cancelling';
  // Progress may arrive before or after the state it belongs to; only that of the current run counts.
  return { phase, busy, run: busy && run !== undefined && run.runId === data.runId ? run : null };
}

function phaseOf(data: NodeData, asked: Asked | undefined, live: boolean): Phase {
  if (isActive(data.status)) {
    const asks = data.request?.kind === 'cancel' && data.request.runId === data.runId;
    if (asks || (asked?.kind === 'cancel' && asked.runId === data.runId)) return 'cancelling';
    return data.status === 'pending' ? 'pending' : 'running';
  }
  if (asked?.kind === 'start' && asked.after === data.runId) return 'starting';
  if (data.request?.kind === 'run' && data.request.after === data.runId) return live ? 'starting' : 'waiting';
  if (data.status === 'completed' && data.pictures.length === 0) return 'idle';
  return data.status;
}

const STAGES: Readonly<Record<string, string>> = {
  queued: 'Waiting its turn',
  submitting: 'Sending the prompt',
  generating: 'Developing',
  waiting: 'Developing',
  downloading: 'Fetching the picture',
  processing: 'Finishing',
  uploading: 'Hanging it up',
};

/** The stage in a word or two. */
export function stageWord(view: View): string {
  if (view.phase === 'starting') return 'Starting';
  if (view.phase === 'cancelling') return 'Cancelling';
  if (view.phase === 'pending') return 'In the tray';
  return STAGES[view.run?.stage ?? 'generating'] ?? 'Developing';
}

/** How far the picture has come up, in [0, 1]: the maker's word, else a guess that slows down and never arrives. */
export function development(progress: number | null, seconds: number): number {
  if (progress !== null) return progress;
  return 0.7 * (1 - Math.exp(-Math.max(0, seconds) / 14));
}
