"""Durable runs from the command line: what is listed and shown, what is recorded, what goes on, and
what is refused with one line.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import warm
from patience import HANGS_SECONDS
from postgres import PostgresServer

from nano_vm import Trace
from nano_vm.cli import main, times
from nano_vm.cli.places import StorePlace
from nano_vm.cli.times import age_seconds, time_ns
from nano_vm.run.durable import interruption
from nano_vm.run.host import SystemClock
from nano_vm.run.inbox import account
from nano_vm.store.protocol import open_store
from nano_vm.store.records import StoredRun

SOURCE = Path(__file__).parents[2] / "src"
STORE = "sqlite:///runs.db"

REFUND = """\
name: refund
steps:
  - {id: look, type: tool, tool: look, args: {order: $order}}
  - {id: ask, type: approval, role: manager, show: {order: $order, amount: $amount}, then: pay, otherwise: refuse}
  - {id: pay, type: tool, tool: pay, args: {order: $order}}
  - {id: refuse, type: set, values: {refused: true}}
"""

PARCEL = """\
name: parcel
steps:
  - {id: paid, type: wait, event: paid, output_schema: {type: object, required: [amount]}}
  - {id: ship, type: tool, tool: pay, args: {order: $paid.output.amount}}
"""

TIMER = """\
name: timer
steps:
  - {id: rest, type: wait, seconds: SECONDS}
"""

BOOKING = """\
name: booking
steps:
  - {id: book, type: tool, tool: pay, args: {order: 1}, undo: {tool: unpay, args: {}}}
  - {id: go, type: wait, event: go}
"""

TOOLS = """\
import os, pathlib, signal, time
from nano_vm import tool

@tool(effect="read")
def look(order):
    return {"order": order}

@tool(effect="write")
def pay(order):
    with open("paid", "a") as file:
        file.write(f"{order}\\n")
    return f"paid {order}"

@tool(effect="write")
def unpay():
    with open("paid", "a") as file:
        file.write("back\\n")

@tool(effect="write")
def deadly(order):
    pay(order)
    os.kill(os.getpid(), signal.SIGKILL)

@tool(effect="write")
async def slow(order):
    import asyncio
    pathlib.Path("began").write_text("")
    await asyncio.sleep(60)

tools = {"look": look, "pay": pay, "unpay": unpay}
killing = {"look": look, "pay": deadly}
slowly = {"look": look, "pay": slow, "unpay": unpay}
"""

HOST = ["--tools", "tools.py:tools"]


def set_ahead(monkeypatch: pytest.MonkeyPatch, *, minutes: int) -> None:
    """Set the clock of this process ahead."""
    now = SystemClock.time_ns
    monkeypatch.setattr(SystemClock, "time_ns", staticmethod(lambda: now() + minutes * 60 * 10**9))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in (("refund", REFUND), ("parcel", PARCEL), ("booking", BOOKING)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "timer.yaml").write_text(TIMER.replace("SECONDS", "60"))
    (tmp_path / "tools.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANO_VM_STORE", STORE)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("tools_file_tools", None)


class Shell:
    """Commands in this process: exit code, and lines of stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out: list[str] = []
        self.err: list[str] = []

    def __call__(self, *args: str) -> int:
        code = main(list(args))
        told = self.capsys.readouterr()
        self.out, self.err = told.out.splitlines(), told.err.splitlines()
        return code

    def json(self, *args: str) -> Any:
        code = main([*args, "--json"])
        told = self.capsys.readouterr()
        assert code == 0, told.err
        return json.loads(told.out)

    def refused(self, *args: str, code: int = 1) -> str:
        """The one line that says what is wrong."""
        assert self(*args) == code
        assert len(self.err) == 1, self.err
        assert not self.out
        return self.err[0]


@pytest.fixture
def sh(folder: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.fixture
def refund(sh: Shell) -> str:
    """A run that waits for a manager."""
    assert (
        sh(
            "run",
            "refund.yaml",
            *HOST,
            "-i",
            "order=A7",
            "-i",
            "amount:=30",
            "--run-id",
            "refund-1",
        )
        == 3
    )
    return "refund-1"


@pytest.fixture
def shown(sh: Shell, refund: str) -> str:
    """The digest of what it asks."""
    return str(sh.json("show", refund)["waiting"][0]["shown"])


def paid() -> list[str]:
    return Path("paid").read_text().split() if Path("paid").exists() else []


def process(
    *args: str,
    cwd: Path,
    start: type[subprocess.Popen[str]] = warm.Popen,
    **kwargs: Any,
) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "NANO_VM_DEBUG": "", "NANO_VM_STORE": STORE}
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", **kwargs}
    return start([sys.executable, "-m", "nano_vm", *args], cwd=cwd, env=env, **kwargs)


def tables() -> list[Any]:
    """Everything that the database holds but who is alive."""
    with sqlite3.connect("runs.db") as connection:
        names = [
            n
            for (n,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1"
            )
        ]
        rows = [
            list(connection.execute(f"SELECT * FROM {n}"))
            for n in names
            if n not in ("nano_owners", "sqlite_sequence")
        ]
    connection.close()
    return rows


# --- running with a store -------------------------------------------------------------------------


def test_a_run_that_waits_says_how_it_goes_on(sh: Shell) -> None:
    code = sh(
        "run",
        "refund.yaml",
        *HOST,
        "-i",
        "order=A7",
        "-i",
        "amount:=30",
        "--run-id",
        "r1",
        "--store",
        STORE,
    )
    assert code == 3
    assert "run r1" in sh.out
    assert "waits at ask for approval by manager:" in sh.out
    assert '  order: "A7"' in sh.out
    commands = [line.strip() for line in sh.out if "nano-vm" in line]
    assert re.fullmatch(
        rf"nano-vm approve r1 ask --shown [0-9a-f]{{64}} --by NAME --store {STORE}", commands[0]
    )
    assert commands[1] == f"nano-vm reject r1 ask --by NAME --reason TEXT --store {STORE}"


def test_without_a_store_it_says_that_it_is_lost(
    sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NANO_VM_STORE")
    assert sh("run", "refund.yaml", *HOST, "-i", "order=A7", "-i", "amount:=30") == 3
    assert sh.err == ["it waits, and was not kept: only with --store URL can it go on"]
    assert not Path("runs.db").exists()


@pytest.mark.slow
def test_a_run_that_is_there_is_joined(sh: Shell, refund: str) -> None:
    args = ["run", "refund.yaml", *HOST, "--run-id", refund, "-i", "order=A7", "-i"]
    before = tables()
    assert sh(*args, "amount:=30") == 3
    assert sh.err == [f"nano-vm: run {refund} is there already (suspended)"]
    assert sh(*args, "amount:=31") == 1
    assert "exists, with another program or other inputs" in sh.err[-1]
    assert tables() == before


def test_a_bad_id(sh: Shell) -> None:
    assert "a run id is a string of 1 to 200" in sh.refused("run", "timer.yaml", "--run-id", "a b")


# --- looking --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_are_listed_the_newest_first(sh: Shell, refund: str) -> None:
    assert sh("run", "timer.yaml", "--run-id", "t1") == 3
    assert sh("runs") == 0
    assert [line.split()[:2] for line in sh.out] == [["t1", "timer"], [refund, "refund"]]
    assert "approval by manager" in sh.out[1]
    assert "timer" in sh.out[0].split("  ")[-1] or "timer" in sh.out[0]
    assert [run["run_id"] for run in sh.json("runs", "--limit", "1")] == ["t1"]
    first = sh.json("runs")[1]
    assert (first["status"], first["program"], first["steps"], first["driven"]) == (
        "suspended",
        "refund",
        1,
        False,
    )
    assert first["waiting"] == [{"path": "ask", "kind": "approval", "role": "manager"}]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--status", "failed"], ["c"]),
        (["--status", "failed", "--status", "success"], ["b", "c"]),
        (["--program", "p2"], ["b"]),
        (["--program", "no"], []),
        (["--since", "90m"], ["a"]),
        (["--until", "90m"], ["b", "c"]),
        (["--since", "2026-01-01", "--until", "2026-01-03T00:00:00+02:00"], []),
        (["--min-cost", "0.5"], ["b"]),
        (["--min-cost", "$0.1"], ["a", "b"]),
        (["--limit", "2"], ["a", "b"]),
    ],
)
def test_filters(sh: Shell, filters: list[str], found: list[str]) -> None:
    now = time.time_ns()
    with open_store(STORE) as store:  # type: ignore[attr-defined]
        for name, program, hours, status, cost in (
            ("a", "p1", 1, "suspended", "0.25"),
            ("b", "p2", 2, "success", "0.5"),
            ("c", "p1", 3, "failed", None),
        ):
            run = StoredRun(
                name, program, "0" * 64, now - hours * 3600 * 10**9, {"program": {}, "programs": {}}
            )
            run.status, run.cost_usd, run.salt = status, cost, b"salt"
            run.finished_ns = run.created_ns if status != "suspended" else 0
            assert store.create(run)
    assert [run["run_id"] for run in sh.json("runs", *filters)] == found


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--status", "odd"], "'odd' is not one of"),
        (
            ["--since", "yesterday"],
            "'yesterday' is no time; write 2h (ago), 2027-01-31 or 2027-01-31T12:00",
        ),
        (["--min-cost", "much"], "'much' is not an amount of dollars"),
        (["--limit", "-1"], "'-1' is not a positive integer"),
    ],
)
def test_filters_that_are_none(sh: Shell, refund: str, args: list[str], message: str) -> None:
    assert message in sh.refused("runs", *args, code=2)


def test_a_run_is_shown_with_what_it_waits_for(sh: Shell, refund: str, shown: str) -> None:
    assert sh("show", refund) == 0
    assert sh.out[0].startswith("refund, run refund-1, 20")
    assert 'input order: "A7"' in sh.out
    # the environment names the store
    assert f"  nano-vm approve refund-1 ask --shown {shown} --by NAME" in sh.out
    told = sh.json("show", refund)
    assert '"path": "look"' in json.dumps(told["trace"])
    assert told["run_id"] == refund


def test_what_is_shown_cannot_do_anything_to_a_terminal(sh: Shell) -> None:
    evil = "\x1b[31m\u202ex\r\n[bold]y"
    Path("in.json").write_text(json.dumps({"order": evil, "amount": 1}))
    assert sh("run", "refund.yaml", *HOST, "--input-file", "in.json", "--run-id", "e") == 3
    for command in (["show", "e"], ["runs"]):
        assert sh(*command) == 0
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", "\n".join(sh.out))


@pytest.mark.slow
def test_a_short_id_is_enough_where_it_is_unique(sh: Shell, refund: str) -> None:
    # the whole id of one, the beginning of two
    assert sh("run", "timer.yaml", "--run-id", "refund") == 3
    assert sh("run", "timer.yaml", "--run-id", "reorder") == 3
    assert sh("show", "refund-") == 0
    assert "run refund-1" in sh.out[0]
    assert sh("show", "refund") == 0
    assert "timer, run refund," in sh.out[0]
    assert (
        sh.refused("show", "re")
        == "nano-vm: 're' begins the id of several runs: refund, refund-1, reorder"
    )
    assert (
        sh.refused("show", "x")
        == "nano-vm: there is no run 'x' in this store; nano-vm runs lists them"
    )
    assert "there is no run '%'" in sh.refused("show", "%")


# --- the store ------------------------------------------------------------------------------------

LOOKING = [
    ["runs"],
    ["show", "x"],
    ["approve", "x", "ask", "--shown", "d", "--by", "a"],
    ["reject", "x", "ask", "--by", "a"],
    ["event", "x", "e"],
    ["resolve", "x", "p", "--retry"],
    ["cancel", "x"],
    ["resume", "x"],
    ["work", "--until-idle"],
    ["store", "check"],
    ["store", "export"],
    ["store", "prune", "--older-than", "1d"],
    ["store", "erase", "x"],
]


@pytest.mark.parametrize("args", LOOKING, ids=lambda args: "-".join(args[:2]))
def test_a_store_that_is_not_there(
    sh: Shell, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    assert sh.refused(*args, code=2) == "nano-vm: --store: there is no database runs.db"
    assert "is a database in memory" in sh.refused(*args, "--store", "sqlite://", code=2)
    assert "not the URL of a store: 'runs.db'" in sh.refused(*args, "--store", "runs.db", code=2)
    monkeypatch.delenv("NANO_VM_STORE")
    assert "which store? Give --store sqlite:///runs.db" in sh.refused(*args, code=2)
    assert not Path("runs.db").exists()


@pytest.mark.parametrize("args", LOOKING, ids=lambda args: "-".join(args[:2]))
def test_a_file_that_is_no_store(sh: Shell, refund: str, args: list[str]) -> None:
    Path("odd.db").write_text("this is text, and no database at all " * 50)
    assert "the file is something else; name another" in sh.refused(
        *args, "--store", "sqlite:///odd.db", code=2
    )
    assert Path("odd.db").read_text().startswith("this is text")
    connection = sqlite3.connect("runs.db")
    connection.execute("UPDATE nano_meta SET value = '99' WHERE name = 'schema'")
    connection.commit()
    connection.close()
    before = tables()
    assert "was made by a newer llm-nano-vm" in sh.refused(*args, code=2)
    assert tables() == before


@pytest.mark.parametrize(
    "args", [["run", "timer.yaml"], ["store", "import", "x.jsonl"]], ids=["run", "import"]
)
def test_a_store_that_cannot_be_made(sh: Shell, args: list[str]) -> None:
    Path("x.jsonl").write_text("")
    message = sh.refused(*args, "--store", "sqlite:////proc/none/runs.db", code=2)
    assert "see that the folder exists and may be written" in message


# --- approvals ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_approved_and_gone_on_with(sh: Shell, refund: str, shown: str) -> None:
    assert sh("approve", refund, "ask", "--shown", shown, "--by", "ann", "--reason", "fine") == 0
    assert sh.out == [
        "recorded: approve ask, for run refund-1",
        "it goes on by nano-vm work, or nano-vm resume refund-1 --tools ...",
    ]
    assert paid() == []
    assert sh("show", refund) == 0
    assert any(line.startswith("recorded: approve ask by ann, ") for line in sh.out)
    assert not any("--shown" in line for line in sh.out)
    assert sh("resume", refund, *HOST) == 0
    assert 'output: "paid A7"' in sh.out
    assert paid() == ["A7"]
    assert sh("show", refund) == 0
    assert "  by ann" in sh.out
    assert any(line.startswith("seal ") for line in sh.out)


@pytest.mark.slow
def test_rejected_and_gone_on_with(sh: Shell, refund: str) -> None:
    assert sh.json("reject", refund, "ask", "--by", "ann", "--reason", "too much") == {
        "run_id": refund,
        "recorded": "reject",
        "name": "ask",
        "by": "ann",
    }
    assert sh("work", "--until-idle", *HOST) == 0
    assert paid() == []
    assert any(line.startswith("refund-1  refund  success  output ") for line in sh.out)


@pytest.mark.slow
def test_what_is_not_approved(sh: Shell, refund: str, shown: str) -> None:
    by = ["--by", "ann"]
    before = tables()
    assert "asks something else at 'ask' than what was shown" in sh.refused(
        "approve", refund, "ask", "--shown", "0" * 64, *by
    )
    assert "asks no approval at 'pay'; it does at 'ask'" in sh.refused(
        "approve", refund, "pay", "--shown", shown, *by
    )
    assert "required: --by" in sh.refused("approve", refund, "ask", "--shown", shown, code=2)
    assert "required: --shown" in sh.refused("approve", refund, "ask", *by, code=2)
    assert "there is no run 'other'" in sh.refused("approve", "other", "ask", "--shown", shown, *by)
    assert tables() == before
    assert sh("approve", refund, "ask", "--shown", shown, *by) == 0
    before = tables()
    for command in (
        ["approve", refund, "ask", "--shown", shown, "--by", "bob"],
        ["reject", refund, "ask", *by],
    ):
        assert "is decided already: approve by 'ann'" in sh.refused(*command)
    assert tables() == before
    assert sh("resume", refund, *HOST) == 0
    before = tables()
    for command in (
        ["approve", refund, "ask", "--shown", shown, *by],
        ["reject", refund, "ask", *by],
        ["event", refund, "paid"],
        ["resolve", refund, "pay", "--retry"],
        ["cancel", refund],
        ["cancel", refund, *HOST],
    ):
        assert "has ended (success)" in sh.refused(*command)
    assert tables() == before
    assert paid() == ["A7"]


@pytest.mark.slow
@pytest.mark.parametrize(("decision", "status"), [("approve", "success"), ("cancel", "cancelled")])
def test_a_run_that_has_ended_is_told_again_where_it_is_resumed(
    decision: str, status: str, sh: Shell, refund: str, shown: str
) -> None:
    if decision == "approve":
        assert sh("approve", refund, "ask", "--shown", shown, "--by", "ann") == 0
    else:
        assert sh("cancel", refund, *HOST, "--by", "ann") == 0
    code = 0 if status == "success" else 1
    assert sh("resume", refund, *HOST) == code
    if status == "success":
        assert not sh.err
        said = sh.out
        assert said[-1].startswith("success, 3 steps")
    before = tables()
    for host in ([], HOST):  # nothing is called, so nothing is needed
        assert sh("resume", refund, *host) == code
        assert sh.err[0] == (f"run 'refund-1' has ended ({status}); there is nothing to resume")
        assert sh.out[-1].startswith(f"{status}, ")
    assert main(["resume", refund, "--json"]) == code
    assert Trace.from_json(sh.capsys.readouterr().out).status.value == status
    assert tables() == before
    assert paid() == (["A7"] if status == "success" else [])


# --- events and timers ----------------------------------------------------------------------------


@pytest.mark.slow
def test_an_event(sh: Shell) -> None:
    assert sh("run", "parcel.yaml", *HOST, "--run-id", "p") == 3
    assert "  nano-vm event p paid JSON" in sh.out
    before = tables()
    assert "waits for no event 'payd'; it waits for 'paid'" in sh.refused("event", "p", "payd")
    assert "does not fit what 'paid' waits for" in sh.refused("event", "p", "paid", '{"sum": 1}')
    assert "does not fit" in sh.refused("event", "p", "paid")
    assert "the payload is JSON, not 'yes'" in sh.refused("event", "p", "paid", "yes", code=2)
    assert "cannot read none.json" in sh.refused("event", "p", "paid", "@none.json", code=2)
    assert tables() == before
    Path("payload.json").write_text('{"amount": 5}')
    assert sh("event", "p", "paid", "@payload.json") == 0
    assert sh("resume", "p", *HOST) == 0
    assert paid() == ["5"]


def test_an_event_that_comes_before_its_wait_is_kept(sh: Shell) -> None:
    Path("later.yaml").write_text(
        "name: later\nsteps:\n  - {id: first, type: wait, event: a}\n  - {id: b, type: wait, "
        "event: b}\n"
    )
    assert sh("run", "later.yaml", "--run-id", "l") == 3
    assert sh("event", "l", "b", "2") == 0
    assert sh("event", "l", "a", "1") == 0
    assert sh("work", "--until-idle") == 0
    assert sh.out == ["l  later  success  output 2"]


ORDER = """\
name: order
steps:
  - {id: paid, type: wait, event: paid, match: {order: $order}, timeout_seconds: 3600}
"""


@pytest.mark.slow
def test_an_event_for_whoever_waits_for_its_values(sh: Shell) -> None:
    Path("order.yaml").write_text(ORDER)
    for order in ("A7", "A8"):
        assert sh("run", "order.yaml", "-i", f"order={order}", "--run-id", order) == 3
    at = sh.out.index("waits at paid for event paid")
    assert sh.out[at + 1] == '  with order = "A8"'
    assert sh.out[at + 3] == "  nano-vm event A8 paid JSON"
    assert sh("event", "--match", "paid", '{"order": "A8"}', "--id", "evt_1") == 0
    assert sh.out[0] == "recorded: event paid, for the run that waits for its values, now or later"
    assert sh("event", "--match", "paid", '{"order": "A8"}', "--id", "evt_1") == 0
    assert sh.out == ["event paid of id evt_1 was recorded before; nothing was changed"]
    assert sh.json("event", "--match", "paid", '{"order": "A9"}', "--id", "evt_1") == {
        "recorded": None,
        "name": "paid",
    }
    assert sh("work", "--until-idle") == 0
    assert sh.out == ['A8  order  success  output {"order":"A8"}']
    assert sh("event", "A7", "paid", '{"order": "A7"}', "--id", "evt_2") == 0
    assert sh("event", "A7", "paid", '{"order": "A7"}', "--id", "evt_2") == 0
    assert "was recorded before" in sh.out[0]
    assert sh.json("event", "A7", "paid", '{"order": "A7"}', "--id", "evt_2") == {
        "run_id": "A7",
        "recorded": None,
        "name": "paid",
    }
    assert sh("resume", "A7") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--match", "paid"],
            "an event is sent by nano-vm event RUN NAME [JSON], or nano-vm event --match NAME JSON",
        ),
        (["--match", "A7", "paid", "{}"], "an event is sent by"),
        (["paid"], "an event is sent by"),
        (["A7", "paid", "1", "2"], "an event is sent by"),
        (["--match", "paid", "{"], "the payload is JSON"),
    ],
)
def test_what_is_no_event(sh: Shell, refund: str, words: list[str], message: str) -> None:
    assert message in sh.refused("event", *words, code=2)


def test_an_event_for_nobody(sh: Shell, refund: str) -> None:
    assert "is an object with 1 to 100 fields" in sh.refused("event", "--match", "paid", "5")


@pytest.mark.slow
def test_a_timer_is_due_when_its_time_has_come(sh: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("timer.yaml").write_text(TIMER.replace("SECONDS", "3600"))
    assert sh("run", "timer.yaml", "--run-id", "t") == 3
    assert sh("show", "t") == 0
    assert any(re.fullmatch(r"due 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", line) for line in sh.out)
    assert sh("resume", "t") == 3
    assert sh("work", "--until-idle") == 0
    assert sh.err == ["there was nothing to do"]
    set_ahead(monkeypatch, minutes=60)
    assert sh("work", "--until-idle") == 0
    assert sh.out == ["t  timer  success  output null"]


# --- killed ---------------------------------------------------------------------------------------


GONE = f"{socket.gethostname()}, which is gone"


@pytest.fixture
def in_doubt(sh: Shell, folder: Path, refund: str, shown: str) -> str:
    """A run whose payment was begun, and whose process was killed."""
    assert sh("approve", refund, "ask", "--shown", shown, "--by", "ann") == 0
    running = process("resume", refund, "--tools", "tools.py:killing", cwd=folder)
    running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == -signal.SIGKILL
    assert sh("runs") == 0
    assert "left behind" in sh.out[0]
    assert sh("show", refund) == 0
    assert "its process is gone: nano-vm resume refund-1 --tools ..." in sh.out
    begun = [line for line in sh.out if line.startswith("  pay: begun ")]
    assert begun[0].endswith(f" by process {running.pid} on {GONE}; its outcome is not recorded")
    assert sh("resume", refund, *HOST) == 3
    assert any(line.endswith(f" by process {running.pid} on {GONE}") for line in sh.out)
    assert paid() == ["A7"]
    return refund


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code", "output", "payments"),
    [
        (["--done", '"by hand"'], 0, "by hand", ["A7"]),
        (["--done", "@done.json"], 0, {"from": "a file"}, ["A7"]),
        (["--retry"], 0, "paid A7", ["A7", "A7"]),
        (["--fail", "the bank says no"], 1, None, ["A7"]),
    ],
)
def test_what_is_in_doubt_is_resolved(
    sh: Shell, in_doubt: str, how: list[str], code: int, output: Any, payments: list[str]
) -> None:
    Path("done.json").write_text('{"from": "a file"}')
    assert sh("show", in_doubt) == 0
    assert "  nano-vm resolve refund-1 pay --done JSON | --retry | --fail REASON" in sh.out
    assert sh("resolve", in_doubt, "pay", *how, "--by", "ann") == 0
    assert sh("work", "--until-idle", *HOST, "--json") == code
    assert [json.loads(line)["output"] for line in sh.out] == [output]
    assert paid() == payments


@pytest.mark.slow
def test_all_that_is_known_of_what_is_in_doubt(sh: Shell, in_doubt: str) -> None:
    """Which a person needs who decides whether it took place."""
    lines = {}
    for command in (["show", in_doubt], ["runs", "--waiting"]):
        assert sh(*command) == 0
        at = sh.out.index("in doubt at pay: the call was begun, and what became of it is unknown")
        lines[command[0]] = sh.out[at + 1 : at + 6]
    assert lines["show"] == lines["runs"]
    assert lines["show"][:2] == ['  tool: "pay"', '  argument order: "A7"']
    assert re.fullmatch(r'  effect key: "[0-9a-f]{32}"', lines["show"][2])
    assert re.fullmatch(rf"  begun 20.{{17}} UTC by process \d+ on {GONE}", lines["show"][3])
    assert (
        lines["show"][4] == "  nano-vm resolve refund-1 pay --done JSON | --retry | --fail REASON"
    )
    (run,) = sh.json("runs", "--waiting")
    (entry,) = run["waiting"]
    assert entry["arguments"] == {"order": "A7"}
    assert (entry["process"]["host"], entry["process"]["alive"]) == (socket.gethostname(), False)
    assert sh.json("show", in_doubt)["waiting"] == [entry]


@pytest.mark.slow
def test_only_what_waits_is_listed_where_that_is_asked_for(
    sh: Shell, refund: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sh("run", "timer.yaml", "--run-id", "t1") == 3
    set_ahead(monkeypatch, minutes=1)
    assert sh("work", "--until-idle") == 0
    assert sh("runs", "--waiting") == 0
    assert next(line for line in sh.out if not line.startswith("  ")).startswith(refund)
    assert not any("t1" in line for line in sh.out)
    assert '  order: "A7"' in sh.out
    assert any(line.startswith("  nano-vm approve refund-1 ask --shown ") for line in sh.out)


@pytest.mark.slow
def test_what_is_no_resolution(sh: Shell, in_doubt: str) -> None:
    before = tables()
    assert "has nothing in doubt at 'look'; it does at 'pay'" in sh.refused(
        "resolve", in_doubt, "look", "--retry"
    )
    assert "--done is JSON, not 'paid'" in sh.refused(
        "resolve", in_doubt, "pay", "--done", "paid", code=2
    )
    assert "--done does not go with --retry" in sh.refused(
        "resolve", in_doubt, "pay", "--done", "1", "--retry", code=2
    )
    assert "is required" in sh.refused("resolve", in_doubt, "pay", code=2)
    assert tables() == before
    assert sh("resolve", in_doubt, "pay", "--retry") == 0
    assert "is resolved already" in sh.refused("resolve", in_doubt, "pay", "--retry")


# --- working --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_that_lacks_tools_leaves_the_run_and_says_so(sh: Shell, refund: str) -> None:
    assert sh("reject", refund, "ask", "--by", "ann") == 0
    before = tables()
    assert sh("work", "--until-idle") == 1
    assert "run refund-1 cannot be resumed here: " in sh.err[0]
    assert "tool 'look' is not registered" in sh.err[0]
    assert sh.err[-1] == "1 could not go on here"
    assert sh("resume", refund) == 1
    assert "tool 'look' is not registered" in sh.err[0]
    assert tables() == before


@pytest.mark.slow
def test_a_worker_prints_json_and_nothing_else(
    sh: Shell, folder: Path, refund: str, shown: str
) -> None:
    printing = "    print('printed')\n    os.system('echo below')\n    return f\"paid"
    Path("tools.py").write_text(TOOLS.replace('    return f"paid', printing))
    assert sh("approve", refund, "ask", "--shown", shown, "--by", "ann") == 0
    running = process("work", *HOST, "--until-idle", "--json", cwd=folder)
    out, err = running.communicate(timeout=HANGS_SECONDS)
    assert [(run["run_id"], run["output"]) for run in map(json.loads, out.splitlines())] == [
        (refund, "paid A7")
    ]
    assert sorted(err.splitlines()) == ["below", "printed"]


@pytest.mark.slow
def test_a_worker_goes_on_until_it_is_told_to_stop(sh: Shell, folder: Path, refund: str) -> None:
    running = process("work", *HOST, cwd=folder, start=subprocess.Popen)
    assert sh("reject", refund, "ask", "--by", "ann") == 0
    assert running.stdout is not None
    assert running.stdout.readline().startswith("refund-1  refund  success  output ")
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == 0
    assert err.startswith("stopping: ")


@pytest.mark.slow
def test_ctrl_c_in_resume_cancels_and_undoes(sh: Shell, folder: Path) -> None:
    Path("slow.yaml").write_text(
        "name: slow\nsteps:\n  - {id: go, type: wait, event: go}\n"
        "  - {id: first, type: tool, tool: look, args: {order: 1}, undo: {tool: unpay, args: {}}}\n"
        "  - {id: pay, type: tool, tool: pay, args: {order: 1}}\n"
    )
    slowly = ["--tools", "tools.py:slowly"]
    assert sh("run", "slow.yaml", *slowly, "--run-id", "s") == 3
    assert sh("event", "s", "go") == 0
    running = process("resume", "s", *slowly, cwd=folder, start=subprocess.Popen)
    while not Path("began").exists():
        assert running.poll() is None or Path("began").exists(), running.communicate()
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=HANGS_SECONDS)
    # 3: the call that was cut off is in doubt, and waits for a person
    assert running.returncode in (3, 130)


@pytest.mark.slow
def test_cancelled_at_once_or_by_a_worker(sh: Shell) -> None:
    for name in ("b1", "b2"):
        assert sh("run", "booking.yaml", *HOST, "--run-id", name) == 3
    assert sh("cancel", "b1", *HOST) == 0
    assert paid() == ["1", "1", "back"]
    assert sh("cancel", "b2", "--by", "ann") == 0
    assert sh.out[-1] == "nano-vm work does it, or at once: nano-vm cancel b2 --tools ..."
    assert "is to be cancelled already" in sh.refused("cancel", "b2")
    assert sh("work", "--until-idle", *HOST) == 0
    assert paid() == ["1", "1", "back", "back"]
    assert {run["run_id"]: run["status"] for run in sh.json("runs")} == {
        "b1": "cancelled",
        "b2": "cancelled",
    }


LONG = """\
name: long
steps:
  - id: all
    type: loop
    max_iterations: 40
    on_exhausted: continue
    steps:
      - {id: pay, type: tool, tool: pay, args: {order: 1}, undo: {tool: unpay, args: {}}}
      - {id: rest, type: tool, tool: rest, args: {}}
"""

RESTING = """
import asyncio

@tool(effect="read")
async def rest():
    await asyncio.Event().wait()

tools["rest"] = rest
"""


@pytest.mark.slow
def test_a_run_under_way_in_another_process_is_cancelled(sh: Shell, folder: Path) -> None:
    Path("long.yaml").write_text(LONG)
    Path("tools.py").write_text(TOOLS + RESTING)
    running = process("run", "long.yaml", *HOST, "--run-id", "long", cwd=folder)
    deadline = time.monotonic() + HANGS_SECONDS
    while not paid():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sh("cancel", "long", "--by", "ann") == 0
    assert sh.out[0] == "recorded: cancel, for run long"
    assert re.fullmatch(r"it is under way in \S+, and stops before its next step", sh.out[1])
    out, _ = running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == 1
    assert out.splitlines()[-1].startswith("cancelled, ")
    assert paid() == ["1", "back"]
    assert sh.json("show", "long")["inbox"] == []


# --- looking after the store ----------------------------------------------------------------------


@pytest.fixture
def ended(sh: Shell, refund: str) -> str:
    assert sh("reject", refund, "ask", "--by", "ann") == 0
    assert sh("resume", refund, *HOST) == 0
    return refund


@pytest.mark.slow
def test_old_runs_are_deleted(sh: Shell, ended: str) -> None:
    assert sh("run", "timer.yaml", "--run-id", "t") == 3
    assert sh("store", "prune", "--older-than", "1h") == 0
    assert sh.out == ["deleted 0 runs"]
    assert sh("store", "prune", "--older-than", "0s", "--status", "failed") == 0
    assert sh.out == ["deleted 0 runs"]
    assert sh.json("store", "prune", "--older-than", "0s") == {"deleted": 1}
    assert [run["run_id"] for run in sh.json("runs")] == ["t"]
    assert "'soon' is no time span" in sh.refused("store", "prune", "--older-than", "soon", code=2)
    assert "'suspended' is not one of" in sh.refused(
        "store", "prune", "--older-than", "0s", "--status", "suspended", code=2
    )


@pytest.mark.slow
def test_from_one_store_to_another(sh: Shell, ended: str, folder: Path) -> None:
    other = ["--store", "sqlite:///other.db"]
    assert sh("store", "export", ended[:8], "-o", "runs.jsonl") == 0
    assert sh.out == ["wrote 1 run to runs.jsonl"]
    assert sh("store", "import", "runs.jsonl", *other) == 0
    assert sh.out == ["took in 1 run"]
    assert sh("store", "import", "runs.jsonl", *other) == 0
    assert sh.out == ["took in 0 runs; what the file has was there"]
    here, there = sh.json("show", ended), sh.json("show", ended, *other)
    assert here == there
    piped = process("store", "export", cwd=folder, start=subprocess.Popen)
    out, _ = piped.communicate(timeout=HANGS_SECONDS)
    assert out == Path("runs.jsonl").read_text()


@pytest.mark.slow
def test_files_that_are_no_export(sh: Shell, ended: str, refund: str) -> None:
    assert sh("run", "timer.yaml", "--run-id", "t") == 3
    assert sh("store", "export", ended, "-o", "runs.jsonl") == 0
    assert sh("store", "export", "t", "-o", "waiting.jsonl") == 0
    text = Path("runs.jsonl").read_text()
    Path("cut.jsonl").write_text(text[:-30])
    Path("edited.jsonl").write_text(text.replace('"A7"', '"A8"'))
    Path("other.jsonl").write_text("hello\n")
    other = ["--store", "sqlite:///other.db"]
    for name, message in (
        ("cut", "the file was cut short"),
        ("edited", "was edited"),
        ("other", "line 1: "),
        ("waiting", "(--unfinished)"),
    ):
        line = sh.refused("store", "import", f"{name}.jsonl", *other)
        assert message in line
        assert line.endswith("; nothing was taken in")
    assert sh.json("runs", *other) == []
    assert "cannot read none.jsonl" in sh.refused("store", "import", "none.jsonl", *other, code=2)
    assert sh("store", "import", "waiting.jsonl", "--unfinished", *other) == 0
    for path, message in (("no/where.jsonl", "No such file"), (".", "it is a folder")):
        assert message in sh.refused("store", "export", "-o", path, code=2)
    assert "there is no run 'x'" in sh.refused("store", "export", "x", "-o", "new.jsonl")
    assert not Path("new.jsonl").exists()
    assert [p.name for p in Path(".").iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
def test_what_a_run_held_is_erased(sh: Shell, ended: str) -> None:
    assert "the whole id is needed: refund-1" in sh.refused("store", "erase", "refund", code=2)
    assert sh("run", "timer.yaml", "--run-id", "t") == 3
    assert "needs its values to go on" in sh.refused("store", "erase", "t")
    assert sh("store", "erase", ended) == 0
    assert sh("store", "check") == 0
    assert sh.out == ["no problem was found"]
    assert sh("show", ended) == 0
    assert not any("A7" in line for line in sh.out)
    assert "success; its values were erased, and its seal still covers what they were" in sh.out
    told = sh.json("show", ended)
    assert (told["erased"], told["trace"]) == (True, None)
    assert sh("runs") == 0
    assert sh("store", "erase", ended) == 0
    assert "were erased before" in sh.out[0]


@pytest.mark.slow
def test_what_old_runs_held_is_erased(sh: Shell, ended: str) -> None:
    assert sh("run", "timer.yaml", "--run-id", "t") == 3
    assert sh("store", "erase", "--older-than", "1h") == 0
    assert sh.out == ["erased 0 runs"]
    assert sh("store", "erase", "--older-than", "0s", "--dry-run") == 0
    assert sh.out[0].startswith(ended)
    assert sh.out[1:] == ["would erase 1 run; nothing was changed"]
    assert sh.json("show", ended)["erased"] is False
    assert sh.json("store", "erase", "--older-than", "0s", "--status", "failed") == {"erased": 0}
    assert sh.json("store", "erase", "--older-than", "0s") == {"erased": 1}
    assert sh.json("show", ended)["erased"] is True
    assert sh.json("store", "erase", "--older-than", "0s") == {"erased": 0}
    assert sh("store", "check") == 0
    assert "run does not go with --older-than" in sh.refused(
        "store", "erase", ended, "--older-than", "0s", code=2
    )
    assert "one of run, --older-than is required" in sh.refused("store", "erase", code=2)
    assert "go with --older-than" in sh.refused("store", "erase", ended, "--yes", code=2)


@pytest.mark.slow
def test_damage_is_found(sh: Shell, ended: str) -> None:
    connection = sqlite3.connect("runs.db")
    connection.execute("UPDATE nano_rows SET output = CAST('\"forged\"' AS BLOB) WHERE seq = 0")
    connection.commit()
    connection.close()
    assert sh("store", "check") == 1
    assert any("is not what was written" in line for line in sh.err)
    assert "is not what was written" in sh.refused("show", ended)


def damage() -> None:
    """Another program has changed what a step gave."""
    with closing(sqlite3.connect("runs.db")) as connection, connection:
        connection.execute("UPDATE nano_rows SET output = CAST('\"forged\"' AS BLOB) WHERE seq = 0")


@pytest.mark.slow
def test_a_run_whose_steps_are_damaged_can_be_answered(sh: Shell) -> None:
    """What a person says is about what it waits for, and whose it is."""
    for name in ("d1", "d2"):
        assert (
            sh("run", "refund.yaml", *HOST, "-i", "order=A7", "-i", "amount:=30", "--run-id", name)
            == 3
        )
    shown = sh.json("show", "d1")["waiting"][0]["shown"]
    damage()
    assert "is not what was written" in sh.refused("show", "d1")
    assert sh("reject", "d1", "--by", "ann") == 0
    assert sh("approve", "d2", "--shown", shown, "--by", "ann") == 0
    assert sh("cancel", "d2", "--by", "ann") == 0
    assert sh.out[0] == "recorded: cancel, for run d2"


@pytest.mark.slow
def test_a_call_in_doubt_of_a_damaged_run_is_resolved(sh: Shell, in_doubt: str) -> None:
    damage()
    assert sh("resolve", in_doubt, "pay", "--fail", "lost", "--by", "ann") == 0
    assert sh.out[0] == "recorded: resolve (fail) pay, for run refund-1"


def test_a_run_that_was_deleted_since_it_was_listed_is_left_out(
    sh: Shell, refund: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = StorePlace.runs

    def behind(place: StorePlace, *args: Any) -> list[Any]:
        found = listed(place, *args)
        return [{**found[0], "run_id": "deleted-1"}, *found]

    monkeypatch.setattr(StorePlace, "runs", behind)
    assert [run["run_id"] for run in sh.json("runs", "--waiting")] == [refund]


# --- a hundred thousand ---------------------------------------------------------------------------


@pytest.mark.slow
def test_many_runs_are_listed_and_found_by_short_ids(sh: Shell, refund: str) -> None:
    with open_store(STORE) as store:  # type: ignore[attr-defined]

        async def fill() -> None:
            await asyncio.gather(
                *(
                    store.begin(StoredRun(f"n{i:04}", "p", "0" * 64, i, {"program": {}}, salt=b"s"))
                    for i in range(3000)
                )
            )

        asyncio.run(fill())
    assert sh("runs", "--limit", "5000") == 0
    assert len(sh.out) == 3001
    assert sh("show", "n1234") == 0
    message = sh.refused("show", "n12")
    assert message.endswith("n1200, n1201, n1202, n1203, n1204, ...")


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_in_postgresql(
    sh: Shell, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    server: PostgresServer = request.getfixturevalue("postgres")
    monkeypatch.setenv("NANO_VM_STORE", server.database())
    for name in ("ref-1", "ref-2"):
        assert (
            sh("run", "refund.yaml", *HOST, "-i", "order=A7", "-i", "amount:=30", "--run-id", name)
            == 3
        )
    digest = sh.json("show", "ref-1")["waiting"][0]["shown"]
    assert "several runs: ref-1, ref-2" in sh.refused("show", "ref")
    assert sh("approve", "ref-1", "ask", "--shown", digest, "--by", "ann") == 0
    assert "is decided already" in sh.refused("reject", "ref-1", "ask", "--by", "ann")
    assert sh("work", "--until-idle", *HOST) == 0
    assert sh("cancel", "ref-2", *HOST) == 0
    assert paid() == ["A7"]
    assert [run["status"] for run in sh.json("runs", "--min-cost", "0")] == ["cancelled", "success"]
    Path("in.jsonl").write_text('{"order": "x", "amount": 1}\n' * 5)
    assert sh("batch", "refund.yaml", "in.jsonl", "-o", "out.jsonl", *HOST) == 3
    assert len(sh.json("runs", "--status", "suspended")) == 5
    assert sh("store", "erase", "ref-1") == 0
    assert sh("store", "check") == 0
    assert sh.json("store", "prune", "--older-than", "0s") == {"deleted": 2}
    assert "could not" in sh.refused(
        "runs", "--store", "postgresql://nobody@127.0.0.1:1/none", code=2
    )


# --- times ----------------------------------------------------------------------------------------


def test_times() -> None:
    assert [age_seconds(text) for text in ("90s", "2m", "1.5h", "30d", "1w")] == [
        90,
        120,
        5400,
        2_592_000,
        604_800,
    ]
    assert time_ns("1970-01-02") == 86_400 * 10**9
    assert time_ns("1970-01-01T01:00:00+01:00") == 0
    assert abs(time.time_ns() - time_ns("1h") - 3600 * 10**9) < 10**9
    for text in ("", "d", "-1d", "1y", "1e3d", "٣d"):
        with pytest.raises(ValueError, match="is no time"):
            time_ns(text)
    assert times.age(time.time_ns() - 3 * 86_400 * 10**9) == "3d"


# --- what is said of runs -------------------------------------------------------------------------


ASKING = """
name: asking
steps:
  - {id: who, type: llm, prompt: "who is $x?"}
"""


@pytest.fixture
def said(sh: Shell, folder: Path) -> Shell:
    (folder / "ask.yaml").write_text(ASKING)
    asked = ("run", "ask.yaml", "-i", "x=1", "--answer", "who=ann", "--price", "scripted=1,2")
    for n, team in enumerate(("billing", "billing", "ops")):
        labels = ("--label", f"team={team}", "--label", f"n={n}")
        assert sh(*asked, "--run-id", f"r{n}", *labels, "--submitter", "bob") == 0
    assert sh(*asked, "--run-id", "other", "--project", "eu") == 0
    return sh


INTERRUPTED = """
import asyncio, signal

from nano_vm import tool


@tool(effect="write")
async def send() -> None:
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(60)


tools = {"send": send}
"""


@pytest.mark.parametrize("kept", [True, False])
def test_of_a_call_that_an_interrupted_run_leaves_in_doubt_nobody_is_asked(
    sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    monkeypatch.setattr(interruption, "EFFECT_GRACE_SECONDS", 0.05)
    (folder / "send.py").write_text(INTERRUPTED)
    (folder / "send.yaml").write_text("steps: [{id: a, type: tool, tool: send}]")
    where = ("--store", "sqlite:///sent.db", "--run-id", "r") if kept else ()
    command = ("run", "send.yaml", "--tools", "send.py:tools", *where, "--trace", "sent.json")
    if not kept:
        monkeypatch.delenv("NANO_VM_STORE", raising=False)
    assert sh(*command) == 130
    told = "\n".join([*sh.err, *sh.out])
    assert "left in doubt: a: " in told
    for word in ("resolve", "waits", "waiting"):
        assert word not in told
    assert sh("trace", "show", "sent.json") == 0
    assert "in doubt" in "\n".join(sh.out)
    assert "waiting" not in "\n".join(sh.out)
    if kept:
        assert sh("show", "r", *where[:2]) == 0
        assert "resolve" not in "\n".join(sh.out)
        assert sh("runs", "--waiting", *where[:2]) == 0
        assert not sh.out


@pytest.mark.parametrize(
    ("command", "first", "second"),
    [
        (("run", "ask.yaml", "-i", "x=@-", "--answer", "who=@-"), "-i x", "--answer who"),
        (("run", "ask.yaml", "-i", "x=@-", "-i", "y=@-"), "-i x", "-i y"),
        (("run", "ask.yaml", "--input-file", "-", "-i", "x=@-"), "--input-file", "-i x"),
        (("run", "-", "-i", "x=@-"), "the program", "-i x"),
        (("run", "ask.yaml", "--policy", "-", "-i", "x=@-"), "--policy", "-i x"),
        (
            ("run", "ask.yaml", "--answer", "who=@-", "--answer", "who=@-"),
            "--answer who",
            "--answer",
        ),
        (("check", "-", "--program", "other=-"), "the program", "--program other"),
        (("submit", "-", "-i", "x=@-"), "the program", "-i x"),
        (("batch", "-", "-", "--output", "o.jsonl"), "the program", "the file of inputs"),
        (("diff", "-", "-"), "the run", "the run"),
        (("replay", "-", "--program", "-"), "the run", "the program"),
        (("mcp", "-"), "what a client says", "the program"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else given,
)
def test_standard_input_is_read_by_one_part_of_a_command_line(
    sh: Shell,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    first: str,
    second: str,
) -> None:
    """The second would get an empty text."""
    (folder / "ask.yaml").write_text(ASKING)
    text = ASKING
    if command[0] in ("diff", "replay"):
        assert sh("run", "ask.yaml", "-i", "x=1", "--answer", "who=ann", "--trace", "run.json") == 0
        text = (folder / "run.json").read_text()
    elif "--input-file" in command or "--policy" in command:
        text = "{}"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    told = sh.refused(*command, code=2)
    assert f"{first} and {second}" in told
    assert "cannot both be read from standard input" in told


def test_an_answer_is_read_once_from_standard_input_and_from_a_pipe(
    sh: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "ask.yaml").write_text(ASKING)
    asked = ("run", "ask.yaml", "-i", "x=1", "--answer")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"ann")))
    assert sh.json(*asked, "who=@-")["output"] == "ann"
    read, write = os.pipe()
    try:
        os.write(write, b"bob")
        os.close(write)
        assert sh.json(*asked, f"who=@/dev/fd/{read}")["output"] == "bob"
    finally:
        os.close(read)


@pytest.mark.slow
def test_runs_are_listed_by_labels_project_and_submitter(said: Shell) -> None:
    def ids(*options: str) -> list[str]:
        return [run["run_id"] for run in said.json("runs", *options)]

    assert ids("--label", "team=billing") == ["r1", "r0"]
    assert ids("--label", "team=billing", "--label", "n=0", "--status", "success") == ["r0"]
    assert ids("--project", "eu") == ["other"]
    assert ids("--submitter", "bob", "--limit", "2") == ["r2", "r1"]
    assert ids("--label", "team=nobody") == []
    (run,) = said.json("runs", "--label", "n=2")
    assert run["labels"] == {"team": "ops", "n": "2"}
    assert (run["project"], run["submitter"]) == ("default", "bob")
    assert "the name of a label is 1 to 63" in said.refused("runs", "--label", "a b=1", code=2)
    assert "--label takes NAME=VALUE" in said.refused("costs", "--label", "a", code=2)
    assert said("runs", "--project", "eu") == 0
    assert said.out[0].endswith("project eu")


@pytest.mark.slow
def test_show_says_whose_a_run_is(said: Shell) -> None:
    assert said("show", "r2") == 0
    assert said.out[2:4] == ["submitted by bob", "team=ops, n=2"]
    assert said("show", "other") == 0
    assert said.out[2:4] == [f"submitted by {account()}", "project eu"]
    assert said.json("show", "r2")["trace"]["records"][0]["host"]["labels"]["team"] == "ops"


@pytest.mark.slow
def test_shared_budgets_are_shown_with_their_limits(said: Shell, tmp_path: Path) -> None:
    host = tmp_path / "host.toml"
    host.write_text(
        '[models.m]\nmodel = "scripted:none.yaml"\nkey_env = "NOT_SET"\n'
        '[budgets.daily]\nper = "project"\nmax_llm_calls = 9\nmax_cost_usd = 0.5\n'
    )
    assert said("costs", "--budgets") == 0
    assert said.out == ["no budget that runs share has counted a call"]
    runs = tmp_path / "runs.toml"
    (tmp_path / "who.yaml").write_text("who: ann")
    runs.write_text(
        f'[models.m]\nmodel = "scripted:{tmp_path}/who.yaml"\n'
        '[budgets.daily]\nper = "project"\nmax_llm_calls = 1\n'
    )
    asked = ("run", "ask.yaml", "-i", "x=1", "--host", str(runs), "--project", "eu")
    assert said(*asked) == 0
    assert said(*asked) == 1
    assert "budget 'daily' (project eu): the call may use 1 call; of 1 call" in said.err[-1]
    assert said("costs", "--budgets", "--host", str(host)) == 0
    assert said.out == [
        "budget 'daily' (project eu): max_llm_calls: 1 spent, 0 reserved of 9",
        "budget 'daily' (project eu): max_cost_usd: $0 spent, $0 reserved of $0.5",
    ]
    (found,) = said.json("costs", "--budgets", "--host", str(host))
    assert found == {
        "name": "daily",
        "of": {"project": "eu"},
        "spent": {"calls": 1, "tokens": 4, "cost_usd": "0"},
        "reserved": {"calls": 0, "tokens": 0, "cost_usd": "0"},
        "max_llm_calls": 9,
        "max_tokens": None,
        "max_cost_usd": "0.5",
    }
    host.write_text("[budgets.x]\nmax_tokens = -1\n")
    fault = said.refused("costs", "--budgets", "--host", str(host), code=2)
    assert "budgets.x.max_tokens: input should be greater than or equal to 0" in fault
    assert "--host needs --budgets" in said.refused("costs", "--host", str(host), code=2)


@pytest.mark.slow
def test_costs_are_summed(said: Shell) -> None:
    found = said.json("costs", "--by", "program", "--by", "model", "--label", "team=billing")
    assert [(cost["program"], cost["model"], cost["calls"]) for cost in found] == [
        ("asking", "scripted", 2)
    ]
    whole = said.json("costs")
    assert [cost["calls"] for cost in whole] == [4]
    assert Decimal(whole[0]["cost_usd"]) == 2 * Decimal(found[0]["cost_usd"]) > 0
    assert said("costs", "--by", "day") == 0
    assert re.match(r"\d{4}-\d\d-\d\d +4 calls +\d+ tokens +\$0\.\d+$", said.out[0])
    assert said("costs", "--project", "nobody's") == 0
    assert said.out == ["no model was called"]
    assert "is not one of 'project', 'program'" in said.refused("costs", "--by", "hour", code=2)


def test_a_batch_says_the_same_of_all_its_runs(sh: Shell, folder: Path) -> None:
    (folder / "ask.yaml").write_text(ASKING)
    (folder / "in.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    batch = ("batch", "ask.yaml", "in.jsonl", "-o", "out.jsonl", "--answer", "who=ann")
    assert sh(*batch, "--label", "batch=7", "--project", "eu") == 0
    assert {run["project"] for run in sh.json("runs", "--label", "batch=7")} == {"eu"}
    assert len(sh.json("runs", "--label", "batch=7")) == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--label", "team"), "--label takes NAME=VALUE, not 'team'"),
        (("--label", "a=1", "--label", "a=2"), "--label gives 'a' twice"),
        (("--label", "a b=1"), "the name of a label is 1 to 63 letters"),
        (("--label", "a="), "label 'a' is a string of 1 to 200 printable characters, not ''"),
        (("--project", "a b"), "a project is 1 to 63 letters"),
        (("--submitter", "a\nb"), "a submitter is a string of 1 to 200 printable characters"),
    ],
)
def test_what_cannot_be_said_of_a_run(sh: Shell, folder: Path, given: Any, told: str) -> None:
    (folder / "ask.yaml").write_text(ASKING)
    assert told in sh.refused("run", "ask.yaml", "-i", "x=1", "--answer", "who=a", *given, code=2)
    assert not (folder / "runs.db").exists() or sh.json("runs") == []


@pytest.mark.slow
def test_a_store_of_an_older_version_is_upgraded_by_a_command(
    said: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nano_vm.store.sql import database, migrations, schema, store

    assert said("store", "upgrade") == 0
    known = schema.SCHEMA_VERSION
    assert said.out == [f"the tables are of version {known}"]
    for module in (database, schema, store):
        monkeypatch.setattr(module, "SCHEMA_VERSION", known + 1)
    monkeypatch.setattr(schema, "REVISIONS", {})
    monkeypatch.setattr(database, "REVISIONS", {})
    assert "; use another file or database; nothing was changed" in said.refused(
        "store", "upgrade", code=2
    )
    later = folder / "later"
    later.mkdir()
    (later / "late.py").write_text(
        f"from alembic import op\nrevision = 'late'\ndown_revision = '{migrations.head()}'\n"
        "def upgrade():\n"
        f"    op.execute(\"UPDATE nano_meta SET value = '{known + 1}' WHERE name = 'schema'\")\n"
    )
    monkeypatch.setattr(migrations, "PLACES", [*migrations.PLACES, later])
    monkeypatch.setattr(database, "REVISIONS", {known: "0001"})
    assert "; nano-vm store upgrade; nothing was changed" in said.refused("runs", code=2)
    assert said.json("store", "upgrade") == {"version": known + 1}
    assert len(said.json("runs")) == 4
