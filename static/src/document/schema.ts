/** The canvas as the page reads it. Keys of the shared document are named in `read.ts` and `write.ts` only. */

export const STATUSES = ['idle', 'pending', 'running', 'completed', 'failed', 'cancelled'] as const;
export type Status = (typeof STATUSES)[number];

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Picture {
  readonly url: string;
  readonly thumbnailUrl: string | null;
  readonly width: number | null;
  readonly height: number | null;
  readonly seed: string | null;
}

export interface RunError {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
  readonly action: string | null;
}

export type Intent =
  | { readonly kind: 'run'; readonly id: string; readonly after: string | null }
  | { readonly kind: 'cancel'; readonly id: string; readonly runId: string };

export interface Params {
  readonly size: string | null;
  readonly aspectRatio: string | null;
  readonly quality: string | null;
  readonly seed: string | null;
  readonly n: number | null;
}

export type NodeData = {
  readonly kind: string;
  /** Width of the node after somebody resized it. */
  readonly width: number | null;
  readonly label: string;
  readonly prompt: string;
  readonly text: string;
  readonly negativePrompt: string;
  readonly provider: string | null;
  readonly model: string | null;
  readonly params: Params;
  readonly status: Status;
  readonly runId: string | null;
  readonly pictures: readonly Picture[];
  readonly error: RunError | null;
  readonly costUsd: number | null;
  readonly updatedAt: number | null;
  readonly request: Intent | null;
};

export interface CanvasNode {
  readonly id: string;
  readonly type: string;
  readonly position: Point;
  readonly parentId: string | null;
  readonly zIndex: number | null;
  readonly hidden: boolean;
  readonly data: NodeData;
}

export interface CanvasEdge {
  readonly id: string;
  readonly source: string;
  readonly target: string;
  readonly label: string;
}

/** Keys of `data` that only the server writes; a copy of a node never carries them. */
export const SERVER_KEYS: ReadonlySet<string> = new Set([
  'status',
  'runId',
  'runSeq',
  'imageUrl',
  'thumbnailUrl',
  'images',
  'error',
  'costUsd',
  'updatedAt',
  'progress',
  'request',
]);

export function isActive(status: Status): boolean {
  return status === 'pending' || status === 'running';
}
