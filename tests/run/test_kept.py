"""Steps with `cache`: an answer that is known is not asked for again, is recorded as such, and is
never that of another question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from nano_vm import Completion, ExecutionVM, LLMUsage, ModelError, Pool, Program, Trace, tool
from nano_vm.cli import main
from nano_vm.errors import StoreError
from nano_vm.replay import replay
from nano_vm.store.kept import KeptAnswer, KeptHere
from nano_vm.store.sql.store import SqlStore
from nano_vm.testing import ScriptedLLM


class Clock:
    """Stands still until a test sets it."""

    now = 10**18

    def time_ns(self) -> int:
        return self.now

    monotonic_ns = time_ns
    sleep = staticmethod(asyncio.sleep)


STORES = pytest.mark.parametrize("store", [None, "sqlite://"], ids=["process", "store"])


class Model:
    def __init__(self, *answers: Any, model: str = "m") -> None:
        self.model, self.answers = model, list(answers)
        self.asked: list[str] = []

    async def complete(self, messages: Any, **options: Any) -> Completion:
        self.asked.append(messages[-1]["content"])
        answer = self.answers.pop(0) if self.answers else "yes"
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Completion):
            return answer
        return Completion(answer, LLMUsage(3, 2, 5), model="m-2026", finish_reason="stop")


def asks(**fields: Any) -> Program:
    step = {"id": "ask", "type": "llm", "prompt": "$q", "cache": True, **fields}
    return Program.from_dict({"name": "asks", "steps": [step]})


def hit(trace: Trace) -> bool:
    assert trace.ok, trace.error
    return trace.steps[-1].extra.get("cached") is True


# --- models ---


@STORES
def test_an_equal_call_is_answered_as_before_and_consumes_nothing(store: str | None) -> None:
    model = Model("one", "two")
    vm = ExecutionVM(model, store=store, prices={"m": (1, 2)})
    program = asks()
    first, second, other = (vm.run_sync(program, {"q": q}) for q in ("a", "a", "b"))
    assert [hit(t) for t in (first, second, other)] == [False, True, False]
    assert [t.output for t in (first, second, other)] == ["one", "one", "two"]
    assert model.asked == ["a", "b"]
    step = second.steps[0]
    assert step.usage == LLMUsage(0, 0, 0, 0)
    assert step.extra["model"] == "m-2026"
    assert (first.total_tokens(), second.total_tokens()) == (5, 0)
    assert second.total_cost_usd() == 0


@STORES
def test_what_shapes_an_answer_tells_calls_apart(store: str | None) -> None:
    model = Model(*"123456")
    vm = ExecutionVM(model, store=store)
    for fields in (
        {},
        {"temperature": 0.5},
        {"system": "Be brief."},
        {"max_tokens": 7},
        {"allowed_outputs": ["5", "6"]},
        {"output_schema": {"type": "integer"}},
    ):
        assert not hit(vm.run_sync(asks(**fields), {"q": "a"})), fields
        assert hit(vm.run_sync(asks(**fields, description="the same"), {"q": "a"})), fields
    assert not hit(vm.run_sync(asks(), {"q": "a"}, project="another"))


def test_another_model_is_another_question(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    for llm in (Model(), Model(model="n"), Pool([Model(), Model(model="n")]), {"a": Model()}):
        with_it = ExecutionVM(llm, store=url)
        assert not hit(with_it.run_sync(asks(), {"q": "a"})) or isinstance(llm, dict)
        with_it.close()
    again = ExecutionVM(Model(), store=url)
    assert hit(again.run_sync(asks(), {"q": "a"})), "over processes, through the store"
    again.close()


@STORES
def test_a_lifetime_ends(store: str | None) -> None:
    clock = Clock()
    vm = ExecutionVM(Model(), store=store, clock=clock)

    def run(seconds: Any) -> bool:
        return hit(vm.run_sync(asks(cache=seconds), {"q": "a"}))

    assert [run(60), run(60)] == [False, True]
    clock.now += 61 * 10**9
    assert run(True), "of any age"
    assert [run(60), run(60)] == [False, True]


@STORES
def test_only_what_the_step_takes_is_kept(store: str | None) -> None:
    cut = Completion("hal", LLMUsage(1, 1, 2), finish_reason="length")
    model = Model(cut, ModelError("down", status=400, retryable=False), "perhaps", "yes", "no")
    vm = ExecutionVM(model, store=store)
    program = asks(allowed_outputs=["yes", "no"], max_retries=2)
    assert [vm.run_sync(program, {"q": "a"}).ok for _ in range(3)] == [False, False, True]
    assert model.asked[:3] == ["a", "a", "a"]
    trace = vm.run_sync(program, {"q": "a"})
    assert trace.output == "no", "an invalid answer was not kept, so the question is asked again"


@STORES
def test_equal_calls_at_the_same_time_are_one(store: str | None) -> None:
    program = Program.from_dict(
        {
            "steps": [
                {
                    "id": "each",
                    "type": "map",
                    "over": [1, 1, 2, 1, 2],
                    "as": "n",
                    "steps": [{"id": "ask", "type": "llm", "prompt": "$n", "cache": True}],
                }
            ]
        }
    )
    model = Model()
    vm = ExecutionVM(model, store=store)

    async def both() -> list[Trace]:
        return list(await asyncio.gather(*(vm.run(program) for _ in range(3))))

    traces = asyncio.run(both())
    assert all(trace.ok for trace in traces)
    assert sorted(model.asked) == ["1", "2"]


@STORES
def test_who_waits_for_a_call_that_fails_makes_its_own(store: str | None) -> None:
    model = Model(ModelError("down", status=400, retryable=False), "yes")
    vm = ExecutionVM(model, store=store)

    async def both() -> list[bool]:
        return [t.ok for t in await asyncio.gather(*(vm.run(asks(), {"q": "a"}) for _ in "12"))]

    assert sorted(asyncio.run(both())) == [False, True]
    assert model.asked == ["a", "a"]


def test_who_is_cancelled_while_it_waits_made_no_call() -> None:
    class Slow(Model):
        async def complete(self, messages: Any, **options: Any) -> Completion:
            await asyncio.sleep(0.05)
            return await super().complete(messages)

    async def cancelled() -> tuple[str, bool]:
        vm = ExecutionVM(model)
        first = vm.start(asks(), {"q": "a"})
        second = vm.start(asks(), {"q": "a"})
        await asyncio.sleep(0.01)
        trace = await second.cancel()
        return trace.status.value, (await first.result()).ok

    model = Slow()
    assert asyncio.run(cancelled()) == ("cancelled", True)
    assert model.asked == ["a"]


@STORES
def test_a_hit_reserves_in_no_shared_budget(store: str | None) -> None:
    vm = ExecutionVM(Model(), store=store, budgets={"all": {"max_llm_calls": 1}})
    assert [hit(vm.run_sync(asks(), {"q": "a"})) for _ in range(3)] == [False, True, True]
    assert not vm.run_sync(asks(), {"q": "b"}).ok


@STORES
def test_a_budget_of_the_run_counts_a_hit_as_a_call_without_tokens(store: str | None) -> None:
    vm = ExecutionVM(Model(), store=store)
    program = Program.from_dict({**asks().to_dict(), "budget": {"max_tokens": 10_000}})
    assert [hit(vm.run_sync(program, {"q": "a"})) for _ in range(2)] == [False, True]
    none = Program.from_dict({**asks().to_dict(), "budget": {"max_llm_calls": 0}})
    assert vm.run_sync(none, {"q": "a"}).error_kind == "budget"


# --- tools ---


def lookup(**fields: Any) -> Program:
    step = {"id": "look", "type": "tool", "tool": "look", "args": {"q": "$q"}, "cache": True}
    return Program.from_dict({"name": "looks", "steps": [{**step, **fields}]})


@STORES
@pytest.mark.parametrize("kind", ["async", "inline", "thread"])
def test_what_a_tool_read_is_read_once(store: str | None, kind: str) -> None:
    calls: list[str] = []

    def read(q: str) -> dict[str, Any]:
        calls.append(q)
        return {"n": len(calls), "q": q}

    async def awaited(q: str) -> dict[str, Any]:
        return read(q)

    function = awaited if kind == "async" else read
    look = tool(effect="read", inline=kind == "inline", name="look")(function)
    vm = ExecutionVM(tools={"look": look}, store=store)
    traces = [vm.run_sync(lookup(), {"q": q}) for q in "aba"]
    assert [hit(trace) for trace in traces] == [False, False, True]
    assert traces[2].output == {"n": 1, "q": "a"}
    assert calls == ["a", "b"]
    for trace in traces:
        assert replay(trace, lookup()).identical


def test_a_tool_with_another_contract_is_another_question(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"

    @tool(effect="read", name="look")
    def old(q: str) -> str:
        return "old"

    @tool(effect="read", name="look")
    def new(q: str, deep: bool = False) -> str:
        return "new"

    found = []
    for function in (old, new, old):
        vm = ExecutionVM(tools={"look": function}, store=url)
        found.append(vm.run_sync(lookup(), {"q": "a"}).output)
        vm.close()
    assert found == ["old", "new", "old"]


@STORES
def test_a_value_that_no_step_can_take_is_not_kept(store: str | None) -> None:
    values: list[Any] = [object(), "good"]

    @tool(effect="read")
    def look(q: str) -> Any:
        return values.pop(0)

    vm = ExecutionVM(tools={"look": look}, store=store)
    assert [vm.run_sync(lookup(), {"q": "a"}).ok for _ in range(3)] == [False, True, True]
    assert values == []


# --- records ---


@STORES
def test_a_hit_is_replayed_as_one(store: str | None) -> None:
    vm = ExecutionVM(Model(), store=store)
    traces = [vm.run_sync(asks(), {"q": "a"}, run_id=run_id) for run_id in ("r1", "r2")]
    for trace, cached in zip(traces, (False, True), strict=True):
        assert hit(trace) is cached
        assert replay(trace, asks()).identical
        if store is not None:
            loaded = vm.load(trace.run_id)
            assert hit(loaded) is cached
            assert loaded.digest == trace.digest
    assert hit(Trace.from_json(traces[1].to_json()))


def test_a_run_that_goes_on_keeps_its_hits(tmp_path: Path) -> None:
    step = {"id": "go", "type": "wait", "event": "go"}
    look = lookup().to_dict()["steps"]
    program = Program.from_dict({"steps": [*look, step, *[{**look[0], "id": "again"}]]})
    calls = []

    @tool(effect="read", name="look")
    def read(q: str) -> int:
        calls.append(q)
        return len(calls)

    vm = ExecutionVM(tools={"look": read}, store=f"sqlite:///{tmp_path}/runs.db")
    assert vm.run_sync(program, {"q": "a"}, run_id="r").status == "suspended"
    vm.send_event("r", "go")
    trace = asyncio.run(vm.resume("r"))
    assert trace.ok
    assert [step.extra.get("cached") for step in trace.steps] == [None, None, True]
    assert calls == ["a"]
    vm.close()


def test_erasing_or_deleting_a_run_drops_what_it_was_given(tmp_path: Path) -> None:
    vm = ExecutionVM(Model(), store=f"sqlite:///{tmp_path}/runs.db")
    store: Any = vm.require_store()
    for drop in (lambda: store.erase("r1"), lambda: store.prune(2**62)):
        assert not hit(vm.run_sync(asks(), {"q": "a"}, run_id="r1"))
        assert hit(vm.run_sync(asks(), {"q": "a"}))
        drop()
        if drop is not None and store.has("r1"):
            store.prune(2**62)
    with store.database.reading() as connection:
        assert connection.one("SELECT count(*) FROM nano_kept") == (0,)
    vm.close()


class Broken(SqlStore):
    def kept(self, key: str, since_ns: int) -> Awaitable[str | None]:  # type: ignore[override]
        raise StoreError("the disk is gone")

    def keep(self, answer: KeptAnswer) -> Awaitable[None]:  # type: ignore[override]
        raise StoreError("the disk is gone")


def test_what_cannot_be_read_or_kept_costs_calls_and_no_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Model()
    vm = ExecutionVM(model, store=Broken("sqlite://"))
    assert [hit(vm.run_sync(asks(), {"q": "a"})) for _ in range(2)] == [False, False]
    assert model.asked == ["a", "a"]
    assert "kept answers cannot be read: the disk is gone" in caplog.text
    assert "an answer cannot be kept: the disk is gone" in caplog.text


def test_a_process_forgets_what_was_not_asked_for_longest() -> None:
    kept = KeptHere(most=2)
    for key in ("a", "b"):
        kept.keep(KeptAnswer(key, "r", key, 5, 9))
    assert kept.find("a", 5) == "a"
    kept.keep(KeptAnswer("c", "r", "c", 5, 9))
    assert [kept.find(key, 5) for key in "abc"] == ["a", None, "c"]
    assert kept.find("a", 6) is None


@pytest.mark.slow
def test_fmt_and_the_schema_know_the_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("steps: [{cache: 90, type: llm, id: ask, prompt: q}]")
    assert main(["fmt", str(path)]) == 0
    assert "cache: 90" in capsys.readouterr().out
    schema = Program.json_schema()
    fields = [
        d["properties"] for d in schema["$defs"].values() if "cache" in d.get("properties", {})
    ]
    described = [each["cache"] for each in fields if "description" in each["cache"]]
    assert any("equal call" in each["description"] for each in described)


def test_scripts_answer_kept_steps_too() -> None:
    scripted = ScriptedLLM(steps={"ask": ["yes"]})
    vm = ExecutionVM(scripted)
    assert [hit(vm.run_sync(asks(), {"q": "a"})) for _ in range(3)] == [False, True, True]
