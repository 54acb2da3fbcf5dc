import type { Json } from '../document/write';
import { Problem, request } from './http';
import { readJob, readJobs, readMakers, type JobRecord, type Makers } from './records';

export interface RunBody {
  readonly after: string | null;
  readonly promptSpec: { readonly [key: string]: Json };
  readonly provider?: string;
  readonly model?: string;
  readonly by: By;
}

export type By = { readonly id: string; readonly name: string };

/** The routes of one workflow. */
export class Api {
  readonly #workflow: string;

  constructor(workflowId: string) {
    this.#workflow = `/api/workflows/${encodeURIComponent(workflowId)}`;
  }

  async makers(): Promise<Makers> {
    return readMakers(await request('GET', '/api/providers'));
  }

  async startRun(nodeId: string, body: RunBody): Promise<JobRecord> {
    return whole(await request('POST', this.#runs(nodeId), body));
  }

  async history(nodeId: string): Promise<JobRecord[]> {
    return readJobs(await request('GET', this.#runs(nodeId)));
  }

  async job(jobId: string): Promise<JobRecord> {
    return whole(await request('GET', `/api/images/jobs/${encodeURIComponent(jobId)}`));
  }

  async cancel(jobId: string, by: By): Promise<void> {
    await request('POST', `/api/images/jobs/${encodeURIComponent(jobId)}/cancel`, { by });
  }

  async rename(title: string): Promise<void> {
    await request('PATCH', this.#workflow, { title });
  }

  #runs(nodeId: string): string {
    return `${this.#workflow}/nodes/${encodeURIComponent(nodeId)}/runs`;
  }
}

function whole(value: unknown): JobRecord {
  const job = readJob(value);
  if (job === null) throw new Problem(0, 'unreadable', 'The server answered something this page cannot read.');
  return job;
}
