import { useState } from "react";
import type { AuditList, HostList } from "../api";
import { moment, plural } from "../lib/format";
import { Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Cells, Faults, Sheet, useAsked, When } from "./parts";

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
        <Cells heads={["Entry", "When", "Who", "Did", "To", "Details", "From"]}>
          {list.entries.map((one) => (
            <tr key={one.number}>
              <td>{one.number}</td>
              <When at={one.at} />
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
