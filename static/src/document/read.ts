import type * as Y from 'yjs';

import {
  STATUSES,
  type CanvasEdge,
  type CanvasNode,
  type Intent,
  type NodeData,
  type Params,
  type Picture,
  type Point,
  type RunError,
  type Status,
} from './schema';
import { asDigits, asName, asNumber, asPositive, asText, asUrl, fieldsOf, isRecord, type Fields } from './values';

const NOTHING: Fields = () => undefined;

/** The node under this id, from nested maps or plain objects; null when it is nothing that could be shown. */
export function readNode(id: string, value: unknown): CanvasNode | null {
  const fields = fieldsOf(value);
  if (fields === null) return null;
  const type = asName(fields('type')) ?? 'default';
  return {
    id,
    type,
    position: readPoint(fields('position')) ?? { x: 0, y: 0 },
    parentId: asName(fields('parentId')),
    zIndex: asNumber(fields('zIndex')),
    hidden: fields('hidden') === true,
    data: readData(type, asPositive(fields('width')), fields('data')),
  };
}

export function readEdge(id: string, value: unknown): CanvasEdge | null {
  const fields = fieldsOf(value);
  if (fields === null) return null;
  const source = asName(fields('source'));
  const target = asName(fields('target'));
  if (source === null || target === null) return null;
  return { id, source, target, label: asText(fields('label')) };
}

export function readPoint(value: unknown): Point | null {
  const fields = fieldsOf(value);
  if (fields === null) return null;
  const x = asNumber(fields('x'));
  const y = asNumber(fields('y'));
  return x === null || y === null ? null : { x, y };
}

export function readTitle(meta: Y.Map<unknown>): string {
  return asText(meta.get('title')).slice(0, 200);
}

function readData(kind: string, width: number | null, value: unknown): NodeData {
  const fields = fieldsOf(value) ?? NOTHING;
  return {
    kind,
    width,
    label: asText(fields('label')),
    prompt: asText(fields('prompt')),
    text: asText(fields('text')),
    negativePrompt: asText(fields('negativePrompt')),
    provider: asName(fields('provider')),
    model: asName(fields('model')),
    params: readParams(fields('params')),
    status: readStatus(fields('status')),
    runId: asName(fields('runId')),
    pictures: readPictures(fields),
    error: readError(fields('error')),
    costUsd: asNumber(fields('costUsd')),
    updatedAt: asNumber(fields('updatedAt')),
    request: readIntent(fields('request')),
  };
}

function readStatus(value: unknown): Status {
  return STATUSES.find((status) => status === value) ?? 'idle';
}

function readParams(value: unknown): Params {
  const fields = fieldsOf(value) ?? NOTHING;
  const n = asPositive(fields('n'));
  return {
    size: asName(fields('size')),
    aspectRatio: asName(fields('aspectRatio')),
    quality: asName(fields('quality')),
    seed: asDigits(fields('seed')),
    n: n === null ? null : Math.floor(n),
  };
}

function readPictures(fields: Fields): readonly Picture[] {
  const images = fields('images');
  const many = Array.isArray(images)
    ? images
        .slice(0, 16)
        .map(readPicture)
        .filter((one) => one !== null)
    : [];
  if (many.length > 0) return many;
  const url = asUrl(fields('imageUrl'));
  if (url === null) return [];
  return [{ url, thumbnailUrl: asUrl(fields('thumbnailUrl')), width: null, height: null, seed: null }];
}

/** One picture of a run, in the document and in HTTP answers alike. */
export function readPicture(value: unknown): Picture | null {
  if (!isRecord(value)) return null;
  const url = asUrl(value['url']);
  if (url === null) return null;
  return {
    url,
    thumbnailUrl: asUrl(value['thumbnailUrl'] ?? value['thumbUrl']),
    width: asPositive(value['width']),
    height: asPositive(value['height']),
    seed: asDigits(value['seed']),
  };
}

export function readError(value: unknown): RunError | null {
  const fields = fieldsOf(value);
  if (fields === null) return null;
  return {
    code: asName(fields('code')) ?? 'unknown',
    message: asText(fields('message')) || 'The picture could not be made.',
    retryable: fields('retryable') === true,
    action: asName(fields('action')),
  };
}

function readIntent(value: unknown): Intent | null {
  const fields = fieldsOf(value);
  const id = asName(fields?.('id'));
  if (fields === null || id === null) return null;
  const runId = asName(fields('cancel'));
  if (runId !== null) return { kind: 'cancel', id, runId };
  return { kind: 'run', id, after: asName(fields('after')) };
}
