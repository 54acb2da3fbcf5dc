import { useEffect, useRef } from 'react';

import { Cell } from '../store/cell';
import { useCell } from '../store/hooks';
import { IconButton } from './Button';
import { keyNames } from './keys';

/** Whether the sheet of keys is open. */
export const help = new Cell(false);

const KEYS: readonly (readonly [string, string])[] = [
  ['Run the selected pictures', 'Ctrl Enter'],
  ['Pictures in the making', 'Q'],
  ['Earlier pictures of the selected one', 'E'],
  ['New picture', 'P'],
  ['New note', 'N'],
  ['Undo your last step', 'Ctrl Z'],
  ['Redo', 'Ctrl Shift Z'],
  ['Duplicate', 'Ctrl D'],
  ['Copy, cut, paste', 'Ctrl C X V'],
  ['Select everything', 'Ctrl A'],
  ['Delete', 'Del'],
  ['Move the canvas', 'H'],
  ['Select by a box', 'V'],
  ['Select by a box at once', 'Shift drag'],
  ['Fit everything', 'F'],
  ['Close, or let go of the selection', 'Esc'],
];

export function Help() {
  const open = useCell(help);
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  return (
    <dialog
      ref={dialog}
      className="help"
      aria-label="Keys"
      onClose={() => help.set(false)}
      onClick={(event) => {
        if (event.target === event.currentTarget) help.set(false);
      }}
    >
      <div className="help-body">
        <h2>Keys</h2>
        <IconButton name="Close" icon="close" onClick={() => help.set(false)} />
        <dl>
          {KEYS.map(([what, keys]) => (
            <div key={what}>
              <dt>{what}</dt>
              <dd>
                {keyNames(keys)
                  .split(' ')
                  .map((key) => (
                    <kbd key={key}>{key}</kbd>
                  ))}
              </dd>
            </div>
          ))}
        </dl>
      </div>
    </dialog>
  );
}
