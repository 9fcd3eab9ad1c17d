import { useEffect, useState } from "react";
import { isForPage } from "../lib/keys";

/** A key, and what it does. */
export type Key = [string, string];

/** The keys of a page, which `?` shows and `Esc` puts away. */
export function Keys({ keys, shared }: { keys: Key[]; shared: boolean }) {
  const [open, setOpen] = useState(false);
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (!isForPage(event)) return;
      if (event.key === "?") setOpen((old) => !old);
      else if (event.key === "Escape") setOpen(false);
    };
    window.addEventListener("keydown", pressed);
    return () => window.removeEventListener("keydown", pressed);
  }, []);
  if (!open) return null;
  const all: Key[] = shared ? [...keys, ["Ctrl K", "go to a page, a program or a run"]] : keys;
  return <KeyList keys={all} close={() => setOpen(false)} />;
}

export function KeyList({ keys, close }: { keys: Key[]; close: () => void }) {
  const all: Key[] = [...keys, ["?", "these keys"]];
  return (
    <div className="help" role="dialog" aria-label="Keys">
      <h2>Keys</h2>
      <dl className="values">
        {all.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <button type="button" onClick={close}>
        Close
      </button>
    </div>
  );
}
