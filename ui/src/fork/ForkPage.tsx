import { type ReactNode, useEffect, useId, useMemo, useState } from "react";
import type {
  ForkNode,
  ForkPreview,
  ForksOfSource,
  ForkTree,
  RunView,
  Source,
  StepView,
} from "../api";
import { askUntilAnswered } from "../api/refusal";
import { moment, plural } from "../lib/format";
import { useAddress } from "../lib/router";
import {
  type Change,
  changed,
  type Drafts,
  forkBody,
  inputChanges,
  keyOf,
  stepChanges,
  stepsToFork,
} from "../model/forking";
import { stateOf } from "../model/run";
import { Keys } from "../parts/Keys";
import { StateChip } from "../parts/State";
import { Plain } from "../parts/Text";
import { Faults, Sheet } from "../team/parts";

const PREVIEW_MS = 300; // after the last key

/** A run once more, with a change: what is edited, what the fork would do, and the forks there are. */
export function ForkPage({
  from,
  forks,
  id,
  tools,
}: {
  from: Source;
  forks: ForksOfSource;
  id: string;
  tools: ReactNode;
}) {
  const [view, setView] = useState<RunView | null>(null);
  const [fault, setFault] = useState<Error | null>(null);
  useEffect(() => {
    from.run(id).then(({ run }) => setView(run), setFault);
  }, [from, id]);
  return (
    <>
      <Sheet title={`Fork of ${id}`} tools={tools}>
        <p>
          <a href={`#/run/${encodeURIComponent(id)}`}>‹ Back to the run</a>
        </p>
        <Faults error={fault} />
        {view !== null && <ForkForm forks={forks} view={view} />}
        <section>
          <h2>Forks of this run</h2>
          <Tree forks={forks} id={id} />
        </section>
      </Sheet>
      <Keys keys={[]} shared={from.shared} />
    </>
  );
}

function ForkForm({ forks, view }: { forks: ForksOfSource; view: RunView }) {
  const [{ query }, change] = useAddress();
  const steps = useMemo(() => stepsToFork(view), [view]);
  const asked = query.get("step");
  const step = steps.find((one) => one.path === asked);
  const [drafts, setDrafts] = useState<Drafts>(new Map());
  const [anew, setAnew] = useState(false);
  const [effects, setEffects] = useState(false);
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<{ body: string; error: Error } | null>(null);
  const at = anew ? (step?.path ?? null) : null;
  const edits = changed(drafts);
  const body = useMemo(() => {
    try {
      return forkBody(drafts, at, effects);
    } catch (wrong) {
      return wrong as Error;
    }
  }, [drafts, at, effects]);
  const [preview, refused] = usePreview(forks, view.id, body);

  const set = (one: Change, text: string) =>
    setDrafts((old) => new Map(old).set(keyOf(one), { change: one, text }));
  const fork = async () => {
    if (typeof body !== "string") return;
    setBusy(true);
    try {
      const made = await forks.make(view.id, body);
      window.location.hash = `#/run/${encodeURIComponent(made.id)}`;
    } catch (wrong) {
      setRefusal({ body, error: wrong as Error });
      setBusy(false);
    }
  };
  const changes = step === undefined ? inputChanges(view) : stepChanges(view, step);
  return (
    <div className="fork">
      <form
        className="sheet wide"
        onSubmit={(event) => {
          event.preventDefault();
          void fork();
        }}
      >
        <h2>What changes</h2>
        <label>
          Of
          <select
            value={step?.path ?? ""}
            onChange={(event) => change({ step: event.target.value || null })}
          >
            <option value="">the inputs</option>
            {steps.map((one) => (
              <option key={one.path} value={one.path}>
                {one.path} ({one.type})
              </option>
            ))}
          </select>
        </label>
        {changes.length === 0 && (
          <p className="muted">
            {step === undefined
              ? "This run has no inputs."
              : "A person decides this, in the inbox."}
          </p>
        )}
        {changes.map((one) => (
          <Draft
            key={keyOf(one)}
            change={one}
            text={drafts.get(keyOf(one))?.text ?? one.before}
            set={set}
          />
        ))}
        {step !== undefined && (
          <label className="check">
            <input
              type="checkbox"
              checked={anew}
              onChange={(event) => setAnew(event.target.checked)}
            />
            <span>
              Take nothing from <code>{step.path}</code> on: ask and read again
            </span>
          </label>
        )}
        <label className="check">
          <input
            type="checkbox"
            checked={effects}
            onChange={(event) => setEffects(event.target.checked)}
          />
          <span>Make calls that have an effect, too; else the fork waits before each</span>
        </label>
        {edits.length > 0 && (
          <ul className="names" aria-label="Changes">
            {edits.map(({ change: one }) => (
              <li key={keyOf(one)}>
                <strong>
                  <Plain text={`${one.name}.${one.field}`} />
                </strong>{" "}
                <button type="button" className="link" onClick={() => set(one, one.before)}>
                  leave it as it was
                </button>
              </li>
            ))}
          </ul>
        )}
        <Faults error={refusal?.body === body ? refusal.error : refused} />
        <button type="submit" className="primary" disabled={busy || preview === null}>
          {buttonText(preview)}
        </button>
        <p className="muted">It is stored, and driven by {forks.driver}.</p>
      </form>
      <section aria-label="What the fork does">
        <h2>What the fork does</h2>
        {preview !== null && <Steps steps={steps} preview={preview} />}
      </section>
    </div>
  );
}

function buttonText(preview: ForkPreview | null): string {
  if (preview === null) return "Fork";
  const taken = `${plural(preview.taken.length, "step")} taken`;
  const first = preview.calls.map((one) => one.path).join(", ");
  return `Fork: ${taken}, ${first === "" ? "no call" : `calls from ${first} on`}`;
}

interface Previewed {
  body: string; // the one that was asked about
  preview: ForkPreview | null;
  error: Error | null;
}

/** What a fork of *body* would do, asked a moment after the last change; what is wrong with it. */
function usePreview(
  forks: ForksOfSource,
  id: string,
  body: string | Error,
): [ForkPreview | null, Error | null] {
  const [found, setFound] = useState<Previewed | null>(null);
  useEffect(() => {
    if (typeof body !== "string") return;
    return askUntilAnswered(
      () => forks.preview(id, body),
      PREVIEW_MS,
      (preview) => setFound({ body, preview, error: null }),
      (error) => setFound({ body, preview: null, error }),
    );
  }, [forks, id, body]);
  if (typeof body !== "string") return [null, body];
  return found?.body === body ? [found.preview, found.error] : [null, null];
}

function Draft({
  change,
  text,
  set,
}: {
  change: Change;
  text: string;
  set: (change: Change, text: string) => void;
}) {
  const id = useId();
  const common = {
    id,
    value: text,
    onChange: (event: { target: { value: string } }) => set(change, event.target.value),
  };
  return (
    <div className="field">
      <span>
        <label htmlFor={id}>{change.label}</label>
        {change.kind === "json" && <span className="muted"> as JSON</span>}
        {text !== change.before && <span className="tag tag-writer">changed</span>}
      </span>
      {change.field === "model" ? (
        <input {...common} placeholder="the worker's default" />
      ) : (
        <textarea
          {...common}
          className={change.kind === "json" ? "mono" : ""}
          rows={Math.min(10, Math.max(2, text.split("\n").length))}
        />
      )}
    </div>
  );
}

/** The recorded steps as the fork has them: taken from the record, called, or behind a call. */
function Steps({ steps, preview }: { steps: StepView[]; preview: ForkPreview }) {
  const taken = new Set(preview.taken);
  const calls = new Map(preview.calls.map((one) => [one.path, one]));
  const known = new Set(steps.map((step) => step.path));
  const paths = [
    ...steps.map((step) => step.path),
    ...[...taken, ...calls.keys()].filter((path) => !known.has(path)),
  ];
  return (
    <ol className="fork-steps">
      {paths.map((path) => {
        const first = calls.get(path);
        return (
          <li key={path}>
            <code>
              <Plain text={path} />
            </code>{" "}
            {taken.has(path) ? (
              <StateChip state="done" text="takes its record" />
            ) : first !== undefined ? (
              <StateChip
                state={first.stops || first.type === "approval" ? "waiting" : "running"}
                text={wordsOf(first)}
              />
            ) : (
              <StateChip
                state="queued"
                text={calls.size === 0 ? "is not reached" : "behind the calls, if reached"}
              />
            )}
          </li>
        );
      })}
    </ol>
  );
}

/** What a call of a fork is, for a person. */
function wordsOf(call: ForkPreview["calls"][number]): string {
  if (call.type === "approval") return "asks a person";
  return call.stops ? "waits before its effect" : `calls ${call.called ?? call.type}`;
}

function Tree({ forks, id }: { forks: ForksOfSource; id: string }) {
  const [tree, setTree] = useState<ForkTree | null>(null);
  const [fault, setFault] = useState<Error | null>(null);
  useEffect(() => {
    forks.tree(id).then(setTree, setFault);
  }, [forks, id]);
  if (tree === null) return <Faults error={fault} />;
  if (tree.runs.length <= 1) return <p className="muted">There is none yet.</p>;
  return (
    <>
      <ul className="tree">
        {tree.runs.map((one) => (
          <li key={one.id} style={{ paddingInlineStart: `${Math.min(one.depth, 8) * 1.2}rem` }}>
            <StateChip state={stateOf(one.status)} />{" "}
            {one.id === id ? (
              <strong>
                <Plain text={one.id} />
              </strong>
            ) : (
              <a href={`#/run/${encodeURIComponent(one.id)}`}>
                <Plain text={one.id} />
              </a>
            )}{" "}
            <span className="muted">
              <Plain text={told(one)} /> · {moment(one.created)}
            </span>{" "}
            {one.parent !== null && (
              <a href={`#/compare/${encodeURIComponent(one.parent)}/${encodeURIComponent(one.id)}`}>
                compare
              </a>
            )}
          </li>
        ))}
      </ul>
      {!tree.whole && <p className="muted">There are more; the list of runs has them all.</p>}
    </>
  );
}

function told(one: ForkNode): string {
  if (one.parent === null) return "the first";
  const parts = [...one.changed, ...(one.at === null ? [] : [`again from ${one.at} on`])];
  return parts.join(", ") || "nothing changed";
}
