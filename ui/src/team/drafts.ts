// What is written of a program and not saved yet: kept for as long as its tab is open, so that the
// end of a session, or another page, costs nothing of it.

const PREFIX = "nano-vm-draft ";

const keyOf = (project: string, name: string | null) => PREFIX + JSON.stringify([project, name]);

/** The draft of a program, or of a new one, which has no name; null where there is none. */
export function draftOf(project: string, name: string | null): string | null {
  try {
    return sessionStorage.getItem(keyOf(project, name));
  } catch {
    return null; // a browser may keep nothing
  }
}

/** Keeps *text* as the draft; null removes it. */
export function keepDraft(project: string, name: string | null, text: string | null): void {
  try {
    if (text === null) sessionStorage.removeItem(keyOf(project, name));
    else sessionStorage.setItem(keyOf(project, name), text);
  } catch {}
}

/** Removes all drafts, for whoever uses this tab next. */
export function removeDrafts(): void {
  try {
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
    }
  } catch {}
}
