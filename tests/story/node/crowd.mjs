// Many stock y-websocket clients in one process: tells, whenever it changes, how many of them are in step.
//
// node crowd.mjs URL ROOMS-AS-JSON COUNT

import WebSocket from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

const [url, rooms, count] = process.argv.slice(2)
const names = JSON.parse(rooms)
let synced = 0
let told = -1

// Each client listens for the end of the process.
process.setMaxListeners(0)

for (let number = 0; number < Number(count); number += 1) {
  const provider = new WebsocketProvider(url, names[number % names.length], new Y.Doc(), {
    WebSocketPolyfill: WebSocket,
    disableBc: true,
  })
  provider.awareness.setLocalState({ user: { name: `Client ${number}` } })
  provider.on('connection-error', () => {})
  provider.on('sync', state => {
    synced += state ? 1 : -1
  })
}
setInterval(() => {
  if (synced !== told) process.stdout.write(`${JSON.stringify({ synced })}\n`)
  told = synced
}, 20)
