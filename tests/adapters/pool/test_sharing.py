"""Limits of members that processes share through the store of their runs: over no window, and at no
moment, more is let through than a limit says.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Awaitable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import warm
from fleet import Provider, constant, fleet
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import PostgresServer

from nano_vm import ExecutionVM, Member, Pool, Program
from nano_vm.errors import StoreError
from nano_vm.simulation.model import Model
from nano_vm.store.limits import AT_ONCE, CallLimits, Entered
from nano_vm.store.sql.store import SqlStore
from nano_vm.testing import ScriptedLLM

LENGTH = 6_400
"""Of the windows of these tests, on a clock of their own."""

OWNER = "a process"


class Kept:
    """The model and SQLite, asked the same at the same time."""

    def __init__(self) -> None:
        self.now = 10**6
        self.model = Model(lambda: self.now)
        self.sql = SqlStore("sqlite://", clock=lambda: self.now)
        for owner in (OWNER, "another"):
            self.model.heartbeat(owner, 1)
            self.sql.heartbeat(owner, 1)

    async def enter(
        self, call_id: str, limits: CallLimits, tokens: int = 0, owner: str = OWNER
    ) -> Entered:
        found = self.model.enter(call_id, owner, limits, tokens)
        assert found == await self.sql.enter(call_id, owner, limits, tokens)
        return found

    async def leave(self, call_id: str, limits: CallLimits, part: int, change: int) -> None:
        self.model.leave(call_id, limits, part, change)
        await self.sql.leave(call_id, limits, part, change)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    requests=st.none() | st.integers(1, 6),
    tokens=st.none() | st.integers(1, 40),
    concurrency=st.none() | st.integers(1, 3),
    calls=st.lists(
        st.tuples(
            st.integers(0, 4_000),  # that pass before it
            st.integers(0, 60),  # tokens that are counted
            st.integers(-10, 10),  # that it uses more
            st.booleans(),  # whether a call ends before it
        ),
        max_size=40,
    ),
)
def test_over_no_window_more_is_let_through(
    requests: int | None,
    tokens: int | None,
    concurrency: int | None,
    calls: list[tuple[int, int, int, bool]],
) -> None:
    limits = CallLimits("m", LENGTH, requests, tokens, concurrency)
    asyncio.run(_held(limits, calls))


async def _held(limits: CallLimits, calls: list[tuple[int, int, int, bool]]) -> None:
    kept = Kept()
    under_way: list[tuple[str, int, int]] = []
    begun: list[list[int]] = []  # when, and tokens
    for number, (pause, asked, change, ends) in enumerate(calls):
        kept.now += pause
        if ends and under_way:
            call_id, part, at = under_way.pop(0)
            await kept.leave(call_id, limits, part, change)
            begun[at][1] += change
        entered = await kept.enter(f"c{number}", limits, asked)
        if entered.wait_ns > 0:
            assert entered.wait_ns <= LENGTH + LENGTH // 64 + 1
            kept.now += entered.wait_ns
            entered = await kept.enter(f"c{number}", limits, asked)
            assert entered.wait_ns <= 0, "after the wait that was told it may begin"
        if entered.wait_ns == AT_ONCE:
            assert len(under_way) == limits.concurrency
            continue
        under_way.append((f"c{number}", entered.part, len(begun)))
        begun.append([kept.now, asked])
        assert limits.concurrency is None or len(under_way) <= limits.concurrency
        window = [spent for at, spent in begun if at > kept.now - LENGTH]
        assert limits.requests is None or len(window) <= limits.requests
        if limits.tokens is not None and len(window) > 1:
            assert sum(window[:-1]) + min(asked, limits.tokens) <= limits.tokens
    kept.sql.close()


def test_a_limit_is_used_to_all_but_a_part() -> None:
    """Two windows let through twice the limit, and the part of a window later."""

    async def count() -> int:
        kept, limits, let = Kept(), CallLimits("m", LENGTH, requests=10), 0
        for _ in range(2 * (LENGTH + LENGTH // 64)):
            entered = await kept.enter("c", limits)
            let += not entered.wait_ns
            kept.now += max(entered.wait_ns, 1)
            if kept.now >= 10**6 + 2 * (LENGTH + LENGTH // 64):
                break
        return let

    assert asyncio.run(count()) == 20


def test_a_process_that_is_gone_leaves_its_places_to_others() -> None:
    async def places() -> None:
        kept, limits = Kept(), CallLimits("m", LENGTH, concurrency=1)
        assert await kept.enter("a", limits, owner="another") == (0, kept.now // 100)
        assert (await kept.enter("b", limits)).wait_ns == AT_ONCE
        kept.model.heartbeat("another", -1)
        kept.sql.heartbeat("another", -1)
        assert (await kept.enter("b", limits)).wait_ns == 0
        assert (await kept.enter("c", limits)).wait_ns == AT_ONCE

    asyncio.run(places())


def test_a_machine_that_was_started_again_is_held_up_by_nothing_of_before() -> None:
    async def boot() -> None:
        kept, limits = Kept(), CallLimits("m", LENGTH, requests=1)
        store = kept.sql
        assert (await store.enter("a", OWNER, limits, 0)).wait_ns == 0
        assert (await store.enter("b", OWNER, limits, 0)).wait_ns > 0
        kept.now = 5
        assert (await store.enter("b", OWNER, limits, 0)).wait_ns == 0

    asyncio.run(boot())


# --- several processes ----------------------------------------------------------------------------

ASKS = Program.from_yaml("""\
name: asks
steps:
  - id: each
    type: map
    over: [1, 2, 3, 4, 5, 6, 7, 8]
    as: n
    max_concurrency: 8
    steps: [{id: ask, type: llm, prompt: "$n", max_tokens: 5}]
""")


class Bare:
    """Sends a request and reads its answer: nothing is imported for it."""

    model = "m"

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
        self.port = int(port)

    async def complete(self, messages: Any, max_tokens: int | None = None) -> str:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        body = b'{"model": "m"}'
        writer.write(b"POST /v1 HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return answer.decode().partition(" ")[2][:3]


WORKS = """
    import sys
    from nano_vm import ExecutionVM, Member, Pool
    from nano_vm.adapters.pool.limits import SECOND, SHARED_SLACK_NS, Window
    from test_sharing import ASKS, Bare

    url, store, limit, at_once = sys.argv[1:]
    length = SECOND + SHARED_SLACK_NS
    member = Member(Bare(url), requests_per_minute=int(limit), concurrency=int(at_once))
    member.requests = Window(int(limit), length)
    member.shared = member.shared._replace(length_ns=length)
    vm = ExecutionVM(Pool([member]), store=store or None)
    trace = vm.run_sync(ASKS)
    vm.close()
    print(trace.status.value, trace.error)
"""


async def _calls(store: str, limit: int, at_once: int) -> Provider:
    """What a provider sees of three processes that make eight calls each."""
    provider = Provider("m", latency=constant(0.05))
    paths = [str(Path(__file__).parent), *(path for path in sys.path if path)]
    code = textwrap.dedent(WORKS)
    processes = []
    async with fleet(provider):
        with ExitStack() as ending:
            for _ in range(3):
                process = await asyncio.to_thread(
                    warm.Popen,
                    [sys.executable, "-c", code, provider.url, store, str(limit), str(at_once)],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    stdout=subprocess.PIPE,
                    text=True,
                )
                processes.append(ending.enter_context(process))
                ending.callback(process.kill)
            said = [await asyncio.to_thread(process.communicate) for process in processes]
    assert [out.strip() for out, _ in said] == ["success None"] * 3
    assert provider.calls == 24
    return provider


@pytest.mark.slow
def test_three_processes_keep_to_one_limit_over_a_file(tmp_path: Path) -> None:
    provider = asyncio.run(_calls(f"sqlite:///{tmp_path}/runs.db", 8, 3))
    assert provider.most_in(1.0) <= 8
    assert provider.most_under_way <= 3


@pytest.mark.slow
def test_three_processes_keep_to_one_limit_over_a_server(request: pytest.FixtureRequest) -> None:
    server: PostgresServer = request.getfixturevalue("postgres")
    provider = asyncio.run(_calls(server.database(), 8, 3))
    assert provider.most_in(1.0) <= 8
    assert provider.most_under_way <= 3


@pytest.mark.slow
def test_without_a_store_each_process_has_its_limits_for_itself() -> None:
    """So what the tests above see comes of the store."""
    provider = asyncio.run(_calls("", 8, 8))
    assert provider.most_in(1.0) > 8


@pytest.mark.slow
def test_where_one_process_cannot_be_started_the_others_are_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    popen, started = warm.Popen, []

    def start(*given: Any, **options: Any) -> Any:
        if len(started) == 2:
            raise OSError("no more processes")
        started.append(popen(*given, **options))
        return started[-1]

    monkeypatch.setattr(warm, "Popen", start)
    with pytest.raises(OSError, match="no more processes"):
        asyncio.run(_calls("", 8, 3))
    assert [process.returncode is None for process in started] == [False, False]


# --- a pool among others --------------------------------------------------------------------------


def one(name: str, **limits: Any) -> Member:
    return Member(ScriptedLLM(steps={"ask": [f"{name}"] * 99}), name=name, **limits)


ASK = Program.from_yaml("steps: [{id: ask, type: llm, prompt: Well?}]")


def answered(vm: ExecutionVM) -> str:
    trace = vm.run_sync(ASK)
    assert trace.ok, trace.error
    return str(trace.steps[0].extra["route"]["attempts"][-1]["member"])


@pytest.mark.slow
def test_another_member_answers_where_others_use_up_the_first(tmp_path: Path) -> None:
    """As if in two processes: each has a pool of its own, and knows nothing of the other's calls."""
    url = f"sqlite:///{tmp_path}/runs.db"
    first, second = (
        ExecutionVM(Pool([one("a", requests_per_minute=3), one("b")]), store=url) for _ in "12"
    )
    assert [answered(vm) for vm in (first, second, first)] == ["a", "a", "a"]
    assert [answered(vm) for vm in (first, second)] == ["b", "b"]
    for vm in (first, second):
        vm.close()


def test_tokens_are_settled_where_they_are_shared(tmp_path: Path) -> None:
    """What a call uses counts, and not what it might have: 200 tokens a minute are enough for more
    than one call that reserves some 1,100.
    """
    url = f"sqlite:///{tmp_path}/runs.db"
    vms = [
        ExecutionVM(Pool([one("a", tokens_per_minute=1_100), one("b")]), store=url) for _ in "12"
    ]
    assert [answered(vm) for vm in vms * 3] == ["a"] * 6
    for vm in vms:
        vm.close()


class Silent(SqlStore):
    def enter(self, *args: Any) -> Awaitable[Entered]:  # type: ignore[override]
        raise StoreError("the disk is full")


def test_a_store_that_does_not_answer_lets_nothing_through() -> None:
    scripted = ScriptedLLM(steps={"ask": "yes"})
    vm = ExecutionVM(Pool([Member(scripted, name="a", concurrency=1)]), store=Silent("sqlite://"))
    trace = vm.run_sync(ASK)
    assert trace.error_kind == "model"
    assert "the limits of member 'a' are in a store, and the disk is full" in (trace.error or "")
    assert scripted.calls == []


def test_hedged_calls_take_and_give_back_places(tmp_path: Path) -> None:
    """The loser of a hedge frees its place, too."""

    class Slow:
        model = "slow"

        async def complete(self, messages: Any) -> str:
            await asyncio.sleep(60)
            return "late"

    url = f"sqlite:///{tmp_path}/runs.db"
    members = [Member(Slow(), concurrency=1), one("b", concurrency=1)]
    vm = ExecutionVM(Pool(members, "hedge", hedge_after=0.01), store=url)
    assert [answered(vm) for _ in range(3)] == ["b"] * 3
    other = ExecutionVM(Pool([one("slow", concurrency=1)]), store=url)
    assert answered(other) == "slow"
    for each in (vm, other):
        each.close()
