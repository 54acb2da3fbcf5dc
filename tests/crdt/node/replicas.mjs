// Real yjs documents that a test drives: one JSON object per line in, one per line out, in order. Bytes are base64.
//
// In: {"do": "set", "at": 3, ...}. Out: {"ok": result} or {"error": text}. Ends when its input ends.

import readline from 'node:readline'

import * as Y from 'yjs'

const OWN = 'own'
const replicas = new Map()

const bytes = text => Buffer.from(text, 'base64')
const text = data => Buffer.from(data).toString('base64')

function open(at, client, update) {
  const doc = new Y.Doc()
  doc.clientID = client
  if (update) Y.applyUpdate(doc, bytes(update))
  const [nodes, edges, meta] = ['nodes', 'edges', 'meta'].map(name => doc.getMap(name))
  const undo = new Y.UndoManager([nodes, edges], { trackedOrigins: new Set([OWN]), captureTimeout: 0 })
  replicas.set(at, { doc, nodes, edges, meta, undo })
}

/** A map as the canvas keeps it: `data` nested, the prompt as text. */
function nested(value) {
  const made = new Y.Map()
  for (const [key, one] of Object.entries(value)) {
    if (key === 'data') made.set(key, nested(one))
    else if (key === 'prompt') made.set(key, new Y.Text(one))
    else made.set(key, one)
  }
  return made
}

const holder = ({ nodes }, node, inData) => (inData ? nodes.get(node)?.get('data') : nodes.get(node))

const edits = {
  add: ({ nodes }, { node, value }) => nodes.set(node, nested(value)),
  remove: ({ nodes }, { node }) => nodes.delete(node),
  set: (replica, { node, inData, key, value }) => holder(replica, node, inData)?.set(key, value),
  unset: (replica, { node, inData, key }) => holder(replica, node, inData)?.delete(key),
  type: (replica, { node, index, value }) => {
    const prompt = holder(replica, node, true)?.get('prompt')
    if (prompt instanceof Y.Text) prompt.insert(Math.min(index, prompt.length), value)
  },
  cut: (replica, { node, index, length }) => {
    const prompt = holder(replica, node, true)?.get('prompt')
    if (prompt instanceof Y.Text && index < prompt.length) prompt.delete(index, Math.min(length, prompt.length - index))
  },
}

const commands = {
  open: (_, { at, client, update }) => open(at, client, update),
  close: ({ doc }, { at }) => {
    doc.destroy()
    replicas.delete(at)
  },
  edit: (replica, { edit, ...fields }) => {
    replica.doc.transact(() => edits[edit](replica, fields), OWN)
  },
  undo: ({ undo }) => undo.undo() !== null,
  redo: ({ undo }) => undo.redo() !== null,
  forget: ({ undo }) => undo.clear(),
  vector: ({ doc }) => text(Y.encodeStateVector(doc)),
  update: ({ doc }, { vector }) => text(Y.encodeStateAsUpdate(doc, vector ? bytes(vector) : undefined)),
  apply: ({ doc }, { update }) => Y.applyUpdate(doc, bytes(update)),
  json: ({ nodes, edges, meta }) => ({ nodes: nodes.toJSON(), edges: edges.toJSON(), meta: meta.toJSON() }),
  waits: ({ doc }) => doc.store.pendingStructs !== null || doc.store.pendingDs !== null,
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { do: name, ...fields } = JSON.parse(line)
  let answer
  try {
    answer = { ok: commands[name](replicas.get(fields.at), fields) ?? null }
  } catch (error) {
    answer = { error: error instanceof Error ? error.stack : String(error) }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
