"""Pictures of runs: on the graph of their program, in time, and in terminals that show them."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nano_vm.cli import main
from nano_vm.cli.images import CHUNK, messages, protocol

STORE = ["--store", "sqlite:///runs.db"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a run as a trace, and one in a store."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    run = ["run", "program.yaml", "-i", "message=x", "-i", "order_id=A-2"]
    assert main([*run, "--trace", "run.json"]) == 0
    assert main([*run, *STORE, "--run-id", "first"]) == 0
    return tmp_path


@pytest.mark.slow
def test_a_run_is_drawn_on_the_graph_of_its_program(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["graph", "program.yaml", "--run", "run.json", "-o", "run.svg"]) == 0
    drawn = Path("run.svg").read_text()
    ElementTree.fromstring(drawn)
    assert "the way that the run took" in drawn
    assert main(["graph", "program.yaml", "--run", "first", *STORE, "-o", "other.svg"]) == 0
    assert Path("other.svg").read_text() == drawn
    capsys.readouterr()
    assert main(["graph", "program.yaml", "--run", "run.json"]) == 0
    assert "classDef taken" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_another_program_is_said_to_be(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Path("program.yaml")
    program.write_text(program.read_text().replace("max_tokens: 4", "max_tokens: 5"))
    assert main(["graph", "program.yaml", "--run", "run.json", "-o", "run.svg"]) == 0
    assert "the run is of another program" in capsys.readouterr().err


@pytest.mark.slow
def test_a_timeline_has_a_bar_for_each_step(project: Path) -> None:
    arguments = ["graph", "program.yaml", "--run", "run.json", "--timeline", "-o", "time.svg"]
    assert main(arguments) == 0
    root = ElementTree.fromstring(Path("time.svg").read_text())
    names = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"judge", "order", "guard", "reply"} <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--timeline"], "--timeline draws a run: give --run"),
        (["--run", "run.json", "--proofs"], "--run does not go with --proofs"),
        (["--run", "run.json", "--timeline", "--format", "dot"], "a timeline is SVG or PNG"),
        (["--run", "gone.json"], "there is no file 'gone.json'"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    capsys.readouterr()
    assert main(["graph", "program.yaml", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


# --- terminals ---


@pytest.mark.parametrize(
    ("environment", "spoken"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "dumb"}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/1"}, None),
        ({}, None),
    ],
)
def test_a_terminal_shows_pictures_where_its_environment_says_so(
    environment: dict[str, str], spoken: str | None
) -> None:
    assert protocol(environment, terminal=True) == spoken
    assert protocol(environment, terminal=False) is None


@pytest.mark.parametrize("size", [1, CHUNK, 3 * CHUNK + 1])
def test_a_picture_arrives_whole(size: int) -> None:
    picture = bytes(range(256)) * (size // 256 + 1)
    kitty = list(messages(picture, "kitty"))
    parts = [re.fullmatch(r"\x1b_G([^;]*);(.*)\x1b\\", part) for part in kitty[:-1]]
    assert all(part is not None and len(part[2]) <= CHUNK for part in parts)
    assert base64.b64decode("".join(part[2] for part in parts if part)) == picture
    flags = [part[1].rpartition("m=")[2] for part in parts if part]
    assert flags == ["1"] * (len(flags) - 1) + ["0"]
    (iterm,) = messages(picture, "iterm")
    found = re.fullmatch(r"\x1b]1337;File=inline=1;size=(\d+):(.*)\x07\n", iterm)
    assert found is not None
    assert int(found[1]) == len(picture)
    assert base64.b64decode(found[2]) == picture


@pytest.mark.slow
def test_show_draws_in_a_terminal_that_can_and_says_so_where_none_does(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["show", "first", *STORE, "--graph"]) == 0
    assert "this terminal is not known to show pictures" in capsys.readouterr().err
    monkeypatch.setattr("nano_vm.cli.images.protocol", lambda *_, **__: "kitty")
    assert main(["show", "first", *STORE, "--graph"]) == 0
    out = capsys.readouterr().out
    first = re.search(r"\x1b_Ga=T,f=100,m=\d;([^\x1b]*)\x1b", out)
    assert first is not None
    assert base64.b64decode(first[1][: CHUNK // 4 * 4])[:8] == b"\x89PNG\r\n\x1a\n"
