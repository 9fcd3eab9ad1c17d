import { type ReactNode, useEffect, useMemo, useState } from "react";
import type { Comparison, RunView, Source } from "../api";
import { cost, duration, tokens } from "../lib/format";
import { boxOf, differingIn, merge } from "../model/compare";
import { index, type Run, type State, stateOf } from "../model/run";
import { standing } from "../model/standing";
import { StateIcon } from "../parts/Icon";
import { Keys } from "../parts/Keys";
import { StateChip } from "../parts/State";
import { Plain } from "../parts/Text";
import { asked } from "../run/RunPage";
import { FirstDifference, KEYS, KeyHint, SideHead, Steps, useDifference } from "./Differences";
import { MergedGraph } from "./MergedGraph";

const LACKS = "did not reach it";

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
  const [selected, select] = useDifference(found.steps);
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
          <SideHead name="A">
            <RunFacts view={found.a} />
          </SideHead>
          <SideHead name="B">
            <RunFacts view={found.b} />
          </SideHead>
        </div>
        <p className="reason">
          {found.same ? (
            "They did the same; what they cost and how long they took may differ."
          ) : found.divergence === null ? (
            `They differ in ${differingIn(found.whole)}.`
          ) : (
            <FirstDifference steps={found.steps} select={select} />
          )}
          {found.a.program_digest !== found.b.program_digest &&
            " They are of two versions of the program."}
          {found.divergence !== null && <KeyHint />}
        </p>
      </header>
      <RunsGraph found={found} selected={selected} select={select} />
      <Steps
        steps={found.steps}
        whole={found.whole}
        lacks={LACKS}
        selected={selected}
        select={select}
      />
    </div>
  );
}

function RunFacts({ view }: { view: RunView }) {
  const { state, text } = standing(view.status, asked(view));
  return (
    <>
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
    </>
  );
}

function RunsGraph({
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
  const boxes = useMemo(() => new Set(selected === null ? [] : [boxOf(selected)]), [selected]);
  if (merged.boxes.length === 0) return <p className="message">Neither run has a graph.</p>;
  return (
    <MergedGraph
      label="Both runs on one graph"
      merged={merged}
      selected={boxes}
      select={({ id }) => {
        const steps = found.steps.filter((step) => boxOf(step.path) === id);
        const first = steps.find((step) => step.differs) ?? steps[0];
        if (first !== undefined) select(first.path);
      }}
      line={({ id }) => (
        <>
          A <StateIcon state={lastState(runs[0], id)} size={12} /> B{" "}
          <StateIcon state={lastState(runs[1], id)} size={12} />
          {merged.diverges === id && <strong className="diverges"> diverges here</strong>}
        </>
      )}
    />
  );
}

/** Of all times that a run came to a box, the last. */
function lastState(run: Run, box: string): State {
  const last = run.byBox.get(box)?.at(-1);
  return last === undefined ? "untaken" : stateOf(last.status);
}
