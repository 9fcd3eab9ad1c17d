import { type FormEvent, useEffect, useState } from "react";
import type { PolicyList, PolicyVersion } from "../api";
import { moment } from "../lib/format";
import { Block, Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Cells, Faults, Sheet, useAsked } from "./parts";

/** What programs of a project must provably keep to: its versions, and who may puts the next. */
export function PolicyPage({ from }: { from: TeamSource }) {
  const [list, fault, look] = useAsked<PolicyList>(from, "policies");
  const newest = list?.policies[0];
  const [source, setSource] = useState<string | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const version = newest?.version;
  useEffect(() => {
    if (version === undefined) return;
    from
      .get<PolicyVersion>(`policies/${version}`)
      .then((found) => setSource(found.source), setError);
  }, [from, version]);
  const put = async (event: FormEvent) => {
    event.preventDefault();
    try {
      await from.send("POST", "policies", { source: source ?? "" });
      setError(null);
      await look();
    } catch (refused) {
      setError(refused as Error);
    }
  };
  return (
    <Sheet title="Policy">
      <p className="muted">
        A program is put, started or forked only if every run of it provably keeps to the newest
        version. What is checked during a run is checked by workers, under their own policy.
      </p>
      <Faults error={fault} />
      {from.may("settings:write") ? (
        <form className="sheet wide" onSubmit={put}>
          <label>
            The policy, in YAML or JSON
            <textarea
              className="mono"
              rows={14}
              spellCheck={false}
              placeholder={"tools:\n  refund: {approval: manager}"}
              value={source ?? ""}
              required
              onChange={(event) => setSource(event.target.value)}
            />
          </label>
          <Faults error={error} />
          <button type="submit" className="primary">
            Put it in force
          </button>
        </form>
      ) : (
        source !== null && <Block text={source} label="the policy" />
      )}
      {list !== null && list.policies.length === 0 && (
        <p className="muted">This project demands nothing of its programs yet.</p>
      )}
      {list !== null && list.policies.length > 0 && (
        <Cells>
          <thead>
            <tr>
              <th>Version</th>
              <th>Put by</th>
              <th>When</th>
              <th>Digest</th>
            </tr>
          </thead>
          <tbody>
            {list.policies.map((one, i) => (
              <tr key={one.version}>
                <td>
                  {one.version}
                  {i === 0 && <span className="muted"> in force</span>}
                </td>
                <td>
                  <Plain text={one.put_by} />
                </td>
                <td title={new Date(one.put).toISOString()}>{moment(one.put)}</td>
                <td>
                  <code>{one.digest.slice(0, 12)}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </Cells>
      )}
    </Sheet>
  );
}
