"""Arguments of public functions that cannot be what they are given for: refused where they are
given, with their name, what was given and what to write, and never by a traceback of the inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from build import program, step

from nano_vm import (
    Budget,
    ExecutionVM,
    Limits,
    LocalAdapter,
    OpenAIAdapter,
    Planner,
    Policy,
    Program,
    Trace,
    VMError,
    tool,
)
from nano_vm.replay import fork, replay, subject_of
from nano_vm.replay import verify as verify_run
from nano_vm.testing import RecordedLLM, ScriptedLLM, explore
from nano_vm.verify import verify

ONE = program(step("a", "search", args={"x": "$x"}))


def search(x: Any) -> Any:
    return x


def vm(**given: Any) -> ExecutionVM:
    return ExecutionVM(tools={"search": search}, **given)


def ran() -> Trace:
    return vm().run_sync(ONE, {"x": 1})


class Odd:
    """A class in place of an object of it, and an object of no use."""


SCALARS = (5, 0, -1, True, float("nan"), b"x", Odd, Odd())
NO_NAMES = (*SCALARS, "x", "", [1], [], {1}, [("a", 1)])
NO_PROGRAMS = (*NO_NAMES, None, {"steps": []}, Program)
NO_PATHS = (5, True, b"x", None, [], {}, Odd, Odd())
NO_COUNTS = (0, -1, True, 1.0, "5", None, [], Odd)

GIVEN: dict[str, tuple[Callable[[Any], Any], tuple[Any, ...], str]] = {
    "tools of a VM": (lambda given: ExecutionVM(tools=given), NO_NAMES, "tools"),
    "functions of tools": (
        lambda given: ExecutionVM(tools={"a": given}),
        (5, None, "x", []),
        "'a'",
    ),
    "names of tools": (
        lambda given: ExecutionVM(tools={given: search}),
        (5, None, ("a",)),
        "tools",
    ),
    "programs": (lambda given: ExecutionVM(programs=given), NO_NAMES, "programs"),
    "a program": (
        lambda given: ExecutionVM(programs={"a": given}),
        NO_PROGRAMS,
        r"programs\['a'\].*Program.from_dict",
    ),
    "prices": (lambda given: ExecutionVM(prices=given), NO_NAMES, "prices"),
    "a store": (
        lambda given: ExecutionVM(store=given),
        (*SCALARS, [], {}, Path("runs.db")),
        "store.*sqlite:///",
    ),
    "roles": (lambda given: ExecutionVM(roles=given), ({"ann": ["boss"]}, 5, "x"), "roles"),
    "a clock": (lambda given: ExecutionVM(clock=given), (5, "x", Odd, Odd()), "clock"),
    "a system": (lambda given: ExecutionVM(system=given), (5, None, Odd()), "system"),
    "limits": (lambda given: ExecutionVM(limits=given), (5, 0, {}, {"steps": 5}, Limits), "limits"),
    "a limit": (lambda given: Limits(steps=given), NO_COUNTS, r"Limits\.steps"),
    "lease_seconds": (
        lambda given: ExecutionVM(lease_seconds=given),
        (0, -1, float("nan"), float("inf"), True, "30", None),
        "lease_seconds",
    ),
    "threads": (lambda given: ExecutionVM(threads=given), NO_COUNTS, "threads"),
    "trusted_keys": (
        lambda given: ExecutionVM(trusted_keys=given),
        (5, None, [5], {1}, b"x"),
        "trusted_keys",
    ),
    "a budget": (lambda given: ExecutionVM(budget=given), (5, "x", [1], Budget), "budget"),
    "a part of a budget": (
        lambda given: vm(budget={"max_steps": given}),
        (0, -1, 1.5, "5", True, []),
        r"budget\.max_steps: input should be .*, not ",
    ),
    "tools beside a VM's": (lambda given: vm().with_(tools=given), NO_NAMES, "tools"),
    "programs beside a VM's": (lambda given: vm().with_(programs=given), NO_NAMES, "programs"),
    "another store": (
        lambda given: vm().with_(store=given),
        (5, [], Odd()),
        "store.*sqlite:///",
    ),
    "the program of a run": (lambda given: vm().run_sync(given), NO_PROGRAMS, "Program.from_dict"),
    "the program of a check": (lambda given: vm().check(given), NO_PROGRAMS, "Program.from_dict"),
    "what is untrusted": (
        lambda given: vm().run_sync(ONE, {"x": 1}, untrusted=given),
        (0, 5, [5], Odd()),
        "untrusted",
    ),
    "labels": (lambda given: vm().run_sync(ONE, {"x": 1}, labels=given), NO_NAMES, "labels"),
    "the id of a run": (
        lambda given: vm().run_sync(ONE, {"x": 1}, run_id=given),
        (5, "", "a b", b"x", [], {}),
        "a run id",
    ),
    "a seed": (lambda given: vm().run_sync(ONE, {"x": 1}, seed=given), ("x", 1.0, True), "a seed"),
    "ids of many runs": (
        lambda given: many(run_id=given),
        ("x", 5, [], {}),
        r"run_id is a function.*lambda",
    ),
    "concurrency": (lambda given: many(concurrency=given), NO_COUNTS, "concurrency"),
    "the file of a program": (Program.from_file, NO_PATHS, "a program's file"),
    "the file of a policy": (Policy.from_file, NO_PATHS, "a policy's file"),
    "the text of a trace": (Trace.from_json, (5, None, [], {}, Odd), "a trace's text"),
    "a tool": (tool, (5, "x", [], Odd()), "a tool is a function"),
    "the name of a tool": (lambda given: tool(name=given), (5, "", [], Odd), "the name of a tool"),
    "inline": (lambda given: tool(inline=given), (1, "x", None), "inline"),
    "trusted arguments": (lambda given: tool(trusted=given), (5, None, [5], Odd()), "trusted"),
    "a run to replay": (replay, NO_PATHS, "a run is a Trace"),
    "what is verified": (verify_run, (5, None, {}, Odd()), "what is verified"),
    "the host of a fork": (
        lambda given: asyncio.run(fork(given, ran())),
        (5, None, {}, ExecutionVM),
        "the host of a fork",
    ),
    "a run to fork": (
        lambda given: asyncio.run(fork(vm(), given)),
        (5, None, [], {}, Trace),
        "a run is a Trace",
    ),
    "the edit of a fork": (
        lambda given: asyncio.run(fork(vm(), ran(), edit=given)),
        (5, "x", [1], {1: {}}),
        "edit",
    ),
    "programs of a replay": (lambda given: subject_of(ran(), ONE, given), NO_NAMES, "programs"),
    "the program of a proof": (verify, NO_PROGRAMS, "Program.from_dict"),
    "tools of a proof": (lambda given: verify(ONE, tools=given), NO_NAMES, "tools"),
    "prices of a proof": (lambda given: verify(ONE, prices=given), NO_NAMES, "prices"),
    "what is explored": (explore, NO_PROGRAMS, "Program.from_dict"),
    "tools of an exploration": (lambda given: explore(ONE, tools=given), NO_NAMES, "tools"),
    "properties": (lambda given: explore(ONE, properties=given), NO_NAMES, "properties"),
    "a property": (
        lambda given: explore(ONE, properties={"p": given}),
        (5, "x", None, [1]),
        "property 'p'",
    ),
    "inputs of an exploration": (lambda given: explore(ONE, inputs=given), NO_NAMES, "inputs"),
    "programs of a planner": (
        lambda given: Planner(ScriptedLLM(), programs=given),
        NO_NAMES,
        "programs",
    ),
    "answers of a script": (ScriptedLLM, (5, None, True, Odd()), "answers"),
    "answers by step": (lambda given: ScriptedLLM(steps=given), NO_NAMES, "steps"),
    "a recording": (RecordedLLM, NO_PATHS, "a recording"),
    "a model of OpenAI": (OpenAIAdapter, (5, None, "", b"x", [], Odd), "model is a string"),
    "a server of OpenAI": (
        lambda given: OpenAIAdapter("m", base_url=given),
        (5, "", b"x", [], {}),
        "base_url",
    ),
    "a provider": (lambda given: OpenAIAdapter("m", provider=given), (5, "", [], {}), "provider"),
    "a local model": (LocalAdapter, (5, True, b"x", [], Odd), "model is the path"),
    "parallel calls": (lambda given: LocalAdapter(n_parallel=given), NO_COUNTS, "n_parallel"),
}


def many(**options: Any) -> list[Any]:
    async def run() -> list[Any]:
        return [one async for one in vm().run_many(ONE, [{"x": 1}], **options)]

    return asyncio.run(run())


CASES = [
    pytest.param(call, given, words, id=f"{name}: {type(given).__name__} {given!r:.20}")
    for name, (call, unfit, words) in GIVEN.items()
    for given in unfit
]


@pytest.mark.parametrize(("call", "given", "words"), CASES)
def test_what_cannot_be_is_refused_where_it_is_given(
    call: Callable[[Any], Any], given: Any, words: str
) -> None:
    with pytest.raises(VMError, match=words) as caught:
        call(given)
    assert str(caught.value).count("\n") == 0
    assert " object has no attribute " not in str(caught.value)


@pytest.mark.parametrize("given", [5, "x", [], None, b"x", Odd])
def test_what_is_asked_of_stored_runs_is_named(given: Any, tmp_path: Path) -> None:
    host = vm(store=f"sqlite:///{tmp_path}/runs.db")
    try:
        with pytest.raises(VMError, match="a run id is a string" if given != "x" else "no run 'x'"):
            asyncio.run(host.resume(given))
        with pytest.raises(VMError, match="filter is a RunFilter"):
            host.runs(given)
        if given is not None:
            with pytest.raises(VMError, match=r"after is a string|not where a page"):
                host.runs(after=given)
    finally:
        host.close()


def test_nothing_in_place_of_a_dict_is_nothing() -> None:
    assert vm(programs=None, prices=None, limits=None, clock=None, roles=None).tools
    assert ScriptedLLM(steps=None).calls == []
