"""Runs in flight go on under a newer interpreter: histories that were recorded replay, and an
interpreter that decides otherwise is caught.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from nano_vm.machine.machine import Machine
from nano_vm.temporal import NanoProgram, data_converter, driver, workflow
from temporal.recorded import FOLDER

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


@pytest.mark.slow
@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    await replay(path)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_an_interpreter_that_makes_another_call_is_caught(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Machine.start

    def other(self: Machine, now: int) -> Any:
        op = start(self, now)
        self.path += "x"
        return op

    monkeypatch.setattr(Machine, "start", other)
    with pytest.raises(Exception, match=OTHERWISE):
        await replay(path)


async def test_an_interpreter_that_tells_the_lists_otherwise_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first version said nothing of waits: what it began must say nothing now."""
    monkeypatch.setattr(workflow, "TELLS_WAITS", 1)
    (path,) = [path for path in HISTORIES if path.stem == "listed-1"]
    with pytest.raises(Exception, match=OTHERWISE):
        await replay(path)


async def test_an_interpreter_that_runs_a_map_wider_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(driver.ForkOp, "at_once", lambda self, count: count)
    (path,) = [path for path in HISTORIES if path.stem == BEGUN]
    with pytest.raises(Exception, match=OTHERWISE):
        await replay(path)
