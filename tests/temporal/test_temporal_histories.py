"""Histories that were downloaded, or are on a cluster, replayed: what is cut short, of another workflow
or decided otherwise is one clear error.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from build import program, step

from nano_vm import ExecutionVM, tool
from nano_vm.cli import main
from nano_vm.errors import UnknownRun, VMError
from nano_vm.machine.machine import Machine
from nano_vm.temporal import Encryption, TemporalRuns, connect, data_converter, worker, workflow
from nano_vm.temporal.histories import Replayed, histories_of, history_of, replayed
from temporal.cluster import Server
from temporal.recorded import FOLDER

TEXT = (FOLDER / "listed-2.json").read_text()
EVENTS: list[dict[str, Any]] = json.loads(TEXT)["events"]


@pytest.fixture(autouse=True)
def _as_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "MAX_CALLS", 4)


async def of(events: list[dict[str, Any]]) -> Replayed:
    return await replayed(history_of(json.dumps({"events": events}), "file"), data_converter())


async def test_a_history_gives_the_trace_that_it_ended_with() -> None:
    found = await of(EVENTS)
    assert (found.run_id, found.events, found.end) == ("listed", len(EVENTS), "completed")
    assert found.trace is not None
    assert (found.trace.run_id, found.trace.status.value) == ("listed", "success")


@pytest.mark.parametrize("count", [1, 3, 5, len(EVENTS) // 2, len(EVENTS) - 1])
async def test_a_history_without_its_end_is_replayed_as_far_as_it_goes(count: int) -> None:
    assert await of(EVENTS[:count]) == Replayed("listed", count, None)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        (EVENTS[1:], "it does not begin where a run begins"),
        ([], "it does not begin where a run begins"),
        (EVENTS[:9] + EVENTS[10:], "event 11 comes where event 10 is missing"),
        (EVENTS[:9] + EVENTS[8:], "event 9 comes where event 10 is missing"),
    ],
    ids=["its beginning", "all of it", "from its middle", "and has some twice"],
)
async def test_a_history_that_was_cut_short_says_where(
    events: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(VMError, match=f"the history is cut short: {says}"):
        await of(events)


@pytest.mark.parametrize("text", ["", TEXT[: len(TEXT) // 2], "[]", "null", "{}", '{"events": 3}'])
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(VMError, match="file is no history of a workflow: "):
        history_of(text, "file")


async def test_a_history_of_another_workflow_is_refused() -> None:
    theirs = json.loads(TEXT.replace('"NanoProgram"', '"Other"'))["events"]
    with pytest.raises(VMError, match="of a workflow 'Other', and not of a program"):
        await of(theirs)


@pytest.mark.usefixtures("other_interpreter")
async def test_an_interpreter_that_decides_otherwise_is_caught() -> None:
    with pytest.raises(VMError, match=r"listed: this interpreter decides otherwise: .*ondetermin"):
        await of(EVENTS)


async def test_a_run_whose_tasks_take_long_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a worker, whose tasks may take a minute: the SDK takes two seconds for a deadlock."""
    start = Machine.start
    naps = [2.5]

    def slow(self: Machine, now: int) -> Any:
        time.sleep(naps.pop() if naps else 0)
        return start(self, now)

    monkeypatch.setattr(Machine, "start", slow)
    found = await of(EVENTS)
    assert (found.end, naps) == ("completed", [])
    assert found.trace is not None


async def test_a_trace_that_is_not_the_recorded_one_is_caught() -> None:
    """The server holds commands against a history, and not what a run gives."""
    wrong = json.loads(TEXT)["events"]
    last = wrong[-1]["workflowExecutionCompletedEventAttributes"]["result"]["payloads"][0]
    last["data"] = last["data"][:40] + last["data"][:40]
    with pytest.raises(VMError, match="the trace of listed cannot be decoded here"):
        await of(wrong)
    other = json.loads((FOLDER / "approval-2.json").read_text())["events"][-1]
    wrong[-1] = {**other, "eventId": EVENTS[-1]["eventId"]}
    with pytest.raises(VMError, match="the trace of this interpreter is not the recorded one"):
        await of(wrong)


@tool(effect="read")
async def look(x: int) -> int:
    return x


async def test_each_execution_of_a_run_on_a_cluster_is_replayed(
    temporal_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    client = await connect(temporal_server.address, encryption=Encryption({"k": bytes(32)}))
    made = program(*(step(f"s{n}", tool="look", args={"x": n}) for n in range(6)))
    async with worker(client, ExecutionVM(None, {"look": look}), "histories"):
        runs = TemporalRuns(client, "histories")
        trace = await runs.run(made, run_id="replayed")
        ends = [
            await replayed(history, client.data_converter)
            for history in await histories_of(client, "replayed")
        ]
    assert [one.end for one in ends] == ["continued as new", "completed"]
    assert ends[1].trace is not None
    assert ends[1].trace.digest == trace.digest
    with pytest.raises(UnknownRun, match="no run 'nobody' on this cluster"):
        await histories_of(client, "nobody")


def test_the_command_replays_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(FOLDER / "listed-2.json")
    assert main(["replay", path, "--engine", "temporal"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"listed: {len(EVENTS)} events; each command is as recorded; so is the")
    assert main(["replay", path, "--engine", "temporal", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["end"], told["status"]) == ("completed", "success")
    assert told["digest"] in out


def test_the_command_says_what_is_wrong_in_a_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    file = tmp_path / "cut.json"
    file.write_text(json.dumps({"events": EVENTS[1:]}))
    for more, code, says in (
        ([], 1, "is cut short: it does not begin where a run begins"),
        (["--program", "x.yaml"], 2, "a history has its program"),
        (["--store", "sqlite:///x.db"], 2, "--store does not go with --engine temporal"),
    ):
        assert main(["replay", str(file), "--engine", "temporal", *more]) == code
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
