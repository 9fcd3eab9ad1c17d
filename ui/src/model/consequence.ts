// What runs next on yes and on no, in the words of the program.

import type { RunView } from "../api";
import { field, type Node, parse, words } from "../lib/json";

export interface Consequence {
  step: string;
  what: string;
  effect: string; // of the tool, "" for other steps
}

/** The steps that follow the step *box* by the way *label*; null where the graph does not say. */
export function consequence(view: RunView, box: string, label: string): Consequence[] | null {
  if (view.chart === null) return null;
  const { boxes, arrows } = view.chart;
  const ways = arrows.filter((arrow) => arrow.source === box && arrow.id.endsWith(`: ${label}`));
  return ways.flatMap((arrow) => {
    const next = boxes.find((one) => one.id === arrow.target);
    if (next === undefined) return [];
    if (next.look === "end") return [{ step: "", what: "the run ends", effect: "" }];
    if (next.look === "fail") return [{ step: "", what: "the run fails", effect: "" }];
    const tool = words(field(read(next.written), "tool"));
    const effect = words(field(field(field(read(view.host), "tools"), tool), "effect"));
    const what = tool === "" ? next.line || next.type : next.line;
    return [{ step: next.step, what, effect: tool === "" ? "" : effect || "write" }];
  });
}

/** What an effect means to who decides. */
export function effectWords(effect: string): string {
  switch (effect) {
    case "irreversible":
      return "cannot be undone";
    case "write":
      return "changes something outside";
    case "idempotent":
      return "changes something outside, once however often it is called";
    default:
      return "";
  }
}

function read(json: string): Node | undefined {
  try {
    return parse(json);
  } catch {
    return undefined;
  }
}
