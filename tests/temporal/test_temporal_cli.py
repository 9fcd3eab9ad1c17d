"""The command line over a development server: a worker in a process of its own, and what people say
to its runs. The worker is killed between request and approval.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nano_vm.cli import main
from temporal.cluster import Server, free_port

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

    def worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "nano_vm", "work", *self.cluster]
        command += ["--tools", "refund.py:tools", "--store", "sqlite:///runs.db"]
        process = subprocess.Popen(command, cwd=self.folder)
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
        (["show", "x", "--tls-cert", "a.pem"], 2, "--tls-cert and --tls-key go together"),
        (["show", "x", "--tls-ca", "missing.pem"], 2, "cannot read missing.pem"),
        (["show", "x", "--api-key-env", "NO_SUCH_KEY"], 2, "the variable NO_SUCH_KEY is not set"),
        (["event", "--match", "paid", "{{}}"], 2, "--match finds runs in a store"),
        (["work", "--until-idle"], 2, "--until-idle is for a store"),
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


def test_a_process_that_used_a_cluster_ends_with_its_code(shop: Shop) -> None:
    command = [sys.executable, "-m", "nano_vm", "show", "missing", *shop.cluster]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no run 'missing'" in done.stderr
