/** Whether an event belongs to a text field or an open dialog, where the canvas has no say. */
export function isTyping(event: Event): boolean {
  const target = event.target;
  if (!(target instanceof Element)) return false;
  return target.closest('input, textarea, select, [contenteditable="true"], dialog, .popover') !== null;
}
