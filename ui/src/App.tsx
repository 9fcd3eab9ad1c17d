import { type ReactNode, useCallback, useEffect, useMemo, useRef, useState } from "react";
import { type Current, type RunView, type Source, source, type Verified } from "./api";
import { askUntilAnswered, mayPass, whilePolled } from "./api/refusal";
import { ComparePage } from "./compare/ComparePage";
import { ForkPage } from "./fork/ForkPage";
import { InboxPage } from "./inbox/InboxPage";
import { useAddress } from "./lib/router";
import { oneAtATime, useTurns } from "./lib/turns";
import { isDrawn } from "./model/run";
import { RunPage } from "./run/RunPage";
import { RunsPage } from "./runs/RunsPage";
import { TeamApp } from "./team/TeamApp";

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
  const from = useMemo(source, []);
  const tools = (
    <button type="button" className="quiet" onClick={toggle} title="Light or dark">
      {theme === "dark" ? "Light" : "Dark"}
    </button>
  );
  if (from !== null) return <Pages from={from} tools={tools} />;
  return <TeamApp tools={tools}>{(team) => <Pages from={team} tools={null} />}</TeamApp>;
}

/** Pages at whose address the list of runs stands; a server's own come before somebody is logged in. */
const HOME: (string | undefined)[] = [undefined, "login", "setup"];

/** The pages that every source of runs has. */
function Pages({ from, tools }: { from: Source; tools: ReactNode }) {
  const [{ page }] = useAddress();
  const [name, first, second] = page;
  const id = from.only ?? (name === "run" ? first : undefined);
  if (id !== undefined) return <OneRun key={id} from={from} id={id} tools={tools} />;
  if (name === "compare" && first !== undefined && second !== undefined) {
    return (
      <ComparePage key={`${first} ${second}`} from={from} ids={[first, second]} tools={tools} />
    );
  }
  if (name === "fork" && first !== undefined && from.forks !== null) {
    return <ForkPage key={first} from={from} forks={from.forks} id={first} tools={tools} />;
  }
  if (name === "inbox") return <InboxPage from={from} tools={tools} />;
  if (HOME.includes(name)) return <RunsPage from={from} tools={tools} />;
  return (
    <main className="message">
      <h1>There is no such page</h1>
      <p>The address may be misspelt, or the page may not be for you.</p>
      <a href="#/">All runs</a>
    </main>
  );
}

const EVERY_MS = 1_000; // between two looks at a run under way
const PATIENCE_MS = 15_000; // with an answer, until the run is asked for again
const ENDED = ["success", "failed", "cancelled"];

/** A run, which grows while it is looked at. */
function OneRun({ from, id, tools }: { from: Source; id: string; tools: ReactNode }) {
  const [view, setView] = useState<RunView | null>(null);
  const [fault, setFault] = useState<Error | null>(null);
  const [live, setLive] = useState(true);
  const seen = useRef<string | undefined>(undefined);
  const turns = useTurns();
  const [{ query }] = useAddress();
  const step = query.get("step");
  const over = view !== null && ENDED.includes(view.status);
  const undrawn = view !== null && !isDrawn(view);
  const missing = view === null && fault !== null && !mayPass(fault);
  const take = useCallback((found: Current) => {
    seen.current = found.version;
    if (found.run !== null) setView(found.run);
    setFault(null);
  }, []);
  useEffect(() => {
    let gone = false;
    // what a run of 10,000 steps has said takes a while: it is not asked for again meanwhile
    const looks = oneAtATime(async () => {
      const counts = turns.ask();
      try {
        // what a large program's run did is seen before its graph is made
        const graph = seen.current === undefined ? "later" : undefined;
        const found = await from.run(id, seen.current, graph);
        if (!gone && counts()) take(found);
        return true;
      } catch (error) {
        if (!gone && counts(false)) setFault(error as Error);
        // a stream says nothing before the next change, if there is one
        return unfollow === null || !mayPass(error as Error);
      }
    }, PATIENCE_MS);
    if (seen.current === undefined) looks.begin();
    const follows = live && !over && !missing && !from.still;
    const unfollow = follows ? from.follow(id, looks.begin) : null;
    const timer =
      follows && unfollow === null
        ? setInterval(() => document.visibilityState === "visible" && looks.begin(), EVERY_MS)
        : undefined;
    return () => {
      gone = true;
      looks.stop();
      unfollow?.();
      clearInterval(timer);
    };
  }, [from, id, live, over, missing, turns, take]);
  // a graph that was left out comes also of a run that has ended, or is not followed
  useEffect(() => {
    if (!undrawn) return;
    const ask = async () => {
      const counts = turns.ask();
      return { found: await from.run(id, seen.current), counts };
    };
    return askUntilAnswered(ask, 0, ({ found, counts }) => counts() && take(found), setFault);
  }, [from, id, undrawn, turns, take]);
  const asksAgain = undrawn || (live && !over);
  const told = asksAgain && fault !== null ? whilePolled(fault) : fault?.message;
  useEffect(() => {
    if (view !== null) document.title = `${view.program} · ${view.status} · ${view.id}`;
  }, [view]);
  if (view === null) {
    return (
      <main className="message">
        {fault === null ? (
          "Loading…"
        ) : (
          <>
            <h1>This run cannot be shown</h1>
            <p role="alert">{told}</p>
            {!from.still && <a href="#/">All runs</a>}
          </>
        )}
      </main>
    );
  }
  const back = from.still ? null : (
    <a className="back" href="#/">
      ‹ Runs
    </a>
  );
  const beside = (
    <>
      {!from.still && !over && (
        <button type="button" className="quiet" aria-pressed={!live} onClick={() => setLive(!live)}>
          {live ? "Pause" : "Go on"}
        </button>
      )}
      {!from.still && view.parent !== null && (
        <a
          className="button"
          href={`#/compare/${encodeURIComponent(view.parent)}/${encodeURIComponent(view.id)}`}
        >
          Compare with its origin
        </a>
      )}
      {from.forks !== null && (
        <a
          className="button"
          href={`#/fork/${encodeURIComponent(id)}${step === null ? "" : `?step=${encodeURIComponent(step)}`}`}
        >
          Fork
        </a>
      )}
      {!from.still && <Verify from={from} id={id} />}
      {tools}
    </>
  );
  return (
    <>
      <RunPage view={view} shared={from.shared} back={back} tools={beside} />
      {fault !== null && (
        <p className="toast" role="alert">
          {told}
        </p>
      )}
    </>
  );
}

/** Recomputes the run from its records, and says whether each is what the program makes of it. */
function Verify({ from, id }: { from: Source; id: string }) {
  const [found, setFound] = useState<Verified | string | null>(null);
  const ask = () => {
    setFound("recomputing…");
    from.verify(id).then(setFound, (error: Error) => setFound(error.message));
  };
  if (found === null) {
    return (
      <button
        type="button"
        onClick={ask}
        title="Compute it once more from its records, with no call"
      >
        Verify
      </button>
    );
  }
  const text = typeof found === "string" ? found : found.text;
  const state = typeof found === "string" ? "queued" : found.identical ? "done" : "failed";
  return (
    <output className={`chip state-${state} verified`} title={text}>
      {typeof found !== "string" && found.identical
        ? `identical${found.complete ? "" : ", as far as it went"}`
        : text}
    </output>
  );
}
