import { useCallback, useId, useRef, useState } from 'react';

import type { Maker, Makers, Model } from '../api/records';
import { aspectOf, nearestSize, type Choice } from '../runs/makers';
import { useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Icon } from '../ui/Icon';
import { dollars } from '../ui/money';
import { Popover } from '../ui/Popover';
import { shapeWord, sizeWords } from './size';

interface PickerProps {
  readonly nodeId: string;
  readonly choice: Choice;
}

/** Who makes the picture and how large: one quiet button, all choices behind it. */
export function MakerPicker({ nodeId, choice }: PickerProps) {
  const { makers } = useSession();
  const offered = useCell(makers);
  const [open, setOpen] = useState(false);
  const anchor = useRef<HTMLButtonElement>(null);
  const close = useCallback(() => setOpen(false), []);
  const name = choice.model?.label ?? 'Not offered here';
  const size = sizeWords(choice.size);
  const maker = choice.maker === null ? '' : `${choice.maker.label}, `;
  return (
    <>
      <button
        ref={anchor}
        type="button"
        className="picker nodrag"
        aria-haspopup="dialog"
        aria-expanded={open}
        aria-label={`Maker and size: ${maker}${name}, ${size}`}
        disabled={offered === null}
        onClick={() => setOpen(!open)}
      >
        <Shape size={choice.size} />
        <span>{offered === null ? 'Loading' : name}</span>
        <Icon name="chevron" size={14} />
      </button>
      {open && offered !== null && (
        <Popover anchor={anchor} label="Maker and size" onClose={close}>
          <Choices nodeId={nodeId} makers={offered} choice={choice} />
        </Popover>
      )}
    </>
  );
}

function Choices({ nodeId, makers, choice }: PickerProps & { makers: Makers }) {
  const { edits } = useSession();
  const group = useId();
  const sizes = choice.model?.sizes ?? [];
  const choose = (maker: Maker, model: Model): void => {
    edits.chooseMaker(nodeId, maker.name, model.id, nearestSize(model, choice.size));
  };
  return (
    <div className="choices">
      {makers.list.map((maker) => (
        <fieldset key={maker.name}>
          <legend>{maker.demo ? `${maker.label}, no key needed` : maker.label}</legend>
          {maker.models.map((model) => (
            <label key={model.id} className="choice">
              <input
                type="radio"
                name={`${group}-model`}
                aria-label={`${maker.label} ${model.label}`}
                checked={model.id === choice.model?.id && maker.name === choice.maker?.name}
                onChange={() => choose(maker, model)}
              />
              <span>{model.label}</span>
              <Icon name="check" size={16} />
              <span className="price times">{priceOf(model)}</span>
            </label>
          ))}
        </fieldset>
      ))}
      {sizes.length > 0 && (
        <fieldset className="sizes">
          <legend>Size</legend>
          {sizes.map((size) => (
            <label key={size} className="choice">
              <input
                type="radio"
                name={`${group}-size`}
                aria-label={sizeWords(size)}
                checked={size === choice.size}
                onChange={() => edits.chooseSize(nodeId, size)}
              />
              <Shape size={size} />
              <span>{shapeWord(aspectOf(size) ?? 1)}</span>
              <Icon name="check" size={16} />
              <span className="price times">{sizeWords(size)}</span>
            </label>
          ))}
        </fieldset>
      )}
    </div>
  );
}

/** The outline of a size. */
function Shape({ size }: { size: string }) {
  const aspect = Math.min(2.4, Math.max(0.42, aspectOf(size) ?? 1));
  const width = Math.round(12 * Math.sqrt(aspect));
  const height = Math.round(12 / Math.sqrt(aspect));
  return (
    <span className="shape" aria-hidden="true">
      <i style={{ width, height }} />
    </span>
  );
}

export function priceOf(model: Model): string {
  if (model.estimateUsd === null) return '';
  return model.estimateUsd === 0 ? 'Free' : `about ${dollars(model.estimateUsd)}`;
}
