import '@fontsource-variable/inter/wght.css';
import '@xyflow/react/dist/base.css';
import './theme/tokens.css';
import './theme/base.css';
import './ui/controls.css';
import './ui/chrome.css';
import './ui/notices.css';
import './ui/help.css';
import './ui/stop.css';
import './canvas/canvas.css';
import './node/sheet.css';
import './node/words.css';
import './node/extras.css';
import './lightbox/lightbox.css';
import './queue/queue.css';
import './history/history.css';

import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { takeToken } from './api/token';
import { App } from './App';
import { workflowIdOf } from './route';
import { openSession } from './session/session';
import { followTheme } from './theme/theme';
import { Door } from './ui/Door';

followTheme();
takeToken({ location: window.location, history: window.history, storage: () => window.sessionStorage });
const workflowId = workflowIdOf(window.location.pathname);
const root = document.getElementById('root');

if (root !== null && window.location.pathname === '/') {
  // Served only to those who may not make a canvas: everybody else is sent on to a new one.
  createRoot(root).render(
    <StrictMode>
      <Door />
    </StrictMode>,
  );
} else if (workflowId === null) {
  window.location.replace('/');
} else if (root !== null) {
  // Opened here and not in a component: React may mount twice, a canvas is joined once.
  const session = openSession(workflowId);
  createRoot(root).render(
    <StrictMode>
      <App session={session} />
    </StrictMode>,
  );
}
