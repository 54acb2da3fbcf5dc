import { useCallback, useRef, useState } from 'react';

import { useActions } from '../canvas/useActions';
import { historyOf } from '../history/open';
import type { Choice } from '../runs/makers';
import { useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button, IconButton } from '../ui/Button';
import { Icon, type IconName } from '../ui/Icon';
import { keyNames } from '../ui/keys';
import { Popover } from '../ui/Popover';
import { MakerPicker } from './MakerPicker';

interface FootProps {
  readonly nodeId: string;
  readonly choice: Choice;
  /** A first picture is to be made, another one, or neither: a failure has its own way to try again. */
  readonly action: 'Generate' | 'Regenerate' | null;
  readonly prompt: string;
  /** Something was asked for here before. */
  readonly past: boolean;
  readonly onRun: () => void;
}

/** The controls of a sheet: maker and size on the left, the one action on the right. */
export function Foot({ nodeId, choice, action, prompt, past, onRun }: FootProps) {
  const mayEdit = useMayEdit();
  const empty = prompt.trim() === '';
  if (!mayEdit) return <div className="foot">{past && <Earlier nodeId={nodeId} word />}</div>;
  return (
    <div className="foot">
      <MakerPicker nodeId={nodeId} choice={choice} />
      <span className="spring" />
      {action === 'Generate' && <Button word="Generate" look="primary" disabled={empty} onClick={onRun} />}
      {action === 'Regenerate' && <Button word="Regenerate" icon="retry" disabled={empty} onClick={onRun} />}
      {past && <Earlier nodeId={nodeId} />}
      {action !== 'Generate' && <More nodeId={nodeId} prompt={prompt} />}
    </div>
  );
}

/** Opens what was made here before. */
function Earlier({ nodeId, word = false }: { nodeId: string; word?: boolean }) {
  const open = useCell(historyOf) === nodeId;
  const toggle = (): void => historyOf.set(open ? null : nodeId);
  if (word) return <Button word="Earlier pictures" icon="history" aria-expanded={open} onClick={toggle} />;
  return <IconButton name="Earlier pictures" icon="history" aria-expanded={open} onClick={toggle} />;
}

function More({ nodeId, prompt }: { nodeId: string; prompt: string }) {
  const { edits } = useSession();
  const { duplicate } = useActions();
  const [open, setOpen] = useState(false);
  const anchor = useRef<HTMLSpanElement>(null);
  const close = useCallback(() => setOpen(false), []);
  const act = (action: () => void) => () => {
    close();
    action();
  };
  return (
    <span ref={anchor} className="nodrag">
      <IconButton name="More" icon="dots" aria-haspopup="dialog" aria-expanded={open} onClick={() => setOpen(!open)} />
      {open && (
        <Popover anchor={anchor} label="More" onClose={close}>
          <Item icon="copy" word="Duplicate" hotkey="Ctrl D" onClick={act(() => duplicate([nodeId]))} />
          <Item icon="note" word="Copy prompt" onClick={act(() => void navigator.clipboard?.writeText(prompt))} />
          <Item icon="trash" word="Delete" hotkey="Del" onClick={act(() => edits.remove([nodeId], []))} />
        </Popover>
      )}
    </span>
  );
}

interface ItemProps {
  readonly icon: IconName;
  readonly word: string;
  readonly hotkey?: string;
  readonly onClick: () => void;
}

function Item({ icon, word, hotkey, onClick }: ItemProps) {
  return (
    <button type="button" className="menu-item" onClick={onClick}>
      <Icon name={icon} size={16} />
      {word}
      {hotkey !== undefined && <kbd>{keyNames(hotkey)}</kbd>}
    </button>
  );
}
