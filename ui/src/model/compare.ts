// Two runs on one graph: boxes and arrows of both, what only one did, what differs, where first.

import type { Arrow, Box, Comparison, StepDifference } from "../api";

export type Side = "same" | "changed" | "a" | "b" | "none";

export interface Merged {
  boxes: Box[];
  arrows: Arrow[];
  sides: Map<string, Side>; // of boxes
  taken: Map<string, Side>; // who took an arrow, or has it
  diverges: string | null; // the box of the first step that differs
}

export function boxOf(path: string): string {
  return path.replace(/#\d+|\[\d+\]/g, "");
}

export function merge(found: Comparison): Merged {
  const boxes = new Map<string, Box>();
  const arrows = new Map<string, Arrow>();
  for (const view of [found.a, found.b]) {
    for (const box of view.chart?.boxes ?? []) if (!boxes.has(box.id)) boxes.set(box.id, box);
    for (const arrow of view.chart?.arrows ?? []) {
      if (!arrows.has(arrow.id)) arrows.set(arrow.id, arrow);
    }
  }
  const sides = new Map<string, Side>();
  for (const step of found.steps) {
    const box = boxOf(step.path);
    const side: Side = step.side !== "" ? step.side : step.differs ? "changed" : "same";
    const before = sides.get(box);
    sides.set(box, before === undefined || before === side ? side : "changed");
  }
  const taken = new Map<string, Side>();
  for (const id of arrows.keys()) {
    const inA = (found.a.taken[id] ?? 0) > 0;
    const inB = (found.b.taken[id] ?? 0) > 0;
    taken.set(id, inA ? (inB ? "same" : "a") : inB ? "b" : "none");
  }
  return {
    boxes: [...boxes.values()],
    arrows: [...arrows.values()],
    sides,
    taken,
    diverges: found.divergence === null ? null : boxOf(found.divergence),
  };
}

const MEASURES = new Set(["tokens", "cost_usd", "duration_ms"]);

const NAMES: Record<string, string> = {
  duration_ms: "time",
  cost_usd: "cost",
  references: "values read",
  retries: "failed attempts",
};

/** A field of a difference, in the words of a page. */
export function fieldName(name: string): string {
  return NAMES[name] ?? name;
}

/** In what two differ outside of their steps; what they cost and how long they took does not count. */
export function differingIn(whole: Comparison["whole"]): string {
  return Object.keys(whole)
    .filter((name) => !MEASURES.has(name))
    .map(fieldName)
    .join(", ");
}

/** Several steps in one row: those that are equal, or those that only one run has. */
export interface Group {
  group: "same" | "a" | "b";
  count: number;
}

const MOST_ALONE = 3; // steps of one side that stand each in a row of its own

/** Steps that differ each in a row; others, and long stretches of one side, in groups. */
export function folded(steps: StepDifference[], open: boolean): (StepDifference | Group)[] {
  if (open) return steps;
  const found: (StepDifference | Group)[] = [];
  const kind = (step: StepDifference | undefined) =>
    step === undefined ? null : step.side !== "" ? step.side : step.differs ? null : "same";
  for (let at = 0; at < steps.length; ) {
    const group = kind(steps[at]);
    let end = at + 1;
    while (group !== null && end < steps.length && kind(steps[end]) === group) end += 1;
    const count = end - at;
    if (group !== null && (group === "same" || count > MOST_ALONE)) found.push({ group, count });
    else found.push(...steps.slice(at, end));
    at = end;
  }
  return found;
}

export interface Word {
  text: string;
  side: "" | "a" | "b";
}

const MOST_WORDS = 1_500; // of each text, where they differ: the table has their product

/** The words of two texts in one: those of both, of the first, of the second. */
export function words(a: string, b: string): Word[] {
  const left = split(a);
  const right = split(b);
  const shorter = Math.min(left.length, right.length);
  let head = 0;
  while (head < shorter && left[head] === right[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head && left.at(-1 - tail) === right.at(-1 - tail)) tail += 1;
  const found = [
    { text: left.slice(0, head).join(""), side: "" as const },
    ...between(left.slice(head, left.length - tail), right.slice(head, right.length - tail)),
    { text: left.slice(left.length - tail).join(""), side: "" as const },
  ];
  return found.filter((word) => word.text !== "");
}

function between(left: string[], right: string[]): Word[] {
  if (left.length > MOST_WORDS || right.length > MOST_WORDS) {
    return [
      { text: left.join(""), side: "a" },
      { text: right.join(""), side: "b" },
    ];
  }
  // lengths of the longest common sequence of what is left of both, row by row
  const wide = right.length + 1;
  const table = new Uint16Array((left.length + 1) * wide);
  const at = (i: number, j: number): number => table[i * wide + j] ?? 0;
  for (let i = left.length - 1; i >= 0; i--) {
    for (let j = right.length - 1; j >= 0; j--) {
      table[i * wide + j] =
        left[i] === right[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const found: Word[] = [];
  const add = (text: string, side: Word["side"]) => {
    const last = found.at(-1);
    if (last !== undefined && last.side === side) last.text += text;
    else found.push({ text, side });
  };
  let i = 0;
  let j = 0;
  while (i < left.length || j < right.length) {
    const one = left[i];
    const other = right[j];
    if (one !== undefined && one === other) {
      add(one, "");
      i += 1;
      j += 1;
    } else if (other === undefined || (one !== undefined && at(i + 1, j) >= at(i, j + 1))) {
      add(one ?? "", "a");
      i += 1;
    } else {
      add(other, "b");
      j += 1;
    }
  }
  return found;
}

function split(text: string): string[] {
  return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
}
