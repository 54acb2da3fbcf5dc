/** The canvas named in the address, `/w/{id}`; null elsewhere. */
export function workflowIdOf(path: string): string | null {
  const match = /^\/w\/([^/]+)\/?$/.exec(path);
  if (match?.[1] === undefined) return null;
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return null;
  }
}
