import { ReactFlowProvider } from '@xyflow/react';

import { Canvas } from './canvas/Canvas';
import { FirstPicture } from './canvas/FirstPicture';
import { Toolbar } from './canvas/Toolbar';
import { ZoomBar } from './canvas/ZoomBar';
import { History } from './history/History';
import { Lightbox } from './lightbox/Lightbox';
import { SessionContext } from './session/context';
import type { Session } from './session/session';
import { Help } from './ui/Help';
import { Banner, DemoBadge, ToastList } from './ui/Notices';
import { Stop } from './ui/Stop';
import { TopBar } from './ui/TopBar';

export function App({ session }: { session: Session }) {
  return (
    <SessionContext value={session}>
      <ReactFlowProvider>
        <TopBar />
        <Canvas />
        <FirstPicture />
        <footer className="bottom">
          <ZoomBar />
          <Toolbar />
          <DemoBadge />
        </footer>
        <Banner />
        <ToastList />
        <Help />
        <History />
        <Lightbox />
        <Stop />
      </ReactFlowProvider>
    </SessionContext>
  );
}
