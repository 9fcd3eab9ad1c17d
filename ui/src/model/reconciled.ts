// What the tool said that was asked what became of a call in doubt.

import type { RunView, StepView } from "../api";

/** The newest call of its reconcile for the step at *path*; null where none was made. */
export function reconciled(view: RunView, path: string): StepView | null {
  const made = view.steps.filter(
    (step) => step.beside === "reconcile" && stepAsked(step.path) === path,
  );
  return made.at(-1) ?? null;
}

/** Of `pay/reconcile`, or of `pay/reconcile#2` where it was asked again: `pay`. */
function stepAsked(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}
