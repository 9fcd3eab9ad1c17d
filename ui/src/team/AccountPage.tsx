import { type FormEvent, useState } from "react";
import type { Me } from "../api";
import { call, send } from "./api";
import { Faults, Field, Sheet } from "./parts";

/** One's own account: the password, and all sessions ended. */
export function AccountPage({ me, left }: { me: Me; left: () => Promise<void> }) {
  const [old, setOld] = useState("");
  const [chosen, setChosen] = useState("");
  const [error, setError] = useState<Error | null>(null);
  const change = async (work: Promise<unknown>) => {
    try {
      await work;
      await left();
    } catch (refused) {
      setError(refused as Error);
    }
  };
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    await change(send("POST", "password", { old, new: chosen }));
  };
  return (
    <Sheet title={me.name}>
      <section>
        <h2>Change the password</h2>
        <form className="sheet" onSubmit={submit}>
          <Field
            label="Password now"
            type="password"
            value={old}
            autoComplete="current-password"
            required
            onText={setOld}
          />
          <Field
            label="New password (12 characters or more)"
            type="password"
            value={chosen}
            autoComplete="new-password"
            required
            onText={setChosen}
          />
          <Faults error={error} />
          <button type="submit" className="primary">
            Change it, and log in anew
          </button>
        </form>
      </section>
      <section>
        <h2>Sessions</h2>
        <div>
          <button type="button" onClick={() => change(call("POST", "logout-everywhere"))}>
            Log out everywhere
          </button>
        </div>
      </section>
    </Sheet>
  );
}
