"""Budgets that many runs share: what binds names itself, and nothing is spent twice, lost or below
zero, whatever becomes of a call or of its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import warm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import PostgresServer

from nano_vm import Completion, ExecutionVM, LLMUsage, ModelError, Program, VMError
from nano_vm.store.accounts import Amount, Reservation, in_dollars, picodollars
from nano_vm.store.shared_budget import MOST_DOLLARS, SharedBudget

ONE = Program.from_yaml("""\
name: one
steps:
  - {id: ask, type: llm, prompt: "Well?", max_tokens: 10, max_retries: 2}
""")
ASKED = 5 + 16 + 10
"""Tokens that the call of `ONE` may use: bytes, a message's own, and those of the answer."""
PRICES = {"m": ("1000000", "2000000")}
"""A dollar for a token of prompt, two for one of an answer."""
COST = Decimal(5 + 16 + 2 * 10)


class Model:
    """Answers as it is told, one after the other, then "yes"; each answer used 3 and 2 tokens."""

    model = "m"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def complete(self, messages: Any, max_tokens: int | None = None) -> Completion:
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else "yes"
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = await answer()
        return Completion(answer, LLMUsage(3, 2, 5))


def host(model: Any = None, store: Any = None, **budgets: Any) -> ExecutionVM:
    return ExecutionVM(model or Model(), prices=PRICES, store=store, budgets=budgets)


def standing(vm: ExecutionVM) -> dict[str, tuple[Amount, Amount]]:
    return {str(account): (how.spent, how.reserved) for account, how in vm.accounts()}


STORES = pytest.mark.parametrize("store", [None, "sqlite://"], ids=["process", "store"])


# --- what binds names itself ---


@STORES
def test_a_budget_that_binds_says_which_and_how_it_stands(store: str | None) -> None:
    model = Model()
    vm = host(model, store, small={"max_cost_usd": 50}, large={"max_tokens": 10_000})
    assert vm.run_sync(ONE).ok
    second = vm.run_sync(ONE)
    assert model.calls == 1 + 1, "seven dollars are spent, and 41 may be"
    third = vm.run_sync(ONE)
    assert second.ok
    assert not third.ok
    assert third.error_kind == "budget"
    assert third.error == (
        "Step 'ask' failed: BudgetExceeded: budget 'small': the call may cost $41; of $50 "
        "(max_cost_usd) $14 are spent and $0 reserved"
    )
    assert third.steps[0].extra["budget"] == {
        "name": "small",
        "of": {},
        "limit": "max_cost_usd",
        "asked": "41",
        "most": "50",
        "spent": "14",
        "reserved": "0",
    }
    assert model.calls == 2
    spent = Amount(2, 10, 14 * 10**12)
    assert standing(vm) == dict.fromkeys(("budget 'large'", "budget 'small'"), (spent, Amount())), (
        "what one budget refuses is reserved in none"
    )


def test_a_prompt_is_counted_once_for_the_budgets_of_a_run_and_those_that_it_shares() -> None:
    class Counting(Model):
        counted = 0

        def count_tokens(self, messages: Any) -> int:
            self.counted += 1
            return 5

    model = Counting(ModelError("later"))
    trace = host(model, large={"max_tokens": 10_000}).run_sync(ONE, budget={"max_tokens": 1_000})
    assert trace.ok
    assert (model.calls, model.counted) == (2, 2), "once an attempt"


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ({"max_llm_calls": 0}, "may use 1 call; of 0 calls (max_llm_calls) 0 calls are spent"),
        ({"max_tokens": 30}, "may use 31 tokens; of 30 tokens (max_tokens) 0 tokens are spent"),
        ({"max_cost_usd": "40.99"}, "may cost $41; of $40.99 (max_cost_usd) $0 are spent"),
    ],
)
def test_each_limit_is_held_before_the_call(limit: dict[str, Any], told: str) -> None:
    model = Model()
    trace = host(model, all=limit).run_sync(ONE)
    assert told in (trace.error or "")
    assert model.calls == 0


def test_what_is_refused_is_neither_skipped_nor_tried_again() -> None:
    model = Model()
    step = {"id": "ask", "type": "llm", "prompt": "Well?", "on_error": "skip", "max_retries": 5}
    trace = host(model, all={"max_llm_calls": 0}).run_sync(Program.from_dict({"steps": [step]}))
    assert trace.error_kind == "budget"
    assert trace.steps[0].attempts == ()
    assert model.calls == 0


# --- what is counted apart ---


class Clock:
    """A day begins when it is said."""

    now = 1_000_000 * 86_400 * 10**9 // 50  # somewhere in a day

    def time_ns(self) -> int:
        return self.now

    monotonic_ns = time_ns

    async def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 10**9)


@STORES
def test_a_new_day_begins_with_nothing_spent(store: str | None) -> None:
    clock = Clock()
    vm = ExecutionVM(
        Model(), store=store, clock=clock, budgets={"daily": {"per": "day", "max_llm_calls": 1}}
    )
    assert [vm.run_sync(ONE).ok for _ in range(2)] == [True, False]
    clock.now += 86_400 * 10**9
    assert [vm.run_sync(ONE).ok for _ in range(2)] == [True, False]
    assert len(standing(vm)) == 2


@STORES
def test_projects_and_programs_are_counted_apart(store: str | None) -> None:
    other = Program.from_dict({**ONE.to_dict(), "name": "other"})
    vm = host(None, store, each={"per": ["project", "program"], "max_llm_calls": 1})
    for project in ("eu", None):
        for program in (ONE, other):
            done = [vm.run_sync(program, project=project).ok for _ in range(2)]
            assert done == [True, False], (project, program.name)
    assert sorted(standing(vm)) == [
        "budget 'each' (project default, program one)",
        "budget 'each' (project default, program other)",
        "budget 'each' (project eu, program one)",
        "budget 'each' (project eu, program other)",
    ]


def test_a_budget_of_one_project_counts_no_other() -> None:
    vm = host(eu={"project": "eu", "max_llm_calls": 0}, x={"program": "x", "max_llm_calls": 0})
    assert vm.run_sync(ONE).ok
    assert not vm.run_sync(ONE, project="eu").ok
    assert not vm.run_sync(Program.from_dict({**ONE.to_dict(), "name": "x"})).ok


def test_branches_of_a_run_reserve_side_by_side() -> None:
    """Two calls are under way at the same time, and each reserves its own."""
    seen: list[Amount] = []

    async def look() -> str:
        seen.append(vm.accounts()[0][1].reserved)
        return "yes"

    program = Program.from_dict(
        {
            "steps": [
                {
                    "id": "both",
                    "type": "parallel",
                    "parallel_steps": [
                        {"id": name, "type": "llm", "prompt": "Well?", "max_tokens": 10}
                        for name in ("a", "b")
                    ],
                }
            ]
        }
    )
    vm = host(Model(look, look), all={"max_tokens": 2 * ASKED})
    assert vm.run_sync(program).ok
    assert max(amount.tokens for amount in seen) <= 2 * ASKED
    assert vm.accounts()[0][1] == (Amount(2, 10, 14 * 10**12), Amount())


# --- what is charged ---


@STORES
@pytest.mark.parametrize(
    ("answers", "spent"),
    [
        # an attempt that nobody knows the use of is charged in full, and tried again
        ([OSError("lost")], Amount(2, ASKED + 5, picodollars(COST + 7))),
        # one that the provider refused costs nothing
        ([ModelError("busy", status=503, retryable=True)], Amount(2, 5, picodollars(Decimal(7)))),
    ],
    ids=["lost", "refused"],
)
def test_failed_attempts_are_charged_as_they_are_billed(
    store: str | None, answers: list[Any], spent: Amount
) -> None:
    vm = host(Model(*answers), store, all={"max_tokens": 1000, "max_cost_usd": 1000})
    assert vm.run_sync(ONE).ok
    assert standing(vm) == {"budget 'all'": (spent, Amount())}


def test_money_is_added_exactly() -> None:
    """A tenth and two tenths of a picodollar's worth are no floats, and what is rounded is rounded
    against the one who spends.
    """
    assert picodollars(Decimal("0.1")) + picodollars(Decimal("0.2")) == picodollars(Decimal("0.3"))
    assert picodollars(Decimal("1e-13")) == 1
    assert in_dollars(picodollars(Decimal("0.000669"))) == Decimal("0.000669")
    assert SharedBudget.model_validate({"max_cost_usd": 0.1}).max_cost_usd == Decimal("0.1")


def test_cost_is_unknown_before_the_run_and_not_after_it() -> None:
    model = Model()
    vm = ExecutionVM(model, budgets={"daily": {"max_cost_usd": 5, "project": "eu"}})
    trace = vm.run_sync(ONE, project="eu")
    assert [d.code for d in trace.diagnostics if d.severity == "error"] == ["V033"]
    assert "budget 'daily' limits cost, and no price is known for model 'm'" in trace.error  # type: ignore[operator]
    assert model.calls == 0
    assert vm.run_sync(ONE).ok, "it does not count the others"


# --- faults of who writes one ---


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        (5, "budget 'x' is a dict, not int; write budgets="),
        ({}, "budget 'x': it limits nothing; write one of max_llm_calls, max_tokens, max_cost_usd"),
        (
            {"per": "week", "max_tokens": 1},
            "input should be 'program', 'project' or 'day', not 'week'",
        ),
        ({"per": ["day", "day"], "max_tokens": 1}, "each of program, project and day stands there"),
        ({"max_toke": 1}, "budget 'x' has no field 'max_toke'; did you mean 'max_tokens'?"),
        ({"max_steps": 1}, "budget 'x' has no field 'max_steps'"),
        ({"max_tokens": 1.5}, "max_tokens: input should be a valid integer, not 1.5"),
        ({"max_tokens": -1}, "max_tokens: input should be greater than or equal to 0, not -1"),
        ({"max_cost_usd": True}, "max_cost_usd: it is an amount of dollars, not True"),
        ({"max_cost_usd": "much"}, "max_cost_usd: input should be a valid decimal, not 'much'"),
        ({"max_cost_usd": float("nan")}, "max_cost_usd: input should be a finite number"),
        ({"max_cost_usd": MOST_DOLLARS + 1}, "max_cost_usd: input should be less than or equal to"),
    ],
)
def test_what_is_no_budget_is_said_at_once(budget: Any, told: str) -> None:
    with pytest.raises(VMError) as caught:
        ExecutionVM(budgets={"x": budget})
    assert told in str(caught.value)
    assert "value error" not in str(caught.value).lower()


def test_a_host_file_gives_its_budgets_to_whoever_reads_it(tmp_path: Path) -> None:
    (tmp_path / "answers.yaml").write_text("ask: yes")
    path = tmp_path / "nano-vm.toml"
    path.write_text(
        f'[models.m]\nmodel = "scripted:{tmp_path}/answers.yaml"\nprice = [1, 2]\n'
        "[budget]\nmax_steps = 7\n"
        '[budgets.daily]\nper = ["project", "day"]\nmax_cost_usd = 0.1\n'
    )
    vm = ExecutionVM(str(path), budgets={"mine": {"max_llm_calls": 1}})
    assert vm.preparer.budgets == {
        "daily": SharedBudget(per=("project", "day"), max_cost_usd=Decimal("0.1")),
        "mine": SharedBudget(max_llm_calls=1),
    }
    assert vm.preparer.budget is not None
    assert vm.preparer.budget.max_steps == 7, "a file that is given as models bounds each run too"
    path.write_text(path.read_text().replace("max_cost_usd = 0.1", "max_cost_usd = -1"))
    with pytest.raises(VMError, match=r"budgets.daily.max_cost_usd: input should be greater"):
        ExecutionVM(str(path))


# --- whatever becomes of a call ---

BEHAVIOURS = ("answers", "hangs", "fails", "refused", "late")


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    data=st.lists(
        st.tuples(st.sampled_from(BEHAVIOURS), st.booleans(), st.integers(0, 6)),
        min_size=1,
        max_size=12,
    ),
    calls=st.integers(0, 14),
    stored=st.booleans(),
)
def test_nothing_leaks_and_nothing_is_below_zero(
    data: list[tuple[str, bool, int]], calls: int, stored: bool
) -> None:
    """Runs at the same time whose calls answer, hang until their deadline, fail, are refused, or
    answer their cancellation late; some are cancelled on the way.
    """
    asyncio.run(_tried(data, calls, "sqlite://" if stored else None))


class Accountant:
    """A model that knows what each of its calls is to be charged."""

    model = "m"

    def __init__(self, watch: Callable[[], None]) -> None:
        self.watch = watch
        self.spent = Amount()

    async def complete(self, messages: Any, max_tokens: int | None = None) -> Completion:
        self.watch()
        (prompt,) = (message["content"] for message in messages)
        most = len(prompt) + 16
        charge = Amount(1, most + 10, picodollars(Decimal(most + 20)))
        try:
            await asyncio.sleep(0)
            match prompt:
                case "hangs":
                    await asyncio.sleep(60)
                case "fails":
                    raise OSError("lost")
                case "refused":
                    charge = Amount(1, 0, 0)
                    raise ModelError("no", status=400, retryable=False)
                case "late":
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(60)
            charge = Amount(1, 5, picodollars(Decimal(7)))
            return Completion("yes", LLMUsage(3, 2, 5))
        finally:
            self.spent = Amount(*(a + b for a, b in zip(self.spent, charge, strict=True)))
            self.watch()


async def _tried(data: list[tuple[str, bool, int]], calls: int, store: str | None) -> None:
    limits = {"max_llm_calls": calls, "max_tokens": 200, "max_cost_usd": 250}
    most = Amount(calls, 200, picodollars(Decimal(250)))

    def watch() -> None:
        for _, (spent, reserved) in vm.accounts():
            assert min(*spent, *reserved) >= 0
            assert all(s + r <= m for s, r, m in zip(spent, reserved, most, strict=True))

    model = Accountant(watch)
    vm = host(model, store, all=limits)
    runs = []
    for behaviour, cancelled, turns in data:
        step = {"id": "s", "type": "llm", "prompt": behaviour, "timeout_seconds": 0.02}
        run = vm.start(Program.from_dict({"steps": [{**step, "max_tokens": 10}]}))
        runs.append(run)
        if cancelled:
            for _ in range(turns):
                await asyncio.sleep(0)
            await run.cancel()
    for run in runs:
        await run.result()
    watch()
    accounts = [how for _, how in vm.accounts()]
    vm.close()
    if accounts:  # else no call was reserved at all
        assert accounts == [(model.spent, Amount())]


# --- whatever becomes of a process ---

CRASHES = """
    import asyncio, os, sys
    from nano_vm import Completion, ExecutionVM, LLMUsage, Program
    from test_shared import ONE, PRICES

    class Dies:
        model = "m"
        async def complete(self, messages, max_tokens=None):
            os._exit(9)

    vm = ExecutionVM(Dies(), prices=PRICES, store=sys.argv[1],
                     budgets={"all": {"max_cost_usd": 100}})
    vm.run_sync(ONE, run_id="r")
"""


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    paths = [str(Path(__file__).parent), *(path for path in sys.path if path)]
    return warm.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _crash(url: str) -> None:
    process = _python(CRASHES, url)
    process.communicate(timeout=60)
    assert process.returncode == 9


def _settled(url: str) -> None:
    """A process dies in a call; who claims its run charges that call, and makes it again."""
    _crash(url)
    vm = host(Model(), url, all={"max_cost_usd": 100})
    reserved = Amount(1, ASKED, picodollars(COST))
    assert standing(vm) == {"budget 'all'": (Amount(), reserved)}
    (trace,) = asyncio.run(vm.recover())
    assert trace.ok
    spent = Amount(2, ASKED + 5, picodollars(COST + 7))
    assert standing(vm) == {"budget 'all'": (spent, Amount())}
    vm.close()


@pytest.mark.slow
def test_a_call_that_is_lost_in_a_crash_is_charged_by_who_claims_its_run(tmp_path: Path) -> None:
    _settled(f"sqlite:///{tmp_path}/runs.db")


@pytest.mark.slow
def test_a_crash_over_postgres_likewise(request: pytest.FixtureRequest) -> None:
    server: PostgresServer = request.getfixturevalue("postgres")
    _settled(server.database())


@pytest.mark.slow
def test_who_has_no_budgets_charges_a_lost_call_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    _crash(url)
    vm = host(Model(), url)
    assert [trace.ok for trace in asyncio.run(vm.recover())] == [True]
    assert standing(vm) == {"budget 'all'": (Amount(1, ASKED, picodollars(COST)), Amount())}
    vm.close()


WORKS = """
    import sys
    from nano_vm import ExecutionVM
    from test_shared import Model, ONE, PRICES

    vm = ExecutionVM(Model(), prices=PRICES, store=sys.argv[1],
                     budgets={"all": {"max_llm_calls": 25, "max_cost_usd": 1_000}})
    print(sum(vm.run_sync(ONE).ok for _ in range(12)))
    vm.close()
"""


def _shared_by_processes(url: str) -> None:
    processes = [_python(WORKS, url) for _ in range(3)]
    done = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sum(done) == 25, "of 36 runs as many succeed as there are calls"
    vm = host(None, url)
    assert standing(vm) == {"budget 'all'": (Amount(25, 125, picodollars(Decimal(175))), Amount())}
    vm.close()


@pytest.mark.slow
def test_processes_that_share_a_file_share_its_budgets(tmp_path: Path) -> None:
    _shared_by_processes(f"sqlite:///{tmp_path}/runs.db")


@pytest.mark.slow
def test_processes_that_share_a_server_share_its_budgets(request: pytest.FixtureRequest) -> None:
    server: PostgresServer = request.getfixturevalue("postgres")
    _shared_by_processes(server.database())


def test_runs_that_are_deleted_leave_nothing_reserved(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    vm = host(Model(), url, all={"max_llm_calls": 9})
    assert vm.run_sync(ONE, run_id="r").ok
    store: Any = vm.require_store()
    account = vm.preparer.budgets["all"].account("all", "one", "default", "")
    # as a process leaves it that stands still between its reservation and its look at the lease
    late = Reservation("late", "r", (account,), Amount(1, 2, 3))

    async def reserve() -> None:
        assert await store.reserve(late) is None
        assert await store.reserve(late) is None, "the answer was lost, and it is asked again"

    asyncio.run(reserve())
    assert standing(vm)["budget 'all'"][1] == Amount(1, 2, 3)
    assert store.prune(2**62) == 1
    assert standing(vm)["budget 'all'"] == (Amount(2, 7, 7 * 10**12 + 3), Amount())
    vm.close()


def test_the_accounts_of_a_process_end_with_the_call_that_nobody_ends() -> None:
    """A coroutine that is closed in the middle of a call has no outcome: the call is charged."""

    async def look() -> str:
        await asyncio.sleep(60)
        return "never"

    vm = host(Model(look), all={"max_llm_calls": 9})
    begun = vm.begin(ONE)

    async def closed() -> None:
        execution = vm.execution(begun)
        task = asyncio.ensure_future(execution)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert vm.accounts()[0][1].reserved.calls == 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(closed())
    assert vm.accounts()[0][1] == (Amount(1, ASKED, picodollars(COST)), Amount())
