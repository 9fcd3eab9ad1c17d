// Long chains of finished steps become one box, so that a graph of thousands can be read.

import type { Arrow, Box } from "../api";
import type { State } from "./run";

export interface Chain {
  id: string;
  boxes: string[];
}

export interface Folded {
  boxes: Box[];
  arrows: Arrow[];
  chains: Map<string, Chain>;
}

export const SHORTEST_CHAIN = 4;

/** *keep* are boxes that stay as they are, *opened* chains that a person opened. */
export function foldChains(
  boxes: Box[],
  arrows: Arrow[],
  stateOf: (box: string) => State,
  keep: ReadonlySet<string>,
  opened: ReadonlySet<string>,
): Folded {
  const into = new Map<string, Arrow[]>();
  const outOf = new Map<string, Arrow[]>();
  for (const arrow of arrows) {
    push(into, arrow.target, arrow);
    push(outOf, arrow.source, arrow);
  }
  const containers = new Set(boxes.map((box) => box.parent));
  const byId = new Map(boxes.map((box) => [box.id, box]));
  const links = (box: Box): boolean => {
    const only = outOf.get(box.id) ?? [];
    return only.length === 1 && only[0]?.way === "next";
  };
  const fits = (box: Box): boolean =>
    !containers.has(box.id) &&
    !keep.has(box.id) &&
    box.look !== "decision" &&
    box.look !== "end" &&
    box.look !== "fail" &&
    ["done", "untaken", "queued"].includes(stateOf(box.id)) &&
    (into.get(box.id) ?? []).length <= 1 &&
    links(box);
  const chains = new Map<string, Chain>();
  const chainOf = new Map<string, string>();
  for (const box of boxes) {
    if (chainOf.has(box.id) || !fits(box)) continue;
    const before = byId.get(into.get(box.id)?.[0]?.source ?? "");
    if (before !== undefined && continues(before, box)) continue; // not the first of its chain
    const members = [box.id];
    let at: Box | undefined = box;
    while (at !== undefined) {
      const next: Box | undefined = byId.get(outOf.get(at.id)?.[0]?.target ?? "");
      if (next === undefined || !continues(at, next)) break;
      members.push(next.id);
      at = next;
    }
    const id = `chain:${box.id}`;
    if (members.length < SHORTEST_CHAIN || opened.has(id)) continue;
    chains.set(id, { id, boxes: members });
    for (const member of members) chainOf.set(member, id);
  }

  function continues(a: Box, b: Box): boolean {
    const alike = a.parent === b.parent && a.lane === b.lane && stateOf(a.id) === stateOf(b.id);
    return alike && fits(a) && fits(b);
  }

  const kept: Box[] = [];
  const made = new Set<string>();
  for (const box of boxes) {
    const id = chainOf.get(box.id);
    if (id === undefined) kept.push(box);
    else if (!made.has(id)) {
      made.add(id);
      kept.push({ ...box, id, step: "", type: "chain", line: "", reads: [], writes: [] });
    }
  }
  const name = (id: string) => chainOf.get(id) ?? id;
  const outer = arrows
    .map((arrow) => ({ ...arrow, source: name(arrow.source), target: name(arrow.target) }))
    .filter((arrow) => arrow.source !== arrow.target || !chains.has(arrow.source));
  return { boxes: kept, arrows: outer, chains };
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const group = map.get(key);
  if (group === undefined) map.set(key, [value]);
  else group.push(value);
}
