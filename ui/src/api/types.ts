// The shapes that `nano_vm.draw.view` and `nano_vm.draw.chart` write, field by field.

/** A string of canonical JSON: what a browser's numbers and objects would change stays as it is. */
export type Json = string;

export interface Reading {
  text: string;
  name: string;
  field: string;
}

export type Look =
  | "step"
  | "model"
  | "tool"
  | "decision"
  | "pause"
  | "fork"
  | "stop"
  | "end"
  | "fail";

export interface Box {
  id: string;
  step: string;
  type: string;
  look: Look;
  line: string;
  parent: string;
  lane: string;
  scope: string;
  when: string | null;
  test: string | null;
  lanes: string[];
  bound: number | null;
  reads: Reading[];
  writes: string[];
  written: Json;
}

export type Way = "next" | "branch" | "unless" | "catch" | "skip";

export interface Arrow {
  id: string;
  source: string;
  target: string;
  label: string;
  way: Way;
}

export interface ChartData {
  name: string;
  digest: string;
  inputs: string[];
  entry: string;
  boxes: Box[];
  arrows: Arrow[];
}

export interface ErrorView {
  kind: string;
  type: string;
  message: string;
}

export interface AttemptView {
  error: ErrorView;
  answer?: string;
  tokens?: number;
  cost?: string | null;
  start: number;
  end: number;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  cost_usd?: string;
}

export interface StepView {
  path: string;
  box: string;
  frame: string;
  step: string;
  type: string;
  status: string;
  start: number;
  end: number | null;
  output?: Json;
  request?: Json;
  error?: ErrorView;
  attempts?: AttemptView[];
  usage?: Usage;
  references?: Record<string, Json>;
  branch?: string;
  beside?: string;
  effect?: string;
  effect_key?: string;
  extra?: Json;
}

export interface RunView {
  format: number;
  id: string;
  program: string;
  program_digest: string;
  status: string;
  started: string;
  duration: number | null;
  inputs: Record<string, Json>;
  output?: Json;
  error: string | null;
  error_kind: string | null;
  tokens: number;
  cost: string | null;
  digest: string | null;
  seal: string | null;
  signed: boolean;
  erased: boolean;
  content: boolean;
  parent: string | null;
  project: string | null;
  submitter: string | null;
  labels: Record<string, string>;
  host: Json;
  chart: ChartData | null;
  chart_fault: string | null;
  taken: Record<string, number>;
  lost: string[];
  current: string[];
  steps: StepView[];
  waiting: Json[];
  messages: Json[];
}

// What `nano_vm.ui.library` writes.

/** What a run waits for, in a list. */
export interface Asked {
  path: string;
  kind: string;
  role?: string;
  event?: string;
  deadline_ns?: number;
}

export interface RunRow {
  id: string;
  program: string;
  program_digest: string;
  status: string;
  driven: boolean;
  waiting: Asked[];
  created: number;
  finished: number | null;
  due: number | null;
  steps: number;
  tokens: number;
  cost: string | null;
  error: string | null;
  parent: string | null;
  project: string | null;
  submitter: string | null;
  labels: Record<string, string>;
  erased: boolean;
}

export interface RunList {
  runs: RunRow[];
  after: string | null;
  damaged: string[];
  now: number;
}

export interface Verified {
  identical: boolean;
  complete: boolean;
  text: string;
}

/** A step of either run: `side` is `a` or `b` where only one has it. */
export interface StepDifference {
  path: string;
  side: "" | "a" | "b";
  differs: boolean;
  fields: Record<string, [Json, Json]>;
}

export interface Comparison {
  a: RunView;
  b: RunView;
  same: boolean;
  divergence: string | null;
  whole: Record<string, [Json, Json]>;
  steps: StepDifference[];
}

// What `nano_vm.ui.asking` writes and reads.

export interface Fact {
  name: string;
  text: string;
  exact: string | null;
}

/** What a run asks of a person; without `whole` it is too long for a page. */
export interface Asking {
  run: string;
  program: string;
  path: string;
  kind: "approval" | "in_doubt" | "effect";
  role: string | null;
  tool: string | null;
  facts: Fact[];
  whole: boolean;
  shown: string;
  since: number;
  deadline: number | null;
  needed: number;
  approved: string[];
}

/** `by` is who decides here: null where nobody does. */
export interface AskedList {
  asked: Asking[];
  damaged: string[];
  by: string | null;
  now: number;
}

export interface Answer {
  run: string;
  path: string;
  shown: string;
  answer: "approve" | "reject" | "resolve";
  reason: string;
  how?: "done" | "retry" | "fail";
  output?: string;
}
