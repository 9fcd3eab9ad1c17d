// Two versions of a program on one graph: a step that stands at the same place in both is one box.

import type { Arrow, Box, ChartData, StepDifference } from "../api";
import type { Merged, Side } from "./compare";

export interface MergedVersions extends Merged {
  steps: Map<string, StepDifference>; // by box; an end of the run has none
}

type Boxes = Map<string, Box>;

/** What a difference of two programs calls the step of a box: its id, behind the calls around it. */
function nameOf(box: Box, boxes: Boxes): string {
  const call = boxes.get(box.scope);
  return call === undefined ? box.step : `${nameOf(call, boxes)}/${box.step}`;
}

function isEnd(box: Box): boolean {
  return box.look === "end" || box.look === "fail";
}

/** A chart that could not be drawn stands for one without boxes. */
export function mergeVersions(
  a: ChartData | null,
  b: ChartData | null,
  found: StepDifference[],
): MergedVersions {
  const before: Boxes = new Map(a?.boxes.map((box) => [box.id, box]));
  const after: Boxes = new Map(b?.boxes.map((box) => [box.id, box]));
  const idOf = identified(before, after);
  const boxes: Boxes = new Map(before);
  const names = new Map<string, string>(); // of steps, by box of the merged graph
  const sides = new Map<string, Side>();
  const differences = new Map(found.map((step) => [step.path, step]));
  for (const box of before.values()) {
    sides.set(box.id, "a");
    if (!isEnd(box)) names.set(box.id, nameOf(box, before));
  }
  for (const box of after.values()) {
    const id = idOf(box.id);
    const name = isEnd(box) ? null : nameOf(box, after);
    if (name !== null) names.set(id, name);
    if (boxes.has(id)) {
      const differs = name !== null && differences.get(name)?.differs === true;
      sides.set(id, differs ? "changed" : "same");
      continue;
    }
    boxes.set(id, { ...box, id, parent: idOf(box.parent) });
    sides.set(id, "b");
  }
  const steps = new Map<string, StepDifference>();
  for (const [id, name] of names) {
    const step = differences.get(name);
    if (step !== undefined) steps.set(id, step);
  }
  return { ...arrowsOf(a, b, idOf), boxes: [...boxes.values()], sides, diverges: null, steps };
}

/** The merged box that a box of the second version is: that of the first with its step, if it
 * stands in the same container, else one of its own.
 */
function identified(before: Boxes, after: Boxes): (id: string) => string {
  const byName = new Map<string, Box>();
  for (const box of before.values()) if (!isEnd(box)) byName.set(nameOf(box, before), box);
  const known = new Map<string, string>([["", ""]]);
  const idOf = (id: string): string => {
    const found = known.get(id);
    const box = after.get(id);
    if (found !== undefined || box === undefined) return found ?? id;
    const twin = isEnd(box) ? before.get(id) : byName.get(nameOf(box, after));
    const same = twin !== undefined && twin.parent === idOf(box.parent);
    const own = before.has(id) ? `${id} of the second` : id;
    const made = same ? twin.id : own;
    known.set(id, made);
    return made;
  };
  return idOf;
}

function arrowsOf(
  a: ChartData | null,
  b: ChartData | null,
  idOf: (id: string) => string,
): Pick<Merged, "arrows" | "taken"> {
  const arrows = new Map<string, Arrow>(a?.arrows.map((arrow) => [arrow.id, arrow]));
  const taken = new Map<string, Side>([...arrows.keys()].map((id) => [id, "a"]));
  for (const arrow of b?.arrows ?? []) {
    const source = idOf(arrow.source);
    const target = idOf(arrow.target);
    const rest = arrow.id.slice(`${arrow.source} > ${arrow.target}`.length);
    const id = `${source} > ${target}${rest}`;
    taken.set(id, arrows.has(id) ? "same" : "b");
    if (!arrows.has(id)) arrows.set(id, { ...arrow, id, source, target });
  }
  return { arrows: [...arrows.values()], taken };
}
