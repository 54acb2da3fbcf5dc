import type { Maker, Makers, Model } from '../api/records';
import type { NodeData } from '../document/schema';

export interface Choice {
  readonly maker: Maker | null;
  readonly model: Model | null;
  readonly size: string;
}

/** Whether the demo is all there is. */
export function onlyDemo(makers: Makers | null): boolean {
  return makers !== null && makers.list.length > 0 && makers.list.every((maker) => maker.demo);
}

/** Used until the server has said what it offers. */
const ANY_SIZE = '1024x1024';

/** Who will make the next picture of a node and how large, with what the node leaves open filled in. */
export function choiceOf(makers: Makers | null, data: Pick<NodeData, 'provider' | 'model' | 'params'>): Choice {
  const maker = makerOf(makers, data.provider, data.model);
  const model = modelOf(makers, maker, data.model);
  const wanted = data.params.size;
  const size = wanted ?? model?.defaultSize ?? ANY_SIZE;
  return { maker, model, size };
}

/** The listed size closest in shape, for a model that does not make the wanted one. */
export function nearestSize(model: Model, wanted: string): string {
  if (model.sizes.includes(wanted)) return wanted;
  const shape = (size: string): number => Math.log(aspectOf(size) ?? 1);
  const target = shape(wanted);
  const closer = (a: string, b: string): number => Math.abs(shape(a) - target) - Math.abs(shape(b) - target);
  return [...model.sizes].sort(closer)[0] ?? model.defaultSize;
}

/** Who makes the picture of a node, for words about it. */
export function makerFor(makers: Makers | null, data: Pick<NodeData, 'provider' | 'model'>): Maker | null {
  return makerOf(makers, data.provider, data.model);
}

/** How people call a model; its id when it is not offered any more. */
export function modelLabel(makers: Makers | null, id: string): string {
  for (const maker of makers?.list ?? []) {
    const model = maker.models.find((known) => known.id === id);
    if (model !== undefined) return `${maker.label} ${model.label}`;
  }
  return id;
}

/** A model without its maker, where there is little room. */
export function modelName(makers: Makers | null, id: string): string {
  const models = makers?.list.flatMap((maker) => maker.models) ?? [];
  return models.find((model) => model.id === id)?.label ?? id;
}

/** Width over height of "1536x1024" or "3:2"; null for anything else. */
export function aspectOf(size: string | null): number | null {
  const match = /^(\d{1,5})\s*[x×:]\s*(\d{1,5})$/.exec(size ?? '');
  const width = Number(match?.[1]);
  const height = Number(match?.[2]);
  return width > 0 && height > 0 ? width / height : null;
}

function makerOf(makers: Makers | null, provider: string | null, model: string | null): Maker | null {
  if (makers === null) return null;
  if (provider !== null) return makers.list.find((maker) => maker.name === provider) ?? null;
  const usual = makers.list.find((maker) => maker.name === makers.provider) ?? makers.list[0] ?? null;
  if (model === null) return usual;
  const offering = (maker: Maker | null): boolean => maker?.models.some((known) => known.id === model) === true;
  return offering(usual) ? usual : (makers.list.find(offering) ?? usual);
}

function modelOf(makers: Makers | null, maker: Maker | null, model: string | null): Model | null {
  if (maker === null) return null;
  if (model !== null) return maker.models.find((known) => known.id === model) ?? null;
  const usual = maker.name === makers?.provider ? makers.model : null;
  return maker.models.find((known) => known.id === usual) ?? maker.models[0] ?? null;
}
