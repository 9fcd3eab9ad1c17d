import { type FormEvent, useState } from "react";
import type { PolicyList, PolicyVersion } from "../api";
import { Block, Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Cells, Faults, Sheet, useAsked, When } from "./parts";

/** What programs of a project must provably keep to: its versions, and who may puts the next. */
export function PolicyPage({ from }: { from: TeamSource }) {
  const [list, fault, look] = useAsked<PolicyList>(from, "policies");
  const newest = list?.policies[0];
  const path = newest === undefined ? null : `policies/${newest.version}`;
  const [stored, storedFault] = useAsked<PolicyVersion>(from, path);
  const [draft, setDraft] = useState<string | null>(null);
  const [error, setError] = useState<Error | null>(null);
  const [busy, setBusy] = useState(false);
  const source = draft ?? stored?.source ?? null;
  // a policy is not replaced by who has not seen it
  const seen = list !== null && (path === null || stored !== null);
  const put = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      await from.send("POST", "policies", { source: source ?? "" });
      setError(null);
      await look();
    } catch (refused) {
      setError(refused as Error);
    }
    setBusy(false);
  };
  return (
    <Sheet title="Policy">
      <p className="muted">
        A program is put, started or forked only if every run of it provably keeps to the newest
        version. What is checked during a run is checked by workers, under their own policy.
      </p>
      <Faults error={fault ?? storedFault} />
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
              onChange={(event) => setDraft(event.target.value)}
            />
          </label>
          <Faults error={error} />
          <button type="submit" className="primary" disabled={!seen || busy}>
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
        <Cells heads={["Version", "Put by", "When", "Digest"]}>
          {list.policies.map((one, i) => (
            <tr key={one.version}>
              <td>
                {one.version}
                {i === 0 && <span className="muted"> in force</span>}
              </td>
              <td>
                <Plain text={one.put_by} />
              </td>
              <When at={one.put} />
              <td>
                <code>{one.digest.slice(0, 12)}</code>
              </td>
            </tr>
          ))}
        </Cells>
      )}
    </Sheet>
  );
}
