"""What runs ask of people, and answers that a page sends: recorded once, by whom, for what was seen."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ui_stories import HOSTILE, ask, go_on, payments

from nano_vm.cli import main
from nano_vm.errors import AlreadyDecided, Changed, VMError
from nano_vm.ui.asking import WHOLE_CHARS, Answers, _asking, asked
from nano_vm.ui.library import StoreLibrary
from nano_vm.ui.local import LocalServer

Serve = Callable[..., LocalServer]


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'runs.db'}"
    asyncio.run(ask(found))
    return found


def of(store: Any, kind: str) -> dict[str, Any]:
    found, damaged = asked(store)
    assert damaged == []
    return dict(next(one for one in found if one["kind"] == kind))


def answer(one: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"run": one["run"], "path": one["path"], "shown": one["shown"], **more}


@pytest.mark.slow
def test_all_that_is_asked_is_shown(store: Any) -> None:
    approval, doubt = of(store, "approval"), of(store, "in_doubt")
    assert {fact["name"]: fact["text"] for fact in approval["facts"]} == {
        "order": '"A-2002"',
        "amount": "149.9",
        "customer": '"The TV arrived damaged"',
    }
    assert (approval["role"], approval["whole"]) == ("manager", True)
    assert (doubt["run"], doubt["path"], doubt["tool"]) == ("payout-1", "pay", "pay")
    assert [fact["text"] for fact in doubt["facts"]] == ["12.5"]


@pytest.mark.slow
def test_nothing_hides_in_what_is_shown(store: Any) -> None:
    run = store.load("refund-2002", rows=False)
    entry = {**run.waiting[0], "show": {"pa\u0443": "\n".join(HOSTILE), "long": "x"}}
    run.waiting = [entry]
    store.load = lambda *_, **__: run  # as a program that says so would be stored
    one = of(store, "approval")
    text = one["facts"][0]["text"]
    assert text.isprintable()
    assert "\\u202e" in text
    assert one["facts"][0]["name"] != "pa\u0443"  # a letter that imitates another is escaped
    entry["show"]["long"] = "x" * WHOLE_CHARS
    one = of(store, "approval")
    assert (one["whole"], one["facts"]) == (False, [])


@pytest.mark.slow
def test_an_approval_is_recorded_once_and_the_run_goes_on(store: Any, url: str) -> None:
    one = of(store, "approval")
    Answers(store, "mia", time).record(answer(one, answer="approve", reason="checked"))
    assert [found["kind"] for found in asked(store)[0]] == ["in_doubt"]
    with pytest.raises(AlreadyDecided, match="mia"):
        Answers(store, "tom", time).record(answer(one, answer="reject", reason="no"))
    assert asyncio.run(go_on(url, "refund-2002")) == "success"


@pytest.mark.slow
def test_a_rejection_has_a_reason(store: Any, url: str) -> None:
    one, answers = of(store, "approval"), Answers(store, "mia", time)
    with pytest.raises(VMError, match="reason"):
        answers.record(answer(one, answer="reject", reason=" "))
    answers.record(answer(one, answer="reject", reason="too much"))
    assert asyncio.run(go_on(url, "refund-2002")) == "success"
    assert "reject" in {row.path for row in store.load("refund-2002").rows}


@pytest.mark.slow
def test_an_answer_to_what_was_not_shown_is_refused(store: Any) -> None:
    answers = Answers(store, "mia", time)
    for kind, more in (
        ("approval", {"answer": "approve"}),
        ("in_doubt", {"answer": "resolve", "how": "retry"}),
    ):
        one = of(store, kind)
        with pytest.raises(VMError, match="again"):
            answers.record({**answer(one, **more), "shown": "0" * 64})
    with pytest.raises(Changed):
        answers.record({**answer(of(store, "approval"), answer="approve"), "path": "reject"})
    assert len(asked(store)[0]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"how": "done", "output": '"paid"'}, "success"),
        ({"how": "fail", "reason": "the bank says no"}, "failed"),
    ],
)
def test_what_became_of_a_call_is_recorded(
    store: Any, url: str, more: dict[str, str], status: str
) -> None:
    Answers(store, "mia", time).record(answer(of(store, "in_doubt"), answer="resolve", **more))
    from nano_vm import ExecutionVM, tool

    @tool(effect="irreversible")
    async def pay(amount: float) -> str:
        raise AssertionError("it is not called again")

    async def resume() -> str:
        vm = ExecutionVM(None, {"pay": pay, "payments": payments}, store=url)
        return (await vm.resume("payout-1")).status.value

    assert asyncio.run(resume()) == status


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"run": 1, "path": "p", "shown": "s", "answer": "approve"},
        {"run": "refund-2002", "path": "approve", "shown": "s", "answer": "delete"},
        {"run": "payout-1", "path": "pay", "answer": "resolve", "how": "done", "output": "{"},
        {"run": "payout-1", "path": "pay", "answer": "resolve", "how": "fail", "reason": ""},
        {"run": "payout-1", "path": "pay", "answer": "resolve", "how": "maybe"},
    ],
)
def test_what_is_no_answer_is_refused(store: Any, body: Any) -> None:
    if isinstance(body, dict) and body.get("run") == "payout-1":
        body = {**body, "shown": of(store, "in_doubt")["shown"]}
    with pytest.raises(VMError):
        Answers(store, "mia", time).record(body)
    assert len(asked(store)[0]) == 2


# --- over the server ---


def post(
    server: LocalServer, body: bytes, path: str = "api/answer", **headers: str | None
) -> tuple[int, bytes]:
    origin = f"http://127.0.0.1:{server.server_port}"
    sent = {"Origin": origin, "Content-Type": "application/json", **headers}
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    address = urlsplit(server.address).path + path
    connection.request(
        "POST", address, body, {name: text for name, text in sent.items() if text is not None}
    )
    reply = connection.getresponse()
    found = reply.status, reply.read()
    connection.close()
    return found


@pytest.mark.slow
def test_only_the_page_of_a_server_that_decides_is_heard(serve: Serve, store: Any) -> None:
    one = of(store, "approval")
    body = json.dumps(answer(one, answer="approve")).encode()
    reads = serve(StoreLibrary(store))
    assert post(reads, body) == (
        403,
        b"this nano-vm ui only reads: start it with --as NAME to decide as NAME",
    )
    server = serve(StoreLibrary(store), Answers(store, "mia", time))
    for origin in (None, "http://example.com", "null", "http://127.0.0.1:1"):
        assert post(server, body, Origin=origin)[0] == 403
    assert post(server, body, **{"Content-Type": "text/plain"})[0] == 415
    assert post(server, b"{" * 10)[0] == 400
    for size in (1, 8 * 1024 * 1024):  # the second is more than the system keeps of what is sent
        assert post(server, b"x" * (1024 * 1024 + size))[0] == 413
    assert post(server, body, "api/runs")[0] == 404
    assert post(server, body, Host="example.com")[0] == 421
    assert len(asked(store)[0]) == 2
    assert post(server, body) == (200, b'{"recorded": true}')
    status, said = post(server, body)
    assert status == 409
    assert b"mia" in said


@pytest.mark.slow
def test_the_command_decides_for_a_name_and_of_a_store_only(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui", url, "--as", " ", "--no-browser"]) == 1
    assert capsys.readouterr().err
    assert main(["show", "refund-2002", "--store", url, "--json"]) == 0
    trace = json.loads(capsys.readouterr().out)["trace"]
    file = tmp_path / "run.json"
    file.write_text(json.dumps(trace))
    assert main(["ui", str(file), "--as", "mia", "--no-browser"]) == 2
    assert "files take no answers" in capsys.readouterr().err


def test_what_is_too_long_for_a_page_is_not_written_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nano_vm.ui.asking.written", None)  # who wrote it would fail
    entry = {
        "kind": "approval",
        "path": "a",
        "role": "r",
        "shown": "",
        "show": {"x": ["y" * 60_000] * 2},
    }
    asking = _asking("run", "program", 0, entry)
    assert (asking["whole"], asking["facts"]) == (False, [])
