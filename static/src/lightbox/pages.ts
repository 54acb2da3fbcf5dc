import type { JobRecord } from '../api/records';
import type { FlowNode } from '../binding/view';
import type { Picture } from '../document/schema';

/** One picture of the lightbox with what is known about it. */
export interface Page {
  readonly key: string;
  readonly nodeId: string;
  readonly picture: Picture;
  readonly prompt: string;
  readonly maker: string;
  readonly size: string;
  readonly costUsd: number | null;
  readonly seconds: number | null;
  readonly by: string | null;
  readonly earlier: boolean;
  /** The run that made it. */
  readonly jobId: string | null;
}

/** The pictures of a node, newest first: those it shows, then those of earlier runs. */
export function pagesOf(node: FlowNode, jobs: readonly JobRecord[]): Page[] {
  const made = jobs.filter((job) => !job.restored);
  const current = made.find((job) => job.pictures.some((picture) => picture.url === node.data.pictures[0]?.url));
  const shown = node.data.pictures.map((picture) => toPage(node, picture, current ?? null, false));
  const seen = new Set(shown.map((page) => page.picture.url));
  const before = made
    .flatMap((job) => job.pictures.map((picture) => toPage(node, picture, job, true)))
    .filter((page) => !seen.has(page.picture.url));
  return [...shown, ...before];
}

/** Nodes with a picture in reading order: by rows from the top, left to right. */
export function pictureNodes(nodes: readonly FlowNode[]): FlowNode[] {
  const row = (node: FlowNode): number => Math.round(node.position.y / 200);
  return nodes
    .filter((node) => node.data.pictures.length > 0)
    .sort((a, b) => row(a) - row(b) || a.position.x - b.position.x);
}

function toPage(node: FlowNode, picture: Picture, job: JobRecord | null, earlier: boolean): Page {
  const { width, height } = picture;
  const measured = width !== null && height !== null ? `${width} × ${height}` : '';
  return {
    key: picture.url,
    nodeId: node.id,
    picture,
    prompt: job?.prompt || node.data.prompt,
    maker: job === null ? '' : job.model,
    size: measured || (job?.size ?? '').replace('x', ' × '),
    costUsd: job?.costUsd ?? (earlier ? null : node.data.costUsd),
    seconds: job?.seconds ?? null,
    by: job?.by ?? null,
    earlier,
    jobId: job?.jobId ?? null,
  };
}
