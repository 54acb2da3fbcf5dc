import { useStore } from '@xyflow/react';
import type { CSSProperties } from 'react';

import { peerColor } from '../presence/colors';
import type { Peer } from '../presence/states';
import { useSession } from '../session/context';
import { useCellOf } from '../store/hooks';

/** The outline and name of others who have this node selected. */
export function Marks({ nodeId }: { nodeId: string }) {
  const { presence } = useSession();
  const peers = useCellOf(presence.selecting, nodeId);
  const first = peers?.[0];
  if (peers === undefined || first === undefined) return null;
  return <Mark peers={peers} first={first} />;
}

/** Names keep their size at every zoom. */
function Mark({ peers, first }: { peers: readonly Peer[]; first: Peer }) {
  const zoom = useStore((state) => state.transform[2]);
  const names = peers.map((peer) => peer.name).join(', ');
  return (
    <div className="marks" style={{ '--peer': peerColor(first) } as CSSProperties}>
      <span style={{ transform: `scale(${1 / zoom})` }}>{names}</span>
    </div>
  );
}
