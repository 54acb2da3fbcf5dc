/** Origin of this tab's own edits: the only ones its undo takes back. */
export const LOCAL = Object.freeze({ name: 'local' });

/** Origin of this tab's commands to the server: shared like any edit, never undone. */
export const COMMAND = Object.freeze({ name: 'command' });
