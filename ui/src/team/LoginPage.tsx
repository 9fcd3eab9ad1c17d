import { type FormEvent, type ReactNode, useEffect, useRef, useState } from "react";
import type { Me, Standing } from "../api";
import { send } from "./api";
import { Field } from "./parts";

/** Why somebody who comes back from the provider is not logged in, by the server's word for it. */
const REFUSALS: Record<string, string> = {
  expired: "This login took too long, or was begun in another browser. Log in again.",
  refused: "The provider did not confirm who you are. Log in again, or ask an owner.",
  unreached: "The provider does not answer as it should. Try again later, or ask an owner.",
  name: "You cannot be called here what the provider calls you. Ask an owner.",
  disabled: "Your account is disabled. Ask an owner.",
};

/**
 * Where one logs in; with a *token* of the console, where the first owner makes an account; with
 * *refusal* after a login at the provider that failed.
 */
export function LoginPage({
  standing,
  token,
  refusal,
  entered,
  tools,
}: {
  standing: Standing;
  token: string | null;
  refusal: string | null;
  entered: (me: Me) => void;
  tools: ReactNode;
}) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [fault, setFault] = useState<string | null>(
    refusal === null ? null : (REFUSALS[refusal] ?? "You are not logged in."),
  );
  const [busy, setBusy] = useState(false);
  const first = token !== null && standing.setup;
  const byPassword = standing.local || first;
  const form = useRef<HTMLFormElement>(null);
  useEffect(() => form.current?.querySelector("input")?.focus(), []);
  useEffect(() => {
    document.title = first ? "First account" : "Log in";
  }, [first]);
  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      entered(
        first
          ? await send<Me>("POST", "setup", { token, name, password })
          : await send<Me>("POST", "login", { name, password }),
      );
    } catch (error) {
      setFault((error as Error).message);
      setBusy(false);
    }
  };
  return (
    <div className="login-page">
      <header className="top">
        <div className="title">
          <h1>{first ? "Make the first account" : "Log in"}</h1>
          <span className="grow" />
          {tools}
        </div>
      </header>
      <main>
        <form ref={form} onSubmit={submit} className="sheet">
          {first && (
            <p className="muted">
              It owns this instance: it makes projects and the accounts of others.
            </p>
          )}
          {standing.setup && !first && (
            <p className="note why">
              Nobody has an account yet: open the address that nano-vm serve has printed.
            </p>
          )}
          {byPassword && (
            <>
              <Field label="Name" value={name} autoComplete="username" required onText={setName} />
              <Field
                label={`Password${first ? " (12 characters or more)" : ""}`}
                type="password"
                value={password}
                autoComplete={first ? "new-password" : "current-password"}
                required
                onText={setPassword}
              />
            </>
          )}
          {fault !== null && (
            <p className="note state-failed" role="alert">
              {fault}
            </p>
          )}
          {byPassword && (
            <button type="submit" className="primary" disabled={busy}>
              {first ? "Make the account" : "Log in"}
            </button>
          )}
          {standing.oidc !== null && !first && (
            <a className="button" href="/api/v1/oidc/login">
              Log in with {standing.oidc}
            </a>
          )}
        </form>
      </main>
    </div>
  );
}
