import { useReactFlow, useStore } from '@xyflow/react';

import { IconButton } from '../ui/Button';
import { useActions } from './useActions';

const STEP = { duration: 160 };

export function ZoomBar() {
  const { zoomIn, zoomOut, zoomTo } = useReactFlow();
  const percent = useStore((state) => Math.round(state.transform[2] * 100));
  const { fit } = useActions();
  return (
    <div className="bar zoom-bar tip-start">
      <IconButton name="Zoom out" icon="minus" onClick={() => void zoomOut(STEP)} />
      <button
        type="button"
        className="percent times"
        aria-label={`${percent} %, zoom to 100 %`}
        onClick={() => void zoomTo(1, STEP)}
      >
        {percent} %
      </button>
      <IconButton name="Zoom in" icon="plus" onClick={() => void zoomIn(STEP)} />
      <IconButton name="Fit" icon="fit" hotkey="F" onClick={fit} />
    </div>
  );
}
