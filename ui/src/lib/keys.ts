// Keys of a page: single letters, which belong to a field where one is typed into.

const FIELDS = "input:not([type=checkbox]), textarea, select, dialog, [contenteditable]";

/** Whether a key is for the page: no shortcut of the browser, and not typed into a field. The
 * target of an event out of a shadow root is its host: the field stands in the path alone. */
export function isForPage(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  return !event.composedPath().some((one) => one instanceof Element && one.matches(FIELDS));
}
