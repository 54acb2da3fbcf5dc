import { useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button, IconButton } from '../ui/Button';
import { tool } from './tool';
import { useActions } from './useActions';

export function Toolbar() {
  const mayEdit = useMayEdit();
  const chosen = useCell(tool);
  return (
    <div className="bar toolbar" role="toolbar" aria-label="Tools">
      <IconButton
        name="Move"
        icon="hand"
        hotkey="H"
        aria-pressed={chosen === 'hand'}
        onClick={() => tool.set('hand')}
      />
      <IconButton
        name="Select"
        icon="select"
        hotkey="V"
        aria-pressed={chosen === 'select'}
        onClick={() => tool.set('select')}
      />
      {mayEdit && <EditTools />}
    </div>
  );
}

function EditTools() {
  const { flow, history } = useSession();
  const actions = useActions();
  const steps = useCell(history.steps);
  const nodes = useCell(flow.nodes);
  const runnable = nodes.some((node) => node.selected === true && node.type === 'image');
  return (
    <>
      <span className="gap" />
      <IconButton name="New picture" icon="image" hotkey="P" onClick={actions.addPicture} />
      <IconButton name="New note" icon="note" hotkey="N" onClick={actions.addNote} />
      <span className="gap" />
      <IconButton name="Undo" icon="undo" hotkey="Ctrl Z" disabled={!steps.undo} onClick={() => history.undo()} />
      <IconButton name="Redo" icon="redo" hotkey="Ctrl Shift Z" disabled={!steps.redo} onClick={() => history.redo()} />
      <span className="gap" />
      <Button word="Run" icon="develop" look="primary" disabled={!runnable} onClick={actions.runSelected} />
    </>
  );
}
