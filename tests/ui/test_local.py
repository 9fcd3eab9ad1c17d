"""The server of `nano-vm ui`: what it answers, to whom, and that it changes nothing."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from nano_vm import Trace
from nano_vm.cli import main
from nano_vm.draw import view
from nano_vm.newest import Newest
from nano_vm.run.durable.stored import trace_of
from nano_vm.store.protocol import RunFilter, open_store
from nano_vm.ui import library
from nano_vm.ui import page as pages
from nano_vm.ui.library import FileLibrary, Programs, StoreLibrary, compared, recomputed, shown
from nano_vm.ui.local import LocalServer

Serve = Callable[[Any], LocalServer]


def ask(
    server: LocalServer, path: str, *, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def below(server: LocalServer, path: str) -> str:
    return urlsplit(server.address).path + path


def get(server: LocalServer, path: str) -> Any:
    status, _, body = ask(server, below(server, path))
    assert status == 200, body
    return json.loads(body)


def test_nothing_is_answered_without_the_token_or_for_another_host(
    serve: Serve, stored: StoreLibrary
) -> None:
    server = serve(stored)
    right = below(server, "api/runs")
    assert server.server_address[0] == "127.0.0.1"
    for path in ("/", "/api/runs", "/x/api/runs", right.replace(server.token, "x" * 32), "//"):
        status, _, body = ask(server, path)
        assert status == 404
        assert b"refund" not in body
    for host in ("example.com", f"127.0.0.1:{server.server_port + 1}", "", "127.0.0.1"):
        assert ask(server, right, host=host)[0] == 421
    assert ask(server, right, host=f"localhost:{server.server_port}")[0] == 200
    assert ask(server, right, method="POST")[0] == 404  # nothing is listed by it
    assert ask(server, right, method="DELETE")[0] == 501
    assert len({serve(stored).token for _ in range(3)}) == 3


def test_every_answer_has_the_policy_and_is_kept_nowhere(
    serve: Serve, stored: StoreLibrary
) -> None:
    server = serve(stored)
    for path in ("", "assets/app.js", "assets/app.css", "api/runs", "api/none", "../x", "%2e%2e/x"):
        _, headers, _ = ask(server, below(server, path))
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert ask(server, below(server, "assets/../page.py"))[0] == 404


def test_runs_are_found_by_what_is_asked_for(serve: Serve, stored: StoreLibrary) -> None:
    server = serve(stored)

    def ids(query: str) -> list[str]:
        return [run["id"] for run in get(server, f"api/runs?{query}")["runs"]]

    assert len(ids("")) == 5
    assert ids("status=failed") == ["refund-2003"]
    assert set(ids("status=suspended")) == {"refund-2002", "refund-2005"}
    assert len(ids("labels=team%3Dshop&program=refund&min_cost=0.00007")) == 5
    assert set(ids("waiting=approval:manager")) | set(ids("waiting=in_doubt")) == {
        "refund-2002",
        "refund-2005",
    }
    assert ids("version=00000000") == []
    assert ids("program=other") == ids("min_cost=1") == ids("since=9000000000000") == []
    for query in (
        "status=nope",
        "min_cost=x",
        "since=1e999",
        "until=nan",
        "since=99999999999999",
        "labels=%3D",
    ):
        status, _, body = ask(server, below(server, f"api/runs?{query}"))
        assert status == 400, query
        assert body


def test_runs_are_searched_for_what_was_said(serve: Serve, stored: StoreLibrary) -> None:
    server = serve(stored)
    found = get(server, "api/search?text=GATEWAY%20timed&status=failed")
    assert [run["id"] for run in found["runs"]] == ["refund-2003"]
    assert found["runs"][0]["hits"][0]["found"] == "gateway timed"
    assert (found["searched"], found["after"]) == (1, None)
    for query in ("", "text=", f"text={'x' * 201}"):
        status, _, body = ask(server, below(server, f"api/search?{query}"))
        assert (status, b"1 to 200 characters" in body) == (400, True)


def test_a_browser_that_goes_away_is_nothing_to_tell(
    serve: Serve, stored: StoreLibrary, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    server = serve(stored)
    closed = threading.Event()
    close = server.shutdown_request

    def closing(request: Any) -> None:
        close(request)
        closed.set()

    monkeypatch.setattr(server, "shutdown_request", closing)
    with socket.create_connection(("127.0.0.1", server.server_port)) as browser:
        browser.sendall(b"GET / HT")
        # closed with a reset, as by a process that is killed
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert closed.wait(10)
    assert capfd.readouterr().err == ""


def test_what_is_not_there_is_told_in_a_line(serve: Serve, stored: StoreLibrary) -> None:
    server = serve(stored)
    for path in ("api/run/nope", "api/verify/nope", "api/compare/nope/refund-2001"):
        status, _, body = ask(server, below(server, path))
        assert status == 404
        assert b"nope" in body
        assert b"Traceback" not in body
    assert ask(server, below(server, "api/delete/refund-2001"))[0] == 404
    assert ask(server, below(server, "api"))[0] == 404


def test_a_run_is_sent_again_only_when_it_has_changed(serve: Serve, stored: StoreLibrary) -> None:
    server = serve(stored)
    first = get(server, "api/run/refund-2002")
    assert first["run"]["lost"] == []
    again = get(server, f"api/run/refund-2002?seen={first['version'].replace(' ', '%20')}")
    assert again == {"version": first["version"], "run": None}


def test_what_was_answered_of_a_run_that_has_ended_is_kept(
    serve: Serve, stored: StoreLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    view_of = library.view_of

    def counted(run: Any, *given: Any, **more: Any) -> Any:
        made.append(run.run_id)
        return view_of(run, *given, **more)

    headers: list[str] = []
    header = StoreLibrary.header

    def read(self: StoreLibrary, run_id: str) -> Any:
        headers.append(run_id)
        return header(self, run_id)

    monkeypatch.setattr(library, "view_of", counted)
    monkeypatch.setattr(StoreLibrary, "header", read)
    server = serve(stored)
    for run_id in ("refund-2001", "refund-2002"):
        first = get(server, f"api/run/{run_id}")
        assert get(server, f"api/run/{run_id}?graph=later") == first
        assert headers.count(run_id) == 2, "once for each answer"
    assert made == ["refund-2001", "refund-2002", "refund-2002"], "the second waits"


def test_a_run_of_a_large_program_comes_without_its_graph_first_to_who_asks_so(
    serve: Serve, stored: StoreLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_CHARTS", Newest(view.KEPT_NODES, view._size))
    monkeypatch.setattr(view, "LARGE_STEPS", 2)
    server = serve(stored)
    first = get(server, "api/run/refund-2001?graph=later")
    assert (first["run"]["chart"], first["run"]["chart_fault"]) == (None, None)
    seen = first["version"].replace(" ", "%20")
    whole = get(server, f"api/run/refund-2001?seen={seen}&graph=later")
    assert whole["version"] != first["version"]
    assert whole["run"]["chart"] is not None
    assert [step["path"] for step in whole["run"]["steps"]] == [
        step["path"] for step in first["run"]["steps"]
    ]
    again = get(server, f"api/run/refund-2001?seen={whole['version'].replace(' ', '%20')}")
    assert again["run"] is None
    assert get(server, "api/run/refund-2001?graph=later") == whole, "the graph is kept by now"
    older = get(server, "api/run/refund-2003?graph=later&seen=running%201%20%20undrawn")
    assert older["run"]["chart"] is not None, "it has grown since it was seen without its graph"


def test_a_run_is_recomputed_and_two_are_compared(stored: StoreLibrary) -> None:
    for run_id in ("refund-2001", "refund-2002", "refund-2003"):
        assert recomputed(stored, run_id, Programs()).identical
    found = compared(stored, "refund-2001", "refund-2003", Programs())
    assert (found["same"], found["divergence"]) == (False, "analyze")
    assert list(found["whole"]["status"]) == ['"success"', '"failed"']
    fields = {step["path"]: step["fields"] for step in found["steps"]}
    answers = ['"Yes - damaged goods"', '"yes - damaged goods"']
    assert list(fields["analyze"]["output"]) == answers
    assert compared(stored, "refund-2001", "refund-2001", Programs())["same"]


def test_files_answer_as_the_store_does(stored: StoreLibrary) -> None:
    runs = [stored.recorded(row["id"]) for row in stored.page(RunFilter())["runs"]]
    files = FileLibrary(runs)
    for asked in (
        RunFilter(),
        RunFilter(status="failed"),
        RunFilter(labels={"team": "shop"}, min_cost_usd="0.00007"),
        RunFilter(labels={"team": "x"}),
        RunFilter(project="default", program="refund"),
        RunFilter(submitter="nobody"),
        RunFilter(since_ns=2**62),
        RunFilter(until_ns=2**62),
    ):
        ours, theirs = files.page(asked)["runs"], stored.page(asked)["runs"]
        assert sorted(map(str, ours)) == sorted(map(str, theirs))
    traces = FileLibrary([trace_of(run) for run in runs])  # type: ignore[arg-type]
    assert isinstance(traces.recorded("refund-2001"), Trace)
    assert {row["id"] for row in traces.page(RunFilter(status="failed"))["runs"]} == {"refund-2003"}
    bare = shown(traces, "refund-2001", Programs(), "recorded", graph="later")
    assert bare["version"] == "recorded"
    assert bare["run"] is not None
    assert "program" in str(bare["run"]["chart_fault"]), "a trace lacks its program"


def test_a_store_of_a_worker_is_only_read(stories: str, stored: StoreLibrary) -> None:
    with pytest.raises(Exception, match="read"):
        stored.store.erase("refund-2001")
    again = open_store(stories, read_only=True)
    assert again.load("refund-2001").salt is not None
    again.close()


# --- the command ---


def test_what_cannot_be_shown_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NANO_VM_STORE", raising=False)
    file = tmp_path / "x.json"
    file.write_text("{}")
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    open_store(url).close()
    for command, said in (
        (["ui"], "which runs?"),
        (["ui", str(tmp_path / "none.json")], "none.json"),
        (["ui", str(file)], "not a trace"),
        (["ui", url, str(file)], "one store, or files"),
        (["ui", f"sqlite:///{tmp_path / 'none.db'}"], "no database"),
        (["ui", url, "--port", "99999"], "no port"),
    ):
        assert main(command) in (1, 2), command
        assert said in capsys.readouterr().err


def test_a_port_in_use_and_pages_that_are_not_built_are_told(
    built: None,
    stories: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["ui", stories, "--port", str(port), "--no-browser"]) == 2
    assert f"--port: {port} cannot be used" in capsys.readouterr().err
    monkeypatch.setattr(pages, "DIST", tmp_path)
    assert main(["ui", stories, "--no-browser"]) == 1
    assert "make ui" in capsys.readouterr().err
