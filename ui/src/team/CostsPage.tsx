import { type FormEvent, useMemo, useState } from "react";
import type { CostRow, Costs } from "../api";
import { cost, moment, plural, tokens } from "../lib/format";
import { useAddress } from "../lib/router";
import { type Filter, parseFilter } from "../model/filter";
import { Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { BudgetsOfProject } from "./Budgets";
import { Cells, Faults, Field, Sheet, useAsked } from "./parts";

const GROUPS = ["program", "version", "model", "member", "step", "day", "prices"];

const LABEL = "label:";

/** What a column of a table says that is summed by it. */
const NAMES: Record<string, string> = { prices: "price from" };

const OF_COSTS = ["program", "version", "submitter", "labels", "since", "until"];

/** Dollars per million tokens, as they were typed. */
interface Price {
  input: string;
  output: string;
}

type Prices = Record<string, Price>;

/** A filter in the words of the list of runs, of those that costs can be summed over. */
function costFilter(text: string): Filter {
  const { query, faults } = parseFilter(text, Date.now());
  const kept = Object.entries(query).filter(([name]) => OF_COSTS.includes(name));
  const left = Object.keys(query).filter((name) => !OF_COSTS.includes(name));
  const told = left.map((name) => `costs are not filtered by ${name}: ${OF_COSTS.join(", ")}`);
  return { query: Object.fromEntries(kept), faults: [...faults, ...told] };
}

/** What costs can be summed by is asked for: of a version its program too, which names it. */
function groupsOf(by: string): string[] {
  return by === "version" ? ["program", "version"] : [by];
}

/** What the model calls of a project have cost. */
export function CostsPage({ from }: { from: TeamSource }) {
  const [{ query }, change] = useAddress();
  const asked = query.get("by") ?? "";
  const by = GROUPS.includes(asked) || asked.startsWith(LABEL) ? asked : "program";
  const text = query.get("q") ?? "";
  const newest = query.get("newest");
  const filter = useMemo(() => costFilter(text), [text]);
  const [prices, setPrices] = useState<Prices | null>(null);
  const [asking, setAsking] = useState(false); // for other prices
  const groups = groupsOf(by);
  const words = { ...filter.query, ...(newest === null ? {} : { newest }) };
  const route = prices === null ? "costs" : "costs/what-if";
  const path = `${route}?${new URLSearchParams({ ...words, by: groups.join(",") })}`;
  const body = prices === null ? undefined : JSON.stringify({ prices });
  // nothing is asked while the filter is wrong, or a label is still to be named
  const wrong = filter.faults.length > 0;
  const [list, fault] = useAsked<Costs>(from, wrong || by === LABEL ? null : path, body);
  const ofModels = wrong ? null : `costs?${new URLSearchParams({ ...words, by: "member" })}`;
  return (
    <Sheet title="Costs">
      <fieldset className="chips">
        <legend className="unseen">Summed by</legend>
        {GROUPS.map((one) => (
          <button
            key={one}
            type="button"
            aria-pressed={by === one}
            onClick={() => change({ by: one, newest: null })}
          >
            by {one}
          </button>
        ))}
        <button
          type="button"
          aria-pressed={by.startsWith(LABEL)}
          onClick={() => change({ by: LABEL, newest: null })}
        >
          by label
        </button>
      </fieldset>
      {by.startsWith(LABEL) && (
        <Line
          key={by}
          label="Label"
          text={by.slice(LABEL.length)}
          hint="the name of a label: team"
          done={(name) => change({ by: LABEL + name, newest: null })}
        />
      )}
      <Line
        key={text}
        role="search"
        label="Of which runs"
        text={text}
        hint="program:refund label:team=shop by:mia since:7d"
        done={(words) => change({ q: words || null })}
      />
      {filter.faults.map((one) => (
        <p key={one} className="note state-failed" role="alert">
          <Plain text={one} />
        </p>
      ))}
      <Faults error={fault} />
      {list !== null && (
        <Reach
          list={list}
          newest={newest}
          further={(newest) => change({ newest: String(newest) })}
        />
      )}
      {list !== null && list.costs.length === 0 && (
        <p className="muted">
          {text === ""
            ? "No run of this project has called a model yet."
            : "No run like this has called a model."}
        </p>
      )}
      {list !== null && list.costs.length > 0 && (
        <Table groups={groups} list={list} other={prices !== null} />
      )}
      <section>
        {asking ? (
          <PriceForm from={from} path={ofModels} prices={prices} set={setPrices} />
        ) : (
          <p>
            <button type="button" onClick={() => setAsking(true)}>
              What if prices were others…
            </button>
          </p>
        )}
      </section>
      <BudgetsOfProject from={from} />
    </Sheet>
  );
}

/** A field whose words count once they are sent. */
function Line({
  role,
  label,
  text,
  hint,
  done,
}: {
  role?: string;
  label: string;
  text: string;
  hint: string;
  done: (text: string) => void;
}) {
  const [draft, setDraft] = useState(text);
  return (
    <form
      className="filter"
      role={role}
      onSubmit={(event) => {
        event.preventDefault();
        done(draft.trim());
      }}
    >
      <input
        value={draft}
        onChange={(event) => setDraft(event.target.value)}
        placeholder={hint}
        aria-label={label}
        spellCheck={false}
      />
    </form>
  );
}

/** Of how many runs these are the costs, and by which prices. No more are offered where the server has
 * summed fewer than the *newest* that were asked for: as many as it may.
 */
function Reach({
  list,
  newest,
  further,
}: {
  list: Costs;
  newest: string | null;
  further: (newest: number) => void;
}) {
  const looked = list.runs + list.damaged.length;
  const more = !list.whole && (newest === null || looked >= Number(newest));
  return (
    <>
      <p className="muted">
        {list.whole
          ? `Of ${list.runs === 1 ? "the only run" : `all ${plural(list.runs, "run")}`}`
          : `Of the newest ${plural(list.runs, "run")}`}
        {list.since !== null && `, since ${moment(list.since)}`}.
        {list.tables.length > 0 && ` Priced by ${list.tables.join(", ")}.`}{" "}
        {more && (
          <button type="button" className="quiet" onClick={() => further(looked * 5)}>
            Sum more
          </button>
        )}
      </p>
      {list.damaged.map((one) => (
        <p key={one} className="note state-failed">
          <Plain text={one} />
        </p>
      ))}
    </>
  );
}

function Table({ groups, list, other }: { groups: string[]; list: Costs; other: boolean }) {
  const named = groups.map((one) => NAMES[one] ?? one.replace(LABEL, ""));
  const dearest = Math.max(...list.costs.map((one) => Number(one.cost_usd)), 0);
  return (
    <Cells
      heads={[...named, "Calls", "Tokens", "Cost", ...(other ? ["Would be"] : [])]}
      unseen="Share"
    >
      {list.costs.map((one) => (
        <tr key={groups.map((name) => one.of[name]).join("\n")}>
          {groups.map((name) => (
            <td key={name} title={name === "version" ? one.of[name] : undefined}>
              <Plain text={shown(one, name, list.versions)} />
            </td>
          ))}
          <td>{one.calls}</td>
          <td>{tokens(one.total_tokens)}</td>
          <td>{amount(one.cost_usd, one.unpriced)}</td>
          {other && <td>{amount(one.what_if_usd ?? "0", one.what_if_unpriced ?? 0)}</td>}
          <td>
            <meter min={0} max={dearest || 1} value={Number(one.cost_usd)}>
              {cost(one.cost_usd)}
            </meter>
          </td>
        </tr>
      ))}
    </Cells>
  );
}

function amount(usd: string, unpriced: number): string {
  return cost(usd) + (unpriced > 0 ? ` and ${plural(unpriced, "call")} without a price` : "");
}

/** A version by its number, if it was put here; a label that a run has not as a dash. */
function shown(row: CostRow, name: string, versions: Record<string, number[]>): string {
  const value = row.of[name] ?? "";
  if (name !== "version") return value || "–";
  const numbers = versions[value];
  return numbers === undefined ? value.slice(0, 15) : numbers.join(", ");
}

/** What the same calls would have cost by other prices: one asks for those of some models. */
function PriceForm({
  from,
  path,
  prices,
  set,
}: {
  from: TeamSource;
  path: string | null; // of what each model has cost
  prices: Prices | null;
  set: (prices: Prices | null) => void;
}) {
  const [list, fault] = useAsked<Costs>(from, path);
  const [draft, setDraft] = useState<Prices>(prices ?? {});
  const given = Object.entries(draft).filter(([, price]) => price.input && price.output);
  const models = list?.costs.map((one) => one.of.member ?? "").filter(Boolean) ?? [];
  const apply = (event: FormEvent) => {
    event.preventDefault();
    set(Object.fromEntries(given));
  };
  const change = (model: string, part: keyof Price, text: string) =>
    setDraft((old) => ({
      ...old,
      [model]: { input: "", output: "", ...old[model], [part]: text },
    }));
  return (
    <form onSubmit={apply} aria-label="Other prices">
      <h2>What if prices were others</h2>
      <p className="muted">
        Dollars per million tokens. The same calls are priced by these; a model without them has no
        price.
      </p>
      <Faults error={fault} />
      {list !== null && models.length === 0 && <p className="muted">No model was called.</p>}
      {models.map((model) => (
        <fieldset key={model} className="prices">
          <legend>
            <Plain text={model} />
          </legend>
          <Field
            label="Prompt"
            type="number"
            min="0"
            step="any"
            value={draft[model]?.input ?? ""}
            onText={(text) => change(model, "input", text)}
          />
          <Field
            label="Answer"
            type="number"
            min="0"
            step="any"
            value={draft[model]?.output ?? ""}
            onText={(text) => change(model, "output", text)}
          />
        </fieldset>
      ))}
      <button type="submit" disabled={given.length === 0}>
        Sum by these
      </button>
      {prices !== null && (
        <button type="button" className="quiet" onClick={() => set(null)}>
          As it was
        </button>
      )}
    </form>
  );
}
