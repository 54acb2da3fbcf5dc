import { createContext, useContext } from 'react';

import { useCell } from '../store/hooks';
import type { Session } from './session';

export const SessionContext = createContext<Session | null>(null);

export function useSession(): Session {
  const session = useContext(SessionContext);
  if (session === null) throw new Error('no session around this component');
  return session;
}

/** Whether this page may change the canvas, or only look. */
export function useMayEdit(): boolean {
  return useCell(useSession().connection).mayEdit;
}

/** Whether the server can be asked for something now. */
export function useLive(): boolean {
  return useCell(useSession().connection).link === 'live';
}
