"""Runs in flight go on under a newer interpreter: histories that were recorded replay, and an
interpreter that decides otherwise is caught.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from nano_vm.temporal import NanoProgram, data_converter, driver, workflow
from nano_vm.temporal.terms import INTERPRETER, Start
from temporal.recorded import FOLDER, PROGRAMS

HISTORIES = sorted(FOLDER.glob("*.json"))

TEXTS = {path: path.read_text() for path in HISTORIES}
OTHERWISE = r"[Nn]ondetermin"
BEGUN = next(path.stem for path, text in TEXTS.items() if '"m[0]/each!' in text)
"""The history of the first execution of a run with a map."""


async def replay(path: Path) -> None:
    history = WorkflowHistory.from_json(path.stem, TEXTS[path])
    replayer = Replayer(workflows=[NanoProgram], data_converter=data_converter())
    await replayer.replay_workflow(history)


@pytest.fixture(autouse=True)
def _as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "MAX_CALLS", 4)


def test_there_are_histories_and_one_continues_as_new() -> None:
    assert len(HISTORIES) >= 3
    assert any("EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW" in text for text in TEXTS.values())
    assert any("EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED" in text for text in TEXTS.values())
    assert any("EVENT_TYPE_TIMER_FIRED" in text for text in TEXTS.values())


def version_of(path: Path) -> int:
    """Which version of the interpreter began the run of a history."""
    first = WorkflowHistory.from_json(path.stem, TEXTS[path]).events[0]
    (start, *_) = first.workflow_execution_started_event_attributes.input.payloads
    return Start.of(json.loads(start.data)).interpreter


def test_there_are_histories_of_each_version_of_the_interpreter() -> None:
    """`python -m temporal.recorded` records those of a new one."""
    by_version: dict[int, set[str]] = {}
    for path in HISTORIES:
        by_version.setdefault(version_of(path), set()).add(path.stem.partition("-")[0])
    assert by_version == {version: set(PROGRAMS) for version in range(1, INTERPRETER + 1)}


@pytest.mark.slow
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    await replay(path)


@pytest.mark.usefixtures("other_interpreter")
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_an_interpreter_that_makes_another_call_is_caught(path: Path) -> None:
    with pytest.raises(Exception, match=OTHERWISE):
        await replay(path)


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("name", ["TELLS_WAITS", "ADMITS_HERE"])
async def test_an_interpreter_that_takes_a_run_for_one_of_another_version_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, version: int
) -> None:
    """What the first version began goes on as then: with an activity for its admission, and nothing
    said to the lists of its waits; and what the second began does not.
    """
    monkeypatch.setattr(workflow, name, version)
    path = FOLDER / f"listed-{1 if version == 1 else 2}.json"
    with pytest.raises(Exception, match=OTHERWISE):
        await replay(path)


async def test_an_interpreter_that_runs_a_map_wider_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver.ForkOp, "at_once", lambda self, count: count)
    (path,) = [path for path in HISTORIES if path.stem == BEGUN]
    with pytest.raises(Exception, match=OTHERWISE):
        await replay(path)
