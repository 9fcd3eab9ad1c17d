"""Every command with something odd for each of its options and arguments: it is told in words, with
an exit code of its own, whatever it is.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import pytest
from campaigns import is_whole
from test_grammar import LEAVES, words

from nano_vm.cli import main
from nano_vm.cli.faults import INTERNAL

ODD = ("a\0b", "none.such:=[", "", "a=\udcff", "n" * 300 + ".json")  # that is no name of a file

GIVEN = {
    "program": "p.yaml",
    "programs": "p.yaml",
    "inputs": "in.jsonl",
    "run": "first",
    "a": "p.yaml",
    "b": "q.yaml",
    "intent": "do it",
    "file": "key.pem",
    "name": "daily",
    "folder": "made",
    "path": "ask",
    "shell": "bash",
    "output": "out.jsonl",
    "older_than": "1d",
    "words": "first paid 1",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two programs, inputs of a batch, and a store with a run that waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANO_VM_STORE", "sqlite:///runs.db")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    monkeypatch.setattr(sys, "path", list(sys.path))
    # `nano-vm ui` serves until Ctrl-C, and opens a browser
    monkeypatch.setattr("nano_vm.ui.local.LocalServer.serve_forever", lambda _: None)
    monkeypatch.setattr("nano_vm.server.serving.serve", lambda *_: None)  # likewise
    monkeypatch.setattr("webbrowser.open", lambda _: True)
    text = "steps: [{id: ask, type: approval, role: boss}, {id: s, type: set, values: {x: %s}}]"
    Path("p.yaml").write_text(text % 1)
    Path("q.yaml").write_text(text % 2)
    Path("in.jsonl").write_text("{}\n")
    assert main(["run", "p.yaml", "--run-id", "first"]) == 3
    return tmp_path


def line(context: click.Context, odd: click.Parameter, value: str) -> list[str]:
    """The command with all that it requires, and *value* for the parameter *odd*."""
    found = words(context)
    if found in (["work"], ["dev"]):  # which go on until they are told to stop
        found.append({"work": "--until-idle", "dev": "--once"}[found[0]])
    for parameter in context.command.params:
        name = parameter.name or ""
        given = value if parameter is odd else GIVEN[name] if parameter.required else None
        if given is None:
            continue
        if isinstance(parameter, click.Option):
            found += [max(parameter.opts, key=len), given]
        else:
            found += given.split(" ") if parameter.nargs == -1 and given else [given]
    return found


EVERY = 1 if is_whole() else 3
"""Which of the odd values are tried: each option has one of five at least, and each value a third
of the options.
"""


@pytest.mark.campaign
@pytest.mark.parametrize("context", LEAVES, ids=lambda c: c.command_path)
def test_whatever_an_option_is_given_is_answered_in_words(
    context: click.Context, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        (parameter, value)
        for parameter in context.command.params
        if not (isinstance(parameter, click.Option) and parameter.is_flag)
        for value in ODD
    ]
    for parameter, value in asked[::EVERY]:
        arguments = line(context, parameter, value)
        code = main(arguments)
        told = capsys.readouterr()
        assert code in (0, 1, 2, 3), (arguments, told.err)
        assert code != INTERNAL
        assert "Traceback" not in told.err, (arguments, told.err)
        assert "\0" not in told.out + told.err, (arguments, told.err)
        if code == 2:
            assert told.err.startswith("nano-vm"), (arguments, told.err)
