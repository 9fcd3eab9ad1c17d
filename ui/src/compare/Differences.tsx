import { type ReactNode, useEffect, useMemo, useState } from "react";
import type { Comparison, StepDifference } from "../api";
import { cost, duration, plural } from "../lib/format";
import { pretty, words as spoken } from "../lib/json";
import { isForPage } from "../lib/keys";
import { fieldName, folded, type Side, words } from "../model/compare";
import type { Key } from "../parts/Keys";
import { Plain, read } from "../parts/Text";

const SIDES: Record<Side, string> = {
  same: "equal",
  changed: "differs",
  a: "only in A",
  b: "only in B",
  none: "in neither",
};

export const KEYS: Key[] = [
  ["n", "next difference"],
  ["p", "difference before"],
];

/** The step that is looked at, to begin with the first that differs, null for the whole; `n` and `p` go
 * from difference to difference.
 */
export function useDifference(
  steps: StepDifference[],
): [string | null, (path: string | null) => void] {
  const differing = useMemo(() => steps.filter((step) => step.differs), [steps]);
  const [selected, setSelected] = useState(differing[0]?.path ?? null);
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
  return [selected, setSelected];
}

/** Where two differ first, and in how much. */
export function FirstDifference({
  steps,
  select,
}: {
  steps: StepDifference[];
  select: (path: string) => void;
}) {
  const differing = steps.filter((step) => step.differs);
  const first = differing[0]?.path;
  if (first === undefined) return null;
  return (
    <>
      First difference at{" "}
      <button type="button" className="link" onClick={() => select(first)}>
        {first}
      </button>
      . {plural(differing.length, "step")} of {steps.length}{" "}
      {differing.length === 1 ? "differs" : "differ"}.
    </>
  );
}

/** How to go about in the differences. */
export function KeyHint() {
  return (
    <span className="muted">
      {" "}
      <kbd>n</kbd> next, <kbd>p</kbd> previous
    </span>
  );
}

export function SideMark({ side }: { side: Side }) {
  const marks: Record<Side, string> = { same: "=", changed: "A|B", a: "A", b: "B", none: "" };
  return (
    <span className={`mark mark-${side}`} title={SIDES[side]}>
      {marks[side]}
      <span className="unseen">{SIDES[side]}</span>
    </span>
  );
}

/** In what a step differs; *lacks* is what the side that is without it does. */
export function told(step: StepDifference, lacks: string): string {
  if (step.side === "a") return `B ${lacks}`;
  if (step.side === "b") return `A ${lacks}`;
  return Object.keys(step.fields).map(fieldName).join(", ");
}

/** The head of a side: its name, and what it is. */
export function SideHead({ name, children }: { name: "A" | "B"; children: ReactNode }) {
  const side = name.toLowerCase();
  return (
    <div className={`side side-${side}`}>
      <span className={`mark mark-${side}`}>{name}</span>
      {children}
    </div>
  );
}

/** The steps of both, and the one that is looked at, or the whole with *children* below it. */
export function Steps({
  steps,
  whole,
  lacks,
  selected,
  select,
  children,
}: {
  steps: StepDifference[];
  whole: Comparison["whole"];
  lacks: string;
  selected: string | null;
  select: (path: string | null) => void;
  children?: ReactNode;
}) {
  const step = steps.find((one) => one.path === selected);
  return (
    <>
      <main className="compare-steps">
        <StepRows steps={steps} lacks={lacks} selected={selected} select={select} />
      </main>
      <aside className="detail" aria-label="Difference">
        <div className="inspector">
          {step === undefined ? (
            <>
              <Whole whole={whole} />
              {children}
            </>
          ) : (
            <Difference step={step} lacks={lacks} />
          )}
        </div>
      </aside>
    </>
  );
}

/** Each step of both, those that are equal in groups; the first row is the whole. */
function StepRows({
  steps,
  lacks,
  selected,
  select,
}: {
  steps: StepDifference[];
  lacks: string;
  selected: string | null;
  select: (path: string | null) => void;
}) {
  const [open, setOpen] = useState(false);
  const rows = useMemo(() => folded(steps, open), [steps, open]);
  return (
    <ul>
      <li>
        <button
          type="button"
          className={`difference ${selected === null ? "selected" : ""}`}
          aria-pressed={selected === null}
          onClick={() => select(null)}
        >
          The whole
        </button>
      </li>
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
              onClick={() => select(row.path)}
            >
              <SideMark side={row.side || (row.differs ? "changed" : "same")} />
              <strong>
                <Plain text={row.path} />
              </strong>
              <span className="muted">{told(row, lacks)}</span>
            </button>
          </li>
        ),
      )}
    </ul>
  );
}

function Whole({ whole }: { whole: Comparison["whole"] }) {
  return (
    <>
      <h2>The whole</h2>
      {Object.entries(whole).map(([name, pair]) => (
        <Pair key={name} name={name} pair={pair} />
      ))}
    </>
  );
}

function Difference({ step, lacks }: { step: StepDifference; lacks: string }) {
  return (
    <>
      <h2>
        <Plain text={step.path} />
      </h2>
      <p className="muted">
        {step.side === "" ? (step.differs ? "differs" : "equal") : told(step, lacks)}
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
  if (name === "duration_ms" || name === "cost_usd") {
    const show = (text: string) =>
      text === "null" ? "none" : name === "cost_usd" ? cost(text) : duration(Number(text));
    return (
      <section>
        <h3>{fieldName(name)}</h3>
        <p>
          {show(a)} → {show(b)}
        </p>
      </section>
    );
  }
  return (
    <section>
      <h3>{fieldName(name)}</h3>
      <TwoTexts a={a} b={b} />
    </section>
  );
}

/** Two texts in one, by their words; without a word in common, one after the other. */
export function TwoTexts({ a, b }: { a: string; b: string }) {
  const found = useMemo(() => words(a, b), [a, b]);
  const common = found.some((word) => word.side === "" && word.text.trim() !== "");
  return (
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
  );
}

function shownText(json: string): string {
  const node = read(json);
  if (node === null) return json;
  return node.kind === "string" ? spoken(node) : pretty(node);
}
