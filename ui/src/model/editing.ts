// What an editor needs to know of the text of a program, and of a program that no run was made of.

import type { ChartData, RunView } from "../api";
import type { Mark } from "../editor/types";

/** A run that has not begun: the program's graph alone. */
export function blank(chart: ChartData): RunView {
  return {
    format: 1,
    id: "",
    program: chart.name,
    program_digest: chart.digest,
    status: "pending",
    started: new Date(0).toISOString(),
    duration: null,
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
    chart,
    chart_fault: null,
    taken: {},
    lost: [],
    current: [],
    steps: [],
    waiting: [],
    messages: [],
  };
}

export interface Lines {
  /** The step in whose text a line stands. */
  stepAt(line: number): string | null;
  lineOf(step: string): number | null;
}

const ID = /(?:^|[{,\s-])"?id"?:\s*["']?([^\s"',}]+)/;

/** Where the steps of a program stand in its text: by the lines that name them. */
export function linesOf(text: string): Lines {
  const found: [number, string][] = [];
  text.split("\n").forEach((line, i) => {
    const id = line.trimStart().startsWith("#") ? null : ID.exec(line);
    if (id?.[1] !== undefined) found.push([i + 1, id[1]]);
  });
  return {
    stepAt: (line) => found.findLast(([at]) => at <= line)?.[1] ?? null,
    lineOf: (step) => found.find(([, id]) => id === step)?.[0] ?? null,
  };
}

/** A fault in one line, without its place. */
export function saidOf(fault: { code: string; message: string; hint?: string }): string {
  return `${fault.code}: ${fault.message}${fault.hint ? `; ${fault.hint}` : ""}`;
}

/** Faults as marks in the text; those without a line have no place there. */
export function marksOf(
  found: {
    code: string;
    severity: string;
    message: string;
    hint?: string;
    line?: number;
    column?: number;
  }[],
): Mark[] {
  return found.flatMap((one) =>
    one.line === undefined
      ? []
      : [
          {
            line: one.line,
            column: one.column ?? 1,
            severity: one.severity,
            message: saidOf(one),
          },
        ],
  );
}
