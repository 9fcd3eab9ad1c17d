import {
  type Edge,
  Handle,
  type Node,
  type NodeProps,
  Position,
  ReactFlowProvider,
} from "@xyflow/react";
import { type ReactNode, useEffect, useMemo, useState } from "react";
import type { Box, Comparison, RunView, Source, StepDifference } from "../api";
import { cost, duration, plural, tokens } from "../lib/format";
import { pretty, words as spoken } from "../lib/json";
import { isForPage } from "../lib/keys";
import { boxOf, folded, merge, type Side, words } from "../model/compare";
import { layout } from "../model/layout";
import { index, type Run, type State, stateOf } from "../model/run";
import { standing } from "../model/standing";
import { LookIcon, StateIcon } from "../parts/Icon";
import { type Key, Keys } from "../parts/Keys";
import { StateChip } from "../parts/State";
import { Plain, read } from "../parts/Text";
import { type ArrowData, ArrowHeads, EDGE_TYPES } from "../run/Graph";
import { asked } from "../run/RunPage";
import { placedNode, Viewport } from "../run/Viewport";

const SIDES: Record<Side, string> = {
  same: "equal",
  changed: "differs",
  a: "only in A",
  b: "only in B",
  none: "in neither",
};

const KEYS: Key[] = [
  ["n", "next difference"],
  ["p", "difference before"],
];

export function ComparePage({
  from,
  ids,
  tools,
}: {
  from: Source;
  ids: [string, string];
  tools: ReactNode;
}) {
  const [found, setFound] = useState<Comparison | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const [a, b] = ids;
  useEffect(() => {
    from.compare(a, b).then(setFound, (error: Error) => setFault(error.message));
    document.title = `${a} and ${b}`;
  }, [from, a, b]);
  if (fault !== null)
    return (
      <main className="message">
        <p role="alert">{fault}</p>
        <a href="#/">All runs</a>
      </main>
    );
  if (found === null) return <main className="message">Comparing…</main>;
  return (
    <>
      <Compared found={found} tools={tools} />
      <Keys keys={KEYS} shared={from.shared} />
    </>
  );
}

function Compared({ found, tools }: { found: Comparison; tools: ReactNode }) {
  const [open, setOpen] = useState(false);
  const [selected, setSelected] = useState<string | null>(found.divergence);
  const differing = useMemo(() => found.steps.filter((step) => step.differs), [found]);
  const rows = useMemo(() => folded(found.steps, open), [found, open]);
  const step = found.steps.find((one) => one.path === selected);
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      if (!isForPage(event)) return;
      const here = differing.findIndex((one) => one.path === selected);
      if (event.key === "n") setSelected(differing[(here + 1) % differing.length]?.path ?? null);
      else if (event.key === "p") setSelected(differing.at(here - 1)?.path ?? null);
      else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", keys);
    return () => window.removeEventListener("keydown", keys);
  }, [differing, selected]);
  return (
    <div className="compare-page">
      <header className="top">
        <div className="title">
          <a href="#/">‹ Runs</a>
          <h1>Compare</h1>
          <span className="grow" />
          {tools}
        </div>
        <div className="sides">
          <SideHead name="A" view={found.a} />
          <SideHead name="B" view={found.b} />
        </div>
        <p className="reason">
          {found.same ? (
            "They did the same; what they cost and how long they took may differ."
          ) : found.divergence === null ? (
            `They differ in ${Object.keys(found.whole).join(", ")}.`
          ) : (
            <>
              First difference at{" "}
              <button type="button" className="link" onClick={() => setSelected(found.divergence)}>
                {found.divergence}
              </button>
              . {plural(differing.length, "step")} of {found.steps.length}{" "}
              {differing.length === 1 ? "differs" : "differ"}.
            </>
          )}
          {found.a.program_digest !== found.b.program_digest &&
            " They are of two versions of the program."}
          {differing.length > 0 && (
            <span className="muted">
              {" "}
              <kbd>n</kbd> next, <kbd>p</kbd> previous
            </span>
          )}
        </p>
      </header>
      <div className="compare-graph">
        <ArrowHeads />
        <ReactFlowProvider>
          <MergedGraph found={found} selected={selected} select={setSelected} />
        </ReactFlowProvider>
      </div>
      <main className="compare-steps">
        <ul>
          {rows.map((row, i) =>
            "group" in row ? (
              <li key={`group${i}`} className="muted same">
                <SideMark side={row.group} /> {plural(row.count, "step")}{" "}
                {row.group === "same" ? "equal" : SIDES[row.group]}{" "}
                <button type="button" className="link" onClick={() => setOpen(true)}>
                  show
                </button>
              </li>
            ) : (
              <li key={row.path}>
                <button
                  type="button"
                  className={`difference ${row.path === selected ? "selected" : ""}`}
                  aria-pressed={row.path === selected}
                  onClick={() => setSelected(row.path)}
                >
                  <SideMark side={row.side || (row.differs ? "changed" : "same")} />
                  <strong>
                    <Plain text={row.path} />
                  </strong>
                  <span className="muted">{told(row)}</span>
                </button>
              </li>
            ),
          )}
        </ul>
      </main>
      <aside className="detail" aria-label="Difference">
        <div className="inspector">
          {step === undefined ? <Whole found={found} /> : <Difference step={step} />}
        </div>
      </aside>
    </div>
  );
}

function SideHead({ name, view }: { name: "A" | "B"; view: RunView }) {
  const { state, text } = standing(view.status, asked(view));
  return (
    <div className={`side side-${name.toLowerCase()}`}>
      <span className={`mark mark-${name.toLowerCase()}`}>{name}</span>
      <a href={`#/run/${encodeURIComponent(view.id)}`}>
        <Plain text={view.id} />
      </a>
      <StateChip state={state} text={text} />
      <span className="muted">
        {[
          view.duration === null ? "" : duration(view.duration),
          tokens(view.tokens),
          cost(view.cost),
        ]
          .filter(Boolean)
          .join(" · ")}
      </span>
    </div>
  );
}

function SideMark({ side }: { side: Side }) {
  const marks: Record<Side, string> = { same: "=", changed: "A|B", a: "A", b: "B", none: "" };
  return (
    <span className={`mark mark-${side}`} title={SIDES[side]}>
      {marks[side]}
      <span className="sr">{SIDES[side]}</span>
    </span>
  );
}

function told(step: StepDifference): string {
  if (step.side === "a") return "B did not reach it";
  if (step.side === "b") return "A did not reach it";
  return Object.keys(step.fields)
    .map((name) => NAMES[name] ?? name)
    .join(", ");
}

const NAMES: Record<string, string> = {
  duration_ms: "time",
  cost_usd: "cost",
  references: "values read",
  retries: "failed attempts",
};

function Whole({ found }: { found: Comparison }) {
  return (
    <>
      <h2>The whole</h2>
      {Object.entries(found.whole).map(([name, pair]) => (
        <Pair key={name} name={name} pair={pair} />
      ))}
    </>
  );
}

function Difference({ step }: { step: StepDifference }) {
  return (
    <>
      <h2>
        <Plain text={step.path} />
      </h2>
      <p className="muted">
        {step.side === "" ? (step.differs ? "differs" : "equal") : told(step)}
      </p>
      {Object.entries(step.fields).map(([name, pair]) => (
        <Pair key={name} name={name} pair={pair} />
      ))}
    </>
  );
}

/** A field of both sides: texts by their words, the rest as JSON, one after the other. */
function Pair({ name, pair }: { name: string; pair: [string, string] }) {
  const [a, b] = useMemo(() => pair.map(shownText) as [string, string], [pair]);
  const found = useMemo(() => words(a, b), [a, b]);
  const common = found.some((word) => word.side === "" && word.text.trim() !== "");
  if (name === "duration_ms" || name === "cost_usd") {
    const show = (text: string) =>
      text === "null" ? "none" : name === "cost_usd" ? cost(text) : duration(Number(text));
    return (
      <section>
        <h3>{NAMES[name]}</h3>
        <p>
          {show(a)} → {show(b)}
        </p>
      </section>
    );
  }
  return (
    <section>
      <h3>{NAMES[name] ?? name}</h3>
      <div className="block">
        <pre className="mono">
          {common ? (
            found.map((word, i) =>
              word.side === "" ? (
                <Plain key={i} text={word.text} />
              ) : word.side === "a" ? (
                <del key={i}>
                  <Plain text={word.text} />
                </del>
              ) : (
                <ins key={i}>
                  <Plain text={word.text} />
                </ins>
              ),
            )
          ) : (
            <>
              <del>
                <Plain text={a} />
              </del>
              {"\n"}
              <ins>
                <Plain text={b} />
              </ins>
            </>
          )}
        </pre>
      </div>
    </section>
  );
}

function shownText(json: string): string {
  const node = read(json);
  if (node === null) return json;
  return node.kind === "string" ? spoken(node) : pretty(node);
}

// --- the merged graph ---

interface MergedData extends Record<string, unknown> {
  box: Box;
  container: boolean;
  side: Side;
  diverges: boolean;
  selected: boolean;
  states: [State, State];
  select: () => void;
}

function MergedGraph({
  found,
  selected,
  select,
}: {
  found: Comparison;
  selected: string | null;
  select: (path: string) => void;
}) {
  const merged = useMemo(() => merge(found), [found]);
  const runs = useMemo(() => [index(found.a), index(found.b)] as [Run, Run], [found]);
  const placed = useMemo(() => layout(merged.boxes, merged.arrows, new Set(), () => 0), [merged]);
  const selectedBox = selected === null ? null : boxOf(selected);
  if (merged.boxes.length === 0) return <p className="message">Neither run has a graph.</p>;
  const nodes: Node<MergedData>[] = placed.nodes.map((at) => ({
    ...placedNode(at),
    type: "merged",
    data: {
      box: at.box,
      container: at.container,
      side: merged.sides.get(at.box.id) ?? "none",
      diverges: merged.diverges === at.box.id,
      selected: selectedBox === at.box.id,
      states: runs.map((run) => lastState(run, at.box.id)) as [State, State],
      select: () => {
        const steps = found.steps.filter((step) => boxOf(step.path) === at.box.id);
        const first = steps.find((step) => step.differs) ?? steps[0];
        if (first !== undefined) select(first.path);
      },
    },
  }));
  const edges: Edge<ArrowData>[] = placed.arrows.map((routed) => {
    const counts = [found.a, found.b].map((view) => view.taken[routed.arrow.id] ?? 0);
    const [inA = 0, inB = 0] = counts;
    const taken = inA + inB > 0;
    const side = inA > 0 && inB > 0 ? "" : inA > 0 ? "side-a" : inB > 0 ? "side-b" : "";
    const name = side === "" ? "" : side === "side-a" ? "A" : "B";
    return {
      id: routed.arrow.id,
      source: routed.arrow.source,
      target: routed.arrow.target,
      type: "arrow",
      zIndex: taken ? 2 : 1,
      markerEnd: taken ? "arrow-taken" : "arrow-untaken",
      data: {
        routed: {
          ...routed,
          arrow: { ...routed.arrow, label: [routed.arrow.label, name].filter(Boolean).join(" · ") },
        },
        count: 0,
        taken,
        active: false,
        side,
      },
    };
  });
  return (
    <Viewport
      label="Both runs on one graph"
      nodes={nodes}
      edges={edges}
      nodeTypes={MERGED_TYPES}
      edgeTypes={EDGE_TYPES}
      focus={selectedBox ?? merged.diverges}
      width={placed.width}
      height={placed.height}
    />
  );
}

/** Of all times that a run came to a box, the last. */
function lastState(run: Run, box: string): State {
  const last = run.byBox.get(box)?.at(-1);
  return last === undefined ? "untaken" : stateOf(last.status);
}

function MergedBox({ data }: NodeProps<Node<MergedData>>) {
  const { box, side, diverges, selected, states, container } = data;
  const end = box.look === "end" || box.look === "fail";
  return (
    <div
      className={`${container ? "frame" : end ? "end" : "box"} merged side-${side} ${selected ? "selected" : ""}`}
    >
      <Handle type="target" position={Position.Top} />
      {end ? (
        box.step
      ) : (
        <button type="button" className="box-main" onClick={data.select}>
          <span className="box-top">
            <LookIcon look={box.look} type={box.type} />
            <span className="box-name">
              <Plain text={box.step} />
            </span>
            <SideMark side={side} />
          </span>
          <span className="box-line">
            A <StateIcon state={states[0]} size={12} /> B <StateIcon state={states[1]} size={12} />
            {diverges && <strong className="diverges"> diverges here</strong>}
          </span>
        </button>
      )}
      <Handle type="source" position={Position.Bottom} />
    </div>
  );
}

const MERGED_TYPES = { merged: MergedBox };
