import { type ReactNode, useMemo } from "react";
import type { AttemptView, Box, StepView } from "../api";
import { cost, duration, plural, tokens } from "../lib/format";
import { compact, field, type Node, pretty, words } from "../lib/json";
import { lineage, parts } from "../model/lineage";
import { around, errorBrief, errorText, instanceOf, stateOf } from "../model/run";
import { StateChip } from "../parts/State";
import { Block, Copy, Plain, read, Value } from "../parts/Text";
import { useLooking } from "./context";

function Section({
  title,
  note,
  children,
}: {
  title: string;
  note?: ReactNode;
  children: ReactNode;
}) {
  return (
    <section>
      <h3>
        {title}
        {note !== undefined && <span className="muted"> {note}</span>}
      </h3>
      {children}
    </section>
  );
}

export function Inspector() {
  const { run, selected } = useLooking();
  const step = selected === null ? undefined : run.byPath.get(selected);
  const box = run.boxes.get(step?.box ?? (selected?.startsWith("box:") ? selected.slice(4) : ""));
  if (step === undefined && box === undefined) return <RunFacts />;
  return (
    <div className="inspector">
      <header>
        <h2>
          <Plain text={step?.path ?? box?.id ?? ""} />
        </h2>
        <p>
          {step === undefined ? (
            <StateChip state={run.over ? "untaken" : "queued"} />
          ) : (
            <StateChip state={stateOf(step.status)} />
          )}{" "}
          <span className="muted">{step?.type ?? box?.type}</span>
          {step !== undefined && step.end !== null && (
            <span className="muted" title={exact(run.view.started, step)}>
              {" "}
              {step.status !== "suspended" && `· ${duration(step.end - step.start)} `}· from{" "}
              {duration(step.start)}
            </span>
          )}
        </p>
      </header>
      {step === undefined && (
        <p className="muted">
          {run.over ? "This run did not take this step." : "This run has not reached this step."}
        </p>
      )}
      {step?.error !== undefined && <Fault step={step} />}
      {step !== undefined && step.status === "in_doubt" && (
        <p className="note state-doubt">
          It was called and its outcome is not known. The VM does not repeat it: a reconcile tool or
          a person says what became of it.
        </p>
      )}
      <Why step={step} box={box} />
      {step !== undefined && <Waiting step={step} />}
      {step !== undefined && <Asked step={step} />}
      {step !== undefined && <Outcome step={step} />}
      {step !== undefined && <Request step={step} />}
      {step?.attempts !== undefined && <Attempts attempts={step.attempts} />}
      {box !== undefined && <Names box={box} step={step} />}
      {step !== undefined && <Costs step={step} />}
      {step !== undefined && <Record step={step} />}
      {box !== undefined && box.written !== "{}" && (
        <Section title="As written">
          <Written box={box} />
        </Section>
      )}
    </div>
  );
}

function exact(started: string, step: StepView): string {
  const at = new Date(Date.parse(started) + step.start);
  return `began ${at.toISOString()}`;
}

function Fault({ step }: { step: StepView }) {
  const error = step.error;
  if (error === undefined) return null;
  return (
    <Section title="Error" note={error.kind}>
      <div className="error">
        <Block text={errorText(error)} label="the error" mono={false} />
      </div>
    </Section>
  );
}

/** The decision with each value that it read, or why the step ran at all. */
function Why({ step, box }: { step: StepView | undefined; box: Box | undefined }) {
  const values = Object.entries(step?.references ?? {});
  const decides = box !== undefined && (box.test !== null || box.when !== null);
  if (!decides && values.length === 0) return null;
  const skipped = step?.branch === "unless";
  const text = box === undefined ? null : skipped || box.test === null ? box.when : box.test;
  const result = skipped ? "false: skipped" : step?.branch;
  return (
    <Section title="Why this path">
      {box !== undefined && text !== null && (
        <p className="expression">
          {text === box.when && <span className="muted">when </span>}
          {box.type === "loop" && <span className="muted">until </span>}
          {box.type === "switch" && <span className="muted">on </span>}
          <Reads text={text} box={box} />
        </p>
      )}
      {values.length > 0 && (
        <dl className="values">
          {values.map(([name, json]) => (
            <div key={name}>
              <dt>
                <NameButton text={name} box={box} />
              </dt>
              <dd>
                <Short json={json} />
              </dd>
            </div>
          ))}
        </dl>
      )}
      {result !== undefined && (
        <p className="result">
          → <strong>{result}</strong>
        </p>
      )}
    </Section>
  );
}

function Short({ json }: { json: string }) {
  const node = useMemo(() => read(json), [json]);
  const text = node === null ? json : compact(node);
  return text.length > 160 ? (
    <Value json={json} label="the value" />
  ) : (
    <code>
      <Plain text={text} />
    </code>
  );
}

/** A name as a button that lights up who writes and who reads it. */
function NameButton({ text, box }: { text: string; box: Box | undefined }) {
  const { look, lineage: current } = useLooking();
  const reading = box?.reads.find((one) => one.text === text);
  if (box === undefined || reading === undefined) return <code>{text}</code>;
  const on = current?.name === reading.name && current.scope === box.scope;
  return (
    <button
      type="button"
      className={`name ${on ? "on" : ""}`}
      aria-pressed={on}
      onClick={() => look(on ? null : { scope: box.scope, name: reading.name })}
    >
      {text}
    </button>
  );
}

/** Text of the program in which each name that it reads can be clicked. */
function Reads({ text, box }: { text: string; box: Box }) {
  const found = useMemo(() => parts(text, box.reads), [text, box]);
  return (
    <>
      {found.map((part, i) =>
        part.reading === null ? (
          <Plain key={i} text={part.text} />
        ) : (
          <NameButton key={i} text={part.reading.text} box={box} />
        ),
      )}
    </>
  );
}

function Waiting({ step }: { step: StepView }) {
  const { run } = useLooking();
  const entries = run.view.waiting
    .map(read)
    .filter((node) => words(field(node ?? undefined, "path")) === step.path);
  const entry = entries[0];
  if (entry === undefined || entry === null) return null;
  const show = field(entry, "show");
  const deadline = field(entry, "deadline_ns");
  return (
    <Section title="Waits for" note={words(field(entry, "role")) || words(field(entry, "event"))}>
      {show?.kind === "object" ? (
        <Fields node={show} />
      ) : (
        <Block text={pretty(entry)} label="what it waits for" />
      )}
      {deadline?.kind === "number" && (
        <p className="muted">until {new Date(Number(deadline.text) / 1e6).toLocaleString()}</p>
      )}
    </Section>
  );
}

function Fields({ node }: { node: Node & { kind: "object" } }) {
  return (
    <dl className="values">
      {node.entries.map(([name, value]) => (
        <div key={name}>
          <dt>
            <Plain text={name} />
          </dt>
          <dd>
            <Plain text={words(value)} />
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** What a person was shown who has decided. */
function Asked({ step }: { step: StepView }) {
  const node = useMemo(
    () => (step.request === undefined ? null : read(step.request)),
    [step.request],
  );
  const show = field(node ?? undefined, "show");
  if (step.type !== "approval" || step.status === "suspended" || show?.kind !== "object") {
    return null;
  }
  return (
    <Section title="Was asked" note={words(field(node ?? undefined, "role"))}>
      <Fields node={show} />
    </Section>
  );
}

function Outcome({ step }: { step: StepView }) {
  if (step.output === undefined || step.status === "failed" || step.status === "suspended")
    return null;
  if (step.output === "null" && step.status !== "success") return null;
  return (
    <Section title="Output">
      <Value json={step.output} label="the output" />
    </Section>
  );
}

function Request({ step }: { step: StepView }) {
  const { run } = useLooking();
  const node = useMemo(
    () => (step.request === undefined ? null : read(step.request)),
    [step.request],
  );
  if (step.type === "approval" || step.type === "wait") return null; // shown by what it waits for
  if (step.request === undefined)
    return run.view.content ? null : (
      <p className="muted">Contents were left out when this file was made.</p>
    );
  const messages = field(node ?? undefined, "messages");
  if (messages?.kind !== "list") {
    return (
      <Section title={step.type === "tool" ? "Arguments" : "Request"}>
        <Value json={step.request} label="the request" />
      </Section>
    );
  }
  const answer = read(step.extra ?? "{}");
  const reasoning = field(answer ?? undefined, "reasoning");
  const options =
    node?.kind === "object" ? node.entries.filter(([name]) => name !== "messages") : [];
  return (
    <Section title="Prompt" note={plural(messages.items.length, "message")}>
      {messages.items.map((message, i) => (
        <Message key={i} message={message} last={i === messages.items.length - 1} />
      ))}
      {reasoning !== undefined && (
        <details className="message-box">
          <summary>reasoning</summary>
          <Block text={words(reasoning)} label="the reasoning" mono={false} />
        </details>
      )}
      {options.length > 0 && (
        <p className="muted">
          {options.map(([name, value]) => `${name} ${compact(value)}`).join(" · ")}
        </p>
      )}
    </Section>
  );
}

/** Only the system's message and old turns are folded: the last one is what was asked. */
function Message({ message, last }: { message: Node; last: boolean }) {
  const role = words(field(message, "role"));
  const content = field(message, "content");
  const text =
    content?.kind === "string" ? content.value : content === undefined ? "" : pretty(content);
  return (
    <details className={`message-box role-${role}`} open={last}>
      <summary>
        {role}
        <span className="muted first-line">
          {" "}
          <Plain text={text.split("\n")[0]?.slice(0, 80) ?? ""} />
        </span>
      </summary>
      <Block text={text} label={`the message of ${role}`} mono={false} />
    </details>
  );
}

function Attempts({ attempts }: { attempts: AttemptView[] }) {
  return (
    <Section title="Failed attempts" note={attempts.length}>
      <ol className="attempts">
        {attempts.map((attempt, i) => (
          <li key={attempt.start}>
            <p>
              <strong>attempt {i + 1}</strong> <span className="bad">{attempt.error.kind}</span>{" "}
              <span className="muted">
                {duration(attempt.end - attempt.start)}
                {attempt.tokens === undefined
                  ? ""
                  : ` · ${tokens(attempt.tokens)} · ${cost(attempt.cost)}`}
                {i > 0 && waited(attempts[i - 1], attempt)}
              </span>
            </p>
            <Block text={errorText(attempt.error)} label={`error ${i + 1}`} mono={false} />
            {attempt.answer !== undefined && (
              <>
                <p className="muted">it answered</p>
                <Block text={attempt.answer} label={`answer ${i + 1}`} mono={false} />
              </>
            )}
          </li>
        ))}
      </ol>
    </Section>
  );
}

function waited(before: AttemptView | undefined, now: AttemptView): string {
  return before === undefined ? "" : ` · ${duration(now.start - before.end)} after the one before`;
}

function Names({ box, step }: { box: Box; step: StepView | undefined }) {
  const { run, look, lineage: current } = useLooking();
  const read_ = [...new Map(box.reads.map((one) => [one.name, one])).values()];
  if (read_.length === 0 && box.writes.length === 0) return null;
  const inputs = run.view.chart?.inputs ?? [];
  const of = (name: string) => lineage(run.boxes.values(), inputs, { scope: box.scope, name });
  const button = (name: string) => {
    const on = current?.name === name && current.scope === box.scope;
    return (
      <button
        type="button"
        className={`name ${on ? "on" : ""}`}
        aria-pressed={on}
        onClick={() => look(on ? null : { scope: box.scope, name })}
      >
        ${name}
      </button>
    );
  };
  return (
    <Section title="Names">
      <ul className="names">
        {read_.map((one) => {
          const { writers, given } = of(one.name);
          return (
            <li key={`r${one.name}`}>
              reads {button(one.name)}{" "}
              {given ? (
                <span className="muted">an input</span>
              ) : (
                <>
                  <span className="muted">written by </span>
                  <Boxes boxes={writers} from={step} />
                </>
              )}
            </li>
          );
        })}
        {box.writes.map((name) => {
          const { readers } = of(name);
          return (
            <li key={`w${name}`}>
              writes {button(name)}{" "}
              {readers.length === 0 ? (
                <span className="muted">no step reads it</span>
              ) : (
                <>
                  <span className="muted">read by </span>
                  <Boxes boxes={readers} from={step} />
                </>
              )}
            </li>
          );
        })}
      </ul>
    </Section>
  );
}

const LISTED = 8;

/** Links to boxes: to the step in the same item or turn, where there is one. */
function Boxes({ boxes, from }: { boxes: string[]; from: StepView | undefined }) {
  const { run, select } = useLooking();
  const stepIn = (box: string): string => {
    const steps = run.byBox.get(box) ?? [];
    const near = steps.find((step) =>
      from === undefined
        ? true
        : around(run.boxes, box).every(
            (container) =>
              !around(run.boxes, from.box).includes(container) ||
              instanceOf(step, container) === instanceOf(from, container),
          ),
    );
    return near?.path ?? steps.at(-1)?.path ?? `box:${box}`;
  };
  return (
    <>
      {boxes.slice(0, LISTED).map((box, i) => (
        <span key={box}>
          {i > 0 && ", "}
          <button type="button" className="link" onClick={() => select(stepIn(box))}>
            {run.boxes.get(box)?.step ?? box}
          </button>
        </span>
      ))}
      {boxes.length > LISTED && <span className="muted"> and {boxes.length - LISTED} more</span>}
    </>
  );
}

function Costs({ step }: { step: StepView }) {
  if (step.usage === undefined) return null;
  const extra = read(step.extra ?? "{}") ?? undefined;
  const model = words(field(extra, "model"));
  const source = words(field(extra, "cost_source"));
  return (
    <Section title="Cost">
      <dl className="values">
        <div>
          <dt>model</dt>
          <dd>{model || "not recorded"}</dd>
        </div>
        <div>
          <dt>tokens</dt>
          <dd>
            {step.usage.prompt_tokens} in + {step.usage.completion_tokens} out ={" "}
            {step.usage.total_tokens}
          </dd>
        </div>
        <div>
          <dt>cost</dt>
          <dd title={step.usage.cost_usd}>
            {cost(step.usage.cost_usd)}{" "}
            <span className="muted">
              {source === "prices"
                ? "by the host's prices"
                : source === "adapter"
                  ? "reported by the provider"
                  : ""}
            </span>
          </dd>
        </div>
      </dl>
    </Section>
  );
}

function Record({ step }: { step: StepView }) {
  const { run } = useLooking();
  const extra = read(step.extra ?? "{}");
  const beside = run.beside.get(step.path) ?? [];
  const began = new Date(Date.parse(run.view.started) + step.start);
  return (
    <Section title="Record">
      <dl className="values">
        <div>
          <dt>path</dt>
          <dd>
            <code>{step.path}</code> <Copy text={step.path} label="the path" />
          </dd>
        </div>
        <div>
          <dt>began</dt>
          <dd title={began.toISOString()}>{began.toLocaleString()}</dd>
        </div>
        {step.effect !== undefined && (
          <div>
            <dt>effect</dt>
            <dd>{step.effect}</dd>
          </div>
        )}
        {step.effect_key !== undefined && (
          <div>
            <dt>effect key</dt>
            <dd>
              <code>{step.effect_key}</code> <Copy text={step.effect_key} label="the effect key" />
            </dd>
          </div>
        )}
        {beside.map((call) => (
          <div key={call.path}>
            <dt>{call.beside}</dt>
            <dd>
              <StateChip state={stateOf(call.status)} />{" "}
              <Plain text={call.error ? errorBrief(call.error) : (call.output ?? "")} />
            </dd>
          </div>
        ))}
      </dl>
      {extra !== null && extra.kind === "object" && extra.entries.length > 0 && (
        <details>
          <summary>beside the record</summary>
          <Block text={pretty(extra)} label="what stands beside the record" />
        </details>
      )}
    </Section>
  );
}

/** The step as the program has it; the names that it reads can be clicked. */
function Written({ box }: { box: Box }) {
  const text = useMemo(() => {
    const node = read(box.written);
    return node === null ? box.written : pretty(node);
  }, [box.written]);
  return (
    <div className="block">
      <Copy text={text} label="the step" />
      <pre className="mono">
        <Reads text={text} box={box} />
      </pre>
    </div>
  );
}

/** What is shown where no step is selected: what came in and what came out. */
function RunFacts() {
  const { run } = useLooking();
  const { view } = run;
  const inputs = Object.entries(view.inputs);
  return (
    <div className="inspector">
      <header>
        <h2>The run</h2>
        <p className="muted">
          Select a step to see what it was asked, what it gave, and why it ran.
        </p>
      </header>
      {view.error !== null && (
        <Section title="Error" note={view.error_kind}>
          <div className="error">
            <Block text={view.error} label="the error" mono={false} />
          </div>
        </Section>
      )}
      {inputs.length > 0 && (
        <Section title="Inputs">
          {inputs.map(([name, json]) => (
            <div key={name}>
              <p className="muted label">
                <InputName name={name} />
              </p>
              <Value json={json} label={`input ${name}`} />
            </div>
          ))}
        </Section>
      )}
      {view.output !== undefined && view.output !== "null" && (
        <Section title="Output">
          <Value json={view.output} label="the output" />
        </Section>
      )}
      <Section title="Identity">
        <dl className="values">
          {(
            [
              ["run", view.id],
              ["program", view.program_digest],
              ["digest", view.digest],
              ["seal", view.seal],
              ["made from", view.parent],
              ["submitted by", view.submitter],
              ["project", view.project],
            ] as [string, string | null][]
          ).map(
            ([name, text]) =>
              text !== null && (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>
                    <code className="long">{text}</code> <Copy text={text} label={name} />
                  </dd>
                </div>
              ),
          )}
          {Object.entries(view.labels).map(([name, text]) => (
            <div key={`l${name}`}>
              <dt>{name}</dt>
              <dd>
                <Plain text={text} />
              </dd>
            </div>
          ))}
        </dl>
      </Section>
      {view.messages.length > 0 && (
        <Section title="Said to this run">
          <ul className="names">
            {view.messages.map((json) => {
              const node = read(json) ?? undefined;
              const reason = field(field(node, "body"), "reason");
              return (
                <li key={json}>
                  <strong>{words(field(node, "kind"))}</strong>{" "}
                  <Plain text={words(field(node, "name"))} />{" "}
                  <span className="muted">by {words(field(node, "by"))}</span>{" "}
                  {reason?.kind === "string" && <Plain text={reason.value} />}
                </li>
              );
            })}
          </ul>
        </Section>
      )}
    </div>
  );
}

function InputName({ name }: { name: string }) {
  const { look, lineage: current } = useLooking();
  const on = current?.name === name && current.scope === "";
  return (
    <button
      type="button"
      className={`name ${on ? "on" : ""}`}
      aria-pressed={on}
      onClick={() => look(on ? null : { scope: "", name })}
    >
      ${name}
    </button>
  );
}
