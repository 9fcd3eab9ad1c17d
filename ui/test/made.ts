// Charts and runs for tests, made of the least that says something.

import type { Arrow, Box, RunView, StepView } from "../src/api/types";

export function box(id: string, more: Partial<Box> = {}): Box {
  return {
    id,
    step: id.slice(id.lastIndexOf("/") + 1),
    type: "tool",
    look: "tool",
    line: "",
    parent: "",
    lane: "",
    scope: "",
    when: null,
    test: null,
    lanes: [],
    bound: null,
    reads: [],
    writes: [id.slice(id.lastIndexOf("/") + 1)],
    written: "{}",
    ...more,
  };
}

export function arrow(source: string, target: string, label = ""): Arrow {
  const way = label === "" ? "next" : "branch";
  return { id: `${source} > ${target}${label && ` : ${label}`}`, source, target, label, way };
}

export function step(path: string, more: Partial<StepView> = {}): StepView {
  return {
    path,
    box: path.replace(/#\d+|\[\d+\]/g, ""),
    frame: "",
    step: path.slice(path.lastIndexOf("/") + 1),
    type: "tool",
    status: "success",
    start: 0,
    end: 1,
    ...more,
  };
}

export function run(boxes: Box[], steps: StepView[], more: Partial<RunView> = {}): RunView {
  return {
    format: 1,
    id: "r",
    program: "p",
    program_digest: "d",
    status: "success",
    started: "2026-01-01T00:00:00+00:00",
    duration: 10,
    inputs: {},
    error: null,
    error_kind: null,
    tokens: 0,
    cost: null,
    digest: null,
    seal: null,
    signed: false,
    erased: false,
    content: true,
    parent: null,
    project: null,
    submitter: null,
    labels: {},
    host: "{}",
    chart: { name: "p", digest: "d", inputs: [], entry: "a", boxes, arrows: [] },
    chart_fault: null,
    taken: {},
    lost: [],
    current: [],
    steps,
    waiting: [],
    messages: [],
    ...more,
  };
}
