import { useEffect, useMemo, useState } from "react";
import type { AuditList, Costs, HostList } from "../api";
import { cost, moment, plural, tokens } from "../lib/format";
import { useAddress } from "../lib/router";
import { type Filter, parseFilter } from "../model/filter";
import { Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Cells, Faults, Sheet, useAsked } from "./parts";

/** The audit log of a project, newest first. */
export function AuditPage({ from }: { from: TeamSource }) {
  const [before, setBefore] = useState<number[]>([]);
  const at = before.at(-1);
  const path = at === undefined ? "audit" : `audit?before=${at}`;
  const [list, fault] = useAsked<AuditList>(from, path);
  const older = list?.before ?? null;
  return (
    <Sheet title="Audit">
      <Faults error={fault} />
      {list !== null && list.entries.length === 0 && (
        <p className="muted">Nothing was changed in this project yet.</p>
      )}
      {list !== null && list.entries.length > 0 && (
        <Cells>
          <thead>
            <tr>
              <th>When</th>
              <th>Who</th>
              <th>Did</th>
              <th>To</th>
              <th>Details</th>
              <th>From</th>
            </tr>
          </thead>
          <tbody>
            {list.entries.map((one) => (
              <tr key={one.number}>
                <td title={`entry ${one.number}, ${new Date(one.at).toISOString()}`}>
                  {moment(one.at)}
                </td>
                <td>
                  <Plain text={one.actor + (one.key_id === null ? "" : ` (key ${one.key_id})`)} />
                </td>
                <td>{one.action}</td>
                <td>
                  <Plain text={one.target} />
                </td>
                <td className="wide">
                  <Plain text={details(one.detail)} />
                </td>
                <td>{one.ip}</td>
              </tr>
            ))}
          </tbody>
        </Cells>
      )}
      <div className="pages">
        {before.length > 0 && (
          <button type="button" onClick={() => setBefore((old) => old.slice(0, -1))}>
            Newer
          </button>
        )}
        {older !== null && (
          <button type="button" onClick={() => setBefore((old) => [...old, older])}>
            Older
          </button>
        )}
      </div>
    </Sheet>
  );
}

function details(found: Record<string, unknown>): string {
  return Object.entries(found)
    .filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}

const GROUPS = ["program", "model", "step", "day"];

const OF_COSTS = ["program", "submitter", "labels", "since", "until"];

/** A filter in the words of the list of runs, of those that costs can be summed over. */
function costFilter(text: string): Filter {
  const { query, faults } = parseFilter(text, Date.now());
  const kept = Object.entries(query).filter(([name]) => OF_COSTS.includes(name));
  const left = Object.keys(query).filter((name) => !OF_COSTS.includes(name));
  const told = left.map((name) => `costs are not filtered by ${name}: ${OF_COSTS.join(", ")}`);
  return { query: Object.fromEntries(kept), faults: [...faults, ...told] };
}

/** What the model calls of a project have cost. */
export function CostsPage({ from }: { from: TeamSource }) {
  const [{ query }, change] = useAddress();
  const asked = query.get("by") ?? "";
  const by = GROUPS.includes(asked) ? asked : "program";
  const text = query.get("q") ?? "";
  const [draft, setDraft] = useState(text);
  useEffect(() => setDraft(text), [text]);
  const filter = useMemo(() => costFilter(text), [text]);
  const words = new URLSearchParams({ ...filter.query, by });
  const [list, fault] = useAsked<Costs>(from, `costs?${words}`);
  const dearest = Math.max(...(list?.costs ?? []).map((one) => Number(one.cost_usd)), 0);
  return (
    <Sheet title="Costs">
      <fieldset className="chips">
        <legend className="unseen">Summed by</legend>
        {GROUPS.map((one) => (
          <button
            key={one}
            type="button"
            aria-pressed={by === one}
            onClick={() => change({ by: one })}
          >
            by {one}
          </button>
        ))}
      </fieldset>
      <form
        className="filter"
        role="search"
        onSubmit={(event) => {
          event.preventDefault();
          change({ q: draft.trim() || null });
        }}
      >
        <input
          value={draft}
          onChange={(event) => setDraft(event.target.value)}
          placeholder="program:refund label:team=shop by:mia since:7d"
          aria-label="Of which runs"
          spellCheck={false}
        />
      </form>
      {filter.faults.map((one) => (
        <p key={one} className="note state-failed" role="alert">
          <Plain text={one} />
        </p>
      ))}
      <Faults error={fault} />
      {list !== null && list.costs.length === 0 && (
        <p className="muted">
          {text === ""
            ? "No run of this project has called a model yet."
            : "No run like this has called a model."}
        </p>
      )}
      {list !== null && list.costs.length > 0 && (
        <Cells>
          <thead>
            <tr>
              <th>{by}</th>
              <th>Calls</th>
              <th>Tokens</th>
              <th>Cost</th>
              <th>
                <span className="unseen">Share</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {list.costs.map((one) => (
              <tr key={one.of[by]}>
                <td>
                  <Plain text={one.of[by] ?? ""} />
                </td>
                <td>{one.calls}</td>
                <td>{tokens(one.total_tokens)}</td>
                <td>
                  {cost(one.cost_usd)}
                  {one.unpriced > 0 && ` and ${plural(one.unpriced, "call")} without a price`}
                </td>
                <td>
                  <meter min={0} max={dearest || 1} value={Number(one.cost_usd)}>
                    {cost(one.cost_usd)}
                  </meter>
                </td>
              </tr>
            ))}
          </tbody>
        </Cells>
      )}
    </Sheet>
  );
}

/** Workers: what each can do, and what none of them can. */
export function HostsPage({ from }: { from: TeamSource }) {
  const [list, fault] = useAsked<HostList>(from, "hosts");
  return (
    <Sheet title="Workers">
      <Faults error={fault} />
      {list?.stranded.map((one) => (
        <div key={one.digest} className="note state-failed">
          <strong>
            {plural(one.runs, "run")} of <Plain text={one.program} /> can be driven by no worker:
          </strong>
          <ul>
            {one.reasons.map((reason) => (
              <li key={reason}>
                <Plain text={reason} />
              </li>
            ))}
          </ul>
        </div>
      ))}
      {list !== null && list.hosts.length === 0 && (
        <p className="muted">
          No worker has announced itself: start one with <code>nano-vm work --store …</code>
        </p>
      )}
      {list?.hosts.map((one) => (
        <section key={one.name + one.since}>
          <h2>
            <Plain text={one.name} />{" "}
            <span className={`chip state-${one.alive ? "done" : "failed"}`}>
              {one.alive ? "works" : "gives no sign of life"}
            </span>
          </h2>
          <p className="muted">
            version {one.version} · {plural(one.concurrency, "run")} at a time · since{" "}
            {moment(one.since)} · seen {moment(one.seen)}
            {one.policy && " · under a policy"}
          </p>
          {one.fault !== null && (
            <p className="note state-failed">
              <Plain text={one.fault} />
            </p>
          )}
          <dl className="facts-list">
            <div>
              <dt>Models</dt>
              <dd>
                <Plain text={one.models.join(", ") || "none"} />
              </dd>
            </div>
            {one.tools.map((tool) => (
              <div key={tool.name}>
                <dt>
                  <Plain text={tool.name} />
                </dt>
                <dd>
                  {tool.effect}
                  {tool.description !== "" && (
                    <span className="muted">
                      {" "}
                      <Plain text={tool.description} />
                    </span>
                  )}
                </dd>
              </div>
            ))}
          </dl>
        </section>
      ))}
    </Sheet>
  );
}
