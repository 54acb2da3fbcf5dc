import { hueColor, hueOf } from '../session/identity';
import type { Peer } from './states';

/** The colour somebody asked for, else the hue of their id. */
export function peerColor(peer: Pick<Peer, 'id' | 'color'>): string {
  return peer.color ?? hueColor(hueOf(peer.id));
}
