import {
  type Edge,
  Handle,
  type Node,
  type NodeProps,
  Position,
  ReactFlowProvider,
} from "@xyflow/react";
import { memo, useMemo, useState } from "react";
import type { Arrow, Box, StepView } from "../api";
import { cost, duration, plural, tokens } from "../lib/format";
import { type Chain, foldChains } from "../model/fold";
import { layout, type Routed } from "../model/layout";
import {
  around,
  errorBrief,
  type Instance,
  isDrawn,
  isOpen,
  isProblem,
  type Run,
  repeats,
  type State,
  word,
} from "../model/run";
import { type Choice, choiceKey, type Shown, shown } from "../model/shown";
import { LookIcon, StateIcon } from "../parts/Icon";
import { Plain } from "../parts/Text";
import { type ArrowData, drawnArrow, EDGE_TYPES } from "./Arrows";
import { lit, useLooking } from "./context";
import { placedNode, Viewport } from "./Viewport";

const TOO_MANY = 600; // boxes that are drawn without being asked for
const CELLS = 200; // of a strip; more items become buckets
const STRIP = 26;
const LINE = 18;
const LISTED = 5; // problem items under a strip

interface BoxData extends Record<string, unknown> {
  box: Box;
  shown: Shown | undefined;
  state: State;
  chain: Chain | undefined;
  container: boolean;
  closed: boolean;
  selected: boolean;
  light: "writer" | "reader" | null;
  parentInstance: string;
  act: Acts;
}

interface Acts {
  select: (box: string) => void;
  close: (box: string) => void;
  open: (chain: string) => void;
  choose: (parent: string, container: string, instance: string) => void;
}

type BoxNode = Node<BoxData>;

export function Graph({
  choice,
  setChoice,
}: {
  choice: Choice;
  setChoice: (change: (choice: Choice) => Choice) => void;
}) {
  const { run } = useLooking();
  const [anyway, setAnyway] = useState(false);
  if (!isDrawn(run.view)) {
    return (
      <div className="message">
        <output>The graph is being drawn…</output>
        <p className="muted">The list and the timeline show all that is recorded.</p>
      </div>
    );
  }
  if (run.view.chart === null) {
    return (
      <div className="message">
        <p>There is no graph: {run.view.chart_fault}.</p>
        <p className="muted">The list and the timeline show all that is recorded.</p>
      </div>
    );
  }
  return (
    <ReactFlowProvider>
      <Canvas choice={choice} setChoice={setChoice} anyway={anyway} draw={() => setAnyway(true)} />
    </ReactFlowProvider>
  );
}

function Canvas({
  choice,
  setChoice,
  anyway,
  draw,
}: {
  choice: Choice;
  setChoice: (change: (choice: Choice) => Choice) => void;
  anyway: boolean;
  draw: () => void;
}) {
  const { run, selected, lineage, select } = useLooking();
  const [closed, setClosed] = useState<ReadonlySet<string>>(new Set());
  const [opened, setOpened] = useState<ReadonlySet<string>>(new Set());
  const byBox = useMemo(() => shown(run, choice), [run, choice]);
  const selectedBox =
    selected === null ? null : (run.byPath.get(selected)?.box ?? boxNamed(selected));

  const keep = useMemo(() => {
    const lights = lineage === null ? [] : [...lineage.writers, ...lineage.readers];
    return new Set([...lights, ...(selectedBox === null ? [] : [selectedBox])]);
  }, [lineage, selectedBox]);
  const state = (id: string): State => byBox.get(id)?.state ?? "untaken";
  const folded = useMemo(
    () =>
      foldChains(
        [...run.boxes.values()],
        run.arrows,
        (id) => byBox.get(id)?.state ?? "untaken",
        keep,
        opened,
      ),
    [run, byBox, keep, opened],
  );
  const placed = useMemo(() => {
    const extra = (box: Box): number =>
      extraHeight(box, byBox.get(box.id), run.children.has(box.id));
    if (folded.boxes.length > TOO_MANY && !anyway) return null;
    return layout(folded.boxes, folded.arrows, closed, extra);
  }, [folded, closed, byBox, run, anyway]);

  if (placed === null) {
    return (
      <div className="message">
        <p>This graph has {plural(folded.boxes.length, "box")}: the list shows it better.</p>
        <button type="button" onClick={draw}>
          Draw it
        </button>
      </div>
    );
  }

  const act: Acts = {
    select: (box) => {
      const last = byBox.get(box)?.steps.at(-1);
      select(last?.path ?? `box:${box}`);
    },
    close: (box) => setClosed(toggled(closed, box)),
    open: (chain) => setOpened(toggled(opened, chain)),
    choose: (parent, container, instance) =>
      setChoice((old) => new Map(old).set(choiceKey(parent, container), instance)),
  };
  const nodes: BoxNode[] = placed.nodes.map((at) => {
    const chain = folded.chains.get(at.box.id);
    const stands = chain === undefined ? at.box.id : (chain.boxes[0] ?? at.box.id);
    return {
      ...placedNode(at),
      type: at.box.look === "end" || at.box.look === "fail" ? "end" : "box",
      zIndex: at.container ? 0 : 2,
      data: {
        box: at.box,
        shown: byBox.get(at.box.id),
        state:
          at.box.type === "end" || at.box.type === "fail"
            ? endState(run.view.taken, at.box.id, run.arrows)
            : state(stands),
        chain,
        container: at.container,
        closed: closed.has(at.box.id),
        selected: selectedBox === at.box.id,
        light: lit(lineage, at.box.id),
        parentInstance: parentInstance(byBox, at.box),
        act,
      },
    };
  });
  const edges = placed.arrows.map((routed) => edgeOf(routed, run, byBox));
  const focus = selectedBox ?? nodes.find((node) => isOpen(node.data.state))?.id ?? null;
  return (
    <Viewport
      label="Graph of the program with the path of the run"
      nodes={nodes}
      edges={edges}
      nodeTypes={NODE_TYPES}
      edgeTypes={EDGE_TYPES}
      focus={focus}
      width={placed.width}
      height={placed.height}
    />
  );
}

function boxNamed(selected: string): string | null {
  return selected.startsWith("box:") ? selected.slice(4) : null;
}

function toggled(set: ReadonlySet<string>, key: string): ReadonlySet<string> {
  const next = new Set(set);
  if (!next.delete(key)) next.add(key);
  return next;
}

function parentInstance(byBox: Map<string, Shown>, box: Box): string {
  return box.parent === "" ? "" : (byBox.get(box.parent)?.chosen?.path ?? "");
}

function endState(
  taken: Record<string, number>,
  box: string,
  arrows: { id: string; target: string }[],
): State {
  const came = arrows.some((arrow) => arrow.target === box && (taken[arrow.id] ?? 0) > 0);
  if (!came) return "untaken";
  return box.endsWith("$fail") ? "failed" : "done";
}

function extraHeight(box: Box, at: Shown | undefined, container: boolean): number {
  const last = at?.steps.at(-1);
  let height = box.when === null ? 0 : LINE;
  if (last?.error !== undefined && !container) height += LINE;
  if (!container || at === undefined) return height;
  if (!repeats(box) || at.instances.length === 0) return height;
  const lines = box.type === "map" ? Math.min(LISTED, problems(at.instances).length) : 0;
  return height + STRIP + (box.type === "loop" ? LINE : lines * LINE);
}

function problems(instances: Instance[]): Instance[] {
  return instances.filter((one) => isOpen(one.state));
}

function edgeOf(routed: Routed, run: Run, byBox: Map<string, Shown>): Edge<ArrowData> {
  const { arrow } = routed;
  const count = run.view.taken[arrow.id] ?? 0;
  const taken = count > 0 && isTakenHere(arrow, run, byBox);
  const active = byBox.get(arrow.target)?.state === "running" && taken;
  return drawnArrow(routed, taken, { count, active });
}

/** Whether the item or turn that is looked at took an arrow, which all of them have counted. */
function isTakenHere(arrow: Arrow, run: Run, byBox: Map<string, Shown>): boolean {
  if (!around(run.boxes, arrow.source).some((box) => repeats(run.boxes.get(box)))) return true;
  const from = byBox.get(arrow.source);
  const to = byBox.get(arrow.target);
  const came = to === undefined || to.steps.length > 0 || to.instances.length > 0;
  if (from === undefined || from.steps.length === 0 || !came) return false;
  return (
    arrow.way !== "branch" ||
    from.steps.some(
      (step) => arrow.id.endsWith(`:${step.branch}`) || arrow.id.endsWith(`: ${step.branch}`),
    )
  );
}

const BoxView = memo(function BoxView({ data }: NodeProps<BoxNode>) {
  const { box, state, chain, container, closed, selected, light, act } = data;
  const at = data.shown;
  const last = at?.steps.at(-1);
  if (chain !== undefined) {
    return <ChainView data={data} chain={chain} />;
  }
  const classes = [
    container ? "frame" : "box",
    `state-${state}`,
    selected ? "selected" : "",
    light === null ? "" : `lit-${light}`,
  ];
  const attempts = last?.attempts?.length ?? 0;
  const inside =
    (at?.instances.length ?? 0) > 0 ||
    box.lanes.length > 0 ||
    box.bound !== null ||
    box.type === "call" ||
    box.type === "map";
  return (
    <div className={classes.join(" ")}>
      <Handle type="target" position={Position.Top} />
      <button
        type="button"
        className="box-main"
        onClick={() => act.select(box.id)}
        aria-pressed={selected}
      >
        <span className="box-top">
          <LookIcon look={box.look} type={box.type} />
          <span className="box-name">
            <Plain text={box.step} />
          </span>
          {light !== null && (
            <span className={`tag tag-${light}`}>{light === "writer" ? "writes" : "reads"}</span>
          )}
          {attempts > 0 && <span className="count">{attempts + 1}×</span>}
          {!repeats(box) && (at?.steps.length ?? 0) > 1 && (
            <span className="count">{at?.steps.length} runs</span>
          )}
          <StateIcon state={state} size={15} />
        </span>
        <span className="box-line">
          <Plain text={fact(box, last, at)} />
        </span>
        {box.when !== null && (
          <span className="box-line when">
            when <Plain text={box.when} />
            {last !== undefined && ` → ${last.branch === "unless" ? "false" : "true"}`}
          </span>
        )}
        {last?.error !== undefined && !container && (
          <span className="box-line bad">
            <Plain text={errorBrief(last.error)} />
          </span>
        )}
      </button>
      {container && repeats(box) && at !== undefined && at.instances.length > 0 && (
        <Strip data={data} at={at} />
      )}
      {inside && (
        <button
          type="button"
          className="box-fold"
          onClick={() => act.close(box.id)}
          aria-label={closed ? `Unfold ${box.step}` : `Fold ${box.step}`}
        >
          <span aria-hidden="true">{closed ? "+" : "–"}</span>
        </button>
      )}
      <Handle type="source" position={Position.Bottom} />
    </div>
  );
});

/** The one fact that a box shows, by its type and always at the same place. */
function fact(box: Box, last: StepView | undefined, at: Shown | undefined): string {
  if (box.type === "map" && at !== undefined && at.instances.length > 0) {
    const counts = new Map<State, number>();
    for (const { state } of at.instances) counts.set(state, (counts.get(state) ?? 0) + 1);
    const told = [...counts].map(([state, count]) => `${count} ${word(state)}`);
    return `${at.instances.length}: ${told.join(", ")}`;
  }
  if (box.type === "loop" && at !== undefined && at.instances.length > 0) {
    return `turn ${at.instances.length} of at most ${box.bound}`;
  }
  if (last === undefined) return box.line;
  const took = last.end === null ? "" : duration(last.end - last.start);
  switch (box.type) {
    case "llm": {
      if (last.usage === undefined) return took;
      return `${tokens(last.usage.total_tokens)} · ${cost(last.usage.cost_usd)} · ${took}`;
    }
    case "tool":
      return [last.effect ?? box.line, took].filter(Boolean).join(" · ");
    case "condition":
    case "switch":
    case "assert":
      return `${box.test ?? ""}${last.branch === undefined ? "" : ` → ${last.branch}`}`;
    case "approval":
      return last.status === "suspended"
        ? `waits ${box.line.replace(/^by /, "for ")}`
        : `${box.line} → ${last.branch ?? ""}`;
    default:
      return box.line;
  }
}

/** The states of the items in their order, or the turns as numbers; a click looks inside one. */
function Strip({ data, at }: { data: BoxData; at: Shown }) {
  const { box, act, parentInstance } = data;
  const pick = (one: Instance) => act.choose(parentInstance, box.id, one.path);
  if (box.type === "loop") {
    const turns = at.instances.length > 12 ? at.instances.slice(-12) : at.instances;
    return (
      <div className="strip-box">
        <div className="strip">
          {turns.length < at.instances.length && <span className="muted">…</span>}
          {turns.map((one) => (
            <button
              key={one.path}
              type="button"
              className={`turn state-${one.state} ${one === at.chosen ? "chosen" : ""}`}
              onClick={() => pick(one)}
              aria-label={`${one.label}, ${word(one.state)}`}
              aria-pressed={one === at.chosen}
            >
              {one.label.replace("turn ", "")}
            </button>
          ))}
        </div>
        <div className="box-line">
          until <Plain text={box.test ?? "its bound"} />
        </div>
      </div>
    );
  }
  const size = Math.ceil(at.instances.length / CELLS);
  const buckets: Instance[] = [];
  for (let i = 0; i < at.instances.length; i += size) {
    const group = at.instances.slice(i, i + size);
    const worst = group.find((one) => isOpen(one.state)) ?? group[0];
    if (worst !== undefined) buckets.push(worst);
  }
  const listed = problems(at.instances).slice(0, LISTED);
  return (
    <div className="strip-box">
      <div className="strip cells">
        {buckets.map((one) => (
          <button
            key={one.path}
            type="button"
            className={`cell state-${one.state} ${one === at.chosen ? "chosen" : ""}`}
            onClick={() => pick(one)}
            title={`${one.label} ${word(one.state)}`}
            aria-label={`item ${one.label}, ${word(one.state)}`}
            aria-pressed={one === at.chosen}
          >
            <span aria-hidden="true">
              {isProblem(one.state) ? "×" : one.state === "done" ? "" : "·"}
            </span>
          </button>
        ))}
      </div>
      {listed.map((one) => {
        const error = one.steps.at(-1)?.error;
        return (
          <button
            key={one.path}
            type="button"
            className={`box-line item ${isProblem(one.state) ? "bad" : ""}`}
            onClick={() => pick(one)}
          >
            {one.label} {word(one.state)} <Plain text={error ? errorBrief(error) : ""} />
          </button>
        );
      })}
    </div>
  );
}

function ChainView({ data, chain }: { data: BoxData; chain: Chain }) {
  const { run } = useLooking();
  const steps = chain.boxes.flatMap((box) => run.byBox.get(box) ?? []);
  const took = steps.reduce((sum, step) => sum + ((step.end ?? step.start) - step.start), 0);
  return (
    <div className={`box chain state-${data.state}`}>
      <Handle type="target" position={Position.Top} />
      <button type="button" className="box-main" onClick={() => data.act.open(chain.id)}>
        <span className="box-top">
          <LookIcon look="step" type="chain" />
          <span className="box-name">{plural(chain.boxes.length, "step")}</span>
          <StateIcon state={data.state} size={15} />
        </span>
        <span className="box-line">{steps.length > 0 ? `${duration(took)} · open` : "open"}</span>
      </button>
      <Handle type="source" position={Position.Bottom} />
    </div>
  );
}

const EndView = memo(function EndView({ data }: NodeProps<BoxNode>) {
  return (
    <div className={`end state-${data.state}`}>
      <Handle type="target" position={Position.Top} />
      <StateIcon state={data.state} size={12} /> {data.box.look === "fail" ? "fail" : "end"}
    </div>
  );
});

const NODE_TYPES = { box: BoxView, end: EndView };
