import { useEffect, useRef, type KeyboardEvent } from 'react';

import { useMayEdit, useSession } from '../session/context';
import { useSharedText } from './useSharedText';

interface PromptFieldProps {
  readonly nodeId: string;
  /** The key of `data` that is edited. */
  readonly textKey: 'prompt' | 'text';
  readonly label: string;
  readonly placeholder: string;
  readonly value: string;
  readonly onRun?: () => void;
}

/** A text that several people edit in place. It grows with its content. */
export function PromptField({ nodeId, textKey, label, placeholder, value, onRun }: PromptFieldProps) {
  const { history } = useSession();
  const mayEdit = useMayEdit();
  const { field, ...handlers } = useSharedText(nodeId, textKey, value);
  const first = useRef(value);

  // The wheel scrolls a long focused text; otherwise it belongs to the canvas.
  useEffect(() => {
    const element = field.current;
    if (element === null) return;
    const onWheel = (event: WheelEvent): void => {
      const scrolls = element.scrollHeight > element.clientHeight && document.activeElement === element;
      if (scrolls && !event.ctrlKey) event.stopPropagation();
    };
    element.addEventListener('wheel', onWheel, { passive: true });
    return () => element.removeEventListener('wheel', onWheel);
  }, [field]);

  const onKeyDown = (event: KeyboardEvent<HTMLTextAreaElement>): void => {
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    if (event.nativeEvent.isComposing) return;
    if (event.key === 'Escape') event.currentTarget.blur();
    else if (command && event.key === 'Enter' && onRun !== undefined) onRun();
    // The field's own undo does not know what others typed meanwhile.
    else if (command && key === 'z') event.shiftKey ? history.redo() : history.undo();
    else if (command && key === 'y') history.redo();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <div className="prompt nodrag" data-value={value}>
      <textarea
        ref={field}
        aria-label={label}
        placeholder={mayEdit ? placeholder : ''}
        readOnly={!mayEdit}
        defaultValue={first.current}
        rows={1}
        spellCheck={false}
        onKeyDown={onKeyDown}
        {...handlers}
      />
    </div>
  );
}
