"""What a caller says of a run: project, submitter and labels, from every door into the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program, Trace, VMError, tool
from nano_vm.replay import fork, subject_of, verify
from nano_vm.store.protocol import RunFilter
from nano_vm.store.records import Unfit
from nano_vm.testing import ScriptedLLM

PROGRAM = Program.from_dict(
    {
        "name": "ask",
        "steps": [
            {"id": "who", "type": "llm", "prompt": "hi $x", "next": "ok"},
            {"id": "ok", "type": "approval", "role": "boss", "show": {"x": "$x"}},
            {"id": "look", "type": "tool", "tool": "look", "args": {"x": "$who.output"}},
        ],
    }
)
SAID: dict[str, Any] = {
    "project": "eu/billing",
    "submitter": "ann@example.org",
    "labels": {"team": "billing", "customer": "77"},
}


@tool(effect="read")
def look(x: str) -> str:
    return x


@pytest.fixture
def vm(tmp_path: Path) -> Any:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    llm = ScriptedLLM(["a"] * 20)
    made = ExecutionVM(llm, {"look": look}, store=url, prices={"scripted": ("1", "2")})
    yield made
    made.close()


def about(vm: ExecutionVM, run_id: str) -> tuple[str, str | None, dict[str, str]]:
    assert vm.store is not None
    run = vm.store.load(run_id)
    return run.project, run.submitter, run.labels


EXPECTED = ("eu/billing", "ann@example.org", {"team": "billing", "customer": "77"})


def test_every_door_takes_what_is_said_of_a_run(vm: ExecutionVM) -> None:
    async def through_all() -> list[str]:
        first = await vm.run(PROGRAM, {"x": 1}, run_id="run", **SAID)
        second = await vm.start(PROGRAM, {"x": 1}, run_id="start", **SAID)
        async for _ in vm.stream(PROGRAM, {"x": 1}, run_id="stream", **SAID):
            pass
        third = await vm.submit(PROGRAM, {"x": 1}, run_id="submit", **SAID)
        many = [r async for r in vm.run_many(PROGRAM, [{"x": 1}], run_id=lambda n: f"n{n}", **SAID)]
        return [first.run_id, second.run_id, "stream", third, many[0].trace.run_id]

    ids = asyncio.run(through_all())
    assert [about(vm, run_id) for run_id in ids] == [EXPECTED] * 5
    assert vm.store is not None
    wanted = RunFilter(project="eu/billing", labels={"customer": "77"}, submitter="ann@example.org")
    assert {run.run_id for run in vm.store.runs(wanted)} == set(ids)
    vm.run_sync(PROGRAM, {"x": 1}, run_id="plain")
    assert about(vm, "plain") == ("default", None, {})


def test_the_trace_says_it_live_and_from_the_store_alike(vm: ExecutionVM) -> None:
    live = vm.run_sync(PROGRAM, {"x": 1}, run_id="r", **SAID)
    assert {name: live.about[name] for name in SAID} == SAID
    stored = vm.load("r")
    assert list(stored.about.items()) == list(live.about.items())
    (request,) = vm.waiting("r")
    vm.approve("r", "ok", shown=request["shown"], by="bob")
    resumed = asyncio.run(vm.resume("r"))
    assert resumed.about == live.about
    assert vm.load("r").seal == resumed.seal
    assert Trace.from_json(resumed.to_json()).about == live.about
    assert vm.store is not None
    assert verify(subject_of(vm.store.load("r")))
    unsaid = vm.run_sync(PROGRAM, {"x": 1}, run_id="plain")
    assert not set(SAID) & set(unsaid.about)
    assert unsaid.digest == live.digest  # they are no part of what happened


def test_without_a_store_it_is_in_the_trace() -> None:
    program = Program.from_dict(
        {"name": "p", "steps": [{"id": "s", "type": "set", "values": {"a": 1}}]}
    )
    trace = ExecutionVM().run_sync(program, **SAID)
    assert {name: trace.about[name] for name in SAID} == SAID


def test_runs_that_differ_in_labels_only_have_the_rest_once(vm: ExecutionVM) -> None:
    for n in range(3):
        vm.run_sync(PROGRAM, {"x": 1}, run_id=f"r{n}", labels={"customer": str(n)})
    store: Any = vm.store
    with store.database.reading() as connection:
        assert connection.one("SELECT count(DISTINCT about) FROM nano_runs") == (1,)


def test_a_fork_belongs_where_its_run_does(vm: ExecutionVM) -> None:
    vm.run_sync(PROGRAM, {"x": 1}, run_id="r", **SAID)
    live = asyncio.run(fork(vm, "r", run_id="f"))
    assert about(vm, "f") == (EXPECTED[0], None, EXPECTED[2])
    assert vm.store is not None
    assert list(vm.load("f").about.items()) == list(live.about.items())
    assert [run.run_id for run in vm.store.runs(RunFilter(parent="r"))] == ["f"]
    assert verify(subject_of(vm.store.load("f")))


def test_a_fork_costs_only_what_it_asked_itself(vm: ExecutionVM) -> None:
    vm.run_sync(PROGRAM, {"x": 1}, run_id="r")
    assert vm.store is not None
    (before,) = vm.store.costs(("model",))
    asyncio.run(fork(vm, "r", run_id="same"))
    assert vm.store.costs(("model",)) == [before]
    assert vm.load("same").usage() == vm.load("r").usage()  # which says what the record says
    asyncio.run(fork(vm, "r", edit={"inputs": {"x": 2}}, run_id="other"))
    (after,) = vm.store.costs(("model",))
    assert (after.calls, after.cost_usd) == (2, 2 * before.cost_usd)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"labels": {"a b": "x"}}, "the name of a label is 1 to 63 letters"),
        ({"labels": {"": "x"}}, "the name of a label is 1 to 63 letters"),
        ({"labels": {"a" * 64: "x"}}, "the name of a label is 1 to 63 letters"),
        ({"labels": {"a": ""}}, "label 'a' is a string of 1 to 200 printable characters, not ''"),
        ({"labels": {"a": 5}}, "label 'a' is a string of 1 to 200 printable characters, not 5"),
        ({"labels": {"a": "x\ny"}}, "label 'a' is a string of 1 to 200 printable characters"),
        ({"labels": {"a": "x" * 201}}, "label 'a' is a string of 1 to 200 printable characters"),
        ({"labels": {f"n{n}": "x" for n in range(33)}}, "a run has at most 32 labels, not 33"),
        ({"labels": ["a"]}, "labels are an object of names and strings, not ['a']"),
        ({"project": "a b"}, "a project is 1 to 63 letters"),
        ({"project": ""}, "a project is 1 to 63 letters"),
        ({"submitter": "a\u202eb"}, "a submitter is a string of 1 to 200 printable characters"),
        ({"submitter": 7}, "a submitter is a string of 1 to 200 printable characters, not 7"),
    ],
)
def test_what_no_run_can_be_called(vm: ExecutionVM, said: dict[str, Any], told: str) -> None:
    with pytest.raises(Unfit) as caught:
        vm.run_sync(PROGRAM, {"x": 1}, **said)
    assert told in str(caught.value)
    assert isinstance(caught.value, VMError)
    assert vm.store is not None
    assert list(vm.store.runs()) == []


def test_an_option_that_is_none_is_told_with_what_is_meant(vm: ExecutionVM) -> None:
    with pytest.raises(TypeError, match="a run has no option 'label'; did you mean 'labels'"):
        vm.run_sync(PROGRAM, {"x": 1}, label={"a": "b"})  # type: ignore[call-arg]


# --- what a model call consumed -------------------------------------------------------------------


def judged(*answers: str, **step: Any) -> tuple[Program, ScriptedLLM]:
    asked = {"id": "judge", "type": "llm", "prompt": "ok?", "allowed_outputs": ["yes"], **step}
    return Program.from_dict({"name": "judge", "steps": [asked]}), ScriptedLLM(list(answers))


def test_attempts_that_failed_are_in_the_sums(tmp_path: Path) -> None:
    program, llm = judged("no", "no", "yes", on_invalid="retry", max_retries=2)
    vm = ExecutionVM(llm, store=f"sqlite:///{tmp_path}/r.db", prices={"scripted": ("1", "2")})
    trace = vm.run_sync(program)
    assert trace.ok
    assert trace.steps[0].attempts
    assert vm.store is not None
    (cost,) = vm.store.costs(("model", "step"))
    usage = trace.usage()
    assert (cost.of, cost.calls) == ({"model": "scripted", "step": "judge"}, 1)
    assert (cost.total_tokens, cost.cost_usd) == (usage.total_tokens, usage.cost_usd)
    assert cost.prompt_tokens == usage.prompt_tokens > 0
    vm.close()


def test_a_call_whose_cost_nobody_knows_is_counted(tmp_path: Path) -> None:
    class Broken:
        """A model that fails, and does not say what that has cost."""

        model = "broken"

        async def complete(self, messages: Any, **options: Any) -> str:
            raise ConnectionError("gone")

    program, _ = judged()
    vm = ExecutionVM(Broken(), store=f"sqlite:///{tmp_path}/r.db")
    trace = vm.run_sync(program)
    assert trace.total_cost_usd() is None
    assert vm.store is not None
    (cost,) = vm.store.costs(("model",))
    assert (cost.of["model"], cost.calls, cost.unpriced, cost.cost_usd) == ("broken", 1, 1, 0)
    vm.close()


def test_a_call_that_was_not_made_is_none(tmp_path: Path) -> None:
    program, llm = judged("yes")
    vm = ExecutionVM(llm, store=f"sqlite:///{tmp_path}/r.db")
    trace = vm.run_sync(program, budget={"max_tokens": 1})
    assert trace.error_kind == "budget"
    assert vm.store is not None
    assert vm.store.costs() == []
    assert vm.load(trace.run_id).usage() == trace.usage()
    vm.close()
