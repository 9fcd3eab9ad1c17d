"""What the command line shows to a person who decides: all of it, or no way to decide."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from test_cli_plan import COMMON, PLAN, TOOLS, Say, model  # noqa: F401 - a fixture

from nano_vm import Program
from nano_vm.cli import main
from nano_vm.cli.decide import CONTINUED, WHOLE_CHARS, asked_lines, waiting_lines
from nano_vm.machine.pending import shown_digest
from nano_vm.store.protocol import open_store
from nano_vm.values import canonical

ASK = {"id": "ask", "type": "approval", "role": "boss"}
SHOWS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=6)
    | st.text(' "\\[]{}:0a\u0430\u200b', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
HIDING = [
    "\u3164",
    "\u115f",
    "\u1160",
    "\uffa0",
    "\u034f",
    "\u2800",
    "\ufe0f",
    "\u200c",
    "\u200d",
    "\u00a0",
    "\u202e",
    "\u2066",
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANO_VM_STORE", "sqlite:///runs.db")
    (tmp_path / "shop.py").write_text(TOOLS)
    return tmp_path


def asked(
    show: Any, inputs: dict[str, Any], capsys: pytest.CaptureFixture[str], **more: Any
) -> list[str]:
    """What `run` and `show` print of an approval that shows *show*; both the same."""
    Path("p.json").write_text(json.dumps({"name": "p", "steps": [{**ASK, "show": show, **more}]}))
    Path("in.json").write_text(json.dumps(inputs))
    assert main(["run", "p.json", "--input-file", "in.json", "--run-id", "r"]) == 3
    first = capsys.readouterr().out.splitlines()
    assert main(["show", "r"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if line.startswith("  ")]
    assert found == [line for line in first if line.startswith("  ")]
    return found


@pytest.mark.parametrize(
    ("show", "lines"),
    [
        (["$to", 5], ['  [0]: "ann"', "  [1]: 5"]),
        ("$to", ['  "ann"']),
        (5, ["  5"]),
        (None, ["  null"]),
        ({}, ["  {}"]),
        ([], ["  []"]),
        ("Pay $to?", ['  "Pay ann?"']),
        ({"[0]": "$to"}, ['  "[0]": "ann"']),
    ],
)
def test_whatever_is_shown(show: Any, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(show, {"to": "ann"}, capsys)
    assert found[: len(lines)] == lines
    assert found[len(lines)].startswith("  shown ")
    digest = found[len(lines)].split()[1]
    assert main(["approve", "r", "ask", "--shown", digest, "--by", "ann"]) == 0


def test_the_end_of_a_long_value_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What was cut at 2,000 characters, with the digest of the whole below."""
    found = asked({"to": "$to"}, {"to": "ACME GmbH, DE89 3704" + " " * 2500 + "EVIL"}, capsys)
    assert found[0] == r'  to: "ACME GmbH, DE89 3704\{2500 spaces}EVIL"'
    assert found[1].startswith("  shown ")


@pytest.mark.slow
@pytest.mark.parametrize("size", [WHOLE_CHARS, WHOLE_CHARS * 40])
@pytest.mark.parametrize(
    "show", [{"note": "$to"}, "$to", ["$to"], {"note": ["$to"]}, {"a": "$to", "b": 5}]
)
def test_no_decision_is_offered_on_a_part(
    size: int, show: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    found = asked(show, {"to": "ACME " + "x" * size + "EVIL"}, capsys)
    text = "\n".join(found)
    assert "EVIL" not in text
    assert "ACME" in text
    assert not any(word in text for word in ("shown ", "nano-vm approve", "nano-vm reject"))
    assert found[-1] == "  to see all of it, with its digest: nano-vm show r --json"
    assert sum(map(len, found)) < WHOLE_CHARS
    assert main(["show", "r", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["waiting"]
    assert "EVIL" in json.dumps(entry["show"])
    assert len(entry["shown"]) == 64


@pytest.mark.parametrize("char", HIDING, ids=lambda char: f"{ord(char):04x}")
def test_what_hides_is_escaped(char: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(asked({f"to{char}": "$to"}, {"to": f"DE89{char}{char}"}, capsys))
    assert char not in text
    assert text.count(f"{ord(char):x}") >= 3


def test_a_key_does_not_imitate_the_next_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked({'to: "ACME"' + " " * 60 + "note": "$to"}, {"to": "EVIL"}, capsys)
    assert found[0] == r'  "to: \"ACME\"\{60 spaces}note": "EVIL"'


@pytest.mark.slow
@given(SHOWS, SHOWS)
@example([1], {"[0]": 1})
@example("a", ["a"])
@example({}, [])
@example({"a": 1, "b": 2}, {"a": 1, "b": "2"})
@example({"a": "x\u200b"}, {"a": "x"})
def test_two_requests_never_look_the_same(a: Any, b: Any) -> None:
    assume(canonical(a) != canonical(b))

    def seen(show: Any) -> list[str]:
        lines, whole = asked_lines({**ASK, "kind": "approval", "path": "ask", "show": show})
        assert whole
        return lines

    assert seen(a) != seen(b)


def test_a_long_line_is_broken_on_a_terminal_with_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    entry = {
        **ASK,
        "kind": "approval",
        "path": "ask",
        "show": {"note": "日" * 30 + "x" * 100 + "shown abc"},
    }
    found = list(waiting_lines("r", [entry], ""))
    values = found[1 : next(i for i, line in enumerate(found) if line.startswith("  shown "))]
    assert len(values) > 3
    assert all(line.startswith(("  note: ", CONTINUED, "    exactly ")) for line in values)
    assert all(len(line) <= 40 for line in values)


@pytest.mark.parametrize(
    ("event", "heading", "command"),
    [
        ("paid", "waits at w for event paid", "  nano-vm event r paid JSON"),
        ("paid now", 'waits at w for event "paid now"', "  nano-vm event r 'paid now' JSON"),
        ("a\u3164\n\x1b", r'waits at w for event "a\u3164\n\x1b"', "  nano-vm event r EVENT JSON"),
        ("p\u0430id", r'waits at w for event "p\u0430id"', "  nano-vm event r EVENT JSON"),
    ],
)
def test_an_event(event: str, heading: str, command: str) -> None:
    entry = {"path": "w", "step_id": "w", "kind": "wait", "event": event}
    assert list(waiting_lines("r", [entry], "")) == [heading, command]


def test_a_schema_is_shown_whole() -> None:
    schema = {"type": "object", "required": [f"field_{i}" for i in range(200)]}
    entry = {"path": "w", "step_id": "w", "kind": "wait", "event": "e", "output_schema": schema}
    assert '"field_199"' in list(waiting_lines("r", [entry], ""))[1]


# --- approving on a terminal ----------------------------------------------------------------------


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A person who sits there, and what is typed."""

    def typing(text: str) -> None:
        monkeypatch.setattr("nano_vm.cli.inbox.on_terminal", lambda: True)
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    return typing


def inbox_of(run_id: str) -> list[tuple[str, str | None]]:
    with open_store("sqlite:///runs.db") as store:  # type: ignore[attr-defined]
        return [(message.kind, message.by) for message in store.load(run_id).inbox]


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        ("y\n", 0, [("approve", "ann")]),
        ("Yes\n", 0, [("approve", "ann")]),
        ("n\n", 1, []),
        ("\n", 1, []),
        ("", 1, []),
    ],
)
def test_on_a_terminal_the_request_is_shown_and_asked_about(
    typed: str, code: int, said: list[Any], at_terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked({"to": "$to"}, {"to": "ACME"}, capsys)
    at_terminal(typed)
    assert main(["approve", "r"]) == code
    told = capsys.readouterr()
    assert told.out.startswith(
        'waits at ask for approval by boss:\n  to: "ACME"\napprove it, as ann? [y/N] '
    )
    assert ("nothing was recorded" in told.err) == bool(code)
    assert inbox_of("r") == said


@pytest.mark.slow
def test_who_decides_can_be_named(at_terminal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(5, {}, capsys)
    at_terminal("y\n")
    assert main(["approve", "r", "ask", "--by", "bob", "--reason", "fine"]) == 0
    assert inbox_of("r") == [("approve", "bob")]


def test_a_rejection_on_a_terminal(at_terminal: Any, capsys: pytest.CaptureFixture[str]) -> None:
    asked(5, {}, capsys)
    at_terminal("")
    assert main(["reject", "r"]) == 0
    assert inbox_of("r") == [("reject", "ann")]


def test_nothing_is_asked_about_a_part(
    at_terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked("$to", {"to": "x" * WHOLE_CHARS}, capsys)
    at_terminal("y\n")
    assert main(["approve", "r"]) == 1
    told = capsys.readouterr()
    assert "[y/N]" not in told.out
    assert "too much for a screen" in told.err
    assert inbox_of("r") == []


def test_what_is_decided_is_what_was_shown(
    at_terminal: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While a person reads, somebody else decides."""
    asked(5, {}, capsys)
    at_terminal("y\n")

    def read(_: Any) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert main(["reject", "r", "ask", "--by", "bob"]) == 0
        return "y\n"

    monkeypatch.setattr(
        "sys.stdin", type("Slow", (), {"readline": read, "isatty": lambda _: True})()
    )
    assert main(["approve", "r"]) == 1
    assert "'ask' of run 'r' is decided already: reject by 'bob'" in capsys.readouterr().err


@pytest.mark.slow
def test_where_nothing_or_several_things_are_asked(
    at_terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asks = [{**ASK, "id": name} for name in ("a", "b")]
    Path("p.json").write_text(
        json.dumps(
            {"name": "p", "steps": [{"id": "p", "type": "parallel", "parallel_steps": asks}]}
        )
    )
    assert main(["run", "p.json", "--run-id", "r"]) == 3
    at_terminal("y\n")
    assert main(["approve", "r"]) == 2
    assert "asks at several places: p/a, p/b; name one" in capsys.readouterr().err
    assert main(["approve", "r", "p/c"]) == 1
    assert "asks no approval at 'p/c'" in capsys.readouterr().err
    assert main(["approve", "r", "p/b"]) == 0
    Path("w.json").write_text(
        json.dumps({"name": "p", "steps": [{"id": "w", "type": "wait", "event": "e"}]})
    )
    assert main(["run", "w.json", "--run-id", "w"]) == 3
    assert main(["approve", "w"]) == 1
    assert "run 'w' asks no approval" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["approve", "r", "ask"], ["approve", "r", "ask", "--by", "ann"], ["reject", "r", "ask"]],
)
def test_elsewhere_all_of_it_must_be_said(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked(5, {}, capsys)
    assert main(command) == 2
    assert "required: --" in capsys.readouterr().err
    assert inbox_of("r") == []


@pytest.mark.parametrize("by", ["", "  ", "\u3164"])
def test_nobody_decides_on_the_command_line(by: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked(5, {}, capsys)
    for command in (["reject", "r", "ask"], ["cancel", "r"], ["resolve", "r", "ask", "--retry"]):
        assert main([*command, "--by", by]) == 1
        assert "by is their name, a string that is not empty" in capsys.readouterr().err
    assert inbox_of("r") == []


# --- programs from outside, approved by their digest ----------------------------------------------


def test_a_digest_is_offered_below_the_whole_program(
    model: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    model(PLAN)
    assert main(["plan", "Refund it", *COMMON, "--untrusted", "-o", "plan.yaml"]) == 0
    out = capsys.readouterr().out
    program = Program.from_file("plan.yaml")
    assert out.startswith(Path("plan.yaml").read_text())
    assert f"plan.yaml: written, digest {program.digest}" in out


def test_none_below_a_part_of_it(model: Say, capsys: pytest.CaptureFixture[str]) -> None:
    long = {
        **PLAN,
        "steps": [*PLAN["steps"], {"id": "x", "type": "set", "values": {"a": "y" * WHOLE_CHARS}}],
    }  # type: ignore[misc]
    model(long)
    assert main(["plan", "Refund it", *COMMON, "--untrusted", "-o", "plan.yaml"]) == 0
    out = capsys.readouterr().out
    assert Program.from_file("plan.yaml").digest not in out
    assert "  nano-vm check plan.yaml --json | jq .digest" in out
    assert main(["check", "plan.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == Program.from_file("plan.yaml").digest


@pytest.mark.parametrize("name", ["p.yaml", "p.json"])
def test_the_canonical_form_hides_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = {
        "a": "DE89" + "".join(HIDING),
        "b": "x" + " " * 300 + "EVIL",
        "c": "two\n        lines",
        "d": "q" + " " * 9 + "\n\U000e0101",
    }
    program = Program.from_dict(
        {"name": "p\u3164", "steps": [{"id": "s", "type": "set", "values": values}]}
    )
    Path(name).write_text(json.dumps(program.to_dict(), ensure_ascii=False))
    assert main(["fmt", name]) == 0
    text = capsys.readouterr().out
    assert not any(char in text for char in [*HIDING, "\U000e0101"])
    assert not any(" " * 8 in line.strip() for line in text.splitlines())
    again = Program.from_json(text) if name.endswith("json") else Program.from_yaml(text)
    assert again.digest == program.digest


def test_the_store_is_named_in_commands_and_nowhere_else() -> None:
    entry = {**ASK, "kind": "approval", "path": "ask", "show": {"to": "ACME"}}
    lines = list(waiting_lines("r1", [entry], " --store sqlite:///r.db"))
    named = [line for line in lines if "--store" in line]
    assert len(named) == 2
    assert all(line.startswith("  nano-vm ") for line in named)
    assert f"  shown {shown_digest(entry)}" in lines
