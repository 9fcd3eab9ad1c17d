import { type ReactNode, useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Asked, RunView } from "../api";
import { cost, duration, plural, tokens } from "../lib/format";
import { field, words } from "../lib/json";
import { isForPage } from "../lib/keys";
import { useAddress } from "../lib/router";
import { type Axis, axis as axisOf } from "../model/axis";
import { lineage as lineageOf, type Name } from "../model/lineage";
import {
  firstToSee,
  foldedAtFirst,
  index,
  keysAround,
  type Row,
  type Run,
  rows as rowsOf,
} from "../model/run";
import { type Choice, choose } from "../model/shown";
import { standing } from "../model/standing";
import { type Key, KeyList } from "../parts/Keys";
import { Rows } from "../parts/Rows";
import { StateChip } from "../parts/State";
import { Copy, Plain, read } from "../parts/Text";
import { ArrowHeads } from "./Arrows";
import { LookingContext } from "./context";
import { Graph } from "./Graph";
import { Inspector } from "./Inspector";
import { AxisHead, RowView } from "./Steps";

type View = "g" | "t" | "l";
const VIEWS: Record<View, string> = { g: "Graph", t: "Timeline", l: "List" };
const ROW = 28;
const FEW = 60; // steps of a run that is shown unfolded
const LARGE = 1_000; // boxes of a program whose runs open as lists, which are there before a graph

export function RunPage({
  view,
  shared,
  tools,
  back,
}: {
  view: RunView;
  shared: boolean;
  tools?: ReactNode;
  back?: ReactNode;
}) {
  const run = useMemo(() => index(view), [view]);
  const [{ query }, change] = useAddress();
  const shownView = viewOf(query.get("view"), run);
  const selected = query.get("step") ?? null;
  const [choice, setChoice] = useState<Choice>(new Map());
  const [folded, setFolded] = useState<ReadonlySet<string>>(() => foldedAtFirst(run, FEW));
  const [name, setName] = useState<Name | null>(null);
  const [help, setHelp] = useState(false);
  const [panel, setPanel] = useState<"steps" | "main" | "detail">("main");

  const axis = useMemo(() => axisOf(view.steps, run.end), [view, run]);
  const rows = useMemo(() => rowsOf(run, folded), [run, folded]);
  const lineage = useMemo(
    () => (name === null ? null : lineageOf(run.boxes.values(), view.chart?.inputs ?? [], name)),
    [run, view, name],
  );

  const uncover = useCallback(
    (path: string) => {
      const step = run.byPath.get(path);
      if (step === undefined) return;
      setChoice((old) => choose(run, old, step));
      setFolded((old) => {
        const hidden = keysAround(run, step).filter((key) => old.has(key));
        if (hidden.length === 0) return old;
        return new Set([...old].filter((key) => !hidden.includes(key)));
      });
    },
    [run],
  );
  const select = useCallback(
    (path: string) => {
      uncover(path);
      change({ step: path });
      setPanel("detail");
    },
    [uncover, change],
  );
  const toggle = useCallback((key: string) => {
    setFolded((old) => {
      const next = new Set(old);
      if (!next.delete(key)) next.add(key);
      return next;
    });
  }, []);

  // what wants to be seen is selected when the page opens; a link's own choice counts more
  const opened = useRef(false);
  useEffect(() => {
    if (opened.current) return;
    opened.current = true;
    const wanted = selected ?? firstToSee(run)?.path;
    if (wanted !== undefined && wanted !== null) {
      select(wanted);
      setPanel("main");
    }
  }, [run, selected, select]);

  // boxes fold, and have instances to choose from: none is there before the graph
  const folds = useRef(view.chart !== null);
  useEffect(() => {
    if (folds.current || view.chart === null) return;
    folds.current = true;
    setFolded(foldedAtFirst(run, FEW));
    if (selected !== null) uncover(selected);
  }, [view, run, selected, uncover]);

  const at = rows.findIndex((row) => row.step !== null && row.step.path === selected);
  const keys = useCallback(
    (event: KeyboardEvent) => {
      if (!isForPage(event)) return;
      const go = (row: Row | undefined) => row?.step && select(row.step.path);
      const steps = rows.filter((row) => row.step !== null);
      const here = steps.findIndex((row) => row.step?.path === selected);
      switch (event.key) {
        case "g":
        case "t":
        case "l":
          change({ view: event.key });
          setPanel("main");
          break;
        case "j":
          go(steps[Math.min(here + 1, steps.length - 1)]);
          break;
        case "k":
          go(steps[Math.max(here - 1, 0)]);
          break;
        case "e":
          nextProblem(run, selected, select);
          break;
        case "?":
          setHelp((old) => !old);
          break;
        case "Escape":
          if (help) setHelp(false);
          else if (name !== null) setName(null);
          else change({ step: null });
          break;
        default:
          return;
      }
      event.preventDefault();
    },
    [rows, selected, run, select, change, help, name],
  );
  useEffect(() => {
    window.addEventListener("keydown", keys);
    return () => window.removeEventListener("keydown", keys);
  }, [keys]);

  const looking = useMemo(
    () => ({ run, selected, lineage, select, look: setName }),
    [run, selected, lineage, select],
  );
  const list = (wide: boolean, columns: boolean) => (
    <Rows
      rows={rows}
      height={ROW}
      at={at}
      label="Steps"
      keyOf={(row) => row.key}
      head={
        <div className={`rows-head ${columns ? "columns" : "bars"}`}>
          {columns ? (
            <>
              <span>step</span>
              <span>what came of it</span>
              <span>tokens</span>
              <span>cost</span>
              <span>took</span>
            </>
          ) : (
            <>
              <span>{plural(view.steps.length, "step")}</span>
              <AxisHead axis={wide ? axis : { ...axis, ticks: ends(axis.ticks), breaks: [] }} />
            </>
          )}
        </div>
      }
    >
      {(row) => (
        <RowView
          row={row}
          axis={axis}
          wide={wide}
          columns={columns}
          folded={folded.has(row.key)}
          toggle={toggle}
        />
      )}
    </Rows>
  );
  return (
    <LookingContext.Provider value={looking}>
      <ArrowHeads />
      <div className={`page panel-${panel} view-${shownView}`}>
        <header className="top">
          <div className="title">
            {back}
            <h1>
              <Plain text={view.program} />
            </h1>
            <StateChip {...standing(view.status, asked(view))} />
            <span className="facts">
              {facts(view).map((fact) => (
                <span key={fact}>{fact}</span>
              ))}
            </span>
            <span className="grow" />
            <code className="run-id">{view.id}</code>
            <Copy text={view.id} label="the run's id" />
            {tools}
            <button
              type="button"
              className="quiet"
              onClick={() => setHelp(!help)}
              aria-label="Keys"
            >
              <span aria-hidden="true">?</span>
            </button>
          </div>
          <Reason run={run} />
          <nav className="views" aria-label="Views">
            <span className="wide-only">
              {(Object.keys(VIEWS) as View[]).map((one) => (
                <button
                  key={one}
                  type="button"
                  className="tab"
                  aria-pressed={shownView === one}
                  onClick={() => {
                    change({ view: one });
                    setPanel("main");
                  }}
                >
                  {VIEWS[one]} <kbd>{one}</kbd>
                </button>
              ))}
            </span>
            <span className="narrow-only">
              <button
                type="button"
                className="tab"
                aria-pressed={panel === "steps"}
                onClick={() => setPanel("steps")}
              >
                Steps
              </button>
              <button
                type="button"
                className="tab"
                aria-pressed={panel === "main"}
                onClick={() => setPanel("main")}
              >
                {VIEWS[shownView]}
              </button>
              <button
                type="button"
                className="tab"
                aria-pressed={panel === "detail"}
                onClick={() => setPanel("detail")}
              >
                Details
              </button>
            </span>
            <span className="grow" />
            {name !== null && lineage !== null && (
              <span className="lineage">
                <code>${name.name}</code>: {plural(lineage.writers.length, "writer")}
                {lineage.given && " (an input)"}, {plural(lineage.readers.length, "reader")}
                <button
                  type="button"
                  className="quiet"
                  onClick={() => setName(null)}
                  aria-label="Stop showing this name"
                >
                  <span aria-hidden="true">×</span>
                </button>
              </span>
            )}
            {run.problems.length > 0 && (
              <button
                type="button"
                className="tab bad"
                onClick={() => nextProblem(run, selected, select)}
              >
                {plural(run.problems.length, "problem")} <kbd>e</kbd>
              </button>
            )}
          </nav>
        </header>
        <aside key={shownView} className="steps" aria-label="Steps">
          {list(false, false)}
        </aside>
        <main className="main">
          {shownView === "g" ? (
            <Graph choice={choice} setChoice={setChoice} />
          ) : (
            <div className={shownView === "t" ? "timeline" : "table"}>
              {list(true, shownView === "l")}
            </div>
          )}
        </main>
        <aside className="detail" aria-label="Details">
          <Inspector key={selected} />
        </aside>
        {help && <KeyList keys={KEYS} shared={shared} close={() => setHelp(false)} />}
      </div>
    </LookingContext.Provider>
  );
}

const LABEL_SHARE = 0.5; // of the small axis, below which two labels would meet

function ends(all: Axis["ticks"]): Axis["ticks"] {
  const [first] = all;
  const last = all.at(-1);
  if (first === undefined || last === undefined || first === last) return all;
  return last.at > LABEL_SHARE ? [first, last] : [first];
}

/** A straight program needs no graph: its list says the same in fewer lines. The list of a large one is
 * there before its graph. */
function viewOf(asked: string | null, run: Run): View {
  if (asked === "g" || asked === "t" || asked === "l") return asked;
  const branches = run.arrows.some((arrow) => arrow.way !== "next");
  const holds = run.children.size > 1;
  const large = run.view.chart === null || run.boxes.size >= LARGE;
  return !large && (branches || holds || run.boxes.size < 12) ? "g" : "l";
}

/** What a run waits for, as a list of runs has it. */
export function asked(view: RunView): Asked[] {
  return view.waiting.map((json) => {
    const node = read(json) ?? undefined;
    const role = words(field(node, "role"));
    const event = field(node, "event");
    return {
      path: words(field(node, "path")),
      kind: words(field(node, "kind")),
      ...(role === "" ? {} : { role }),
      ...(event === undefined ? {} : { event: words(event) }),
    };
  });
}

function facts(view: RunView): string[] {
  const found = view.duration === null ? [] : [duration(view.duration)];
  if (view.steps.some((step) => step.type === "llm"))
    found.push(tokens(view.tokens), cost(view.cost));
  return found;
}

/** Why the run stands where it stands, in one line. */
function Reason({ run }: { run: Run }) {
  const { view } = run;
  if (view.erased)
    return (
      <p className="reason">The values of this run were erased; its path and its seal remain.</p>
    );
  if (view.error !== null && view.status === "failed") {
    return (
      <p className="reason bad">
        <Plain text={view.error.split("\n")[0] ?? ""} />
      </p>
    );
  }
  const first = view.waiting.map(read)[0];
  if (first === undefined || first === null) return null;
  return (
    <p className="reason">
      {words(field(first, "kind")) === "in_doubt"
        ? "Not known whether it took effect: "
        : "Waits at "}
      <strong>{words(field(first, "path"))}</strong>
      {view.waiting.length > 1 && ` and at ${view.waiting.length - 1} more`}
      <Plain text={shownWords(field(first, "show"))} />
    </p>
  );
}

function shownWords(show: ReturnType<typeof field>): string {
  if (show?.kind !== "object") return "";
  return `: ${show.entries.map(([name, value]) => `${name} ${words(value)}`).join(", ")}`.slice(
    0,
    200,
  );
}

function nextProblem(run: Run, selected: string | null, select: (path: string) => void): void {
  const at = run.problems.findIndex((step) => step.path === selected);
  const next = run.problems[(at + 1) % run.problems.length];
  if (next !== undefined) select(next.path);
}

const KEYS: Key[] = [
  ["g t l", "graph, timeline, list"],
  ["j k", "next step, step before"],
  ["e", "next problem"],
  ["Esc", "let go: the name, then the step"],
];
