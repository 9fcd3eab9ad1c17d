import { useEffect, useMemo } from "react";
import type { Box, ProgramDifference, ProgramVersion, StepDifference } from "../api";
import {
  FirstDifference,
  KeyHint,
  SideHead,
  Steps,
  TwoTexts,
  told,
  useDifference,
} from "../compare/Differences";
import { MergedGraph } from "../compare/MergedGraph";
import { moment } from "../lib/format";
import { differingIn, type Side } from "../model/compare";
import { mergeVersions } from "../model/versions";
import { Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Faults, useAsked } from "./parts";

const LACKS = "does not have it";

/** Two versions of a program on one graph: what only one has, and what changed, in each step and in
 * the text.
 */
export function VersionsPage({
  from,
  name,
  versions: [a, b],
}: {
  from: TeamSource;
  name: string;
  versions: [string, string];
}) {
  const path = `programs/${encodeURIComponent(name)}`;
  const one = encodeURIComponent(a);
  const other = encodeURIComponent(b);
  const [found, fault] = useAsked<ProgramDifference>(from, `${path}/diff/${one}/${other}`);
  const [left, leftFault] = useAsked<ProgramVersion>(from, `${path}/versions/${one}`);
  const [right, rightFault] = useAsked<ProgramVersion>(from, `${path}/versions/${other}`);
  const unread = fault ?? leftFault ?? rightFault;
  useEffect(() => {
    document.title = `${name}: version ${a} and ${b}`;
  }, [name, a, b]);
  if (found === null || left === null || right === null)
    return (
      <main className="message">{unread === null ? "Comparing…" : <Faults error={unread} />}</main>
    );
  return <Compared name={name} found={found} versions={[left, right]} />;
}

function Compared({
  name,
  found,
  versions: [a, b],
}: {
  name: string;
  found: ProgramDifference;
  versions: [ProgramVersion, ProgramVersion];
}) {
  const differs = found.steps.some((step) => step.differs);
  const [selected, select] = useDifference(found.steps);
  return (
    <div className="compare-page versions">
      <header className="top">
        <div className="title">
          <a href={`#/programs/${encodeURIComponent(name)}`}>
            ‹ <Plain text={name} />
          </a>
          <h1>
            Version {a.version} and {b.version}
          </h1>
        </div>
        <div className="sides">
          <SideHead name="A">
            <VersionFacts version={a} />
          </SideHead>
          <SideHead name="B">
            <VersionFacts version={b} />
          </SideHead>
        </div>
        <p className="reason">
          {found.same
            ? "They do the same: what differs is how they are written."
            : !differs && `They differ in ${differingIn(found.whole)}.`}
          <FirstDifference steps={found.steps} select={select} />
          {undrawn(found)}
          {differs && <KeyHint />}
        </p>
      </header>
      <VersionsGraph found={found} selected={selected} select={select} />
      <Steps
        steps={found.steps}
        whole={found.whole}
        lacks={LACKS}
        selected={selected}
        select={select}
      >
        <section>
          <h3>How they are written</h3>
          <TwoTexts a={a.source} b={b.source} />
        </section>
      </Steps>
    </div>
  );
}

function VersionFacts({ version }: { version: ProgramVersion }) {
  return (
    <>
      <span>version {version.version}</span>
      <span className="muted">
        put by <Plain text={version.put_by} /> · {moment(version.put)}
      </span>
    </>
  );
}

function VersionsGraph({
  found,
  selected,
  select,
}: {
  found: ProgramDifference;
  selected: string | null;
  select: (path: string) => void;
}) {
  const merged = useMemo(() => mergeVersions(found.a, found.b, found.steps), [found]);
  const boxes = useMemo(
    () => new Set([...merged.steps].filter(([, step]) => step.path === selected).map(([id]) => id)),
    [merged, selected],
  );
  if (merged.boxes.length === 0) return <p className="message">Neither version has a graph.</p>;
  return (
    <MergedGraph
      label="Both versions on one graph"
      merged={merged}
      selected={boxes}
      select={(box) => {
        const step = merged.steps.get(box.id);
        if (step !== undefined) select(step.path);
      }}
      line={(box) => (
        <Plain text={lineOf(box, merged.sides.get(box.id), merged.steps.get(box.id))} />
      )}
    />
  );
}

/** What a box says: what changed in its step, or where alone it stands. */
function lineOf(box: Box, side: Side | undefined, step: StepDifference | undefined): string {
  if (side === "changed" && step !== undefined) return `changed: ${told(step, LACKS)}`;
  if (side !== "a" && side !== "b") return box.line;
  const where = `only in ${side.toUpperCase()}`;
  return step?.side === "" ? `here ${where}: moved` : where;
}

/** Why a version is not drawn. */
function undrawn(found: ProgramDifference): string {
  const missing = [found.a === null ? "A" : "", found.b === null ? "B" : ""].filter(Boolean);
  if (missing.length === 0) return "";
  return ` ${missing.join(" and ")} cannot be drawn: it calls programs by name, which are known in a run.`;
}
