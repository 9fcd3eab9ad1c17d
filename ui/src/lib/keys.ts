// Keys of a page: single letters, which belong to a field where one is typed into.

const FIELDS = "input:not([type=checkbox]), textarea, select, dialog";

/** Whether a key is for the page: no shortcut of the browser, and not typed into a field. */
export function isForPage(event: KeyboardEvent): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  return !(event.target instanceof Element && event.target.closest(FIELDS) !== null);
}
