import type { StepView } from "../api";
import { cost, duration, tokens } from "../lib/format";
import { compact, parse } from "../lib/json";
import type { Axis } from "../model/axis";
import { errorText, isProblem, type Row, word } from "../model/run";
import { LookIcon, StateIcon } from "../parts/Icon";
import { Plain } from "../parts/Text";
import { lit, useLooking } from "./context";

/** What a row says beside its name: the error's first line, the branch, or the output. */
export function summary(row: Row): string {
  const { step, instance } = row;
  const last = step ?? instance?.steps.at(-1);
  return last === undefined ? "" : saidBy(last, row.box?.look === "decision");
}

function saidBy(step: StepView, decides: boolean): string {
  if (step.error !== undefined) return errorText(step.error).split("\n")[0] ?? "";
  if (step.branch !== undefined && decides) return `→ ${step.branch}`;
  if (step.output === undefined || step.output === "null") return "";
  try {
    return compact(parse(step.output.slice(0, 400)));
  } catch {
    return step.output.slice(0, 400);
  }
}

export function RowView({
  row,
  axis,
  wide,
  folded,
  toggle,
  columns,
}: {
  row: Row;
  axis: Axis;
  wide: boolean;
  folded: boolean;
  toggle: (key: string) => void;
  columns: boolean;
}) {
  const { run, selected, lineage, select } = useLooking();
  const { step } = row;
  const { name } = row;
  const light = step === null ? null : lit(lineage, step.box);
  const attempts = step?.attempts?.length ?? 0;
  const classes = [
    "row",
    selected === step?.path && step !== null ? "selected" : "",
    light ? `lit-${light}` : "",
  ];
  const act = () => (step === null ? toggle(row.key) : select(step.path));
  return (
    <div
      className={classes.join(" ")}
      role="treeitem"
      aria-selected={selected !== null && selected === step?.path}
      aria-level={row.depth + 1}
      aria-expanded={row.inside > 0 ? !folded : undefined}
      tabIndex={-1}
      onClick={act}
      onKeyDown={(event) => event.key === "Enter" && act()}
    >
      <div className="row-name" style={{ paddingLeft: 6 + row.depth * 14 }}>
        {row.inside > 0 ? (
          <button
            type="button"
            className="twist"
            tabIndex={-1}
            aria-label={folded ? `Unfold ${name}` : `Fold ${name}`}
            onClick={(event) => {
              event.stopPropagation();
              toggle(row.key);
            }}
          >
            <span aria-hidden="true">{folded ? "▸" : "▾"}</span>
          </button>
        ) : (
          <span className="twist" />
        )}
        <StateIcon state={row.state} />
        {row.box !== null && <LookIcon look={row.box.look} type={row.box.type} />}
        <span className="row-text" title={name}>
          <Plain text={name} />
        </span>
        {attempts > 0 && <span className="count">{attempts + 1}×</span>}
        {light !== null && (
          <span className={`tag tag-${light}`}>{light === "writer" ? "writes" : "reads"}</span>
        )}
      </div>
      {columns ? (
        <>
          <div className={`row-summary ${isProblem(row.state) ? "bad" : ""}`}>
            <Plain text={summary(row)} />
          </div>
          <div className="row-number">{step?.usage ? tokens(step.usage.total_tokens) : ""}</div>
          <div className="row-number">
            {step?.usage && step.type === "llm" ? cost(step.usage.cost_usd) : ""}
          </div>
          <div className="row-number">
            {isOpenEnded(row) ? word(row.state) : duration((row.end ?? 0) - row.start)}
          </div>
        </>
      ) : (
        <Bar row={row} axis={axis} end={run.end} wide={wide} />
      )}
    </div>
  );
}

/** Whether nobody knows yet how long it takes: of what waits, only when it asked is recorded. */
function isOpenEnded(row: Row): boolean {
  return row.end === null || row.state === "waiting";
}

function Bar({ row, axis, end, wide }: { row: Row; axis: Axis; end: number; wide: boolean }) {
  const open = isOpenEnded(row);
  const from = axis.at(row.start);
  const to = axis.at(open ? end : (row.end ?? end));
  const attempts = row.step?.attempts ?? [];
  const left = `${from * 100}%`;
  const width = `max(3px, ${(to - from) * 100}%)`;
  const late = from > 0.7;
  return (
    <div className="track" aria-hidden="true">
      {axis.breaks.map((cut) => (
        <span
          key={cut.from}
          className="cut"
          style={{ left: `${cut.left * 100}%`, width: `${(cut.right - cut.left) * 100}%` }}
        />
      ))}
      <span className={`bar bar-${row.state}`} style={{ left, width }}>
        {attempts.map((attempt) => {
          const span = Math.max(to - from, 1e-9);
          return (
            <span
              key={attempt.start}
              className="try"
              style={{
                left: `${((axis.at(attempt.start) - from) / span) * 100}%`,
                width: `max(2px, ${((axis.at(attempt.end) - axis.at(attempt.start)) / span) * 100}%)`,
              }}
            />
          );
        })}
      </span>
      {wide && (
        <span
          className="bar-label"
          style={
            late
              ? { right: `calc(${(1 - from) * 100}% + 6px)` }
              : { left: `calc(${to * 100}% + 8px)` }
          }
        >
          {open ? word(row.state) : duration((row.end ?? 0) - row.start)}
        </span>
      )}
    </div>
  );
}

export function AxisHead({ axis }: { axis: Axis }) {
  return (
    <div className="axis" aria-hidden="true">
      {axis.ticks.map((tick) => (
        <span key={tick.label} className="tick" style={{ left: `${tick.at * 100}%` }}>
          {tick.label}
        </span>
      ))}
      {axis.breaks.map((cut) => (
        <span
          key={cut.from}
          className="cut-label"
          style={{ left: `${((cut.left + cut.right) / 2) * 100}%` }}
        >
          {cut.label}
        </span>
      ))}
    </div>
  );
}
