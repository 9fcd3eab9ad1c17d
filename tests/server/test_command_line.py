"""The command line with ``--server``: it prints what it prints of the store itself, does what it
does there, and says in one line what a server refuses.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nano_vm import Completion, ExecutionVM, LLMUsage, Program
from nano_vm.cli import main
from nano_vm.cli.remote import ServerPlace
from nano_vm.client import Client
from nano_vm.diagnostics import Diagnostic
from nano_vm.errors import ProgramError
from nano_vm.run.durable.stored import trace_of
from nano_vm.testing import ScriptedLLM

from .conftest import REFUND, World, world_at
from .serving import served

PARCEL = """
name: parcel
steps:
  - {id: paid, type: wait, event: paid, output_schema: {type: object, required: [amount]}}
  - {id: ship, type: tool, tool: pay, args: {order_id: $paid.output.amount}}
"""

BROKEN = """
name: broken
steps:
  - {id: pay, type: tool, tool: missing, args: {}}
"""


@dataclass
class Shop:
    """A server of one project, and what the command line is given to reach it."""

    world: World
    store: str
    address: str
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: str, where: str | None = None) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command, on the server unless on another."""
        code = main([*words, "--server", where or self.address])
        return code, *self.capsys.readouterr()

    def stored(self, *words: str) -> tuple[int, str, str]:
        """The same on the store."""
        code = main([*words, "--store", self.store])
        return code, *self.capsys.readouterr()

    def approved_as_told(self, text: str) -> str:
        """What the command that *text* shows prints, by which what is asked is approved."""
        (command,) = re.findall(r"^  nano-vm (approve .*)$", text, re.MULTILINE)
        code = main(str(command).split())
        out, err = self.capsys.readouterr()
        assert (code, err) == (0, "")
        return str(out)

    def same(self, *words: str) -> str:
        """What both print, which is the same but for how they are named."""
        code, out, err = self.run(*words)
        expected_code, expected, expected_err = self.stored(*words)
        assert (code, of_neither(out), err) == (expected_code, of_neither(expected), expected_err)
        return out

    def key(self, role: str) -> str:
        listed = {"role": "viewer", "approves": ["manager"]}  # else the owner's keys decide nothing
        self.world.owner.put("/api/v1/projects/shop/members/owner", json=listed)
        path = "/api/v1/projects/shop/keys"
        made = self.world.owner.post(path, json={"name": role, "role": role})
        return str(made.json()["key"])


GOES_ON = {
    r"it goes on by nano-vm work, or nano-vm resume \S+ --tools \.\.\. OF": (
        "it goes on by a worker of the server"
    ),
    r"nano-vm work --tools \.\.\. begins it, with OF": "a worker of the server begins it",
}
"""How a run goes on is said otherwise: the tools are with the workers of the server."""


def of_neither(text: str) -> str:
    """*text* without what names the store or the server, and how old runs were when it was asked."""
    text = re.sub(r" +\d+s(?= +\d+ step)", " AGE", text)
    text = re.sub(r"--store \S+|--server \S+", "OF", text)
    text = text.replace(" --by NAME", "")  # a key says it to a server, which refuses the option
    for of_store, of_server in GOES_ON.items():
        text = re.sub(of_store, of_server, text)
    return text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, str, str]]:
    url = f"sqlite:///{tmp_path_factory.mktemp('line')}/runs.db"
    world = world_at(url)
    with served(world.state) as address:
        yield world, url, address
    world.state.store.close()


@pytest.fixture
def shop(
    made: tuple[World, str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Shop:
    shop = Shop(*made, capsys)
    monkeypatch.chdir(tmp_path)
    for name in ("NANO_VM_STORE", "NANO_VM_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NANO_VM_KEY", shop.key("admin"))
    return shop


@pytest.mark.slow
def test_what_is_printed_is_what_is_printed_of_the_store(shop: Shop) -> None:
    """Of a run that is pending, one that waits, one that was answered, and one that has ended."""
    put = shop.world.developer.post("/api/v1/projects/shop/programs", json={"source": PARCEL})
    assert put.is_success
    body = {"program": "parcel", "run_id": "parcel-1", "labels": {"team": "returns"}}
    assert shop.world.developer.post("/api/v1/projects/shop/runs", json=body).is_success
    assert "begins it" in shop.same("show", "parcel-1")
    run_id = shop.world.start(run_id="refund-1")
    waiting = shop.same("show", "refund-1")
    assert f"nano-vm approve {run_id} approve --shown" in waiting
    assert "waits at paid for event paid" in shop.same("show", "parcel")
    shop.same("show", "refund-1", "--json")
    assert "approval by manager" in shop.same("runs", "--waiting")
    assert [run["run_id"] for run in json.loads(shop.same("runs", "--waiting", "--json"))] == [
        "refund-1",
        "parcel-1",
    ]
    code, out, _ = shop.run("approve", "refund", "--shown", shown_in(waiting), "--reason", "fine")
    assert (code, out) == (
        0,
        "recorded: approve approve, for run refund-1\nit goes on by a worker of the server\n",
    )
    assert "recorded: approve approve by owner" in shop.same("show", "refund-1")
    shop.world.work()
    assert 'output: "paid A-1"' in shop.same("show", "refund-1")
    shop.same("show", "refund-1", "--json")
    shop.same("runs")
    listed = shop.same("runs", "--json", "--label", "team=returns", "--since", "1h")
    assert [run["run_id"] for run in json.loads(listed)] == ["parcel-1"]
    assert shop.same("runs", "--status", "failed", "--min-cost", "1") == ""
    assert shop.same("runs", "--waiting-for", "approval:manager") == ""
    assert "parcel-1" in shop.same("runs", "--waiting-for", "event:paid")
    (parcel,) = json.loads(listed)
    assert "parcel-1" in shop.same("runs", "--program-version", parcel["program_digest"][:8])
    assert shop.same("costs", "--program-version", "00000000") == "no model was called\n"
    assert shop.same("costs", "--by", "program", "--by", "day") == "no model was called\n"


def shown_in(text: str) -> str:
    found = re.search(r"--shown ([0-9a-f]+)", text)
    assert found is not None, text
    return found[1]


def test_costs_are_those_of_the_store(shop: Shop) -> None:
    vm = ExecutionVM(ScriptedLLM(["yes"]), store=shop.world.state.store)
    program = Program.from_dict(
        {"name": "asks", "steps": [{"id": "ask", "type": "llm", "prompt": "well?"}]}
    )
    asyncio.run(vm.run(program, project="shop", run_id="costs-1"))
    out = shop.same("costs", "--by", "program", "--by", "model")
    assert out.startswith("asks ")
    shop.same("costs", "--json")
    shop.same("costs", "--by", "member", "--by", "prices", "--by", "label:team", "--by", "version")


def test_costs_by_other_prices_are_those_of_the_store(shop: Shop, tmp_path: Path) -> None:
    usage = LLMUsage(1_000_000, 0, 1_000_000)
    model = ScriptedLLM([Completion("yes", usage, "m")])
    vm = ExecutionVM(model, prices={"m": (3, 4)}, store=shop.world.state.store)
    program = Program.from_dict(
        {"name": "priced", "steps": [{"id": "ask", "type": "llm", "prompt": "well?"}]}
    )
    asyncio.run(vm.run(program, project="shop", run_id="priced-1"))
    prices = tmp_path / "host.toml"
    prices.write_text("[prices]\nm = {input = 0.5, output = 4, cached = 0.2}\n")
    out = shop.same("costs", "--what-if", str(prices), "--program", "priced", "--json")
    (found,) = json.loads(out)
    assert (Decimal(found["cost_usd"]), Decimal(found["what_if_usd"])) == (3, Decimal("0.5"))


def test_budgets_stand_as_in_the_store(shop: Shop, tmp_path: Path) -> None:
    budgets = {"of shop": {"project": "shop", "max_llm_calls": 9, "max_cost_usd": "0.5"}}
    store = shop.world.state.store
    vm = ExecutionVM(
        ScriptedLLM(["yes"]), prices={"scripted": (1, 1)}, budgets=budgets, store=store
    )
    asks = {"id": "ask", "type": "llm", "prompt": "well?", "max_tokens": 9}
    program = Program.from_dict({"name": "bound", "steps": [asks]})
    asyncio.run(vm.run(program, project="shop", run_id="bound-1"))
    host = tmp_path / "host.toml"
    host.write_text(
        '[budgets."of shop"]\nproject = "shop"\nmax_llm_calls = 9\nmax_cost_usd = 0.5\n'
    )
    own, shop.world.state.hosts.own = shop.world.state.hosts.own, vm
    try:
        code, out, err = shop.run("costs", "--budgets")
        as_json = json.loads(shop.run("costs", "--budgets", "--json")[1])
    finally:
        shop.world.state.hosts.own = own
    expected = shop.stored("costs", "--budgets", "--host", str(host))
    assert (code, out, err) == expected
    assert "budget 'of shop': max_llm_calls: 1 spent, 0 reserved of 9" in out
    stored = shop.stored("costs", "--budgets", "--host", str(host), "--json")
    assert as_json == json.loads(stored[1])


def test_it_is_said_where_a_server_does_not_sum_all_runs(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.world.start(run_id="newer-1")
    shop.world.start(run_id="newer-2")
    monkeypatch.setattr("nano_vm.server.routes.costs.MOST_SUMMED", 1)
    code, _, err = shop.run("costs")
    assert code == 0
    assert "the server sums the newest 1 runs alone, made since 20" in err


@pytest.mark.slow
def test_an_approval_that_is_not_the_last_says_how_many_are_missing(shop: Shop) -> None:
    run_id = shop.world.start(run_id="several-1")
    settings = "/api/v1/projects/shop/settings"
    shown = shown_in(shop.run("show", run_id)[1])
    words = ("approve", run_id, "--shown", shown)
    try:
        for several, missing in (
            (3, "2 more people have to approve before it counts"),
            (2, "1 more person has to approve before it counts"),
        ):
            put = shop.world.owner.put(settings, json={"approvers": {"manager": several}})
            assert put.is_success, put.text
            assert shop.run(*words) == (
                0,
                f"recorded: approve approve, for run several-1\n{missing}\n",
                "",
            )
        assert json.loads(shop.run(*words, "--json")[1]) == {
            "run_id": run_id,
            "recorded": "approve",
            "name": "approve",
            "by": "owner",
            "missing": 1,
        }
    finally:
        shop.world.owner.put(settings, json={"approvers": {}})
    assert json.loads(shop.run(*words, "--json")[1])["missing"] == 0


@pytest.mark.slow
def test_a_command_that_is_shown_is_taken_as_it_stands(shop: Shop) -> None:
    shop.world.start(run_id="told-1")
    assert "recorded: approve" in shop.approved_as_told(shop.run("show", "told-1")[1])


@pytest.mark.slow
def test_words_of_a_person_are_recorded_in_the_name_of_the_key(shop: Shop) -> None:
    run_id = shop.world.start(run_id="words-1")
    code, out, _ = shop.run("reject", "words-1", "--reason", "too much", "--json")
    assert code == 0
    assert json.loads(out) == {
        "run_id": run_id,
        "recorded": "reject",
        "name": "approve",
        "by": "owner",
    }
    code, out, _ = shop.run("cancel", "words-1")
    assert (code, out) == (
        0,
        "recorded: cancel, for run words-1\na worker of the server does it\n",
    )
    code, _, err = shop.run("cancel", "words-1")
    assert code == 1
    assert "is to be cancelled already" in err


@pytest.mark.slow
def test_a_word_is_sent_after_one_look_at_the_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.world.start(run_id="look-1")
    looks: list[str] = []
    standing = Client.standing

    def counted(client: Client, run_id: str, seen: str = "") -> Any:
        looks.append(run_id)
        return standing(client, run_id, seen)

    monkeypatch.setattr(Client, "standing", counted)
    assert shop.run("resolve", "look", "approve", "--retry")[0] == 1
    assert shop.run("reject", "look", "--reason", "no")[0] == 0
    assert looks == ["look", "look"]


@pytest.mark.slow
def test_a_run_that_was_deleted_since_it_was_listed_is_left_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = shop.world.start()
    listed = ServerPlace.runs

    def behind(place: ServerPlace, *args: Any) -> list[Any]:
        found = listed(place, *args)
        return [{**found[0], "run_id": "deleted-1"}, *found]

    monkeypatch.setattr(ServerPlace, "runs", behind)
    code, out, err = shop.run("runs", "--waiting", "--json")
    assert (code, err) == (0, "")
    named = [run["run_id"] for run in json.loads(out)]
    assert run_id in named
    assert "deleted-1" not in named


def test_an_event_is_sent_once_and_only_where_it_is_waited_for(shop: Shop) -> None:
    shop.world.developer.post("/api/v1/projects/shop/programs", json={"source": PARCEL})
    body = {"program": "parcel", "run_id": "event-1"}
    assert shop.world.developer.post("/api/v1/projects/shop/runs", json=body).is_success
    shop.world.work()
    assert shop.run("event", "event-1", "none", "1") == (
        1,
        "",
        "nano-vm: the program of run 'event-1' waits for no event 'none'; it waits for 'paid'\n",
    )
    sent = ("event", "event-1", "paid", '{"amount": 3}', "--id", "evt-1")
    assert shop.run(*sent)[1].startswith("recorded: event paid, for run event-1\n")
    assert "was recorded before" in shop.run(*sent)[1]
    assert json.loads(shop.run(*sent, "--json")[1]) == {
        "run_id": "event-1",
        "recorded": None,
        "name": "paid",
    }


def test_a_run_is_submitted_by_its_file_and_by_its_name(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "refund.yaml").write_text(REFUND.replace("$amount", "$amount "))
    inputs = ("-i", "order_id=A-9", "-i", "amount=12", "--label", "from=line")
    code, out, err = shop.run("submit", "refund.yaml", *inputs, "--run-id", "sent-1")
    assert (code, out, err) == (0, "sent-1\n", "")
    assert shop.run("submit", "refund.yaml", *inputs, "--run-id", "sent-1") == (
        0,
        "sent-1\n",
        "nano-vm: run sent-1 is there already (pending)\n",
    )
    versions = shop.world.owner.get("/api/v1/projects/shop/programs/refund").json()["versions"]
    code, out, _ = shop.run("submit", f"refund@{versions[0]}", *inputs, "--json")
    run_id = json.loads(out)["run_id"]
    assert json.loads(shop.run("show", run_id, "--json")[1])["labels"] == {"from": "line"}
    again = shop.world.owner.get("/api/v1/projects/shop/programs/refund").json()["versions"]
    assert again == versions, "what is there already is not put anew"


@pytest.mark.parametrize(
    "name", ["refund.v2", "my program", "Erstattung-für-alle", "ann@shop", "2.yam"]
)
def test_a_program_is_started_by_any_name_that_the_server_takes(shop: Shop, name: str) -> None:
    source = json.dumps({"name": name, "steps": [{"id": "a", "type": "set", "values": {"x": 1}}]})
    put = shop.world.developer.post("/api/v1/projects/shop/programs", json={"source": source})
    assert put.is_success, put.text
    for words in (name, f"{name}@1"):
        code, out, err = shop.run("submit", "--json", words)
        assert (code, err) == (0, "")
        assert shop.stored("show", json.loads(out)["run_id"])[1].startswith(name)


@pytest.mark.parametrize("path", ["refund.v9", "none.yaml", "sub/refund", "a@b", "\0"])
def test_a_program_that_is_nowhere_is_refused_in_one_line(shop: Shop, path: str) -> None:
    code, out, err = shop.run("submit", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no such program on the server" in err or "cannot read" in err


@pytest.mark.slow
def test_run_shows_the_steps_and_ends_as_on_the_store(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "refund.yaml").write_text(REFUND)
    inputs = ("-i", "order_id=A-7", "-i", "amount=12")
    stop = threading.Event()

    def keep_working() -> None:
        while not stop.wait(0.05):
            shop.world.work()

    worker = threading.Thread(target=keep_working)
    worker.start()
    try:
        code, out, err = shop.run("run", "refund.yaml", *inputs, "--run-id", "whole-1")
        assert (code, err) == (3, "")
        assert "run whole-1\n" in out
        assert "waits at approve for approval by manager" in out
        shop.approved_as_told(out)
        words = ("run", "refund", *inputs, "--run-id", "whole-1", "--trace", "run.json", "--json")
        for _ in range(200):
            code, out, err = shop.run(*words)
            if code != 3:
                break
    finally:
        stop.set()
        worker.join()
    assert code == 0
    assert json.loads(out)["output"] == "paid A-7"
    assert json.loads((tmp_path / "run.json").read_text()) == json.loads(out)["trace"]
    assert main(["trace", "show", "run.json"]) == 0, "it is a trace as any other"


def test_a_program_with_faults_is_refused_with_them(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(BROKEN)
    for command in ("submit", "run"):
        code, out, err = shop.run(command, "broken.yaml")
        assert (code, out) == (1, "")
        assert err.startswith("broken.yaml:4:27: steps[0].tool: V020: tool 'missing'")
        assert "'missing'" in err


@pytest.mark.slow
def test_a_fault_that_only_a_newer_server_knows_stands_at_its_place(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = Diagnostic.from_dict(
        {"code": "V999", "loc": ["steps", 0, "tool"], "message": "it is new"}
    )

    def refuse(*_: Any) -> None:
        raise ProgramError([newer])

    monkeypatch.setattr(Client, "put_program", refuse)
    (tmp_path / "broken.yaml").write_text(BROKEN)
    assert shop.run("submit", "broken.yaml") == (
        1,
        "",
        "broken.yaml:4:27: steps[0].tool: V999: it is new\n",
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("submit", "refund", "--tools", "x.py:y"), "--tools does not go with a server: its wor"),
        (("run", "refund", "--budget", "max_steps=3"), "--budget does not go with a server"),
        (("approve", "x", "--by", "ann"), "--by does not go with a server: who says it"),
        (("runs", "--project", "bank"), "--project does not go with a server"),
        (("cancel", "x", "--tools", "x.py:y"), "--tools does not go with a server"),
        (("costs", "--budgets", "--host", "x.toml"), "--host does not go with a server"),
        (("show", "x", "--engine", "temporal"), "--engine does not go with --server"),
        (("show", "x", "--store", "sqlite:///runs.db"), "--server does not go with --store"),
    ],
)
def test_an_option_that_a_server_cannot_honour_is_refused(
    shop: Shop, words: tuple[str, ...], told: str
) -> None:
    code, out, err = shop.run(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.count("\n") <= 2


def test_the_environment_names_a_server(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANO_VM_SERVER", shop.address)
    run_id = shop.world.start()
    assert main(["show", run_id]) == 0
    assert "--server" not in shop.capsys.readouterr().out
    monkeypatch.setenv("NANO_VM_STORE", shop.store)
    assert main(["show", run_id]) == 2
    assert "are both set" in shop.capsys.readouterr().err
    assert main(["show", run_id, "--store", shop.store]) == 0
    assert "--store" in shop.capsys.readouterr().out


@pytest.mark.slow
def test_what_a_server_refuses_is_one_line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = shop.world.start(run_id="one-line")

    def told(*words: str, where: str | None = None) -> str:
        code, out, err = shop.run(*words, where=where)
        assert (code, out) == (1, "")
        assert err.startswith("nano-vm: ")
        assert err.count("\n") == 1
        return err

    assert "there is no run 'nothing' in the project of this key" in told("show", "nothing")
    shop.world.start(run_id="one-lime")
    assert "'one-li' begins the id of several runs: one-lime, one-line" in told("show", "one-li")
    assert "is not the digest of the request" in told(
        "approve", run_id, "--shown", "0123456789abcdef"
    )
    assert "the server cannot be reached" in told("runs", where="http://127.0.0.1:9")
    monkeypatch.setenv("NANO_VM_KEY", shop.key("viewer"))
    assert "this needs the permission run:cancel; ask an admin" in told("cancel", run_id)
    monkeypatch.setenv("NANO_VM_KEY", "nvm_0_x")
    assert "the key in NANO_VM_KEY is not valid here" in told("runs")
    monkeypatch.delenv("NANO_VM_KEY")
    assert shop.run("runs") == (
        2,
        "",
        "nano-vm: which key? Set NANO_VM_KEY; an admin of the project makes one\n",
    )
    monkeypatch.setenv("NANO_VM_KEY", "x")
    assert shop.run("runs", where="runs.example.org")[0] == 2


@pytest.mark.slow
def test_without_the_permission_to_read_it_nothing_that_was_said_is_shown(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = shop.world.start(inputs={"order_id": "SECRET-1", "amount": 7})
    for role, sees in (("viewer", False), ("operator", True)):
        monkeypatch.setenv("NANO_VM_KEY", shop.key(role))
        code, out, _ = shop.run("show", run_id)
        assert code == 0
        assert "waits at approve for approval by manager" in out
        assert 'input order_id: "[redacted]"' in out
        assert ("SECRET-1" in out) == sees, "an approval is seen by who may give it"
        assert ("SECRET-1" in shop.run("show", run_id, "--json")[1]) == sees
        assert ("nano-vm approve" in out) == sees
    monkeypatch.setenv("NANO_VM_KEY", shop.key("admin"))
    shown = shown_in(shop.run("show", run_id)[1])
    shop.run("approve", run_id, "--shown", shown)
    waited = trace_of(shop.world.state.store.load(run_id)).digest
    shop.world.work()
    assert "paid SECRET-1" in shop.run("show", run_id)[1]
    # by a digest whoever guesses what was said sees that the guess is right
    digests = (shown, waited, trace_of(shop.world.state.store.load(run_id)).digest)
    assert digests[2] in shop.run("show", run_id)[1]
    for role in ("viewer", "operator"):
        monkeypatch.setenv("NANO_VM_KEY", shop.key(role))
        told = [shop.run("show", run_id)[1], shop.run("show", run_id, "--json")[1]]
        with Client(shop.address) as client:
            told.append(json.dumps(client.show(run_id)))
        for part in ("SECRET-1", *digests):
            assert not any(part in text for text in told), part


class _Old(BaseHTTPRequestHandler):
    """A server of before this command line: it knows nothing but who asks."""

    answers: ClassVar[dict[str, Any]] = {
        "/api/v1/me": {"name": "ann", "projects": [{"project": "shop"}]},
        "/api/v1/openapi.json": {"paths": {"/x": {"get": {"operationId": "list_runs"}}}},
    }

    def do_GET(self) -> None:
        found = self.answers.get(self.path)
        problem = {"type": "urn:nano-vm:problem:not-found", "detail": "nothing", "status": 404}
        body = json.dumps(found or problem).encode()
        if self.path.startswith("/other"):
            found, body = {}, b"<html>another server</html>"
        self.send_response(200 if found is not None else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_an_old_server_and_one_that_is_none(shop: Shop) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Old)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        for words in (("runs",), ("show", "x")):
            code, out, err = shop.run(*words, where=address)
            assert (code, out) == (1, "")
            assert err == (
                "nano-vm: the server is older than this nano-vm, and cannot show runs to it; "
                "upgrade it\n"
            )
        code, _, err = shop.run("runs", where=f"{address}/other")
        assert code == 1
        assert "what answered is no server of nano-vm" in err
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
