import { type FormEvent, useEffect, useId, useState } from "react";
import type { ProgramList, ProgramVersion } from "../api";
import { Block, Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { type Field, fieldsOf, inputsOf } from "./form";
import { Cells, Faults, useAsked, When } from "./parts";

/** The programs of a project. */
export function ProgramsPage({ from }: { from: TeamSource }) {
  const [list, fault] = useAsked<ProgramList>(from, "programs");
  useEffect(() => {
    document.title = "Programs";
  }, []);
  return (
    <div className="sheet-page">
      <header className="top">
        <div className="title">
          <h1>Programs</h1>
          <span className="grow" />
          {from.may("program:write") && (
            <a className="button" href="#/new-program">
              New program
            </a>
          )}
        </div>
      </header>
      <main>
        <Faults error={fault} />
        {list !== null && list.programs.length === 0 && (
          <p className="message">
            No program was put here yet. A developer puts one, and anyone who may start runs starts
            it from here.
          </p>
        )}
        {list !== null && list.programs.length > 0 && (
          <Cells heads={["Program", "Version", "Put by", "When"]}>
            {list.programs.map((one) => (
              <tr key={one.name}>
                <td>
                  <a href={`#/programs/${encodeURIComponent(one.name)}`}>
                    <Plain text={one.name} />
                  </a>
                </td>
                <td>{one.version}</td>
                <td>
                  <Plain text={one.put_by} />
                </td>
                <When at={one.put} />
              </tr>
            ))}
          </Cells>
        )}
      </main>
    </div>
  );
}

/** One program: started by a form of its inputs, or read. */
export function ProgramPage({ from, name }: { from: TeamSource; name: string }) {
  const [found, fault] = useAsked<ProgramVersion>(from, `programs/${encodeURIComponent(name)}`);
  useEffect(() => {
    document.title = name;
  }, [name]);
  return (
    <div className="sheet-page">
      <header className="top">
        <div className="title">
          <a href="#/programs">Programs</a>
          <h1>
            <Plain text={name} />
          </h1>
          {found !== null && (
            <span className="facts">
              version {found.version} · put by <Plain text={found.put_by} />
            </span>
          )}
          <span className="grow" />
          {found !== null && (
            <a className="button" href={`#/programs/${encodeURIComponent(name)}/map`}>
              Path map
            </a>
          )}
          {found !== null && from.may("program:write") && (
            <a className="button" href={`#/programs/${encodeURIComponent(name)}/edit`}>
              Edit
            </a>
          )}
        </div>
      </header>
      <main>
        <Faults error={fault} />
        {found !== null && (
          <>
            {from.may("run:start") && <StartForm from={from} program={found} />}
            {found.versions.length > 1 && <Versions program={found} />}
            <section>
              <h2>Source</h2>
              <Block text={found.source} label="source" />
            </section>
          </>
        )}
      </main>
    </div>
  );
}

/** Each version beside the one before it. */
function Versions({ program }: { program: ProgramVersion }) {
  const pairs = program.versions
    .slice(1)
    .map((version, i) => [program.versions[i], version] as const);
  return (
    <section>
      <h2>What changed</h2>
      <ul className="names">
        {pairs.reverse().map(([before, version]) => (
          <li key={version}>
            <a href={`#/programs/${encodeURIComponent(program.name)}/diff/${before}/${version}`}>
              {before} and {version}
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Starts a run: a field for each input, as the program declares it. */
function StartForm({ from, program }: { from: TeamSource; program: ProgramVersion }) {
  const fields = fieldsOf(program.inputs);
  const [values, setValues] = useState<Record<string, string>>({});
  const [error, setError] = useState<Error | null>(null);
  const [busy, setBusy] = useState(false);
  const start = async (event: FormEvent) => {
    event.preventDefault();
    setBusy(true);
    try {
      const inputs = inputsOf(fields, values);
      const { id } = await from.start(program.name, program.version, inputs);
      window.location.hash = `#/run/${encodeURIComponent(id)}`;
    } catch (fault) {
      setError(fault as Error);
      setBusy(false);
    }
  };
  return (
    <section>
      <h2>Start a run</h2>
      <form className="sheet" onSubmit={start}>
        {fields.map((field) => (
          <Input
            key={field.name}
            field={field}
            value={values[field.name] ?? ""}
            set={(text) => setValues((old) => ({ ...old, [field.name]: text }))}
          />
        ))}
        <Faults error={error} />
        <button type="submit" className="primary" disabled={busy}>
          Start
        </button>
      </form>
    </section>
  );
}

function Input({
  field,
  value,
  set,
}: {
  field: Field;
  value: string;
  set: (text: string) => void;
}) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>
        <Plain text={`${field.name}${field.required ? "" : " (optional)"}`} />
      </label>
      {field.told !== "" && (
        <span className="muted">
          <Plain text={field.told} />
        </span>
      )}
      {field.choices !== null ? (
        <select
          id={id}
          value={value}
          required={field.required}
          onChange={(event) => set(event.target.value)}
        >
          <option value="">choose…</option>
          {field.choices.map((choice) => (
            <option key={choice} value={choice}>
              {choice}
            </option>
          ))}
        </select>
      ) : field.kind === "json" || field.kind === "text" ? (
        <textarea
          id={id}
          rows={field.kind === "json" ? 4 : 2}
          value={value}
          required={field.required}
          placeholder={field.kind === "json" ? "JSON" : ""}
          onChange={(event) => set(event.target.value)}
        />
      ) : (
        <input
          id={id}
          value={value}
          required={field.required}
          inputMode="decimal"
          placeholder="a number"
          onChange={(event) => set(event.target.value)}
        />
      )}
    </div>
  );
}
