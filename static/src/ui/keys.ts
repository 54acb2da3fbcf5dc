/** What the command key is called here. */
const COMMAND = /Mac|iPhone|iPad/.test(globalThis.navigator?.platform ?? '') ? '⌘' : 'Ctrl';

/** Names of keys as this machine's keyboard has them. */
export function keyNames(keys: string): string {
  return keys.replace('Ctrl', COMMAND);
}
