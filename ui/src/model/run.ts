// A run made ready to be shown: its steps as a tree, by box and by instance of each container.
//
// An *instance* is one time that a container ran its steps: an item of a map, a turn of a loop. Its
// name is the beginning of the paths of its steps: `items[3]`, `draft#2`. The run itself is "".

import type { Arrow, Box, ErrorView, RunView, StepView } from "../api";

export type State =
  | "done"
  | "running"
  | "waiting"
  | "retrying"
  | "failed"
  | "doubt"
  | "skipped"
  | "cancelled"
  | "untaken"
  | "queued";

export interface Instance {
  path: string;
  box: string;
  label: string;
  state: State;
  parent: string;
  steps: StepView[];
  open: State | null; // the most urgent state of what is in it, however deep
}

/** A row of the tree: a step, an instance, or a container whose own record has not come. */
export interface Row {
  key: string;
  depth: number;
  step: StepView | null;
  instance: Instance | null;
  box: Box | null;
  name: string;
  state: State;
  start: number;
  end: number | null;
  inside: number;
}

export interface Run {
  view: RunView;
  over: boolean;
  boxes: Map<string, Box>;
  children: Map<string, Box[]>;
  arrows: Arrow[];
  byPath: Map<string, StepView>;
  byBox: Map<string, StepView[]>;
  beside: Map<string, StepView[]>;
  instances: Map<string, Instance>;
  instancesOf: Map<string, Instance[]>;
  problems: StepView[];
  end: number;
  root: Branch[];
}

interface Branch {
  row: Omit<Row, "depth" | "inside">;
  below: Branch[];
}

/** Whether a run came with the graph of its program, or with why there is none. */
export function isDrawn(view: RunView): boolean {
  return view.chart !== null || view.chart_fault !== null;
}

const WORDS: Record<State, string> = {
  done: "done",
  running: "running",
  waiting: "waiting",
  retrying: "retrying",
  failed: "failed",
  doubt: "in doubt",
  skipped: "skipped",
  cancelled: "cancelled",
  untaken: "not taken",
  queued: "not reached",
};

export function word(state: State): string {
  return WORDS[state];
}

/** An error where there is little room: its message, or its class where it has none. */
export function errorBrief({ type, message }: ErrorView): string {
  return message === "" ? type : message;
}

/** An error in words: its class, and its message where it has one. */
export function errorText({ type, message }: ErrorView): string {
  return message === "" ? type : `${type}: ${message}`;
}

export function stateOf(status: string): State {
  switch (status) {
    case "success":
      return "done";
    case "suspended":
      return "waiting";
    case "in_doubt":
      return "doubt";
    case "failed":
    case "skipped":
    case "cancelled":
    case "running":
      return status;
    default:
      return "queued";
  }
}

const URGENCY: State[] = ["doubt", "failed", "waiting", "retrying", "running"];

/** Lower is what a person should see first. */
export function urgency(state: State): number {
  const at = URGENCY.indexOf(state);
  return at < 0 ? URGENCY.length : at;
}

export function isProblem(state: State): boolean {
  return state === "doubt" || state === "failed";
}

/** Never hidden: what a person may have to act on. */
export function isOpen(state: State): boolean {
  return urgency(state) < URGENCY.length;
}

/** The first *count* parts of a path. */
export function head(path: string, count: number): string {
  if (count === 0) return "";
  let at = -1;
  for (let i = 0; i < count; i++) {
    at = path.indexOf("/", at + 1);
    if (at < 0) return path;
  }
  return path.slice(0, at);
}

function size(id: string): number {
  return id === "" ? 0 : id.split("/").length;
}

/** The instance that *step* is part of. */
export function instanceOf(step: StepView, container: string): string {
  return head(step.path, size(container));
}

/** Containers around a box, the outermost first; "" is not among them. */
export function around(boxes: Map<string, Box>, box: string): string[] {
  const found: string[] = [];
  let at = boxes.get(box)?.parent ?? "";
  while (at !== "") {
    found.unshift(at);
    at = boxes.get(at)?.parent ?? "";
  }
  return found;
}

export function index(view: RunView): Run {
  const boxes = new Map<string, Box>();
  const children = new Map<string, Box[]>();
  for (const box of view.chart?.boxes ?? []) {
    boxes.set(box.id, box);
    const group = children.get(box.parent);
    if (group === undefined) children.set(box.parent, [box]);
    else group.push(box);
  }
  const run: Run = {
    view,
    over: ["success", "failed", "cancelled"].includes(view.status),
    boxes,
    children,
    arrows: view.chart?.arrows ?? [],
    byPath: new Map(),
    byBox: new Map(),
    beside: new Map(),
    instances: new Map(),
    instancesOf: new Map(),
    problems: [],
    end: view.duration ?? 0,
    root: [],
  };
  for (const step of view.steps) {
    run.end = Math.max(run.end, step.end ?? step.start, ...ends(step));
    if (step.beside !== undefined) {
      push(run.beside, step.path.slice(0, step.path.lastIndexOf("/")), step);
      continue;
    }
    run.byPath.set(step.path, step);
    push(run.byBox, step.box, step);
    for (const container of around(boxes, step.box)) {
      const path = instanceOf(step, container);
      const found = run.instances.get(path) ?? newInstance(run, path, container, step);
      if (boxes.get(step.box)?.parent === container) found.steps.push(step);
      const state = stateOf(step.status);
      if (isPending(state) && urgency(state) < urgency(found.open ?? "done")) found.open = state;
    }
  }
  for (const found of run.instances.values()) found.state = instanceState(found);
  run.problems = view.steps.filter((step) => isProblem(stateOf(step.status)) && !isJoin(run, step));
  run.root = tree(run);
  return run;
}

function ends(step: StepView): number[] {
  return (step.attempts ?? []).map((attempt) => attempt.end);
}

/** Whether a step only says what went wrong inside it, where that is shown itself. */
function isJoin(run: Run, step: StepView): boolean {
  const inside = run.instancesOf.get(step.box) ?? [];
  return inside.some(
    (one) => one.path.startsWith(step.path) && isProblem(one.state) && one.steps.length > 0,
  );
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const group = map.get(key);
  if (group === undefined) map.set(key, [value]);
  else group.push(value);
}

function newInstance(run: Run, path: string, container: string, first: StepView): Instance {
  const parent = run.boxes.get(container)?.parent ?? "";
  const found: Instance = {
    path,
    box: container,
    label: instanceLabel(path),
    state: "done",
    parent: instanceOf(first, parent),
    steps: [],
    open: null,
  };
  run.instances.set(path, found);
  push(run.instancesOf, container, found);
  return found;
}

/** `[3]` of a map's item, `turn 2` of a loop's turn, "" where there is only one. */
function instanceLabel(path: string): string {
  const last = path.slice(path.lastIndexOf("/") + 1);
  const item = /\[(\d+)\]$/.exec(last);
  if (item !== null) return `[${item[1]}]`;
  const turn = /#(\d+)$/.exec(last);
  return turn === null ? "" : `turn ${turn[1]}`;
}

/** Whether a container runs its steps more than once: then it is one of several instances. */
export function repeats(box: Box | undefined): boolean {
  return box?.type === "map" || box?.type === "loop";
}

/** Not ended: a failure may have been handled, these have not. */
function isPending(state: State): boolean {
  return state === "doubt" || state === "waiting" || state === "running";
}

function instanceState(instance: Instance): State {
  if (instance.open !== null) return instance.open;
  const last = instance.steps.at(-1);
  const state = last === undefined ? "queued" : stateOf(last.status);
  return state === "skipped" ? "done" : state;
}

// --- the tree of rows -----------------------------------------------------------------------------

function tree(run: Run): Branch[] {
  const root: Branch[] = [];
  const open = new Map<string, Branch>(); // by key: containers and instances that have a place
  for (const step of run.view.steps) {
    let level = root;
    for (const container of around(run.boxes, step.box)) {
      const box = run.boxes.get(container);
      const path = instanceOf(step, container);
      const whole = path.replace(/(#\d+|\[\d+\])$/, "");
      const plain = repeats(box) ? whole : path;
      level = place(level, open, `c:${plain}`, () => containerRow(run, plain, box)).below;
      if (repeats(box)) {
        const instance = run.instances.get(path);
        if (instance === undefined) continue;
        level = place(level, open, `i:${path}`, () => instanceRow(instance)).below;
      }
    }
    const own = open.get(`c:${step.path}`);
    if (own !== undefined && step.beside === undefined)
      own.row = { ...own.row, ...stepRow(run, step) };
    else place(level, open, `s:${step.path}`, () => stepRow(run, step));
  }
  measure(root);
  return root;
}

function place(
  level: Branch[],
  open: Map<string, Branch>,
  key: string,
  make: () => Branch["row"],
): Branch {
  const found = open.get(key);
  if (found !== undefined) return found;
  const made: Branch = { row: make(), below: [] };
  open.set(key, made);
  level.push(made);
  return made;
}

/** Containers and turns last from their first step to their last. */
function measure(level: Branch[]): void {
  for (const branch of level) {
    measure(branch.below);
    if (branch.row.step !== null || branch.below.length === 0) continue;
    branch.row.start = Math.min(...branch.below.map(({ row }) => row.start));
    const ends = branch.below.map(({ row }) => row.end);
    branch.row.end = ends.includes(null) ? null : Math.max(...ends.map((end) => end ?? 0));
  }
}

function stepRow(run: Run, step: StepView): Branch["row"] {
  const box = run.boxes.get(step.box) ?? null;
  const turn = /#(\d+)$/.exec(step.path);
  return {
    key: step.path,
    step,
    instance: null,
    box,
    name: step.step + (turn === null ? "" : ` (${turn[1]})`),
    state: stateOf(step.status),
    start: step.start,
    end: step.end,
  };
}

function containerRow(run: Run, path: string, box: Box | undefined): Branch["row"] {
  return {
    key: path,
    step: null,
    instance: null,
    box: box ?? null,
    name: box?.step ?? path,
    state: run.over ? "cancelled" : "running",
    start: 0,
    end: null,
  };
}

function instanceRow(instance: Instance): Branch["row"] {
  return {
    key: `@${instance.path}`,
    step: null,
    instance,
    box: null,
    name: instance.label,
    state: instance.state,
    start: 0,
    end: null,
  };
}

/** The rows that are to be seen: those below a key in *folded* are not. */
export function rows(run: Run, folded: ReadonlySet<string>): Row[] {
  const found: Row[] = [];
  const walk = (level: Branch[], depth: number) => {
    for (const { row, below } of level) {
      found.push({ ...row, depth, inside: below.length });
      if (below.length > 0 && !folded.has(row.key)) walk(below, depth + 1);
    }
  };
  walk(run.root, 0);
  return found;
}

/** Folded at first, where a run is long: containers and items in which nothing wants to be seen. */
export function foldedAtFirst(run: Run, most: number): Set<string> {
  const folded = new Set<string>();
  if (run.view.steps.length <= most) return folded;
  const fold = (level: Branch[]): boolean => {
    let open = false;
    for (const { row, below } of level) {
      const inside = fold(below);
      if (!inside && below.length > 0) folded.add(row.key);
      open ||= inside || isOpen(row.state);
    }
    return open;
  };
  fold(run.root);
  return folded;
}

/** What has to be unfolded for the step at *path* to be seen. */
export function keysAround(run: Run, step: StepView): string[] {
  return around(run.boxes, step.box).flatMap((container) => {
    const path = instanceOf(step, container);
    const whole = path.replace(/(#\d+|\[\d+\])$/, "");
    return [repeats(run.boxes.get(container)) ? whole : path, `@${path}`];
  });
}

/** The step that a person should see first: what a run waits for, or what it failed at. */
export function firstToSee(run: Run): StepView | undefined {
  const { status, steps } = run.view;
  if (status === "failed") {
    return steps.findLast((step) => step.status === "failed" && !isJoin(run, step));
  }
  return steps
    .filter((step) => isPending(stateOf(step.status)) && !isJoin(run, step))
    .sort((a, b) => urgency(stateOf(a.status)) - urgency(stateOf(b.status)))[0];
}
