"""The command line over a development server: a worker in a process of its own, and what people say
to its runs. The worker is killed between request and approval.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from postgres import free_port

from nano_vm import Trace, temporal
from nano_vm.cli import main
from nano_vm.errors import UnknownRun, VMError
from nano_vm.temporal import Listed, TemporalRuns
from temporal.cluster import Server

PROGRAM = """\
name: refund
steps:
  - {id: order, type: tool, tool: get_order, args: {order_id: $order_id}}
  - id: manager
    type: approval
    role: manager
    show: {amount: $order.output.amount}
  - id: pay
    type: tool
    tool: pay
    args: {amount: $order.output.amount}
  - {id: paid, type: wait, event: paid}
"""

TOOLS = """\
from nano_vm import tool


@tool(effect="read")
def get_order(order_id: str) -> dict:
    return {"amount": 49.9}


@tool(effect="irreversible")
def pay(amount: float) -> str:
    with open("bank.txt", "a") as bank:
        bank.write(f"{amount}\\n")
    return f"paid {amount}"


tools = {"get_order": get_order, "pay": pay}
"""


class Shop:
    """A folder with a program and its tools, and workers on a server."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        (folder / "refund.yaml").write_text(PROGRAM)
        (folder / "refund.py").write_text(TOOLS)
        self.queue = f"shop-{folder.name}"
        self.cluster = ["--engine", "temporal", "--address", server.address, "--queue", self.queue]
        self.processes: list[subprocess.Popen[bytes]] = []

    def worker(self, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nano_vm", "work", *self.cluster, *more]
        command += ["--tools", "refund.py:tools", "--store", "sqlite:///runs.db"]
        process = warm.Popen(command, cwd=self.folder)
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def shop(
    tmp_path: Path, temporal_server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    made = Shop(tmp_path, temporal_server)
    yield made
    made.end()


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(list(arguments)) == code
    return capsys.readouterr().out


def until(what: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError


def test_a_run_survives_its_worker_and_is_kept_in_a_store(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shop.worker()
    on = shop.cluster
    run_id = printed(
        capsys, "submit", "refund.yaml", *on, "-i", "order_id=A-1", "--run-id", "refund-1"
    ).strip()
    assert run_id == "refund-1"

    def asked() -> list[dict[str, Any]]:
        shown = json.loads(printed(capsys, "show", run_id, *on, "--json"))
        return list(shown["waiting"])

    (entry,) = until(asked)
    first.send_signal(signal.SIGKILL)
    first.wait()
    shop.worker()
    assert until(asked) == [entry]  # the second has the run as far as the first had
    assert main(["approve", run_id, *on, "--shown", "0" * 64, "--by", "mia"]) == 1
    assert "is not the digest" in capsys.readouterr().err
    out = printed(capsys, "approve", run_id, *on, "--shown", entry["shown"], "--by", "mia")
    assert out == "recorded: approve manager, for run refund-1\n"
    until(lambda: [one for one in asked() if one["kind"] == "wait"])
    out = printed(capsys, "show", run_id, *on)
    assert "waits at paid for event paid" in out
    assert (
        f"nano-vm event refund-1 paid JSON --engine temporal --address {shop.server.address}" in out
    )
    assert printed(capsys, "event", run_id, "paid", '{"x": 1}', *on).startswith("recorded: event")
    out = printed(capsys, "run", "refund.yaml", *on, "-i", "order_id=A-1", "--run-id", "refund-1")
    assert "success, 4 steps" in out
    assert (shop.folder / "bank.txt").read_text() == "49.9\n"

    store = ["--store", "sqlite:///runs.db"]
    assert "refund-1" in printed(capsys, "runs", *store)
    kept = json.loads(printed(capsys, "show", run_id, *store, "--json"))
    digest = kept["trace"]["digest"]
    assert digest in out
    assert kept["status"] == "success"
    assert main(["replay", run_id, *store]) == 0
    assert main(["verify", run_id, *store]) == 0


def test_a_run_that_waits_ends_with_three_and_can_be_cancelled(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.worker()
    on = shop.cluster
    out = printed(
        capsys, "run", "refund.yaml", *on, "-i", "order_id=A-1", "--run-id", "stopped", code=3
    )
    assert "run stopped" in out
    assert "waits at manager for approval by manager" in out
    out = printed(capsys, "cancel", "stopped", *on)
    assert "cancelled" in out
    assert main(["cancel", "missing", *on]) == 1
    assert "no run 'missing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (
            ["show", "x", "--address", "127.0.0.1:{free}"],
            1,
            "no Temporal server answers at 127.0.0.1",
        ),
        (["show", "x", "--namespace", "nowhere"], 1, "has no namespace 'nowhere'"),
        (["show", "x", "--address", "a\0b"], 1, "nano-vm: cannot connect to 'a\\x00b': "),
        (["show", "x", "--tls-ca", "a\0b"], 2, "cannot read 'a\\x00b'"),
        (["show", "x", "--tls-cert", "a.pem"], 2, "--tls-cert and --tls-key go together"),
        (["show", "x", "--tls-ca", "missing.pem"], 2, "cannot read missing.pem"),
        (["show", "x", "--api-key-env", "NO_SUCH_KEY"], 2, "the variable NO_SUCH_KEY is not set"),
        (["event", "--match", "paid", "{{}}"], 2, "--match does not go with --engine temporal"),
        (["approve", "x"], 2, "--shown DIGEST"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    shop: Shop, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    free = free_port()
    given = [argument.format(free=free) for argument in arguments]
    assert main([given[0], *shop.cluster, *given[1:]]) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["work", "--until-idle"],
        ["work", "--concurrency", "3"],
        ["work", "--name", "me"],
        ["run", "refund.yaml", "--store", "sqlite:///runs.db"],
        ["run", "refund.yaml", "--signing-key", "key.pem"],
        ["submit", "refund.yaml", "--store", "sqlite:///runs.db"],
        ["show", "x", "--graph"],
        ["runs", "--store", "sqlite:///runs.db"],
        ["runs", "--parent", "x"],
        ["runs", "--submitter", "mia"],
        ["runs", "--min-cost", "1"],
        ["runs", "--program-version", "a" * 12],
        ["runs", "--waiting-for", "event"],
        ["show", "x", "--store", "sqlite:///runs.db"],
        ["approve", "x", "--by", "mia", "--shown", "0" * 64, "--signing-key", "key.pem"],
        ["cancel", "x", "--by", "mia"],
        ["cancel", "x", "--tools", "refund.py:tools"],
    ],
    ids=" ".join,
)
def test_an_option_that_says_nothing_of_a_cluster_is_refused(
    shop: Shop, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([arguments[0], *shop.cluster, *arguments[1:]]) == 2
    err = capsys.readouterr().err
    option = next(word for word in reversed(arguments) if word.startswith("--"))
    assert err.startswith(f"nano-vm: {option} does not go with --engine temporal: ")
    assert err.count("\n") == 1


def test_by_what_a_cluster_knows_the_version_of_a_program_is_said(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", *shop.cluster, "--program-version", "a" * 12]) == 2
    err = capsys.readouterr().err
    assert (
        "finds no runs by a digest; the store of a worker does, and temporal workflow list" in err
    )
    assert "--query \"NanoVersion = '7.1'\"" in err


def test_a_trace_file_that_cannot_be_written_is_told_before_the_run_begins(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["run", "refund.yaml", *shop.cluster, "-i", "order_id=A-1", "--run-id", "unwritten"]
    assert main([*run, "--trace", "missing/trace.json"]) == 2
    assert "cannot write missing/trace.json" in capsys.readouterr().err
    assert main(["show", "unwritten", *shop.cluster]) == 1
    assert "no run 'unwritten'" in capsys.readouterr().err


def test_runs_are_begun_at_times_and_found_by_what_they_are(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    on, name = [*shop.cluster, "--search-attributes"], f"daily-{shop.queue}"
    daily = ["submit", "refund.yaml", *on, "-i", "order_id=A-1", "--run-id", name]
    assert printed(capsys, *daily, "--cron", "0 8 * * 1-5", "--label", "team=pay") == f"{name}\n"
    assert main([*daily, "--cron", "0 8 * * 1-5"]) == 1
    assert f"there is a schedule '{name}'" in capsys.readouterr().err
    assert main(["submit", "refund.yaml", *on, "--cron", "0 8 * * 1-5"]) == 2
    assert "--run-id, which names the schedule" in capsys.readouterr().err

    async def begun() -> list[str]:
        client = await shop.server.client()
        await client.get_schedule_handle(name).trigger()
        query = f"NanoLabels = 'team=pay' AND NanoProgram = 'refund' AND TaskQueue = '{shop.queue}'"
        found: list[str] = []
        while not found:
            found = [one.id async for one in client.list_workflows(query)]
        return found

    (run_id,) = asyncio.run(asyncio.wait_for(begun(), 60))
    assert run_id.startswith(f"{name}-")


def test_runs_are_listed_with_what_they_wait_for(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.worker()
    on, label = shop.cluster, ["--label", f"shop={shop.queue}"]
    begin = ["run", "refund.yaml", *on, "--search-attributes", "-i", "order_id=A-1"]
    run_id = f"listed-{shop.queue}"
    printed(capsys, *begin, *label, "--run-id", run_id, code=3)

    def listed(*more: str) -> str:
        return printed(capsys, "runs", *on, *label, *more)

    pattern = rf"{run_id} +refund +suspended +[0-9]+s  shop={shop.queue}"
    assert re.fullmatch(f"{pattern}\n", until(lambda: listed("--status", "suspended")))
    assert listed("--status", "failed") == ""
    assert listed("--program", "other") == ""
    waiting = listed("--waiting").splitlines()
    assert re.fullmatch(pattern, waiting[0])
    assert any("waits at manager for approval by manager" in one for one in waiting)
    assert any(f"nano-vm approve {run_id} manager" in one for one in waiting)
    (told,) = json.loads(listed("--waiting", "--json"))
    assert (told["run_id"], told["status"], told["program"]) == (run_id, "suspended", "refund")
    (entry,) = told["waiting"]
    shown = json.loads(printed(capsys, "show", run_id, *on, "--json"))
    assert [entry] == shown["waiting"]
    assert (entry["path"], len(entry["shown"])) == ("manager", 64)
    (told,) = json.loads(listed("--json"))
    assert "waiting" not in told
    printed(capsys, "cancel", run_id, *on)
    assert until(lambda: listed("--status", "cancelled")).startswith(run_id)
    assert main(["runs", *on, "--status", "pending"]) == 2
    assert "running from its beginning" in capsys.readouterr().err


def test_a_run_that_cannot_be_asked_takes_no_other_from_the_list(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are all asked at once: each answer may be a trace of 2 MB."""
    names = [f"r{number}" for number in range(40)]
    asked: list[str] = []
    at_once = [0, 0]

    async def rows(*given: Any, **options: Any) -> list[Listed]:
        return [Listed(name, None, None, "suspended", None, {}, 0, None) for name in names]

    async def trace(self: TemporalRuns, run_id: str) -> Trace | None:
        asked.append(run_id)
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(0.01)
        at_once[0] -= 1
        if run_id == "r1":
            raise UnknownRun("no run 'r1' on this cluster")
        if run_id == "r2":
            raise VMError("run 'r2': its trace so far has 2,400,000 bytes")
        return None

    monkeypatch.setattr(temporal, "listed", rows)
    monkeypatch.setattr(TemporalRuns, "trace", trace)
    assert main(["runs", *shop.cluster, "--waiting", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert [one["run_id"] for one in told] == [name for name in names if name != "r1"]
    assert not any("waiting" in one for one in told)
    assert err == "nano-vm: run 'r2': its trace so far has 2,400,000 bytes\n"
    assert (sorted(asked), at_once) == (sorted(names), [0, 16])


def test_a_schedule_is_listed_shown_paused_resumed_and_removed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    at, name = ["--address", shop.server.address], f"nightly-{shop.queue}"
    submit = ["submit", "refund.yaml", *shop.cluster, "-i", "order_id=A-1", "--run-id", name]
    printed(capsys, *submit, "--cron", "30 2 * * *")

    def schedule(action: str, *more: str) -> str:
        return printed(capsys, "schedule", action, *more, *at)

    def line() -> str:
        listed = schedule("list").splitlines()
        return next((one for one in listed if one.startswith(f"{name} ")), "")

    assert re.search(r"  refund +30 2 \* \* \* UTC +next 20..-..-.. 02:30:00 UTC$", until(line))
    shown = schedule("show", name)
    assert shown.startswith(f"{name}: refund, 30 2 * * * UTC\nnext 20")
    assert schedule("pause", name, "--reason", "a holiday") == f"paused: {name}\n"
    assert schedule("show", name).endswith("UTC\npaused: a holiday\n")
    until(lambda: line().endswith("paused: a holiday"))
    assert json.loads(schedule("resume", name, "--json")) == {"name": name, "did": "resumed"}
    told = json.loads(schedule("show", name, "--json"))
    assert (told["name"], told["cron"], told["paused"]) == (name, "30 2 * * *", False)
    assert told["next_ns"][1] - told["next_ns"][0] == 86_400 * 10**9
    until(lambda: name in {one["name"] for one in json.loads(schedule("list", "--json"))})
    assert schedule("remove", name) == f"removed: {name}\n"
    for action in ("show", "pause", "resume", "remove"):
        assert main(["schedule", action, name, *at]) == 1
        err = capsys.readouterr().err
        assert err == (
            f"nano-vm: no schedule '{name}' on this cluster; nano-vm schedule list names those "
            f"that there are\n"
        )
    assert main(["schedule", "pause"]) == 2
    assert "NAME" in capsys.readouterr().err


def test_nobody_is_asked_about_what_is_not_asked(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.worker()
    on = shop.cluster
    run = ["run", "refund.yaml", *on, "-i", "order_id=A-1", "--run-id"]
    printed(capsys, *run, f"asked-{shop.queue}", code=3)
    monkeypatch.setattr("nano_vm.cli.inbox.on_terminal", lambda: True)
    approve = ["approve", f"asked-{shop.queue}"]
    assert main([*approve, "nowhere", *on, "--by", "mia"]) == 1
    err = capsys.readouterr().err
    assert "asks no approval at 'nowhere'" in err
    assert f"--engine temporal --address {shop.server.address} says how it stands" in err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main([*approve, *on, "--by", "mia"]) == 1
    assert "nothing was recorded" in capsys.readouterr().err


def test_a_command_that_is_shown_names_the_cluster_and_how_its_payloads_are_read(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYLOAD_KEY", "0" * 64)
    more = ["--payloads", "sqlite:///large.db", "--encryption-key-env", "PAYLOAD_KEY"]
    assert main(["approve", "x", *shop.cluster, *more]) == 2
    err = capsys.readouterr().err
    assert (
        f"nano-vm show x --engine temporal --address {shop.server.address} {' '.join(more)}" in err
    )
    tls = ["--tls", "--tls-ca", "ca.pem", "--tls-cert", "c.pem", "--tls-key", "k.pem"]
    tls += ["--api-key-env", "KEY"]
    assert main(["approve", "x", *shop.cluster, *tls]) == 2
    assert f"--address {shop.server.address} {' '.join(tls)} prints it" in capsys.readouterr().err


def test_what_no_worker_takes_is_not_waited_for_for_ever(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = f"alone-{shop.queue}"
    submit = ["submit", "refund.yaml", *shop.cluster, "-i", "order_id=A-1", "--run-id", run_id]
    printed(capsys, *submit)
    monkeypatch.setattr("nano_vm.temporal.runs.TAKEN_SECONDS", 0.5)
    for said in (
        ["approve", run_id, "manager", "--shown", "0" * 64, "--by", "mia"],
        ["event", run_id, "paid", "1"],
    ):
        assert main([*said, *shop.cluster]) == 1
        err = capsys.readouterr().err
        assert f"run '{run_id}': no worker has taken this within 0.5 s" in err


def test_a_run_that_no_worker_can_read_says_so(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAYLOAD_KEY", "0" * 64)
    key, run_id = ["--encryption-key-env", "PAYLOAD_KEY"], f"unread-{shop.queue}"
    submit = ["submit", "refund.yaml", *shop.cluster, *key, "-i", "order_id=A-1"]
    printed(capsys, *submit, "--run-id", run_id)
    show = ["show", run_id, *shop.cluster]
    with monkeypatch.context() as patched:
        patched.setattr("nano_vm.temporal.runs.ANSWER_SECONDS", 0.5)
        assert printed(capsys, *show) == (
            f"run {run_id} has no worker that answers: none has taken it yet, or none runs now\n"
        )
    blind = shop.worker()

    def stands() -> str:
        out = printed(capsys, *show)
        return out if "stands still" in out else ""

    line = until(stands)
    assert line == (
        f"run {run_id} stands still: no worker can go on with it: Failed decoding arguments: "
        f"Unknown payload encoding binary/encrypted\n"
    )
    told = json.loads(printed(capsys, *show, "--json"))
    assert told["status"] == "pending"
    assert "binary/encrypted" in told["fault"]
    blind.kill()
    shop.worker(*key)
    until(lambda: "waits at manager" in printed(capsys, *show, *key))
    assert main(show) == 1
    err = capsys.readouterr().err
    assert f"run '{run_id}' says of itself cannot be decoded here: Unknown payload" in err
    assert err.count("\n") == 1


SECRET = "zq-secret-zq"
SECRET_TOOLS = f"""\
def look() -> str:
    return "{SECRET}"


def send(text: str) -> str:
    raise ConnectionError("lost")


tools = {{"look": look, "send": send}}
"""
SECRET_POLICY = {
    "tools": {"look": {"returns": "secret"}, "send": {"args": {"text": "any"}}},
}
SECRET_PROGRAM = """\
name: marked
steps:
  - {id: look, type: tool, tool: look}
  - {id: send, type: tool, tool: send, args: {text: $look.output}}
output: done
"""


def test_a_terminal_is_shown_no_secret_of_a_run_on_a_cluster(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def suspended(*given: Any, **options: Any) -> list[Listed]:
        return [Listed(run_id, None, None, "suspended", None, {}, 0, None)]

    (shop.folder / "refund.py").write_text(SECRET_TOOLS)
    (shop.folder / "policy.json").write_text(json.dumps(SECRET_POLICY))
    (shop.folder / "marked.yaml").write_text(SECRET_PROGRAM)
    shop.worker("--policy", "policy.json")
    run_id = f"marked-{shop.queue}"
    run = ["run", "marked.yaml", *shop.cluster, "--policy", "policy.json", "--run-id", run_id]
    said = {"run": printed(capsys, *run, code=3)}
    said["show"] = printed(capsys, "show", run_id, *shop.cluster)
    said["json"] = printed(capsys, "show", run_id, *shop.cluster, "--json")
    for name, text in said.items():
        assert SECRET not in text, name
        assert "redacted" in text, name
        assert "in_doubt" in text if name == "json" else "in doubt at send" in text, name
    (entry,) = json.loads(said["json"])["waiting"]
    monkeypatch.setattr(temporal, "listed", suspended)
    (listed,) = json.loads(printed(capsys, "runs", *shop.cluster, "--waiting", "--json"))
    assert listed["waiting"] == [entry]


def test_a_process_that_used_a_cluster_ends_with_its_code(shop: Shop) -> None:
    command = [sys.executable, "-m", "nano_vm", "show", "missing", *shop.cluster]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no run 'missing'" in done.stderr
