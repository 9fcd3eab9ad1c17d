// What a person may change of a run that is forked: fields as text in, the body of a request out.
// Values stay JSON as it was written: a browser's numbers would round some of them.

import type { RunView, StepView } from "../api";
import { checkedJson, field, type Node, parse, pretty } from "../lib/json";

/** Something that can be changed: *name* and *field* are those of the API's `edit`. */
export interface Change {
  name: string;
  field: string;
  label: string;
  kind: "text" | "json";
  before: string;
}

/** Drafts by the key of what they change. */
export type Drafts = ReadonlyMap<string, { change: Change; text: string }>;

const OUTSIDE = new Set(["tool", "llm", "approval", "wait"]);
const FIELDS: Record<string, string[]> = {
  llm: ["prompt", "messages", "model"],
  tool: ["args"],
};

export function keyOf(change: Change): string {
  return `${change.name}\n${change.field}`;
}

/** The steps that a fork can change or begin at, in the order of their records. */
export function stepsToFork(view: RunView): StepView[] {
  return view.steps.filter((step) => OUTSIDE.has(step.type) && step.beside === undefined);
}

/** What can be changed of the inputs of a run. */
export function inputChanges(view: RunView): Change[] {
  return Object.entries(view.inputs).map(([name, json]) => ({
    name: "inputs",
    field: name,
    label: name,
    ...shownAs(json),
  }));
}

/** What can be changed of a step: what it gave, unless a person decided it, and what the program
 * says of it. */
export function stepChanges(view: RunView, step: StepView): Change[] {
  const found: Change[] = [];
  if (step.type !== "approval") {
    const output = step.output ?? "null";
    found.push({ name: step.path, field: "output", label: "Output", ...shownAs(output) });
  }
  const box = view.chart?.boxes.find((one) => one.id === step.box);
  const written = box === undefined ? undefined : readable(box.written);
  for (const name of FIELDS[step.type] ?? []) {
    const value = field(written, name);
    if (value === undefined && name !== "model") continue;
    const before =
      value === undefined
        ? { kind: "text" as const, before: "" }
        : value.kind === "string"
          ? { kind: "text" as const, before: value.value }
          : { kind: "json" as const, before: pretty(value) };
    found.push({ name: step.step, field: name, label: LABELS[name] ?? name, ...before });
  }
  return found;
}

const LABELS: Record<string, string> = {
  prompt: "Prompt",
  messages: "Messages",
  model: "Model",
  args: "Arguments",
};

function readable(json: string): Node | undefined {
  try {
    return parse(json);
  } catch {
    return undefined;
  }
}

function shownAs(json: string): { kind: "text" | "json"; before: string } {
  const node = readable(json);
  if (node?.kind === "string") return { kind: "text", before: node.value };
  return { kind: "json", before: node === undefined ? json : pretty(node) };
}

/** The drafts that differ from what is recorded. */
export function changed(drafts: Drafts): { change: Change; text: string }[] {
  return [...drafts.values()].filter(({ change, text }) => text !== change.before);
}

/** The body of a request for a fork; raises where a text is no JSON. */
export function forkBody(drafts: Drafts, at: string | null, effects: boolean): string {
  const parts = new Map<string, string[]>();
  for (const { change, text } of changed(drafts)) {
    const fields = parts.get(change.name) ?? [];
    fields.push(`${JSON.stringify(change.field)}:${jsonOf(change, text)}`);
    parts.set(change.name, fields);
  }
  const edit = [...parts].map(([name, fields]) => `${JSON.stringify(name)}:{${fields.join(",")}}`);
  return `{"edit":{${edit.join(",")}},"at":${JSON.stringify(at)},"effects":${effects}}`;
}

function jsonOf(change: Change, text: string): string {
  if (change.kind === "text") return JSON.stringify(text);
  return checkedJson(`${change.label} of ${change.name}`, text);
}
