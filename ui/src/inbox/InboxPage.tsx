import { type ReactNode, useCallback, useEffect, useRef, useState } from "react";
import type { Answer, AskedList, Asking, RunView, Source, StepView } from "../api";
import { whilePolled } from "../api/refusal";
import { duration } from "../lib/format";
import { isForPage } from "../lib/keys";
import { useAddress } from "../lib/router";
import { useTurns } from "../lib/turns";
import { boxOf } from "../model/compare";
import { type Consequence, consequence, effectWords } from "../model/consequence";
import { reconciled } from "../model/reconciled";
import { StateIcon } from "../parts/Icon";
import { type Key, Keys } from "../parts/Keys";
import { Plain, Value } from "../parts/Text";

const EVERY_MS = 2_000;

function keyOf(asking: Asking): string {
  return `${asking.run} ${asking.path}`;
}

const KEYS: Key[] = [
  ["j k", "next question, question before"],
  ["a", "to the button that approves, which Enter presses"],
  ["r", "to the button that rejects"],
];

export function InboxPage({ from, tools }: { from: Source; tools: ReactNode }) {
  const [{ query }, change] = useAddress();
  const [list, setList] = useState<AskedList | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const [refusal, setRefusal] = useState<string | null>(null); // of the last decision
  const [said, setSaid] = useState<string | null>(null);
  // what is looked at stays as it was shown, until it is decided or another is taken
  const [open, setOpen] = useState<Asking | null>(null);
  const wanted = query.get("at");

  const turns = useTurns();
  const look = useCallback(() => {
    const counts = turns.ask();
    return from.asked().then(
      (found) => {
        if (!counts()) return;
        setList(found);
        setFault(null);
      },
      (error: Error) => counts() && setFault(whilePolled(error)),
    );
  }, [from, turns]);
  useEffect(() => {
    void look();
    document.title = "Inbox";
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void look();
    }, EVERY_MS);
    return () => clearInterval(timer);
  }, [look]);
  const asked = list?.asked ?? [];
  useEffect(() => {
    if (open !== null && (wanted === null || keyOf(open) === wanted)) return;
    const found = asked.find((one) => keyOf(one) === wanted) ?? asked[0];
    if (found !== undefined) setOpen(found);
  }, [asked, open, wanted]);
  const now = asked.find((one) => open !== null && keyOf(one) === keyOf(open));
  const take = (asking: Asking) => {
    setOpen(asking);
    setSaid(null);
    setRefusal(null);
    change({ at: keyOf(asking) });
  };

  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      if (!isForPage(event)) return;
      const at = asked.findIndex((one) => open !== null && keyOf(one) === keyOf(open));
      const next =
        event.key === "j" ? asked[at + 1] : event.key === "k" ? asked[at - 1] : undefined;
      if (next !== undefined) take(next);
      // these only move the focus: nothing is decided by a key that was meant for something else
      else if (event.key === "a") document.getElementById("approve")?.focus();
      else if (event.key === "r") document.getElementById("reject")?.focus();
      else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", keys);
    return () => window.removeEventListener("keydown", keys);
  });

  const send = async (answer: Answer, what: string, missing: number) => {
    try {
      await from.answer(answer);
      turns.forget(); // what was asked before still has the question
      const next = missing > 0 ? `${missing} more must approve` : "A worker goes on with it";
      setSaid(`${what}, for run ${answer.run}. ${next}.`);
      setRefusal(null);
      setOpen(null);
      change({ at: null });
    } catch (error) {
      setSaid(null);
      setRefusal((error as Error).message);
    }
    await look();
  };

  return (
    <div className="inbox-page">
      <header className="top">
        <div className="title">
          <a href="#/">Runs</a>
          <h1>Inbox</h1>
          {list !== null && (
            <span className="facts">
              {list.by === null ? "read only" : `you decide as ${list.by}`}
            </span>
          )}
          <span className="grow" />
          {tools}
        </div>
      </header>
      <nav className="asked" aria-label="What is asked">
        {list !== null && asked.length === 0 && (
          <div className="message">
            <p>Nothing waits for a person here.</p>
            <p className="muted">
              What a run asks somebody to approve comes here, and a call of which nobody knows
              whether it was made.
            </p>
          </div>
        )}
        <ul>
          {asked.map((one) => (
            <li key={keyOf(one)}>
              <button
                type="button"
                className={`difference ${open !== null && keyOf(open) === keyOf(one) ? "selected" : ""}`}
                aria-pressed={open !== null && keyOf(open) === keyOf(one)}
                onClick={() => take(one)}
              >
                <StateIcon state={one.kind === "approval" ? "waiting" : "doubt"} />
                <strong>
                  <Plain text={title(one)} />
                </strong>
                <span className="muted">
                  <Plain text={`${one.run} · ${one.path}`} />
                  {one.deadline !== null &&
                    ` · due in ${duration(one.deadline - (list?.now ?? 0))}`}
                </span>
              </button>
            </li>
          ))}
        </ul>
      </nav>
      <main className="asking">
        {[fault, refusal].map(
          (one, i) =>
            one !== null && (
              <p key={i} className="note state-failed" role="alert">
                <Plain text={one} />
              </p>
            ),
        )}
        {said !== null && (
          <output className="note said">
            <Plain text={said} />
          </output>
        )}
        {list?.damaged.map((one) => (
          <p key={one} className="note state-failed">
            <Plain text={one} />
          </p>
        ))}
        {open !== null && list !== null && (
          <Question
            key={`${keyOf(open)} ${open.shown}`}
            from={from}
            asking={open}
            standing={now === undefined ? "gone" : now.shown === open.shown ? "asked" : "changed"}
            by={list.by}
            now={list.now}
            send={send}
            again={() => now !== undefined && setOpen(now)}
          />
        )}
      </main>
      <Keys keys={KEYS} shared={from.shared} />
    </div>
  );
}

/** The first of what is shown, by which people know one question from another. */
function title(asking: Asking): string {
  const told = asking.facts.slice(0, 3).map((fact) => `${fact.name} ${fact.text}`);
  return told.join(", ") || asking.path;
}

const TITLES: Record<Asking["kind"], string> = {
  approval: "Approval",
  in_doubt: "It may have taken effect",
  effect: "Stopped before an effect",
};

function Question({
  from,
  asking,
  standing,
  by,
  now,
  send,
  again,
}: {
  from: Source;
  asking: Asking;
  standing: "asked" | "changed" | "gone";
  by: string | null;
  now: number;
  send: (answer: Answer, what: string, missing: number) => Promise<void>;
  again: () => void;
}) {
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const view = useRun(from, asking.run);
  const why =
    by === null
      ? "Only looking: start nano-vm ui with --as NAME to decide."
      : standing === "gone"
        ? "It is asked no longer: somebody has decided, or the run went on."
        : standing === "changed"
          ? "Changed since it was shown: look again."
          : !asking.whole
            ? "It is too long for a page: read it with nano-vm show, and decide there."
            : null;
  const others = asking.approved.filter((name) => name !== by);
  const missing = Math.max(0, asking.needed - others.length - 1);
  const blocked = why !== null || busy;
  const answer = async (more: Partial<Answer> & { answer: Answer["answer"] }, what: string) => {
    setBusy(true);
    const { run, path, shown } = asking;
    const approves = more.answer === "approve";
    await send({ run, path, shown, reason, ...more }, what, approves ? missing : 0);
    setBusy(false);
  };
  return (
    <article className="question">
      <h2>
        {TITLES[asking.kind]}
        {asking.role !== null && ` by ${asking.role}`}
        {asking.tool !== null && `: ${asking.tool}`}
      </h2>
      <p className="muted">
        <a href={`#/run/${encodeURIComponent(asking.run)}?step=${encodeURIComponent(asking.path)}`}>
          <Plain text={asking.run} />
        </a>{" "}
        · <Plain text={asking.program} /> · begun {duration(Math.max(0, now - asking.since))} ago
        {asking.deadline !== null && <strong> · due in {duration(asking.deadline - now)}</strong>}
      </p>
      <dl className="facts-list">
        {asking.facts.map((fact) => (
          <div key={fact.name}>
            <dt>
              <Plain text={fact.name} />
            </dt>
            <dd>
              <Plain text={fact.text} />
              {fact.exact !== null && <p className="muted exact">exactly: {fact.exact}</p>}
            </dd>
          </div>
        ))}
      </dl>
      {asking.kind === "approval" && view !== null && (
        <dl className="next">
          <Next name="If yes" found={consequence(view, boxOf(asking.path), "then")} />
          <Next name="If no" found={consequence(view, boxOf(asking.path), "otherwise")} />
        </dl>
      )}
      {asking.kind === "in_doubt" && view !== null && (
        <Reconciled step={reconciled(view, asking.path)} />
      )}
      {asking.needed > 1 && (
        <p className="muted">
          {asking.needed} people approve this
          {asking.approved.length > 0 && (
            <>
              ; so far: <Plain text={asking.approved.join(", ")} />
            </>
          )}
          . One who rejects is enough.
        </p>
      )}
      {why !== null && (
        <p className="note why">
          {why}{" "}
          {standing === "changed" && (
            <button type="button" onClick={again}>
              Look again
            </button>
          )}
        </p>
      )}
      <label>
        Reason{asking.kind === "approval" ? " (a rejection needs one)" : ""}
        <textarea value={reason} rows={2} onChange={(event) => setReason(event.target.value)} />
      </label>
      {asking.kind === "approval" ? (
        <div className="decide">
          <button
            id="reject"
            type="button"
            disabled={blocked || reason.trim() === ""}
            onClick={() => answer({ answer: "reject" }, "Rejected")}
          >
            Reject
          </button>
          <button
            id="approve"
            type="button"
            disabled={blocked}
            onClick={() => answer({ answer: "approve" }, "Approved")}
          >
            Approve
          </button>
        </div>
      ) : (
        <Doubt blocked={blocked} reason={reason} answer={answer} />
      )}
    </article>
  );
}

function Doubt({
  blocked,
  reason,
  answer,
}: {
  blocked: boolean;
  reason: string;
  answer: (more: Partial<Answer> & { answer: "resolve" }, what: string) => Promise<void>;
}) {
  const [output, setOutput] = useState("");
  return (
    <>
      <label>
        What it gave, as JSON, if it was done
        <textarea value={output} rows={2} onChange={(event) => setOutput(event.target.value)} />
      </label>
      <div className="decide">
        <button
          type="button"
          disabled={blocked}
          onClick={() => answer({ answer: "resolve", how: "done", output }, "Recorded as done")}
        >
          It was done
        </button>
        <button
          type="button"
          disabled={blocked}
          onClick={() => answer({ answer: "resolve", how: "retry" }, "To be called again")}
        >
          Call it again
        </button>
        <button
          type="button"
          disabled={blocked || reason.trim() === ""}
          onClick={() => answer({ answer: "resolve", how: "fail" }, "Recorded as failed")}
        >
          It failed
        </button>
      </div>
    </>
  );
}

/** What its reconcile said of a call in doubt, as far as this person may read it. */
function Reconciled({ step }: { step: StepView | null }) {
  if (step === null) return null;
  const { error, output } = step;
  return (
    <section className="reconciled">
      <h3>Its reconcile {error === undefined ? "answered" : "failed"}</h3>
      {error !== undefined ? (
        <p>
          <Plain text={error.message} />
        </p>
      ) : output !== undefined ? (
        <Value json={output} label="what its reconcile answered" />
      ) : (
        <p className="muted">What it said is not shown to you.</p>
      )}
    </section>
  );
}

function Next({ name, found }: { name: string; found: Consequence[] | null }) {
  if (found === null) return null;
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {found.length === 0 ? "the run fails" : null}
        {found.map((one) => (
          <span key={one.step + one.what}>
            {one.step !== "" && (
              <strong>
                <Plain text={one.step} />{" "}
              </strong>
            )}
            <Plain text={one.what} />
            {effectWords(one.effect) !== "" && (
              <span className={one.effect === "irreversible" ? "bad" : "muted"}>
                {" "}
                {effectWords(one.effect)}
              </span>
            )}
          </span>
        ))}
      </dd>
    </div>
  );
}

/** The run that asks, for what its program does next; without it the question stands alone. */
function useRun(from: Source, id: string): RunView | null {
  const [view, setView] = useState<RunView | null>(null);
  const current = useRef(id);
  useEffect(() => {
    current.current = id;
    from.run(id).then(
      (found) => current.current === id && setView(found.run),
      () => setView(null),
    );
  }, [from, id]);
  return view;
}
