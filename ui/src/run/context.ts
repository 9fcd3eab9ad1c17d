import { createContext, useContext } from "react";
import type { Lineage, Name } from "../model/lineage";
import type { Run, State } from "../model/run";

/** What all panels of a run share: what is selected, and the name whose lineage is looked at. */
export interface Looking {
  run: Run;
  selected: string | null; // the path of a step, or `box:` and a box that has none
  lineage: Lineage | null;
  select: (path: string) => void;
  look: (name: Name | null) => void;
}

export const LookingContext = createContext<Looking | null>(null);

export function useLooking(): Looking {
  const found = useContext(LookingContext);
  if (found === null) throw new Error("outside of a run's page");
  return found;
}

export function lit(lineage: Lineage | null, box: string): "writer" | "reader" | null {
  if (lineage === null) return null;
  if (lineage.writers.includes(box)) return "writer";
  return lineage.readers.includes(box) ? "reader" : null;
}

export type { State };
