import type { Json } from '../document/write';
import { asNumber, isRecord } from '../document/values';
import { Problem, request } from './http';
import { readQueue, type QueueState } from './queue';
import { readJob, readJobs, readMakers, type JobPage, type JobRecord, type Makers } from './records';

export interface RunBody {
  readonly after: string | null;
  readonly promptSpec: { readonly [key: string]: Json };
  readonly provider?: string;
  readonly model?: string;
  readonly by: By;
}

export type By = { readonly id: string; readonly name: string };

export interface Costs {
  readonly spentUsd: number;
  readonly reservedUsd: number;
}

/** Runs of a node come in pages of so many. */
const PAGE = 30;

/** The routes of one workflow. */
export class Api {
  readonly #workflowId: string;
  readonly #workflow: string;

  constructor(workflowId: string) {
    this.#workflowId = workflowId;
    this.#workflow = `/api/workflows/${encodeURIComponent(workflowId)}`;
  }

  async makers(): Promise<Makers> {
    return readMakers(await request('GET', '/api/providers'));
  }

  async startRun(nodeId: string, body: RunBody): Promise<JobRecord> {
    return whole(await request('POST', this.#runs(nodeId), body));
  }

  /** A page of a node's runs, newest first; `before` is `next` of the page above it. */
  async history(nodeId: string, before: string | null = null): Promise<JobPage> {
    const query = new URLSearchParams({ limit: String(PAGE), ...(before === null ? {} : { before }) });
    return readJobs(await request('GET', `${this.#runs(nodeId)}?${query}`));
  }

  /** Sets a node back to the picture of an earlier run. */
  async use(nodeId: string, jobId: string, by: By): Promise<JobRecord> {
    return whole(await request('POST', `${this.#runs(nodeId)}/${encodeURIComponent(jobId)}/use`, { by }));
  }

  async job(jobId: string): Promise<JobRecord> {
    return whole(await request('GET', job(jobId)));
  }

  /** Asks again for what an earlier run was asked for. */
  async retry(jobId: string, by: By): Promise<JobRecord> {
    return whole(await request('POST', `${job(jobId)}/retry`, { by }));
  }

  async cancel(jobId: string, by: By): Promise<void> {
    await request('POST', `${job(jobId)}/cancel`, { by });
  }

  /** Cancels every run of the canvas, or those that wait, as far as one answer takes it. */
  async cancelAll(only: 'waiting' | null, by: By): Promise<{ cancelled: number; remaining: number }> {
    const body = { workflowId: this.#workflowId, ...(only === null ? {} : { only }), by };
    const answer = await request('POST', '/api/images/jobs/cancel', body);
    const told = isRecord(answer) ? answer : {};
    return { cancelled: asNumber(told['cancelled']) ?? 0, remaining: asNumber(told['remaining']) ?? 0 };
  }

  /** Lets a waiting run be the next one, or the last. */
  async move(jobId: string, to: 'front' | 'back'): Promise<void> {
    await request('POST', `${job(jobId)}/move`, { to });
  }

  async queue(): Promise<QueueState> {
    return readQueue(await request('GET', '/api/queue'), this.#workflowId);
  }

  /** Lets no run of the canvas begin until it is resumed. */
  async pause(by: By): Promise<void> {
    await request('POST', '/api/queue/pause', { workflowId: this.#workflowId, by });
  }

  async resume(): Promise<void> {
    await request('POST', '/api/queue/resume', { workflowId: this.#workflowId });
  }

  /** What the pictures of the canvas have cost so far, and what is held back for those in the making (US dollars). */
  async costs(): Promise<Costs | null> {
    const query = new URLSearchParams({ workflowId: this.#workflowId });
    const answer = await request('GET', `/api/costs?${query}`);
    const spent = isRecord(answer) ? asNumber(answer['costUsd']) : null;
    if (!isRecord(answer) || spent === null) return null;
    return { spentUsd: spent, reservedUsd: asNumber(answer['reservedUsd']) ?? 0 };
  }

  async rename(title: string): Promise<void> {
    await request('PATCH', this.#workflow, { title });
  }

  #runs(nodeId: string): string {
    return `${this.#workflow}/nodes/${encodeURIComponent(nodeId)}/runs`;
  }
}

function job(jobId: string): string {
  return `/api/images/jobs/${encodeURIComponent(jobId)}`;
}

function whole(value: unknown): JobRecord {
  const job = readJob(value);
  if (job === null) throw new Problem(0, 'unreadable', 'The server answered something this page cannot read.');
  return job;
}
