import { type FormEvent, useState } from "react";
import type { KeyList, MemberList, NewKey, Settings } from "../api";
import { moment } from "../lib/format";
import { Plain } from "../parts/Text";
import { call, type TeamSource } from "./api";
import { Cells, Faults, Field, Sheet, useAsked, useChange, When } from "./parts";

const ROLES: [string, string][] = [
  ["viewer", "sees that runs ran, what they cost and how long they took"],
  ["operator", "starts, cancels and decides, and does not read what was said"],
  ["developer", "reads all that was said, puts programs and starts runs"],
  ["admin", "all of it, with members, keys, settings and the log"],
];

/** Who may do what in a project. */
export function MembersPage({ from }: { from: TeamSource }) {
  const [list, fault, look] = useAsked<MemberList>(from, "members");
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [approves, setApproves] = useState("");
  const [change, error] = useChange(look);
  const path = (member: string) => `members/${encodeURIComponent(member)}`;
  const add = async (event: FormEvent) => {
    event.preventDefault();
    const roles = approves.split(",").map((one) => one.trim());
    await change(from.send("PUT", path(name), { role, approves: roles.filter(Boolean) }));
  };
  return (
    <Sheet title="Members">
      <Faults error={fault} />
      {list !== null && list.members.length === 0 && (
        <p className="muted">Nobody has a role here yet; owners of the instance see it all.</p>
      )}
      {list !== null && list.members.length > 0 && (
        <Cells heads={["Name", "Role", "Decides as"]} unseen="Remove">
          {list.members.map((one) => (
            <tr key={one.name}>
              <td>
                <Plain text={one.name} />
              </td>
              <td>{one.role}</td>
              <td>
                <Plain
                  text={one.approves.map((role) => (role === "*" ? "all roles" : role)).join(", ")}
                />
              </td>
              <td>
                <button
                  type="button"
                  className="quiet"
                  onClick={() => change(call("DELETE", `${from.base}/${path(one.name)}`))}
                >
                  Remove <span className="unseen">{one.name}</span>
                </button>
              </td>
            </tr>
          ))}
        </Cells>
      )}
      <section>
        <h2>Give a role</h2>
        <form className="sheet" onSubmit={add}>
          <Field label="Name, as they log in" value={name} required onText={setName} />
          <label>
            Role
            <select value={role} onChange={(event) => setRole(event.target.value)}>
              {ROLES.map(([one, told]) => (
                <option key={one} value={one}>
                  {one}: {told}
                </option>
              ))}
            </select>
          </label>
          <Field
            label="Roles that approvals ask for, with commas between; * is all"
            value={approves}
            onText={setApproves}
          />
          <Faults error={error} />
          <button type="submit" className="primary">
            Give the role
          </button>
        </form>
      </section>
    </Sheet>
  );
}

/** Keys of programs that call the API. */
export function KeysPage({ from }: { from: TeamSource }) {
  const [list, fault, look] = useAsked<KeyList>(from, "keys");
  const [name, setName] = useState("");
  const [role, setRole] = useState("operator");
  const [days, setDays] = useState("90");
  const [made, setMade] = useState<string | null>(null);
  const [change, error] = useChange(look);
  const make = async (event: FormEvent) => {
    event.preventDefault();
    const body = { name, role, days: days === "" ? null : Number(days) };
    const asked = from.send<NewKey>("POST", "keys", body).then(({ key }) => setMade(key));
    if (await change(asked)) setName("");
  };
  const revoke = (id: string) =>
    change(call("DELETE", `${from.base}/keys/${encodeURIComponent(id)}`));
  return (
    <Sheet title="Keys">
      <Faults error={fault} />
      {made !== null && (
        <output className="note said secret">
          Copy it now, it is shown this once: <code>{made}</code>{" "}
          <button type="button" onClick={() => navigator.clipboard.writeText(made)}>
            Copy
          </button>
        </output>
      )}
      {list !== null && list.keys.length === 0 && (
        <p className="muted">No program has a key to this project yet.</p>
      )}
      {list !== null && list.keys.length > 0 && (
        <Cells heads={["Name", "Key", "Role", "Made by", "Last used", "Until"]}>
          {list.keys.map((one) => (
            <tr key={one.id}>
              <td>
                <Plain text={one.name} />
              </td>
              <td>
                <code>nvm_{one.id}_…</code>
              </td>
              <td>{one.role}</td>
              <td>
                <Plain text={one.maker} />
              </td>
              <When at={one.used} never="never" />
              <td>
                {one.revoked !== null ? (
                  "revoked"
                ) : (
                  <>
                    {one.expires === null ? "for ever" : moment(one.expires)}{" "}
                    <button type="button" className="quiet" onClick={() => revoke(one.id)}>
                      Revoke <span className="unseen">{one.name}</span>
                    </button>
                  </>
                )}
              </td>
            </tr>
          ))}
        </Cells>
      )}
      <section>
        <h2>Make a key</h2>
        <form className="sheet" onSubmit={make}>
          <Field label="What it is for" value={name} required onText={setName} />
          <label>
            Role
            <select value={role} onChange={(event) => setRole(event.target.value)}>
              {ROLES.map(([one]) => (
                <option key={one}>{one}</option>
              ))}
            </select>
          </label>
          <Field
            label="Days until it expires; empty is never"
            value={days}
            inputMode="numeric"
            pattern="[0-9]*"
            onText={setDays}
          />
          <Faults error={error} />
          <button type="submit" className="primary">
            Make the key
          </button>
        </form>
      </section>
    </Sheet>
  );
}

/** What holds for a project. */
export function SettingsPage({ from }: { from: TeamSource }) {
  const [found, fault, look] = useAsked<Settings>(from, "settings");
  const may = from.may("settings:write");
  const [chosen, setChosen] = useState<boolean | null>(null);
  const [role, setRole] = useState("");
  const [people, setPeople] = useState("2");
  const [change, error] = useChange(look);
  const set = async (settings: Partial<Settings>) => {
    await change(from.send("PUT", "settings", settings));
    setChosen((now) => (now === settings.four_eyes ? null : now)); // chosen anew, it stays
  };
  const without = (name: string) =>
    Object.fromEntries(Object.entries(found?.approvers ?? {}).filter(([other]) => other !== name));
  return (
    <Sheet title="Settings">
      <Faults error={fault ?? error} />
      {found !== null && (
        <>
          {!may && <p className="muted">An admin of the project changes these.</p>}
          <label className="choice">
            <input
              type="checkbox"
              disabled={!may}
              checked={chosen ?? found.four_eyes}
              onChange={(event) => {
                setChosen(event.target.checked);
                void set({ four_eyes: event.target.checked });
              }}
            />{" "}
            A run is decided by another than who started it
          </label>
          <section>
            <h2>Approvals by several people</h2>
            {Object.keys(found.approvers).length === 0 && (
              <p className="muted">One person approves, whatever the role.</p>
            )}
            <ul>
              {Object.entries(found.approvers).map(([name, count]) => (
                <li key={name}>
                  <Plain text={`${name}: ${count} people`} />{" "}
                  {may && (
                    <button
                      type="button"
                      className="quiet"
                      onClick={() => set({ approvers: without(name) })}
                    >
                      Remove <span className="unseen">{name}</span>
                    </button>
                  )}
                </li>
              ))}
            </ul>
            {may && (
              <form
                className="sheet"
                onSubmit={async (event) => {
                  event.preventDefault();
                  await set({ approvers: { ...found.approvers, [role]: Number(people) } });
                  setRole("");
                }}
              >
                <Field
                  label="Role that an approval asks for"
                  value={role}
                  required
                  onText={setRole}
                />
                <Field
                  label="How many people approve"
                  type="number"
                  min={2}
                  max={20}
                  value={people}
                  required
                  onText={setPeople}
                />
                <button type="submit" className="primary">
                  Set it
                </button>
              </form>
            )}
          </section>
        </>
      )}
    </Sheet>
  );
}
