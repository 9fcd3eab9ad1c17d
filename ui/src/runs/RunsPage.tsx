import { type ReactNode, useCallback, useEffect, useRef, useState } from "react";
import type { Listed, RunQuery, Source } from "../api";
import { whilePolled } from "../api/refusal";
import { cost, duration, plural } from "../lib/format";
import { isForPage } from "../lib/keys";
import { useAddress } from "../lib/router";
import { useTurns } from "../lib/turns";
import { parseFilter, withWord } from "../model/filter";
import { standing } from "../model/standing";
import { type Key, Keys } from "../parts/Keys";
import { StateChip } from "../parts/State";
import { Plain } from "../parts/Text";
import { CancelPicked, Sparkline, Views } from "./TeamList";

const EVERY_MS = 2_000; // between two looks at the store
const MOST_PICKED = 200; // what one request may cancel
const CHIPS: [string, string | null][] = [
  ["All", null],
  ["Waiting", "status:suspended"],
  ["Running", "status:pending,running"],
  ["Failed", "status:failed"],
  ["Done", "status:success"],
];

const HINT = "status:failed program:refund label:team=shop since:24h cost>0.01";

const KEYS: Key[] = [
  ["j k", "next run, run before"],
  ["Enter", "look at it"],
  ["x", "choose it"],
  ["c", "compare the two that are chosen"],
  ["/", "search and filter"],
];

export function RunsPage({ from, tools }: { from: Source; tools: ReactNode }) {
  const [{ query }, change] = useAddress();
  const text = query.get("q") ?? "";
  const [draft, setDraft] = useState(text);
  const [list, setList] = useState<Listed | null>(null);
  const [more, setMore] = useState<Listed[]>([]);
  const [fault, setFault] = useState<Error | null>(null);
  const [moreFault, setMoreFault] = useState<Error | null>(null);
  const [live, setLive] = useState(true);
  const [picked, setPicked] = useState<string[]>([]);
  const [at, setAt] = useState(-1);
  const field = useRef<HTMLInputElement>(null);
  const { faults: told, query: wanted } = parseFilter(text, 0);
  const searching = wanted.text !== undefined;
  if (searching && !from.searches) told.push("what was said in runs is not for you to search");
  const polled = live && !searching; // a search takes seconds, and is asked for once
  if (fault !== null) told.push(polled ? whilePolled(fault) : fault.message);
  if (moreFault !== null) told.push(moreFault.message);

  useEffect(() => setDraft(text), [text]);
  const looks = useTurns();
  const nexts = useTurns();
  const look = useCallback(() => {
    const filter = parseFilter(text, Date.now());
    const refused = filter.query.text !== undefined && !from.searches;
    if (filter.faults.length > 0 || refused) return Promise.resolve();
    const counts = looks.ask();
    return from.runs(filter.query).then(
      (found) => {
        if (!counts()) return;
        setList(found);
        setFault(null);
      },
      (error: Error) => counts() && setFault(error),
    );
  }, [from, text, looks]);
  useEffect(() => {
    looks.forget();
    nexts.forget();
    setMore([]);
    setMoreFault(null);
    setAt(-1);
    setPicked([]);
    void look();
  }, [look, looks, nexts]);
  useEffect(() => {
    if (!polled) return;
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void look();
    }, EVERY_MS);
    return () => clearInterval(timer);
  }, [polled, look]);

  const pages = list === null ? [] : [list, ...more];
  const seen = new Set<string>();
  const rows = pages
    .flatMap((page) => page.runs)
    .filter((row) => !seen.has(row.id) && seen.add(row.id));
  const shown = picked.filter((id) => seen.has(id)); // a run can leave the list after its pick
  const after = pages.at(-1)?.after ?? null;
  const searched = pages.reduce((sum, page) => sum + (page.searched ?? 0), 0);
  const next = async () => {
    if (after === null) return;
    const { query: asked } = parseFilter(text, Date.now());
    const counts = nexts.ask();
    try {
      const found = await from.runs({ ...asked, after });
      if (!counts()) return;
      setMore((old) => [...old, found]);
      setMoreFault(null);
    } catch (error) {
      if (counts()) setMoreFault(error as Error);
    }
  };
  const pick = (id: string) =>
    setPicked(
      shown.includes(id)
        ? shown.filter((one) => one !== id)
        : [...shown, id].slice(from.list?.cancel ? -MOST_PICKED : -2),
    );
  const compare =
    shown.length === 2 ? `#/compare/${shown.map(encodeURIComponent).join("/")}` : null;

  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      if (!isForPage(event)) return;
      const row = rows[at];
      if (event.key === "j") setAt(Math.min(at + 1, rows.length - 1));
      else if (event.key === "k") setAt(Math.max(at - 1, 0));
      else if (event.key === "/") field.current?.focus();
      else if (event.key === "x" && row !== undefined) pick(row.id);
      else if (event.key === "c" && compare !== null) window.location.hash = compare;
      else if (event.key === "Enter" && row !== undefined && event.target === document.body) {
        window.location.hash = `#/run/${encodeURIComponent(row.id)}`;
      } else return;
      event.preventDefault();
    };
    window.addEventListener("keydown", keys);
    return () => window.removeEventListener("keydown", keys);
  });
  useEffect(() => {
    document.title = "Runs";
  }, []);

  return (
    <div className="list-page">
      <header className="top">
        <div className="title">
          <h1>Runs</h1>
          {!from.shared && <a href="#/inbox">Inbox</a>}
          {from.list !== null && <Sparkline list={from.list} query={ofDays(wanted)} />}
          <span className="grow" />
          <button
            type="button"
            className="quiet"
            aria-pressed={!live}
            onClick={() => setLive(!live)}
          >
            {live ? "Pause" : "Go on"}
          </button>
          {tools}
        </div>
        <form
          className="filter"
          role="search"
          onSubmit={(event) => {
            event.preventDefault();
            change({ q: draft.trim() || null });
          }}
        >
          <input
            ref={field}
            value={draft}
            onChange={(event) => setDraft(event.target.value)}
            placeholder={HINT + (from.searches ? ' text:"late parcel"' : "")}
            aria-label="Filter runs"
            spellCheck={false}
          />
          <span className="chips">
            {CHIPS.map(([name, word]) => (
              <button
                key={name}
                type="button"
                className="tab"
                aria-pressed={
                  word === null ? !text.includes("status:") : text.split(/\s+/).includes(word)
                }
                onClick={() => change({ q: withWord(text, "status:", word) || null })}
              >
                {name}
              </button>
            ))}
          </span>
        </form>
        {from.list !== null && (
          <Views list={from.list} text={text} choose={(query) => change({ q: query || null })} />
        )}
      </header>
      <main>
        {[...new Set(told)].map((one) => (
          <p key={one} className="note state-failed" role="alert">
            <Plain text={one} />
          </p>
        ))}
        {list?.searched !== undefined && (
          <p className="searched" role="status">
            Searched {after === null ? "all" : "the newest"} {plural(searched, "run")}:{" "}
            {rows.length === 0 ? "none" : rows.length} found.
          </p>
        )}
        {list !== null && rows.length === 0 && (
          <div className="message">
            {text === "" ? (
              <>
                <p>There is no run here yet.</p>
                <p className="muted">
                  {from.shared ? (
                    <>
                      Start one from <a href="#/programs">a program</a> of the project.
                    </>
                  ) : (
                    <>
                      <code>nano-vm run program.yaml --store URL</code> makes one.
                    </>
                  )}
                </p>
              </>
            ) : (
              <>
                <p>{after === null ? "No run" : "None of the newest runs"} is like this.</p>
                <button type="button" onClick={() => change({ q: null })}>
                  Show all
                </button>
              </>
            )}
          </div>
        )}
        {rows.length > 0 && (
          <table className="runs">
            <thead>
              <tr>
                <th>
                  <span className="unseen">pick</span>
                </th>
                <th>state</th>
                <th>run</th>
                <th>program</th>
                <th>started</th>
                <th className="number">took</th>
                <th className="number">steps</th>
                <th className="number">cost</th>
                <th>labels</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row, i) => (
                <Line
                  key={row.id}
                  row={row}
                  now={list?.now ?? 0}
                  current={i === at}
                  picked={picked.includes(row.id)}
                  pick={() => pick(row.id)}
                />
              ))}
            </tbody>
          </table>
        )}
        <footer className="foot">
          {compare !== null && (
            <a className="button" href={compare}>
              Compare the two
            </a>
          )}
          {from.list?.cancel && (
            <CancelPicked cancel={from.list.cancel} ids={shown} done={() => setPicked([])} />
          )}
          {shown.length === 1 && (
            <span className="muted">Pick another run to compare it with.</span>
          )}
          <span className="grow" />
          {list?.damaged.map((one) => (
            <span key={one} className="bad">
              <Plain text={one} />
            </span>
          ))}
          {rows.length > 0 && <span className="muted">{plural(rows.length, "run")}</span>}
          {after !== null && (
            <button type="button" onClick={next}>
              {searching ? "Search further" : "More"}
            </button>
          )}
        </footer>
      </main>
      <Keys keys={KEYS} shared={from.shared} />
    </div>
  );
}

/** What the bars of the last days can be asked for. */
function ofDays({ program, submitter, labels }: RunQuery): RunQuery {
  return Object.fromEntries(
    Object.entries({ program, submitter, labels }).filter(([, value]) => value !== undefined),
  );
}

function Line({
  row,
  now,
  current,
  picked,
  pick,
}: {
  row: Listed["runs"][number];
  now: number;
  current: boolean;
  picked: boolean;
  pick: () => void;
}) {
  const { state, text } = standing(row.status, row.waiting, row.driven);
  const took = (row.finished ?? now) - row.created;
  const reference = useRef<HTMLTableRowElement>(null);
  useEffect(() => {
    if (current) reference.current?.scrollIntoView({ block: "nearest" });
  }, [current]);
  return (
    <tr ref={reference} className={current ? "current" : ""}>
      <td className="pick">
        <input type="checkbox" checked={picked} onChange={pick} aria-label={`Pick ${row.id}`} />
      </td>
      <td className="state">
        <StateChip state={state} text={text} />
        {row.status === "failed" && row.error !== null && (
          <div className="bad line">
            <Plain text={row.error.split("\n")[0] ?? ""} />
          </div>
        )}
        {row.status === "suspended" && row.waiting[0] !== undefined && (
          <div className="muted line">
            at <Plain text={row.waiting.map((asked) => asked.path).join(", ")} />
            {row.due !== null && ` · due in ${duration(row.due - now)}`}
          </div>
        )}
      </td>
      <td className="id">
        <a href={`#/run/${encodeURIComponent(row.id)}`}>
          <Plain text={row.id} />
        </a>
        {row.hits?.map((hit) => (
          <div key={`${hit.path} ${hit.field} ${hit.before}`} className="hit line">
            <span className="muted">
              <Plain text={hit.path === null ? hit.field : `${hit.path} ${hit.field}`} />
            </span>{" "}
            <Plain text={hit.before} />
            <mark>
              <Plain text={hit.found} />
            </mark>
            <Plain text={hit.after} />
          </div>
        ))}
      </td>
      <td className="program">
        <Plain text={row.program} />
      </td>
      <td className="when" title={new Date(row.created).toISOString()}>
        {duration(Math.max(0, now - row.created))} ago
      </td>
      <td className="number">{row.status === "pending" ? "" : duration(Math.max(0, took))}</td>
      <td className="number">{row.steps}</td>
      <td className="number" title={row.cost ?? undefined}>
        {row.tokens > 0 ? cost(row.cost) : ""}
      </td>
      <td className="labels">
        {row.submitter !== null && (
          <span className="label-chip">
            by <Plain text={row.submitter} />
          </span>
        )}
        {Object.entries(row.labels).map(([name, value]) => (
          <span key={name} className="label-chip">
            <Plain text={`${name}=${value}`} />
          </span>
        ))}
      </td>
    </tr>
  );
}
