import { type FormEvent, useCallback, useEffect, useState } from "react";
import type { Cancelled, Day, ListOfTeam, RunQuery, View } from "../api";
import { plural } from "../lib/format";
import { useTurns } from "../lib/turns";
import { Plain } from "../parts/Text";

const AGAIN_MS = 60_000; // a day changes slowly

/** The last days as bars: how many runs began on each, and how many of them failed. */
export function Sparkline({ list, query }: { list: ListOfTeam; query: RunQuery }) {
  const [days, setDays] = useState<Day[]>([]);
  const asked = JSON.stringify(query);
  const turns = useTurns();
  useEffect(() => {
    const look = () => {
      const counts = turns.ask();
      list.days(JSON.parse(asked)).then(
        (found) => counts() && setDays(found),
        () => counts() && setDays([]),
      );
    };
    look();
    const timer = setInterval(look, AGAIN_MS);
    return () => {
      turns.forget();
      clearInterval(timer);
    };
  }, [list, asked, turns]);
  const counts = days.map((one) => ({
    day: new Date(one.day),
    all: Object.values(one.statuses).reduce((sum, count) => sum + count, 0),
    failed: one.statuses.failed ?? 0,
  }));
  const most = Math.max(...counts.map((one) => one.all), 0);
  const total = counts.reduce((sum, one) => sum + one.all, 0);
  const failed = counts.reduce((sum, one) => sum + one.failed, 0);
  if (total === 0) return null;
  const label = `${plural(total, "run")} in ${days.length} days, ${failed} failed`;
  return (
    <span className="sparkline" role="img" aria-label={label}>
      {counts.map((one) => (
        <span
          key={one.day.getTime()}
          className="spark"
          title={`${one.day.toLocaleDateString()}: ${plural(one.all, "run")}, ${one.failed} failed`}
          style={{ blockSize: `${(100 * one.all) / most}%` }}
        >
          <span style={{ blockSize: `${one.all === 0 ? 0 : (100 * one.failed) / one.all}%` }} />
        </span>
      ))}
    </span>
  );
}

/** Filters that are kept under a name: chosen, kept, removed. */
export function Views({
  list,
  text,
  choose,
}: {
  list: ListOfTeam;
  text: string;
  choose: (query: string) => void;
}) {
  const [views, setViews] = useState<View[]>([]);
  const [name, setName] = useState<string | null>(null); // of one that is to be kept
  const [fault, setFault] = useState<string | null>(null);
  const look = useCallback(
    () => list.views().then(setViews, (error: Error) => setFault(error.message)),
    [list],
  );
  useEffect(() => {
    void look();
  }, [look]);
  const change = async (work: Promise<void>) => {
    try {
      await work;
      setFault(null);
    } catch (error) {
      setFault((error as Error).message);
    }
    await look();
  };
  const keep = async (event: FormEvent) => {
    event.preventDefault();
    if (name === null) return;
    await change(list.keepView({ name: name.trim(), query: text }));
    setName(null);
  };
  const current = views.find((view) => view.query === text && text !== "");
  return (
    <form className="kept-views" onSubmit={keep} aria-label="Views">
      {views.length > 0 && (
        <select
          aria-label="View"
          value={current?.name ?? ""}
          onChange={(event) =>
            choose(views.find((view) => view.name === event.target.value)?.query ?? "")
          }
        >
          <option value="">no view</option>
          {views.map((view) => (
            <option key={view.name}>{view.name}</option>
          ))}
        </select>
      )}
      {current !== undefined && (
        <button type="button" onClick={() => change(list.removeView(current.name))}>
          Remove view
        </button>
      )}
      {current === undefined && text !== "" && name === null && (
        <button type="button" onClick={() => setName("")}>
          Keep as a view
        </button>
      )}
      {name !== null && (
        <>
          <input
            aria-label="Name of the view"
            value={name}
            required
            maxLength={100}
            onChange={(event) => setName(event.target.value)}
          />
          <button type="submit">Keep</button>
        </>
      )}
      {fault !== null && (
        <span className="bad" role="alert">
          <Plain text={fault} />
        </span>
      )}
    </form>
  );
}

/** Cancels the runs that are picked, once more asked for; says what came of each. */
export function CancelPicked({
  cancel,
  ids,
  done,
}: {
  cancel: (ids: string[]) => Promise<Cancelled[]>;
  ids: string[];
  done: () => void;
}) {
  // the runs that one is sure of: where others are picked since, it is asked again
  const [confirming, setConfirming] = useState<string | null>(null);
  const [told, setTold] = useState<string | null>(null);
  const asked = JSON.stringify(ids);
  const sure = ids.length > 0 && confirming === asked;
  const go = async () => {
    setConfirming(null);
    try {
      const found = await cancel(ids);
      const recorded = found.filter((one) => one.recorded).length;
      const faults = found.filter((one) => !one.recorded).map((one) => `${one.id}: ${one.fault}`);
      setTold([`${plural(recorded, "run")} will be cancelled`, ...faults].join("; "));
      done();
    } catch (error) {
      setTold((error as Error).message);
    }
  };
  return (
    <>
      {ids.length > 0 && !sure && (
        <button type="button" onClick={() => setConfirming(asked)}>
          Cancel {plural(ids.length, "run")}…
        </button>
      )}
      {sure && (
        <>
          <span>What they did is undone.</span>
          <button type="button" className="danger" onClick={go}>
            Cancel {plural(ids.length, "run")} now
          </button>
          <button type="button" onClick={() => setConfirming(null)}>
            Let them run
          </button>
        </>
      )}
      {told !== null && (
        <output>
          <Plain text={told} />
        </output>
      )}
    </>
  );
}
