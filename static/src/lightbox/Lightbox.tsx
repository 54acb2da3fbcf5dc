import { useEffect, useMemo, useRef, useState, type KeyboardEvent } from 'react';

import type { JobRecord } from '../api/records';
import { isActive } from '../document/schema';
import { joined } from '../history/entries';
import { useLive, useMayEdit, useSession } from '../session/context';
import { modelLabel } from '../runs/makers';
import { useCell } from '../store/hooks';
import { Icon } from '../ui/Icon';
import { dollars } from '../ui/money';
import { closeLightbox, opened, openLightbox, type Opened } from './open';
import { pagesOf, pictureNodes, type Page } from './pages';
import { Stage } from './Stage';
import { save } from './save';

export function Lightbox() {
  const at = useCell(opened);
  return at === null ? null : <Open at={at} />;
}

/** One picture alone on black: arrows through the pictures of a node and on to the next node. */
function Open({ at }: { at: Opened }) {
  const { flow, makers } = useSession();
  const offered = useCell(makers);
  const nodes = useCell(flow.nodes);
  const dialog = useRef<HTMLDialogElement>(null);
  const node = nodes.find((one) => one.id === at.nodeId);
  const jobs = useJobs(at, node?.data.runId ?? null);
  const pages = useMemo(() => (node === undefined ? [] : pagesOf(node, jobs)), [node, jobs]);
  const named = at.url === undefined ? -1 : pages.findIndex((one) => one.picture.url === at.url);
  const chosen = Math.min(named === -1 ? at.index : named, pages.length - 1);
  const page = pages[chosen];

  useEffect(() => {
    const element = dialog.current;
    if (element === null || element.open) return;
    element.showModal();
    // Not on its first button: the picture is what one came for.
    element.focus();
  }, []);
  // Somebody may delete the node, or start over, while its picture is open.
  const gone = page === undefined;
  useEffect(() => {
    if (gone) closeLightbox();
  }, [gone]);
  if (page === undefined) return null;

  const step = (by: 1 | -1): void => {
    const index = chosen + by;
    if (index >= 0 && index < pages.length) return openLightbox({ nodeId: at.nodeId, index });
    const around = pictureNodes(nodes);
    const next = around[(around.findIndex((one) => one.id === at.nodeId) + by + around.length) % around.length];
    if (next === undefined) return;
    openLightbox({ nodeId: next.id, index: by === 1 ? 0 : next.data.pictures.length - 1 });
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === 'ArrowRight') step(1);
    else if (event.key === 'ArrowLeft') step(-1);
    else return;
    event.preventDefault();
  };
  const many = pages.length > 1 || pictureNodes(nodes).length > 1;

  return (
    <dialog
      ref={dialog}
      className="lightbox"
      aria-label="Picture"
      tabIndex={-1}
      onClose={closeLightbox}
      onKeyDown={onKeyDown}
    >
      <Stage key={page.key} url={page.picture.url} thumbnailUrl={page.picture.thumbnailUrl} alt={page.prompt} />
      {many && (
        <>
          <Round name="Previous picture" icon="arrowLeft" className="previous" onClick={() => step(-1)} />
          <Round name="Next picture" icon="arrowRight" className="next" onClick={() => step(1)} />
        </>
      )}
      <Round name="Close" icon="close" className="shut" onClick={closeLightbox} />
      <footer>
        <div className="facts">
          <p className="lightbox-prompt">{page.prompt}</p>
          <p className="fact-line times">{facts(page, modelLabel(offered, page.maker)).join(' · ')}</p>
        </div>
        {pages.length > 1 && <Strip pages={pages} nodeId={at.nodeId} chosen={chosen} />}
        {page.earlier && <UseThis page={page} />}
        <button type="button" className="save" onClick={() => void save(page.picture.url, page.prompt)}>
          <Icon name="download" size={16} />
          Download
        </button>
      </footer>
    </dialog>
  );
}

/** Puts an earlier picture back into its node. */
function UseThis({ page }: { page: Page }) {
  const { steering, flow } = useSession();
  const mayEdit = useMayEdit();
  const live = useLive();
  const { nodeId, jobId } = page;
  if (!mayEdit || jobId === null) return null;
  const status = flow.node(nodeId)?.data.status;
  const busy = !live || (status !== undefined && isActive(status));
  return (
    <button type="button" className="save" disabled={busy} onClick={() => void steering.use(nodeId, jobId)}>
      <Icon name="check" size={16} />
      Use this picture
    </button>
  );
}

/** Small copies of all pictures of the node, earlier runs included. */
function Strip({ pages, nodeId, chosen }: { pages: readonly Page[]; nodeId: string; chosen: number }) {
  return (
    <ul className="contacts" aria-label="Pictures of this node">
      {pages.slice(0, 12).map((page, index) => (
        <li key={page.key}>
          <button
            type="button"
            aria-label={page.earlier ? `Earlier picture ${index + 1}` : `Picture ${index + 1}`}
            aria-current={index === chosen}
            onClick={() => openLightbox({ nodeId, index })}
          >
            <img src={page.picture.thumbnailUrl ?? page.picture.url} alt="" draggable={false} />
          </button>
        </li>
      ))}
    </ul>
  );
}

interface RoundProps {
  readonly name: string;
  readonly icon: 'arrowLeft' | 'arrowRight' | 'close';
  readonly className: string;
  readonly onClick: () => void;
}

function Round({ name, icon, className, onClick }: RoundProps) {
  return (
    <button type="button" className={`round ${className}`} aria-label={name} onClick={onClick}>
      <Icon name={icon} size={22} />
    </button>
  );
}

/** The runs of a node, for its earlier pictures; without them the lightbox shows what the node has. */
function useJobs({ nodeId, known = [] }: Opened, runId: string | null): readonly JobRecord[] {
  const { api } = useSession();
  const completed = (jobs: readonly JobRecord[]): JobRecord[] => jobs.filter((job) => job.status === 'completed');
  const [found, setFound] = useState<{ nodeId: string; jobs: readonly JobRecord[] }>({ nodeId, jobs: completed(known) });
  useEffect(() => {
    let current = true;
    api.history(nodeId).then(
      ({ jobs }) => current && setFound({ nodeId, jobs: joined(completed(jobs), completed(known)) }),
      () => undefined,
    );
    return () => {
      current = false;
    };
  }, [api, nodeId, known, runId]);
  return found.nodeId === nodeId ? found.jobs : [];
}

function facts(page: Page, maker: string): string[] {
  const { size, seconds, costUsd, by, picture, earlier } = page;
  const known = [
    earlier ? 'Earlier' : '',
    maker,
    size,
    seconds === null ? '' : `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`,
    costUsd === null ? '' : costUsd === 0 ? 'Free' : dollars(costUsd),
    picture.seed === null ? '' : `Seed ${picture.seed}`,
    by === null ? '' : `Asked by ${by}`,
  ];
  return known.filter((fact) => fact !== '');
}
