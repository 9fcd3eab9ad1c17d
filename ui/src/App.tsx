import { useEffect, useMemo, useState } from "react";
import { type RunView, source } from "./api";
import { useAddress } from "./lib/router";
import { RunPage } from "./run/RunPage";

type Theme = "light" | "dark";

/** The reader's choice, else that of the system. A file from disk may have nowhere to keep it. */
function useTheme(): [Theme, () => void] {
  const [theme, setTheme] = useState<Theme>(() => {
    try {
      const kept = localStorage.getItem("nano-vm-theme");
      if (kept === "light" || kept === "dark") return kept;
    } catch {}
    return window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  });
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const toggle = () => {
    const next = theme === "dark" ? "light" : "dark";
    setTheme(next);
    try {
      localStorage.setItem("nano-vm-theme", next);
    } catch {}
  };
  return [theme, toggle];
}

export function App() {
  const [theme, toggle] = useTheme();
  const [address] = useAddress();
  const from = useMemo(source, []);
  const [view, setView] = useState<RunView | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const id = address.page[0] === "run" ? (address.page[1] ?? null) : from.only;
  useEffect(() => {
    if (id === null) return;
    from.run(id).then(setView, (error: Error) => setFault(error.message));
  }, [from, id]);
  useEffect(() => {
    if (view !== null) document.title = `${view.program} · ${view.status} · ${view.id}`;
  }, [view]);
  const themeButton = (
    <button type="button" className="quiet" onClick={toggle} title="Light or dark">
      {theme === "dark" ? "Light" : "Dark"}
    </button>
  );
  if (fault !== null) {
    return (
      <main className="message">
        <h1>This page cannot be shown</h1>
        <p>{fault}</p>
      </main>
    );
  }
  if (view === null) return <main className="message">Loading…</main>;
  return <RunPage key={view.id} view={view} tools={themeButton} />;
}
