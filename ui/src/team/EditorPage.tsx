import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type {
  ChartData,
  Checked,
  DiagnosticView,
  ProgramRow,
  ProgramVersion,
  RunView,
  StepView,
} from "../api";
import { askUntilAnswered, mayPass } from "../api/refusal";
import { loadEditor } from "../editor/load";
import type { Opened } from "../editor/types";
import { plural } from "../lib/format";
import { compact } from "../lib/json";
import { blank, linesOf, marksOf, saidOf } from "../model/editing";
import { errorBrief, index, stateOf } from "../model/run";
import { type Choice, choose } from "../model/shown";
import { StateChip } from "../parts/State";
import { Plain, read } from "../parts/Text";
import { ArrowHeads } from "../run/Arrows";
import { LookingContext } from "../run/context";
import { Graph } from "../run/Graph";
import type { TeamSource } from "./api";
import { draftOf, keepDraft } from "./drafts";
import { Faults, useAsked } from "./parts";

const SAMPLE = `name: hello
inputs:
  type: object
  properties:
    question: {type: string}
  required: [question]
steps:
  - id: answer
    type: llm
    prompt: "Answer in one sentence: $question"
`;

const CHECK_MS = 250; // after the last key

/** A program as text, and beside it what the server says of it while one types. */
export function EditorPage({ from, name }: { from: TeamSource; name: string | null }) {
  const path = name === null ? null : `programs/${encodeURIComponent(name)}`;
  const [stored, fault] = useAsked<ProgramVersion>(from, path);
  useEffect(() => {
    document.title = name === null ? "New program" : `Edit ${name}`;
  }, [name]);
  const saved = name === null ? SAMPLE : stored?.source;
  if (saved === undefined) {
    return (
      <main className="message">{fault === null ? "Loading…" : <Faults error={fault} />}</main>
    );
  }
  return <Editing from={from} name={name} version={stored?.version ?? null} saved={saved} />;
}

/** Which step is looked at of the run that breaks a proof; the proof is null where none is. */
interface Walked {
  of: Checked | null;
  proof: number | null;
  at: number;
}

const NO_WALK: Walked = { of: null, proof: null, at: 0 };

function Editing({
  from,
  name,
  version,
  saved,
}: {
  from: TeamSource;
  name: string | null;
  version: number | null;
  saved: string;
}) {
  const [begun, setBegun] = useState(() => draftOf(from.project, name) ?? saved);
  const [opening, setOpening] = useState(0); // how often the editor was opened anew
  const [text, setText] = useState(begun);
  const [checked, fault, current] = useChecked(from, text);
  // a run that breaks a proof is one of the check that found it
  const [walked, setWalked] = useState<Walked | null>(null);
  const { proof: example, at } = walked?.of === checked && walked !== null ? walked : NO_WALK;
  const [refusal, setRefusal] = useState<{ text: string; error: Error } | null>(null);
  const [busy, setBusy] = useState(false);
  const [line, setLine] = useState(1);
  const [editor, setEditor] = useState<Opened | null>(null);
  const reveal = useCallback((number: number) => editor?.reveal(number), [editor]);
  const errors = checked?.diagnostics.filter((one) => one.severity === "error") ?? [];
  const shown = checked?.counterexamples.find((one) => one.proof === example)?.run ?? null;
  const steps = shown?.steps.filter((step) => step.beside === undefined) ?? [];
  const lines = useMemo(() => linesOf(text), [text]);
  // the last good graph stays while the text cannot be drawn
  const [chart, setChart] = useState<ChartData | null>(null);
  useEffect(() => {
    if (checked?.chart != null) setChart(checked.chart);
  }, [checked]);
  useEffect(() => {
    editor?.mark(marksOf(checked?.diagnostics ?? []));
  }, [editor, checked]);
  useEffect(() => {
    keepDraft(from.project, name, text === saved ? null : text);
  }, [from, name, text, saved]);
  const undo = () => {
    setBegun(saved);
    setText(saved);
    setOpening((old) => old + 1);
  };

  const save = async () => {
    setBusy(true);
    try {
      const put = await from.send<ProgramRow>("POST", "programs", { source: text });
      // what was typed since is not saved
      if (draftOf(from.project, name) === text) keepDraft(from.project, name, null);
      window.location.hash = `#/programs/${encodeURIComponent(put.name)}`;
    } catch (refused) {
      setRefusal({ text, error: refused as Error });
      setBusy(false);
    }
  };
  const stale = chart !== null && checked?.chart === null;
  return (
    <div className="editor-page">
      <header className="top">
        <div className="title">
          <a href="#/programs">Programs</a>
          <h1>
            <Plain text={name ?? "New program"} />
          </h1>
          <span className="facts">
            {version !== null && <span>saved as version {version}</span>}
            {text !== saved && <span>changed</span>}
          </span>
          {text !== saved && (
            <button type="button" className="quiet" onClick={undo}>
              Discard changes
            </button>
          )}
          <span className="grow" />
          <output className="muted">{heldAgainst(checked, fault, current)}</output>
          <button
            type="button"
            className="primary"
            disabled={busy || !current || errors.length > 0 || checked?.name == null}
            onClick={save}
          >
            {errors.length > 0 ? `Save: refused, ${plural(errors.length, "fault")}` : "Save"}
          </button>
        </div>
      </header>
      <section className="editor-text" aria-label="Text">
        <TextEditor
          key={opening}
          text={begun}
          opened={setEditor}
          changed={setText}
          moved={setLine}
        />
      </section>
      <main className={`editor-graph ${stale ? "stale" : ""}`} aria-label="Graph">
        {stale && <p className="note">As of the last text that can be drawn.</p>}
        {chart !== null && (
          <Drawn
            chart={chart}
            run={shown}
            at={steps[at]?.path ?? null}
            step={lines.stepAt(line)}
            selected={(step) => {
              const found = lines.lineOf(step);
              if (found !== null) reveal(found);
            }}
          />
        )}
      </main>
      <aside className="editor-said" aria-label="What holds">
        <Faults error={fault ?? (refusal?.text === text ? refusal.error : null)} />
        {shown !== null && (
          <Walk
            run={shown}
            steps={steps}
            at={at}
            go={(step) => setWalked({ of: checked, proof: example, at: step })}
          />
        )}
        {checked !== null && (
          <>
            <Found found={checked.diagnostics} reveal={reveal} />
            <Proofs
              checked={checked}
              example={example}
              show={(proof) => setWalked({ of: checked, proof, at: 0 })}
            />
            {checked.bound !== null && (
              <section>
                <h2>Worst case</h2>
                <pre className="prose wrapped">
                  <Plain text={checked.bound} />
                </pre>
              </section>
            )}
          </>
        )}
      </aside>
    </div>
  );
}

function heldAgainst(checked: Checked | null, fault: Error | null, current: boolean): string {
  if (fault !== null) return mayPass(fault) ? "not checked; this page tries again" : "not checked";
  if (checked === null || !current) return "checking…";
  if (checked.name === null) return "this is no program yet";
  if (checked.host === null) return "no worker has announced itself";
  const policy = checked.policy === null ? "" : `, under policy ${checked.policy}`;
  return `checked for ${checked.host}${policy}`;
}

/** What the server says of *text*, asked a moment after the last key; whether it is of this text. */
function useChecked(from: TeamSource, text: string): [Checked | null, Error | null, boolean] {
  const [found, setFound] = useState<{
    text: string;
    checked: Checked | null;
    fault: Error | null;
  }>({ text: "", checked: null, fault: null });
  useEffect(
    () =>
      askUntilAnswered(
        () => from.send<Checked>("POST", "programs/check", { source: text }),
        CHECK_MS,
        (checked) => setFound({ text, checked, fault: null }),
        (fault) => setFound((old) => ({ ...old, text, fault })),
      ),
    [from, text],
  );
  const current = found.text === text && found.fault === null;
  return [found.checked, found.fault, current];
}

/** The editor; where its script cannot be had, a plain field does. */
function TextEditor({
  text,
  opened,
  changed,
  moved,
}: {
  text: string;
  opened: (editor: Opened | null) => void;
  changed: (text: string) => void;
  moved: (line: number) => void;
}) {
  const place = useRef<HTMLDivElement>(null);
  const [fault, setFault] = useState<Error | null>(null);
  useEffect(() => {
    let gone = false;
    let editor: Opened | null = null;
    loadEditor().then((module) => {
      if (gone || place.current === null) return;
      editor = module.open(place.current, text, "Program", changed, moved);
      opened(editor);
    }, setFault);
    return () => {
      gone = true;
      opened(null);
      editor?.close();
    };
  }, [text, opened, changed, moved]);
  if (fault !== null) {
    return (
      <>
        <Faults error={fault} />
        <textarea
          className="mono"
          aria-label="Program"
          defaultValue={text}
          onChange={(event) => changed(event.target.value)}
        />
      </>
    );
  }
  return <div ref={place} className="editor-place" />;
}

/** The graph of a program, with the path of a run on it where one is shown. */
function Drawn({
  chart,
  run: shown,
  at,
  step: written,
  selected,
}: {
  chart: ChartData;
  run: RunView | null;
  at: string | null;
  step: string | null;
  selected: (step: string) => void;
}) {
  const run = useMemo(
    () => index(shown === null ? blank(chart) : { ...shown, chart }),
    [chart, shown],
  );
  const [choice, setChoice] = useState<Choice>(new Map());
  const boxes = chart.boxes.map((one) => one.id).join("\n"); // others are looked at from anew
  const box = chart.boxes.find((one) => one.step === written)?.id;
  const looking = useMemo(
    () => ({
      run,
      selected: at ?? (box === undefined ? null : `box:${box}`),
      lineage: null,
      select: (path: string) => {
        const step = run.byPath.get(path);
        if (step !== undefined) setChoice((old) => choose(run, old, step));
        const id = step?.box ?? path.slice("box:".length);
        const found = run.boxes.get(id);
        if (found !== undefined) selected(found.step);
      },
      look: () => undefined,
    }),
    [run, at, box, selected],
  );
  return (
    <LookingContext.Provider value={looking}>
      <ArrowHeads />
      <Graph key={boxes} choice={choice} setChoice={setChoice} />
    </LookingContext.Provider>
  );
}

function Found({ found, reveal }: { found: DiagnosticView[]; reveal: (line: number) => void }) {
  if (found.length === 0) return null;
  return (
    <section>
      <h2>Faults</h2>
      <ul className="editor-list">
        {found.map((one) => (
          <li key={one.code + one.place + one.message}>
            <StateChip
              state={one.severity === "error" ? "failed" : "retrying"}
              text={one.severity}
            />{" "}
            {one.line === undefined ? (
              <span className="muted">
                <Plain text={one.place} />
              </span>
            ) : (
              <button type="button" className="link" onClick={() => reveal(one.line as number)}>
                line {one.line}
              </button>
            )}{" "}
            <Plain text={saidOf(one)} />
          </li>
        ))}
      </ul>
    </section>
  );
}

const STANDINGS = { proved: "done", refuted: "failed", unproved: "retrying" } as const;

function Proofs({
  checked,
  example,
  show,
}: {
  checked: Checked;
  example: number | null;
  show: (proof: number | null) => void;
}) {
  const proofs = checked.report?.proofs ?? [];
  const drawn = new Set(checked.counterexamples.map((one) => one.proof));
  return (
    <section>
      <h2>Proofs</h2>
      {proofs.length === 0 && (
        <p className="muted">Neither the program nor a policy demands anything of its runs.</p>
      )}
      <ul className="editor-list">
        {proofs.map((one, i) => (
          <li key={one.kind + one.tool + one.statement}>
            <StateChip state={STANDINGS[one.status]} text={one.status} />{" "}
            <Plain text={one.statement} />
            {one.reason !== undefined && (
              <span className="muted">
                {" "}
                <Plain text={one.reason} />
              </span>
            )}
            {drawn.has(i) && " "}
            {drawn.has(i) && (
              <button
                type="button"
                className="link"
                aria-pressed={example === i}
                onClick={() => show(example === i ? null : i)}
              >
                {example === i ? "hide the run" : "show the run that breaks it"}
              </button>
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** A run that breaks a proof, step by step. */
function Walk({
  run,
  steps,
  at,
  go,
}: {
  run: RunView;
  steps: StepView[];
  at: number;
  go: (step: number) => void;
}) {
  const step = steps[at];
  const inputs = Object.entries(run.inputs).map(([name, json]) => `${name}=${plain(json)}`);
  return (
    <section className="walk" aria-label="Counterexample">
      <h2>
        The run that breaks it, step {at + 1} of {steps.length}
      </h2>
      {inputs.length > 0 && (
        <p className="muted">
          with <Plain text={inputs.join(", ")} />
        </p>
      )}
      <p>
        <button
          type="button"
          onClick={() => go(at - 1)}
          disabled={at === 0}
          aria-label="Step before"
        >
          ‹
        </button>{" "}
        <button
          type="button"
          onClick={() => go(at + 1)}
          disabled={at + 1 >= steps.length}
          aria-label="Next step"
        >
          ›
        </button>{" "}
        {step !== undefined && (
          <>
            <StateChip state={stateOf(step.status)} />{" "}
            <strong>
              <Plain text={step.path} />
            </strong>{" "}
            <Plain text={told(step)} />
          </>
        )}
      </p>
    </section>
  );
}

function told(step: StepView): string {
  const values = Object.entries(step.references ?? {}).map(
    ([name, json]) => `${name} is ${plain(json)}`,
  );
  if (step.branch !== undefined) return [...values, `goes to ${step.branch}`].join(", ");
  if (step.error !== undefined) return errorBrief(step.error);
  return step.output === undefined ? "" : `gives ${plain(step.output)}`;
}

function plain(json: string): string {
  const node = read(json);
  return (node === null ? json : compact(node)).slice(0, 160);
}
