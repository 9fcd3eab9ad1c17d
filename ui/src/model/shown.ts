// What each box of the graph shows: the steps of the chosen instances, and one state for them.

import type { Box, StepView } from "../api";
import { type Instance, instanceOf, isOpen, type Run, type State, stateOf, urgency } from "./run";

/** The instance that is chosen of each container, by the instance around it and the container. */
export type Choice = ReadonlyMap<string, string>;

export interface Shown {
  state: State;
  steps: StepView[];
  count: number;
  instances: Instance[];
  chosen: Instance | undefined;
}

export function choiceKey(parent: string, container: string): string {
  return `${parent}\n${container}`;
}

/** What boxes show, where the instances of *choice* are looked at. */
export function shown(run: Run, choice: Choice): Map<string, Shown> {
  const found = new Map<string, Shown>();
  const inside = new Map<string, string | null>([["", ""]]); // the chosen instance of a container
  const visit = (parent: string) => {
    for (const box of run.children.get(parent) ?? []) {
      const current = inside.get(parent) ?? null;
      const all = run.byBox.get(box.id) ?? [];
      const steps =
        current === null ? [] : all.filter((step) => instanceOf(step, parent) === current);
      const instances =
        current === null
          ? []
          : (run.instancesOf.get(box.id) ?? []).filter((one) => one.parent === current);
      const chosen = pick(box, instances, choice.get(choiceKey(current ?? "", box.id)));
      inside.set(box.id, chosen?.path ?? null);
      found.set(box.id, {
        state: boxState(run, box, steps, instances, current !== null),
        steps,
        count: all.length,
        instances,
        chosen,
      });
      visit(box.id);
    }
  };
  visit("");
  return found;
}

function pick(box: Box, instances: Instance[], wanted: string | undefined): Instance | undefined {
  const named = instances.find((one) => one.path === wanted);
  if (named !== undefined) return named;
  const urgent = [...instances].sort((a, b) => urgency(a.state) - urgency(b.state))[0];
  if (urgent !== undefined && isOpen(urgent.state)) return urgent;
  return box.type === "loop" ? instances.at(-1) : instances[0];
}

function boxState(
  run: Run,
  box: Box,
  steps: StepView[],
  instances: Instance[],
  reached: boolean,
): State {
  const last = steps.at(-1);
  if (last !== undefined) return stateOf(last.status);
  if (box.type === "end" || box.type === "fail") return "untaken";
  if (instances.length > 0) {
    const worst = [...instances].sort((a, b) => urgency(a.state) - urgency(b.state))[0];
    if (worst !== undefined && isOpen(worst.state)) return worst.state;
    return run.over ? "cancelled" : "running";
  }
  if (run.over || !reached) return "untaken";
  return run.view.current.includes(box.id) ? "running" : "queued";
}

/** The choice by which the step is seen. */
export function choose(run: Run, choice: Choice, step: StepView): Choice {
  const next = new Map(choice);
  let parent = "";
  const box = run.boxes.get(step.box);
  const containers: string[] = [];
  for (let at = box?.parent ?? ""; at !== ""; at = run.boxes.get(at)?.parent ?? "") {
    containers.unshift(at);
  }
  for (const container of containers) {
    const path = instanceOf(step, container);
    next.set(choiceKey(parent, container), path);
    parent = path;
  }
  return next;
}
