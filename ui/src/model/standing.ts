// How a run stands, as a state and in words: what it waits for counts more than that it waits.

import type { Asked } from "../api";
import { type State, stateOf } from "./run";

export interface Standing {
  state: State;
  text: string;
}

export function standing(status: string, waiting: Asked[], driven = true): Standing {
  if (status === "suspended") {
    const doubt = waiting.some((asked) => asked.kind === "in_doubt" || asked.kind === "effect");
    const words = [...new Set(waiting.map(waitsFor))];
    return { state: doubt ? "doubt" : "waiting", text: words.join(", ") || "suspended" };
  }
  if (status === "running" && !driven) return { state: "retrying", text: "left behind" };
  return { state: stateOf(status), text: status === "success" ? "done" : status };
}

function waitsFor(asked: Asked): string {
  switch (asked.kind) {
    case "approval":
      return `waiting for ${asked.role ?? "a person"}`;
    case "in_doubt":
      return "in doubt";
    case "effect":
      return "stopped before an effect";
    default:
      return asked.event === undefined ? "waiting for a time" : `waiting for event ${asked.event}`;
  }
}
