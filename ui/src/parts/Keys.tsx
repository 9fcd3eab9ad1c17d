import { useEffect, useState } from "react";
import { isForPage } from "../lib/keys";

/** A key, and what it does. */
export type Key = [string, string];

/** The key of the pages of a server. */
const GO_TO: Key = ["Ctrl K", "go to a page, a program or a run"];

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
  return <KeyList keys={keys} shared={shared} close={() => setOpen(false)} />;
}

export function KeyList({
  keys,
  shared,
  close,
}: {
  keys: Key[];
  shared: boolean;
  close: () => void;
}) {
  const all: Key[] = [...keys, ...(shared ? [GO_TO] : []), ["?", "these keys"]];
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
