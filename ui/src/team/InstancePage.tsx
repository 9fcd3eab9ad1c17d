import { type FormEvent, useCallback, useEffect, useState } from "react";
import type { UserList, UserRow } from "../api";
import { Plain } from "../parts/Text";
import { call, send } from "./api";
import { Cells, Faults, Field, Sheet, useChange, When } from "./parts";

/** People and projects of the whole instance, for its owners. */
export function InstancePage({ changed }: { changed: () => void }) {
  const [people, setPeople] = useState<UserRow[] | null>(null);
  const [fault, setFault] = useState<Error | null>(null);
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [project, setProject] = useState("");
  const look = useCallback(
    () =>
      call<UserList>("GET", "users").then((found) => {
        setPeople(found.users);
        setFault(null);
      }, setFault),
    [],
  );
  useEffect(() => {
    void look();
  }, [look]);
  const [change, refused] = useChange(look);
  const addPerson = async (event: FormEvent) => {
    event.preventDefault();
    if (await change(send("POST", "users", { name, password }))) {
      setName("");
      setPassword("");
    }
  };
  const addProject = async (event: FormEvent) => {
    event.preventDefault();
    if (await change(send("POST", "projects", { name: project }))) {
      setProject("");
      changed();
    }
  };
  return (
    <Sheet title="Instance">
      <Faults error={refused ?? fault} />
      {people !== null && (
        <Cells heads={["Name", "Since", "Standing"]} unseen="Change">
          {people.map((one) => (
            <tr key={one.name}>
              <td>
                <Plain text={one.name} />
              </td>
              <When at={one.created} />
              <td>{one.disabled ? "disabled" : one.owner ? "owner" : "may log in"}</td>
              <td>
                <button
                  type="button"
                  className="quiet"
                  onClick={() =>
                    change(
                      send("PATCH", `users/${encodeURIComponent(one.name)}`, {
                        disabled: !one.disabled,
                      }),
                    )
                  }
                >
                  {one.disabled ? "Enable" : "Disable"} <span className="unseen">{one.name}</span>
                </button>
              </td>
            </tr>
          ))}
        </Cells>
      )}
      <section>
        <h2>Add a person</h2>
        <form className="sheet" onSubmit={addPerson}>
          <Field label="Name" value={name} autoComplete="off" required onText={setName} />
          <Field
            label="First password, which they change"
            type="password"
            value={password}
            autoComplete="new-password"
            required
            onText={setPassword}
          />
          <button type="submit" className="primary">
            Add the person
          </button>
        </form>
      </section>
      <section>
        <h2>Make a project</h2>
        <form className="sheet" onSubmit={addProject}>
          <Field label="Project name" value={project} required onText={setProject} />
          <button type="submit" className="primary">
            Make the project
          </button>
        </form>
      </section>
    </Sheet>
  );
}
