import { useReactFlow } from '@xyflow/react';
import { useEffect, useRef, useState, type KeyboardEvent } from 'react';

import type { FlowEdge, FlowNode } from '../binding/view';
import { sheetSize } from '../node/size';
import { aspectOf, choiceOf, onlyDemo } from '../runs/makers';
import { useMayEdit, useSession } from '../session/context';
import { useCell } from '../store/hooks';
import { Button } from '../ui/Button';
import { placedFirst } from './first';
import { FIRST_ZOOM, freePlace } from './view';

const NOTHING_CHOSEN = {
  provider: null,
  model: null,
  params: { size: null, aspectRatio: null, quality: null, seed: null, n: null },
};
const IDEAS = ['A lighthouse in the fog at dawn', 'A red fox asleep in fresh snow', 'A night market in the rain'];

/** An empty canvas: a sheet in the middle of the room. What is written on it develops right there. */
export function FirstPicture() {
  const session = useSession();
  const { flow, edits, history, runs } = session;
  const empty = useCell(flow.nodes).length === 0;
  const { seen } = useCell(session.connection);
  const makers = useCell(session.makers);
  const mayEdit = useMayEdit();
  const instance = useReactFlow<FlowNode, FlowEdge>();
  const sheet = useRef<HTMLDivElement>(null);
  const [prompt, setPrompt] = useState('');
  // Before the canvas was ever received nobody knows whether it is empty.
  const show = empty && seen;

  // Somebody else made the first picture while words stood here: they go onto a sheet of their own.
  useEffect(() => {
    if (empty || prompt === '') return;
    const words = prompt;
    setPrompt('');
    edits.addPicture(freePlace(instance, 320, 400), words);
  }, [edits, empty, instance, prompt]);

  if (!show) return null;
  if (!mayEdit) {
    return (
      <section className="first" aria-label="Empty canvas">
        <h1>Nothing here yet. Pictures appear as others make them.</h1>
      </section>
    );
  }
  const size = sheetSize(aspectOf(choiceOf(makers, NOTHING_CHOSEN).size) ?? 1);

  const submit = (): void => {
    const box = sheet.current?.getBoundingClientRect();
    if (box === undefined || prompt.trim() === '') return;
    placedFirst.set(true);
    void instance.setViewport({ x: box.left, y: box.top, zoom: box.width / size.width });
    const words = prompt.trim();
    setPrompt('');
    void runs.generate(edits.addPicture({ x: 0, y: 0 }, words));
    flow.select(new Set());
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    // Deleting the last node leads here: the next undo means the node, not this empty field.
    const undoes = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z' && prompt === '';
    if (undoes) {
      event.preventDefault();
      if (event.shiftKey) history.redo();
      else history.undo();
      return;
    }
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };

  return (
    <section className="first" aria-label="First picture">
      <h1>Describe a picture. It develops here, in front of everyone.</h1>
      <div
        ref={sheet}
        className="first-sheet"
        style={{
          aspectRatio: `${size.width} / ${size.height}`,
          width: `min(${size.width * FIRST_ZOOM}px, calc(100vw - 48px))`,
        }}
      >
        <div className="layer grain" />
        <textarea
          aria-label="Describe a picture"
          placeholder="A lighthouse in the fog at dawn"
          value={prompt}
          autoFocus
          spellCheck={false}
          onChange={(event) => setPrompt(event.target.value)}
          onKeyDown={onKeyDown}
        />
        <div className="first-foot">
          <span className="hint">Enter to develop</span>
          <Button word="Develop" look="primary" disabled={prompt.trim() === ''} onClick={submit} />
        </div>
      </div>
      <ul className="ideas" aria-label="Ideas">
        {IDEAS.map((idea) => (
          <li key={idea}>
            <button type="button" onClick={() => setPrompt(idea)}>
              {idea}
            </button>
          </li>
        ))}
      </ul>
      {onlyDemo(makers) && (
        <p className="first-demo">
          Demo pictures, drawn without a model. Set <code>OPENAI_API_KEY</code> on the server for real ones.
        </p>
      )}
    </section>
  );
}
