import { useEffect, useId, useMemo, useRef, useState } from "react";
import type { ProgramList } from "../api";
import { type Goal, matching, runNamed } from "../model/palette";
import { Plain } from "../parts/Text";
import type { TeamSource } from "./api";

/** Opens with Ctrl+K from any page of a project: type a part of a name, and go there. */
export function Palette({ from, pages }: { from: TeamSource; pages: Goal[] }) {
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      if (event.defaultPrevented) return; // the editor has a meaning for it
      if (!(event.ctrlKey || event.metaKey) || event.altKey || event.key !== "k") return;
      event.preventDefault();
      setOpen((old) => !old);
    };
    window.addEventListener("keydown", keys);
    return () => window.removeEventListener("keydown", keys);
  }, []);
  return open ? <Choosing from={from} pages={pages} close={() => setOpen(false)} /> : null;
}

function Choosing({ from, pages, close }: { from: TeamSource; pages: Goal[]; close: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [programs, setPrograms] = useState<Goal[]>([]);
  const dialog = useRef<HTMLDialogElement>(null);
  const list = useId();
  useEffect(() => {
    dialog.current?.showModal();
    from.get<ProgramList>("programs").then(
      (found) => setPrograms(found.programs.flatMap(({ name }) => goalsOf(from, name))),
      () => setPrograms([]), // the pages are there all the same
    );
  }, [from]);
  const found = useMemo(
    () => [...matching([...pages, ...programs], text), ...runNamed(text)],
    [pages, programs, text],
  );
  const chosen = Math.min(at, found.length - 1);
  const go = (goal: Goal | undefined) => {
    if (goal === undefined) return;
    window.location.hash = goal.address;
    close();
  };
  const keys = (event: React.KeyboardEvent) => {
    if (event.key === "ArrowDown") setAt(Math.min(chosen + 1, found.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(chosen - 1, 0));
    else if (event.key === "Enter") go(found[chosen]);
    else return;
    event.preventDefault();
  };
  return (
    <dialog ref={dialog} className="palette" aria-label="Go to" onClose={close}>
      <input
        className="palette-field"
        role="combobox"
        aria-label="Go to a page, a program or a run"
        aria-expanded={found.length > 0}
        aria-controls={list}
        aria-activedescendant={found.length > 0 ? `${list}-${chosen}` : undefined}
        placeholder="a page, a program, the id of a run"
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setAt(0);
        }}
        onKeyDown={keys}
      />
      <div id={list} role="listbox" aria-label="Where to">
        {found.map((goal, i) => (
          <div
            key={goal.address}
            id={`${list}-${i}`}
            role="option"
            tabIndex={-1}
            aria-selected={i === chosen}
            className={i === chosen ? "chosen" : ""}
            onClick={() => go(goal)}
            onKeyDown={keys}
          >
            <Plain text={goal.name} />{" "}
            <span className="muted">
              <Plain text={goal.told} />
            </span>
          </div>
        ))}
      </div>
      {found.length === 0 && <p className="muted">Nothing is called so.</p>}
    </dialog>
  );
}

function goalsOf(from: TeamSource, name: string): Goal[] {
  const address = `#/programs/${encodeURIComponent(name)}`;
  const goals = [
    { name, told: "program", address },
    { name, told: "path map of the program", address: `${address}/map` },
  ];
  if (from.may("program:write")) {
    goals.push({ name, told: "edit the program", address: `${address}/edit` });
  }
  return goals;
}
