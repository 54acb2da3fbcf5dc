import { readError, readPicture } from '../document/read';
import { STATUSES, type Picture, type RunError, type Status } from '../document/schema';
import { asName, asNumber, asText, asUrl, isRecord } from '../document/values';
import { listOf, timeOf } from './values';

export interface Model {
  readonly id: string;
  readonly label: string;
  readonly sizes: readonly string[];
  readonly defaultSize: string;
  readonly supports: ReadonlySet<string>;
  readonly estimateUsd: number | null;
}

export interface Maker {
  readonly name: string;
  readonly label: string;
  readonly demo: boolean;
  readonly models: readonly Model[];
}

export interface Makers {
  readonly list: readonly Maker[];
  readonly provider: string | null;
  readonly model: string | null;
}

/** One run as HTTP tells it. */
export interface JobRecord {
  readonly jobId: string;
  readonly nodeId: string;
  readonly status: Status;
  /** It made no picture: somebody went back to the one of an earlier run. */
  readonly restored: boolean;
  /** The run whose pictures it shows again. */
  readonly restoredFrom: string | null;
  readonly provider: string;
  readonly model: string;
  readonly prompt: string;
  readonly size: string | null;
  readonly pictures: readonly Picture[];
  readonly costUsd: number | null;
  readonly createdAt: number | null;
  readonly finishedAt: number | null;
  readonly seconds: number | null;
  readonly attempt: number | null;
  readonly by: string | null;
  readonly error: JobError | null;
}

export interface JobError extends RunError {
  readonly stage: string | null;
  readonly reason: string | null;
  readonly vendorCode: string | null;
}

export function readMakers(value: unknown): Makers {
  const body = isRecord(value) ? value : {};
  const chosen = isRecord(body['default']) ? body['default'] : {};
  const list = listOf(body['providers'], readMaker);
  return { list, provider: asName(chosen['provider']), model: asName(chosen['model']) };
}

export function readJob(value: unknown): JobRecord | null {
  if (!isRecord(value)) return null;
  const jobId = asName(value['jobId']);
  const status = STATUSES.find((known) => known === value['status']);
  if (jobId === null || status === undefined) return null;
  const spec = isRecord(value['promptSpec']) ? value['promptSpec'] : {};
  const by = isRecord(value['requestedBy']) ? value['requestedBy'] : {};
  const started = timeOf(value['startedAt']);
  const finished = timeOf(value['finishedAt']);
  return {
    jobId,
    nodeId: asText(value['nodeId']),
    status,
    restored: value['kind'] === 'restore',
    restoredFrom: asName(value['restoredFrom']),
    provider: asText(value['provider']),
    model: asText(value['model']),
    prompt: asText(spec['basePrompt']),
    size: asName(spec['size']),
    pictures: picturesOf(value),
    costUsd: asNumber(value['costUsd']),
    createdAt: timeOf(value['createdAt']),
    finishedAt: finished,
    seconds: started === null || finished === null ? null : Math.max(0, (finished - started) / 1000),
    attempt: asNumber(value['attempt']),
    by: asName(by['name']),
    error: readJobError(value['error']),
  };
}

/** Runs of a node, newest first, and how to ask for those behind them. */
export interface JobPage {
  readonly jobs: readonly JobRecord[];
  readonly next: string | null;
}

export function readJobs(value: unknown): JobPage {
  const body = isRecord(value) ? value : {};
  return { jobs: listOf(body['runs'], readJob), next: asName(body['next']) };
}

function readMaker(value: unknown): Maker | null {
  if (!isRecord(value)) return null;
  const name = asName(value['name']);
  const models = listOf(value['models'], readModel);
  if (name === null || models.length === 0) return null;
  return { name, label: asText(value['label']) || name, demo: value['demo'] === true, models };
}

function readModel(value: unknown): Model | null {
  if (!isRecord(value)) return null;
  const id = asName(value['id']);
  const sizes = listOf(value['sizes'], asName);
  const defaultSize = asName(value['defaultSize']) ?? sizes[0];
  if (id === null || defaultSize === undefined) return null;
  return {
    id,
    label: asText(value['label']) || id,
    sizes,
    defaultSize,
    supports: new Set(listOf(value['supports'], asName)),
    estimateUsd: asNumber(value['estimateUsd']),
  };
}

function readJobError(value: unknown): JobError | null {
  const error = readError(value);
  if (error === null || !isRecord(value)) return null;
  return {
    ...error,
    stage: asName(value['stage']),
    reason: asName(value['kind']) ?? asName(value['class']),
    vendorCode: asName(value['vendorCode']),
  };
}

function picturesOf(value: Record<string, unknown>): readonly Picture[] {
  const pictures = listOf(value['images'], readPicture);
  if (pictures.length > 0) return pictures;
  const url = asUrl(value['imageUrl']);
  return url === null
    ? []
    : [{ url, thumbnailUrl: asUrl(value['thumbnailUrl']), width: null, height: null, seed: null }];
}
