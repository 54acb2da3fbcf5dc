// A stock y-websocket client on Node.js that a test drives: one JSON object per line in, one per line out.
//
// In: {"id": 1, "do": "set", ...}. Out: {"id": 1, "ok": result} or {"id": 1, "error": text}. Ends when its input ends.

import readline from 'node:readline'
import { isDeepStrictEqual } from 'node:util'

import WebSocket from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'

const [url, room, params] = process.argv.slice(2)
const doc = new Y.Doc()
const nodes = doc.getMap('nodes')
const edges = doc.getMap('edges')
const meta = doc.getMap('meta')
const provider = new WebsocketProvider(url, room, doc, {
  WebSocketPolyfill: WebSocket,
  connect: false,
  disableBc: true,
  params: JSON.parse(params),
})
const OWN = 'own'
const undo = new Y.UndoManager([nodes, edges], { trackedOrigins: new Set([OWN]), captureTimeout: 0 })

const closes = []
const watches = new Map() // path as JSON -> values seen, each once in a row
const waits = new Set()

const json = value => (value instanceof Y.AbstractType ? value.toJSON() : value)
const listed = map => Object.entries(map.toJSON()).map(([id, value]) => ({ id, ...value }))

/** What paths start from. */
function view() {
  return {
    nodes: nodes.toJSON(),
    edges: edges.toJSON(),
    meta: meta.toJSON(),
    awareness: Object.fromEntries(provider.awareness.getStates()),
    server: [...provider.awareness.getStates().values()].find(state => state.server) ?? null,
    status: { clientId: doc.clientID, connected: provider.wsconnected, synced: provider.synced, closes },
  }
}

const at = path => path.reduce((value, key) => value?.[key], view())

/** Look again at everything that is waited for or watched. */
function look() {
  for (const [path, seen] of watches) {
    const value = at(JSON.parse(path)) ?? null
    if (seen.length === 0 || !isDeepStrictEqual(seen.at(-1), value)) seen.push(value)
  }
  for (const wait of waits) wait()
}

/** Resolve with the value at a path once it satisfies the wish. */
function wait({ path, equals, oneOf, absent, timeoutMs = 10_000 }) {
  const wanted = value => {
    if (absent) return value === undefined || value === null
    if (equals !== undefined) return isDeepStrictEqual(value, equals)
    if (oneOf !== undefined) return oneOf.some(one => isDeepStrictEqual(value, one))
    return value !== undefined && value !== null
  }
  return new Promise((resolve, reject) => {
    const attempt = () => {
      const value = at(path)
      if (!wanted(value)) return
      end()
      resolve(value ?? null)
    }
    const timer = setTimeout(() => {
      end()
      reject(new Error(`${JSON.stringify(path)} is ${JSON.stringify(at(path))} after ${timeoutMs} ms`))
    }, timeoutMs)
    const end = () => {
      clearTimeout(timer)
      waits.delete(attempt)
    }
    waits.add(attempt)
    attempt()
  })
}

const text = value => {
  const made = new Y.Text()
  made.insert(0, value)
  return made
}

/** A map as the canvas keeps it: `data` nested, the prompt as text that several people can type in. */
function nested(value) {
  const made = new Y.Map()
  for (const [key, one] of Object.entries(value)) {
    if (key === 'data') made.set(key, nested(one))
    else if (key === 'params') made.set(key, new Y.Map(Object.entries(one)))
    else if (key === 'prompt' && typeof one === 'string') made.set(key, text(one))
    else made.set(key, one)
  }
  return made
}

/** The map that holds the last key of a path, from a node. */
function holder(id, path) {
  const node = nodes.get(id)
  if (node === undefined) throw new Error(`there is no node ${id}`)
  return path.slice(0, -1).reduce((map, key) => map.get(key), node)
}

const own = change => doc.transact(change, OWN)

const commands = {
  connect: async ({ timeoutMs }) => {
    provider.connect()
    await wait({ path: ['status', 'synced'], equals: true, timeoutMs })
    return { clientId: doc.clientID }
  },
  disconnect: () => provider.disconnect(),
  get: ({ path }) => at(path) ?? null,
  flow: () => ({ nodes: listed(nodes), edges: listed(edges) }),
  wait,
  watch: ({ path }) => {
    watches.set(JSON.stringify(path), [])
    look()
  },
  seen: ({ path }) => watches.get(JSON.stringify(path)),
  addNode: ({ node: { id, ...rest } }) => own(() => nodes.set(id, nested(rest))),
  addPlainNode: ({ node: { id, ...rest } }) => own(() => nodes.set(id, rest)),
  removeNode: ({ nodeId }) => own(() => nodes.delete(nodeId)),
  addEdge: ({ edge: { id, ...rest } }) => own(() => edges.set(id, nested(rest))),
  removeEdge: ({ edgeId }) => own(() => edges.delete(edgeId)),
  set: ({ nodeId, path, value }) => own(() => holder(nodeId, path).set(path.at(-1), value)),
  unset: ({ nodeId, path }) => own(() => holder(nodeId, path).delete(path.at(-1))),
  setPrompt: ({ nodeId, text: value }) => own(() => holder(nodeId, ['data', 'prompt']).set('prompt', text(value))),
  typePrompt: ({ nodeId, index, text: value }) =>
    own(() => holder(nodeId, ['data', 'prompt']).get('prompt').insert(index, value)),
  undo: () => undo.undo() !== null,
  redo: () => undo.redo() !== null,
  awareness: () => Object.fromEntries(provider.awareness.getStates()),
  setAwareness: ({ state }) => provider.awareness.setLocalState(state),
  state: () => Buffer.from(Y.encodeStateAsUpdate(doc)).toString('base64'),
}

function answer(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`)
}

for (const event of ['update', 'destroy']) doc.on(event, look)
provider.awareness.on('change', look)
for (const event of ['status', 'sync']) provider.on(event, look)
provider.on('connection-close', event => {
  if (event !== null) closes.push(event.code)
  look()
})

readline.createInterface({ input: process.stdin }).on('line', async line => {
  const { id, do: name, ...fields } = JSON.parse(line)
  try {
    answer({ id, ok: json(await commands[name](fields)) ?? null })
  } catch (error) {
    answer({ id, error: error instanceof Error ? error.message : String(error) })
  }
}).on('close', () => {
  provider.destroy()
  process.exit(0)
})
