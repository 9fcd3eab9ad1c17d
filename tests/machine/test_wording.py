"""No code reads the wording of a message: with every message of the machine changed, runs that were
recorded before replay, and are resumed, as if nothing was.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_corpus
from build import program, step
from test_fuzz import drawn_programs, ran
from test_recorded import chaotic
from wording import REMEDY, committed, current, reworded

import nano_vm.machine.machine as machine
import nano_vm.replay.rerun as rerun
from nano_vm import ExecutionVM, Program, Trace, TraceStatus, tool
from nano_vm.machine.faults import WORDING
from nano_vm.records.record import StepError
from nano_vm.replay import Replayer


class Reworded:
    """In place of `StepError`, where the machine makes one: what it says is said otherwise."""

    def __call__(self, kind: str, type: str, message: str, *more: Any, **named: Any) -> StepError:
        return StepError(kind, type, f"in other words: {message[::-1]}", *more, **named)

    def of(self, error: BaseException, kind: str = "value") -> StepError:
        made = StepError.of(error, kind)
        return replace(made, message=f"in other words: {made.message[::-1]}")


def reword(patch: pytest.MonkeyPatch, *, edition: bool = True) -> None:
    """Change every message that the machine makes; with *edition* replay is told so."""
    patch.setattr(machine, "StepError", Reworded())
    patch.setattr(machine, "CANCELLED", replace(machine.CANCELLED, message="stop"))
    patch.setattr(machine, "error_text", lambda step_id, error: f"{error} ({step_id})")
    patch.setattr(rerun, "CANCELLED_UNBEGUN", "never began")
    patch.setattr(rerun, "summary", lambda found: f"{len(found)} faults")
    for name in ("NOT_ASKED", "_NO_STEP"):
        patch.setattr(machine, name, getattr(machine, name)[::-1])
    patch.setattr(machine, "_LOST_CALLS", "{1}: no {0} left")
    if edition:
        patch.setattr(rerun, "WORDING", rerun.WORDING + 1)


def recorded() -> list[tuple[str, Trace, Replayer]]:
    """Runs of the corpus, drawn ones, and some of every outcome; as they are read back."""
    found = []
    for case in (c.values[0] for c in test_corpus.cases() if "load" not in c.values[0]):
        programs = {
            name: Program.from_dict(data)
            for name, data in case.get("vm", {}).get("programs", {}).items()
        }
        found.append(
            (
                str(case.get("says")),
                test_corpus.execute(case).trace,
                test_corpus.load(case),
                programs,
            )
        )
    for seed, data in enumerate(drawn_programs(20)):
        drawn = Program.from_dict(data)
        found.append((f"drawn {seed}", ran(drawn, seed, seed % 3), drawn, {}))
    for seed in range(240):
        made = chaotic(seed)
        if made is not None:
            found.append((f"chaotic {seed}", *made, {}))
    return [
        (name, Trace.from_json(trace.to_json()), Replayer(one, programs))
        for name, trace, one, programs in found
    ]


@pytest.mark.slow
def test_replay_reads_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = recorded()
    with monkeypatch.context() as patch:
        reword(patch, edition=False)
        differing = [name for name, trace, replayer in runs if not replayer.replay(trace)]
    assert len(differing) > 100  # the messages were changed indeed, and are compared
    reword(monkeypatch)
    for name, trace, replayer in runs:
        found = replayer.replay(trace)
        assert found.identical, (name, str(found))
        if found.trace is not None:
            assert [s.error for s in found.trace.steps] == [s.error for s in trace.steps], name


@pytest.mark.slow
def test_a_message_is_changed_only_with_the_edition() -> None:
    (edition, before), now = committed(), current()
    changed = reworded(before, now)
    assert edition >= WORDING or not changed, "write the messages of the new edition: make wording"
    assert not changed, "\n".join([*changed, REMEDY])
    assert (edition, before) == (WORDING, now), "cases are new or others: make wording"


def test_a_change_is_seen_where_the_case_is_the_same() -> None:
    before = {name: {"case": "1", "messages": ["a"]} for name in ("said", "other", "gone")}
    now = {
        "said": {"case": "1", "messages": ["b"]},
        "other": {"case": "2", "messages": ["b"]},
        "new": {"case": "1", "messages": ["a"]},
    }
    assert reworded(before, now) == ["said: ['a'] -> ['b']"]
    assert reworded(before, before) == []


def test_a_run_says_in_which_edition_it_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first, of which runs say nothing."""
    one = program({"id": "s", "type": "set", "values": {"a": 1}})
    assert ExecutionVM().run_sync(one).about["wording"] == WORDING
    monkeypatch.setattr("nano_vm.run.prepare.WORDING", 1)
    assert "wording" not in ExecutionVM().run_sync(one).about


async def test_a_stored_run_is_resumed_in_the_words_that_it_was_recorded_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a program reads the message of an error, and where a frame failed at its end."""
    told: list[Any] = []

    @tool(effect="write")
    def note(text: Any) -> str:
        told.append(text)
        return "noted"

    made = program(
        {
            "id": "bad",
            "type": "set",
            "values": {"x": {"expr": "1 / $zero"}},
            "catch": [{"errors": ["*"], "next": "each"}],
            "next": "$fail",
        },
        {
            "id": "each",
            "type": "map",
            "over": "$items",
            "as": "item",
            "on_item_error": "continue",
            "next": "first",
            "steps": [
                {
                    "id": "c",
                    "type": "condition",
                    "condition": "$item > 1",
                    "then": "$fail",
                    "otherwise": "$end",
                },
            ],
        },
        step("first", "note", next="ask", args={"text": "$bad.error.message / $each.errors"}),
        {"id": "ask", "type": "approval", "role": "boss", "then": "second", "otherwise": "$end"},
        step("second", "note", args={"text": "$bad.error.message / $each.errors"}),
    )
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    vm = ExecutionVM(tools={"note": note}, store=url)
    trace = await vm.run(made, {"zero": 0, "items": [1, 2]}, run_id="r")
    assert trace.status is TraceStatus.SUSPENDED, trace.steps
    vm.approve("r", "ask", by="ann", shown=vm.waiting("r")[0]["shown"])
    vm.close()
    reword(monkeypatch)
    other = ExecutionVM(tools={"note": note}, store=url)
    trace = await other.resume("r")
    other.close()
    assert trace.ok, trace.error
    assert len(told) == 2
    assert told[0] == told[1]
    assert "$fail" in told[0]
