"""Forks by `nano-vm ui`: looked at, stored for a host to drive, and refused where there is none."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ui_stories import go_on, host, reject

from nano_vm.cli import main
from nano_vm.store.protocol import Archive, RunFilter
from nano_vm.ui.forks import Forks
from nano_vm.ui.library import FileLibrary, StoreLibrary
from nano_vm.ui.local import LocalServer

RUN = "refund-2004"
HAPPY = {"edit": {}, "at": None, "effects": False}
ANGRY = {**HAPPY, "edit": {"analyze": {"output": "yes, it is broken"}}}


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A store with one run, of a customer who is happy."""
    found = f"sqlite:///{tmp_path / 'runs.db'}"
    asyncio.run(reject(found))
    return found


@pytest.fixture
def server(url: str, store: Archive, serve: Callable[..., LocalServer]) -> Iterator[LocalServer]:
    """One on which mia makes forks."""
    vm = host(url)
    library = StoreLibrary(store)
    yield serve(library, None, Forks(library, vm, "mia"))
    vm.close()


def ask(address: str, path: str, body: Any = None, origin: str | None = None) -> tuple[int, Any]:
    """Status and answer, which is JSON or a line."""
    place = urlsplit(address)
    connection = HTTPConnection("127.0.0.1", place.port or 0, timeout=20)
    own = f"http://127.0.0.1:{place.port}"
    headers = {"Origin": origin or own, "Content-Type": "application/json"}
    where = f"{place.path}api/{path}"
    if body is None:
        connection.request("GET", where)
    else:
        connection.request("POST", where, json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, json.loads(text) if text[:1] in ("{", "[") else text


def test_a_fork_is_looked_at_stored_and_driven_by_a_host(
    url: str, store: Archive, server: LocalServer
) -> None:
    at = server.address
    status, seen = ask(at, f"run/{RUN}/fork/preview", ANGRY)
    assert (status, seen["taken"]) == (200, ["analyze"])
    assert [(call["path"], call["called"]) for call in seen["calls"]] == [("fetch", "get_order")]
    assert len(store.page(RunFilter(), size=9).runs) == 1  # nothing is made
    status, made = ask(at, f"run/{RUN}/fork", ANGRY)
    assert (status, made["created"], made["taken"]) == (200, True, 1)
    run = store.load(made["id"])
    assert (run.parent, run.submitter, run.labels) == (RUN, "mia", {"team": "shop"})
    assert (run.status, run.owner) == ("running", None)  # as one that its process has left
    assert asyncio.run(go_on(url, made["id"])) == "suspended"
    assert store.load(made["id"]).waiting[0]["path"] == "approve"
    _, tree = ask(at, f"run/{made['id']}/forks")
    assert [(one["id"], one["depth"], one["changed"]) for one in tree["runs"]] == [
        (RUN, 0, []),
        (made["id"], 1, ["analyze.output"]),
    ]


def test_what_cannot_be_forked_is_told(store: Archive, server: LocalServer) -> None:
    at = server.address
    fork = f"run/{RUN}/fork"
    wrong = {**HAPPY, "edit": {"fetch": {"args": {"number": "A"}}}}
    status, refused = ask(at, fork, wrong)
    assert status == 422
    assert {fault["code"][0] for fault in refused["diagnostics"]} == {"V"}
    for body, said in (
        ({**HAPPY, "edit": {"approve": {"output": {"approved": True}}}}, "is an approval"),
        ({**HAPPY, "at": "nowhere"}, "has no step 'nowhere'"),
        ({**HAPPY, "edit": {"program": {}}}, "'program' is a Program"),
        ({**HAPPY, "edit": 1}, "a fork has 'edit'"),
        ([], "a fork has 'edit'"),
    ):
        for path in (fork, f"{fork}/preview"):
            status, told = ask(at, path, body)
            assert (status, said in told) == (409, True), (body, told)
    assert ask(at, "run/nope/fork", HAPPY)[0] == 404
    assert ask(at, fork, HAPPY, origin="http://example.com")[0] == 403
    assert len(store.page(RunFilter(), size=9).runs) == 1


def test_who_only_looks_makes_no_fork(store: Archive, serve: Callable[..., LocalServer]) -> None:
    at = serve(StoreLibrary(store)).address
    status, told = ask(at, f"run/{RUN}/fork/preview", HAPPY)
    assert (status, "start it with --as NAME and the tools" in told) == (403, True)
    assert [one["id"] for one in ask(at, f"run/{RUN}/forks")[1]["runs"]] == [RUN]
    files = serve(FileLibrary([store.load(RUN)])).address
    assert ask(files, f"run/{RUN}/forks") == (200, {"runs": [], "whole": True})
    assert ask(files, f"run/{RUN}/fork", HAPPY)[0] == 403


TOOLS = f"""
import sys

sys.path.append({str(Path(__file__).parent)!r})
from ui_stories import tools as made

tools = made(0)
"""


@pytest.mark.slow
def test_the_command_drives_what_is_forked_in_it(built: None, url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TOOLS)
    command = [sys.executable, "-m", "nano_vm", "ui", url, "--no-browser", "--as", "mia"]
    command += ["--tools", "shop.py:tools", "--answer", "analyze=yes", "--with-worker"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.match(r"http://127\.0\.0\.1:\d+/\S+/", process.stdout.readline())
        assert found is not None
        try:
            _, made = ask(found[0], f"run/{RUN}/fork", {**ANGRY, "at": "analyze"})
            asked: list[Any] = []
            until = time.monotonic() + 60
            while not asked:
                assert time.monotonic() < until
                time.sleep(0.1)
                asked = ask(found[0], "asked")[1]["asked"]
            assert (asked[0]["run"], asked[0]["path"]) == (made["id"], "approve")
            answer = {name: asked[0][name] for name in ("run", "path", "shown")}
            said = {**answer, "answer": "reject", "reason": "no"}
            assert ask(found[0], "answer", said) == (200, {"recorded": True})
            version = ""
            while not version.startswith("success"):  # it goes on with the answer, too
                assert time.monotonic() < until
                time.sleep(0.1)
                version = ask(found[0], f"run/{made['id']}")[1]["version"]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--with-worker"], "add --as NAME"),
        (["--tools", "shop.py:tools"], "add --as NAME"),
        (["--model", "local"], "--model is of a host, and there is none here: add --as NAME"),
        (["--answer", "analyze=yes"], "--answer is of a host"),
        (["--as", "mia", "--price", "m=1,2"], "--price is of a host, and there is none here: add"),
        (["--as", "mia", "--with-worker"], "add --tools, or --model"),
    ],
)
def test_a_host_of_nobody_and_a_worker_without_one_are_refused(
    built: None,
    url: str,
    more: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ui", url, "--no-browser", *more]) == 2
    assert told in capsys.readouterr().err
