"""What was spent, call of a provider by call of a provider: by members, by other prices, exactly."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_vm import Completion, ExecutionVM, LLMUsage, ModelError, Pool, Program
from nano_vm.cli import main
from nano_vm.cli.commands.costs import GROUPS, LABEL
from nano_vm.store import few, spending
from nano_vm.store.accounts import Account, Amount, Books, Reservation, picodollars
from nano_vm.store.protocol import LABEL_GROUP, RunFilter, open_store
from nano_vm.store.spending import (
    SPENDING_GROUPS,
    Spent,
    spent_in,
    summed,
    summed_by_columns,
    sums_of_newest,
)

PRICES = {"a": (1, 2), "b": (10, 20)}
CHEAPER = "[prices]\na = [0.5, 1]\nb = {input = 2, output = 4, cached = 0.2}\n"


ASKS = Program.from_dict({"name": "asks", "steps": [{"id": "s", "type": "llm", "prompt": "x"}]})


class Model:
    def __init__(self, model: str, *answers: Any) -> None:
        self.model, self.answers = model, list(answers)

    async def complete(self, messages: Any, **kwargs: Any) -> Completion:
        answer = self.answers.pop(0) if self.answers else "yes"
        if isinstance(answer, Exception):
            raise answer
        return Completion(answer, LLMUsage(100, 10, 110, cached_tokens=40), self.model)


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with a run that a pool served: a billed failure and an answer of b, an invalid one
    and an answer of a, a call that was lost.
    """
    monkeypatch.chdir(tmp_path)
    Path("cheaper.toml").write_text(CHEAPER)
    found = f"sqlite:///{tmp_path}/runs.db"
    billed = ModelError("cut", usage=LLMUsage(50, 5, 55))
    pool = Pool([Model("a", billed, "perhaps", "yes", OSError("lost")), Model("b")])
    steps = [
        {"id": f"s{i}", "type": "llm", "prompt": "x", "allowed_outputs": ["yes"]} for i in range(3)
    ]
    vm = ExecutionVM(pool, prices=PRICES, store=found)
    assert vm.run_sync(Program.from_dict({"name": "p", "steps": steps}), run_id="r").ok
    vm.close()
    return found


def test_by_member(url: str) -> None:
    store = open_store(url)
    calls = list(spent_in(store, RunFilter()))
    costs = {cost.of["member"]: cost for cost in summed(calls, ["member"])}
    # a: 50 + 100 + 100 tokens of prompt, and the lost call; b: after the billed and the lost one
    assert (costs["a"].calls, costs["a"].prompt_tokens, costs["a"].unpriced) == (4, 250, 1)
    assert costs["a"].cost_usd == Decimal("0.0003")
    assert (costs["b"].calls, costs["b"].cost_usd) == (2, Decimal("0.0024"))
    (whole,) = store.costs(())
    assert whole.prompt_tokens == sum(cost.prompt_tokens for cost in costs.values())
    assert summed(calls, ["program", "step"])[0].of == {"program": "p", "step": "s0"}
    with pytest.raises(ValueError, match="not summed by 'hour'"):
        summed(calls, ["hour"])
    store.close()


def test_by_where_prices_came_from(tmp_path: Path) -> None:
    found = f"sqlite:///{tmp_path}/prices.db"
    of_host = ExecutionVM(Model("a"), prices=PRICES, store=found)
    of_table = ExecutionVM(Model("a"), prices=PRICES, store=found)
    of_table.preparer.price_sources = {"a": "genai-prices 1.2.3"}
    of_nobody = ExecutionVM(Model("c"), store=found)
    for run_id, vm in (("host", of_host), ("table", of_table), ("nobody", of_nobody)):
        vm.run_sync(ASKS, run_id=run_id, labels={"of": run_id})
        vm.close()
    store = open_store(found)
    calls = list(spent_in(store, RunFilter()))
    assert [list(cost.of.values()) for cost in summed(calls, ["label:of", "prices"])] == [
        ["host", "host"],
        ["nobody", "unknown"],
        ["table", "genai-prices 1.2.3"],
    ]
    assert store.erase("table")
    erased = [call.of for call in spent_in(store, RunFilter()) if "label:of" not in call.of]
    assert [(of["prices"], of["model"]) for of in erased] == [("unknown", "a")]
    store.close()


def test_a_command_knows_what_costs_are_summed_by() -> None:
    assert sorted(GROUPS) == sorted(SPENDING_GROUPS)
    assert LABEL == LABEL_GROUP


def test_runs_that_wait_are_not_summed(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/waits.db") as store:
        wanted = RunFilter(waiting="event")
        with pytest.raises(ValueError, match="of a list of them alone"):
            sums_of_newest(store, ("member",), wanted, 9)
        with pytest.raises(ValueError, match="of a list of them alone"):
            list(spent_in(store, wanted))


def test_the_newest_are_read_and_no_others(tmp_path: Path) -> None:
    vm = ExecutionVM(Model("a"), prices=PRICES, store=f"sqlite:///{tmp_path}/newest.db")
    for n in range(5):
        vm.run_sync(ASKS, run_id=f"r{n}")
    store = vm.store
    found, would = sums_of_newest(
        store, ("member",), RunFilter(), 3, {"a": (Decimal(2), Decimal(4))}
    )
    assert (found.costs[0].calls, found.runs, found.whole, found.damaged) == (3, 3, False, [])
    assert would[0].cost_usd == 2 * found.costs[0].cost_usd
    for most in (5, 9):
        found, _ = sums_of_newest(store, (), RunFilter(), most)
        assert (found.costs[0].calls, found.runs, found.whole) == (5, 5, True)
    assert sums_of_newest(store, (), RunFilter(program="none"), 3)[0] == ([], 0, None, True, [])
    with closing(sqlite3.connect(tmp_path / "newest.db", isolation_level=None)) as database:
        database.execute("UPDATE nano_rows SET crc = crc + 1 WHERE run = 2 AND seq = 0")
    found, _ = sums_of_newest(store, (), RunFilter(), 9)
    assert (found.costs[0].calls, found.runs, len(found.damaged)) == (4, 4, 1)
    vm.close()


def test_what_they_cannot_be_summed_by_is_refused_before_a_run_is_read(url: str) -> None:
    with open_store(url) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "page", None)  # who read one would fail
        with pytest.raises(ValueError, match="not summed by 'hour'"):
            sums_of_newest(store, ("hour",), RunFilter(), 9)


def test_so_many_steps_are_read_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = ExecutionVM(Model("a"), prices=PRICES, store=f"sqlite:///{tmp_path}/steps.db")
    steps = [{"id": f"s{i}", "type": "llm", "prompt": "x"} for i in range(3)]
    long = Program.from_dict({"name": "long", "steps": steps})
    for n in range(6):
        vm.run_sync(long, run_id=f"r{n}")
    store = vm.store
    at_once: list[int] = []
    load_each = store.load_each

    def loaded(run_ids: Any) -> Any:
        at_once.extend([len(run_ids)] if run_ids else [])
        return load_each(run_ids)

    monkeypatch.setattr(store, "load_each", loaded)
    for limit, pages in ((18, [6]), (17, [5, 1]), (7, [2, 2, 2]), (3, [1] * 6), (1, [1] * 6)):
        monkeypatch.setattr(few, "STEPS_AT_ONCE", limit)
        at_once.clear()
        found, _ = sums_of_newest(store, (), RunFilter(), 9)
        assert (found.costs[0].calls, found.runs, found.whole, at_once) == (18, 6, True, pages)
        at_once.clear()
        assert len(list(spent_in(store, RunFilter()))) == 18
        assert at_once == pages
    monkeypatch.setattr(few, "STEPS_AT_ONCE", 6)
    monkeypatch.setattr(spending, "MOST_STEPS", 8)
    found, _ = sums_of_newest(store, (), RunFilter(), 9)
    oldest = store.load("r2").created_ns
    assert (found.costs[0].calls, *found[1:4]) == (12, 4, oldest, False)
    assert sums_of_newest(store, (), RunFilter(), 3)[0].runs == 3  # as many as were asked for
    monkeypatch.setattr(spending, "MOST_STEPS", 18)
    assert sums_of_newest(store, (), RunFilter(), 9)[0].whole
    with closing(sqlite3.connect(tmp_path / "steps.db", isolation_level=None)) as database:
        # those of a run that goes on, or was left by a crash, are not counted yet
        database.execute("UPDATE nano_runs SET status = 'running', steps = 0")
    monkeypatch.setattr(spending, "MOST_STEPS", 8)
    at_once.clear()
    found, _ = sums_of_newest(store, (), RunFilter(), 9)
    assert (found.runs, found.whole, at_once) == (3, False, [1, 1, 1])
    vm.close()


def test_sums_are_not_of_all_runs_where_the_next_is_damaged(tmp_path: Path) -> None:
    vm = ExecutionVM(Model("a"), prices=PRICES, store=f"sqlite:///{tmp_path}/next.db")
    for n in range(3):
        vm.run_sync(ASKS, run_id=f"r{n}")
    with closing(sqlite3.connect(tmp_path / "next.db", isolation_level=None)) as database:
        database.execute("UPDATE nano_runs SET labels = 'odd' WHERE run_id = 'r0'")
    assert len(vm.store.page(RunFilter()).damaged) == 1
    found, _ = sums_of_newest(vm.store, (), RunFilter(), 2)
    assert (found.runs, found.whole, found.damaged) == (2, False, [])
    found, _ = sums_of_newest(vm.store, (), RunFilter(), 3)
    assert (found.runs, found.whole, len(found.damaged)) == (2, True, 1)
    vm.close()


@pytest.mark.parametrize("by", [(), ("model",), ("label:a", "day"), ("hour",)])
def test_what_columns_have_is_not_read(by: tuple[str, ...]) -> None:
    assert summed_by_columns(by)
    assert not any(summed_by_columns((*by, more)) for more in ("member", "prices"))


@pytest.mark.slow
def test_on_the_command_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*more: str) -> Any:
        capsys.readouterr()
        assert main(["costs", "--store", url, "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    a, b = told("--by", "member", "--what-if", "cheaper.toml")
    assert (a["member"], a["cost_usd"], a["what_if_usd"]) == ("a", "0.00030", "0.00015")
    # 60 of the prompt at 2, 40 at 0.2, 10 of the answer at 4, twice
    assert (Decimal(b["what_if_usd"]), b["what_if_unpriced"]) == (Decimal("0.000336"), 0)
    assert [cost["model"] for cost in told("--what-if", "cheaper.toml")] == ["a", "b"]
    assert main(["costs", "--store", url, "--by", "member", "--plot", "costs.svg"]) == 0
    shown = capsys.readouterr().out
    assert "would be" not in shown
    assert "0.0024" in Path("costs.svg").read_text()
    assert main(["costs", "--store", url, "--what-if", "none.toml"]) == 2
    assert "--what-if: none.toml: No such file" in capsys.readouterr().err
    Path("empty.toml").write_text("")
    assert main(["costs", "--store", url, "--what-if", "empty.toml"]) == 2
    assert "it has no prices" in capsys.readouterr().err
    Path("gaps.toml").write_text("[prices]\na = [1, 2]\n")
    a, b = told("--by", "member", "--what-if", "gaps.toml")
    assert (b["what_if_usd"], b["what_if_unpriced"]) == ("0", 2)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.decimals(0, 10**6, places=9)),
        max_size=30,
    )
)
def test_sums_are_exact(calls: list[tuple[int, int, Decimal]]) -> None:
    spent = [Spent({"model": "m"}, ("m",), LLMUsage(p, c, p + c, cost)) for p, c, cost in calls]
    exact = sum((Fraction(cost) for _, _, cost in calls), Fraction(0))
    for found in summed(spent, ["model"]):
        assert Fraction(found.cost_usd) == exact
        assert found.total_tokens == sum(p + c for p, c, _ in calls)


@pytest.mark.slow
def test_a_hundred_thousand_steps_lose_nothing() -> None:
    cost = Decimal("0.000000000123")
    spent = (Spent({"model": "m"}, ("m",), LLMUsage(1, 1, 2, cost)) for _ in range(100_000))
    (found,) = summed(spent, ["model"])
    assert found.cost_usd == cost * 100_000


@pytest.mark.slow
def test_a_million_calls_are_summed_exactly() -> None:
    """To the last digit, by fractions: no sum is a float, and none is rounded on the way."""
    count = 1_000_000
    costs = [Decimal(7 * i % 1_000_003) / Decimal(10**12) for i in range(1_000)]
    usages = [LLMUsage(i, i + 1, 2 * i + 1, cost) for i, cost in enumerate(costs)]
    calls = (Spent({"model": "ab"[i % 2]}, ("m",), usages[i % 1_000]) for i in range(count))
    found = summed(calls, ["model"])
    assert [cost.calls for cost in found] == [count // 2] * 2
    for k, cost in enumerate(found):
        exact = sum(Fraction(each) for each in costs[k::2]) * (count // 1_000)
        assert Fraction(cost.cost_usd) == exact
        assert cost.total_tokens == sum(u.total_tokens for u in usages[k::2]) * (count // 1_000)


@pytest.mark.slow
def test_accounts_add_up_exactly() -> None:
    costs = [Decimal(7 * i % 1_000_003) / Decimal(10**12) for i in range(1_000)]
    books, account = Books(), Account("all", ())
    for i in range(50_000):
        most = Amount(1, 31, picodollars(costs[i % 1_000]) * 2)
        assert books.reserved(Reservation(str(i), "r", (account,), most)) is None
        books.settle(str(i), Amount(1, 5, picodollars(costs[i % 1_000])))
    (standing,) = books.accounts().values()
    exact = sum(int(cost * 10**12) for cost in costs) * 50
    assert standing == (Amount(50_000, 250_000, exact), Amount())
