import type { AccountRow, BudgetRow, Budgets } from "../api";
import { cost, plural } from "../lib/format";
import { Plain } from "../parts/Text";
import type { TeamSource } from "./api";
import { Cells, Faults, useAsked } from "./parts";

/** A limit of a budget, and what is used of it. */
interface Used {
  what: string;
  spent: number;
  reserved: number;
  most: number | null;
  shown: (amount: number) => string;
}

function usedOf({ spent, reserved, ...limits }: AccountRow): Used[] {
  const all: Used[] = [
    {
      what: "calls",
      spent: spent.calls,
      reserved: reserved.calls,
      most: limits.max_llm_calls,
      shown: (amount) => plural(amount, "call"),
    },
    {
      what: "tokens",
      spent: spent.tokens,
      reserved: reserved.tokens,
      most: limits.max_tokens,
      shown: (amount) => plural(amount, "token"),
    },
    {
      what: "cost",
      spent: Number(spent.cost_usd),
      reserved: Number(reserved.cost_usd),
      most: limits.max_cost_usd === null ? null : Number(limits.max_cost_usd),
      shown: (amount) => cost(String(amount)),
    },
  ];
  const limited = all.filter((one) => one.most !== null);
  return limited.length > 0 ? limited : all; // no worker says its limits any more
}

/** The budgets that bind a project: what is spent and reserved of each, and what met one. */
export function BudgetsOfProject({ from }: { from: TeamSource }) {
  const [list, fault] = useAsked<Budgets>(from, "budgets");
  const names = new Set(list?.accounts.map((one) => one.name));
  const unused = list?.budgets.filter((one) => !names.has(one.name)) ?? [];
  return (
    <section>
      <h2>Budgets</h2>
      <Faults error={fault} />
      {list !== null && list.budgets.length === 0 && list.accounts.length === 0 && (
        <p className="muted">
          No worker has a budget that runs share: write one under <code>[budgets]</code> in its host
          file.
        </p>
      )}
      {list !== null && list.accounts.length > 0 && <Accounts accounts={list.accounts} />}
      {unused.map((one) => (
        <p key={one.name + one.hosts.join()} className="muted">
          <Plain text={`${one.name}: ${limitsOf(one)}`} />
          {one.shared
            ? "; runs of other projects count too, and an owner sees how it stands"
            : "; no call has counted yet"}
        </p>
      ))}
      {list?.met.map((one) => (
        <p key={one.program}>
          {plural(one.runs, "run")} of <Plain text={one.program} />, of the newest{" "}
          {plural(list.looked, "run")} that failed, met a budget:{" "}
          <a href={`#/run/${encodeURIComponent(one.newest)}`}>the newest of them</a>
        </p>
      ))}
    </section>
  );
}

function limitsOf(budget: BudgetRow): string {
  const limits = [
    budget.max_llm_calls !== null && plural(budget.max_llm_calls, "call"),
    budget.max_tokens !== null && plural(budget.max_tokens, "token"),
    budget.max_cost_usd !== null && cost(budget.max_cost_usd),
  ].filter(Boolean);
  const per = budget.per.length > 0 ? ` per ${budget.per.join(" and ")}` : "";
  const of = budget.program !== null ? ` of ${budget.program}` : "";
  return `at most ${limits.join(", ")}${per}${of}`;
}

function Accounts({ accounts }: { accounts: AccountRow[] }) {
  return (
    <Cells heads={["Budget", "Of", "Spent", "Reserved", "Limit"]} unseen="Share">
      {accounts.flatMap((account) =>
        usedOf(account).map(({ what, spent, reserved, most, shown }) => (
          <tr key={`${account.name} ${Object.values(account.of).join(" ")} ${what}`}>
            <td>
              <Plain text={account.name} />
            </td>
            <td>
              <Plain text={Object.values(account.of).join(", ") || "all"} />
            </td>
            <td>{shown(spent)}</td>
            <td>{shown(reserved)}</td>
            <td>{most === null ? "not known" : shown(most)}</td>
            <td>
              {most !== null && (
                <meter min={0} max={most || 1} value={spent + reserved} high={0.9 * most}>
                  {shown(spent)} of {shown(most)}
                </meter>
              )}
            </td>
          </tr>
        )),
      )}
    </Cells>
  );
}
