"""`nano-vm dev`: what a round says, when another begins, and what does not end the watch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from patience import HANGS_SECONDS

from nano_vm.cli import main, program_tests
from nano_vm.cli.commands import dev
from nano_vm.cli.watching import Watch, watch
from nano_vm.program_tests.document import Document, read_document


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    return tmp_path


def round_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["dev", "program.yaml", "--once", *arguments])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_a_round_checks_proves_and_tests(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert round_of(capsys) == (
        0,
        [
            "check  ok     2 proved; at most: 4 steps, 2 model calls, 2 tool calls (get_order 1, "
            "issue_refund 1, reply 1), 12,665 tokens, $0.000000",
            "tests  ok     5 passed; 5 of 5 steps, 2 of 2 branches",
        ],
    )


@pytest.mark.slow
def test_a_round_says_what_is_wrong_and_where(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program, tests = Path("program.yaml"), Path("program.test.yaml")
    good = program.read_text()
    program.write_text(good.replace("then: refund", "then: refnd"))
    code, lines = round_of(capsys)
    assert code == 1
    assert any("V003: step 'guard' jumps to unknown step 'refnd'" in line for line in lines)
    program.write_text(good.replace("otherwise: reply", "otherwise: refund"))
    code, lines = round_of(capsys)
    assert code == 1
    assert any(line.startswith("check  FAILED refuted: every call") for line in lines)
    assert lines[-1] == "tests         not run: the program would be refused"
    program.write_text(good)
    tests.write_text(tests.read_text().replace("a colleague looks at A-2", "money"))
    code, lines = round_of(capsys)
    assert code == 1
    assert any(line.startswith("tests  FAILED no answer of the model moves mon") for line in lines)
    assert lines[-1] == "tests         4 passed; 5 of 5 steps, 2 of 2 branches"
    tests.write_text("tests: [{nam: x}]")
    code, lines = round_of(capsys)
    assert code == 1
    assert any("P051: unknown field 'nam'" in line for line in lines)
    Path("tools.py").write_text("1 / 0")
    code, lines = round_of(capsys)
    assert code == 1
    assert "ZeroDivisionError" in lines[-1]


@pytest.mark.slow
def test_a_test_file_that_wants_an_extra_fails_alone(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wants = "from nano_vm.errors import MissingExtra\nraise MissingExtra('mcp', 'a tool')\n"
    Path("other.py").write_text(wants)
    Path("a.test.yaml").write_text(
        "program: program.yaml\ntools: other.py:tools\ntests: [{name: x}]"
    )
    code, lines = round_of(capsys)
    assert code == 1
    assert [line[:13] for line in lines] == ["check  ok    ", "tests  FAILED", "tests        "]
    assert "MissingExtra" in lines[1]
    assert lines[2].startswith("tests         5 passed")


@pytest.mark.slow
def test_a_round_reads_each_test_file_once(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | None] = []

    def counted(text: str, file: str | None = None) -> Document:
        read.append(Path(file or "").name)
        return read_document(text, file)

    monkeypatch.setattr(program_tests, "read_document", counted)
    Path("other.yaml").write_text(Path("program.yaml").read_text())
    Path("other.test.yaml").write_text(Path("program.test.yaml").read_text())
    assert round_of(capsys)[0] == 0
    assert sorted(map(str, read)) == ["other.test.yaml", "program.test.yaml"]


@pytest.mark.slow
def test_a_recorded_run_is_replayed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["run", "program.yaml", "-i", "message=x", "-i", "order_id=A-2", "--trace", "run.json"]
    assert main(run) == 0
    code, lines = round_of(capsys, "--recorded", "run.json")
    assert code == 0
    assert lines[-1].startswith("replay ok     run.json: ")
    program = Path("program.yaml")
    program.write_text(program.read_text().replace("answer yes or no", "say yes or no"))
    program.write_text(program.read_text().replace("Answer yes or no", "Say yes or no"))
    code, lines = round_of(capsys, "--recorded", "run.json")
    assert code == 1
    assert lines[-1].startswith("replay FAILED run.json: ")
    code, lines = round_of(capsys, "--recorded", "gone.json")
    assert code == 1
    assert "there is no file 'gone.json'" in lines[-1]


@pytest.mark.slow
def test_a_file_that_is_gone_is_waited_for(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("program.yaml").rename("away")
    assert round_of(capsys) == (
        1,
        ["check  FAILED program.yaml is not there; it is waited for"],
    )
    Path("away").rename("program.yaml")
    assert round_of(capsys)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-"], "dev watches a file, and standard input is none"),
        (["folder"], "folder is a folder; name the program in it"),
    ],
)
def test_what_cannot_be_watched_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    Path("folder").mkdir()
    assert main(["dev", *arguments]) == 2
    assert capsys.readouterr().err == f"nano-vm: {said}\n"


@pytest.mark.parametrize("columns", [20, 80])
def test_lines_fit_the_terminal_and_have_colours_only_where_there_are(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = dev._line("tests", "FAILED", "x" * 200)
    assert coloured.startswith("tests  \x1b[31mFAILED\x1b[0m ")
    assert len(coloured) == columns + len("\x1b[31m\x1b[0m")
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        plain = dev._line("tests", "FAILED", "a\x1b[2J" + "x" * 200)
        assert "\x1b" not in plain
        assert len(plain) == columns


# --- the watch ---


class Rounds:
    """Rounds that never end by themselves, and what began them."""

    def __init__(self) -> None:
        self.begun: list[list[str]] = []
        self.stopped = 0

    def begin(self, changed: list[str]) -> Rounds:
        self.begun.append([Path(name).name for name in changed])
        return self

    def running(self) -> bool:
        return True

    def stop(self) -> None:
        self.stopped += 1


class Over(Exception):
    pass


def watched(folder: Path, steps: list[Callable[[], object]]) -> Rounds:
    """The rounds that begin where each step is done at a wait."""
    rounds, left = Rounds(), list(steps)

    def wait(seconds: float) -> None:
        assert seconds > 0
        if not left:
            raise Over
        left.pop(0)()

    with pytest.raises(Over):
        watch(Watch(folder, (folder / "p.yaml",)), rounds.begin, wait)
    assert rounds.stopped == len(rounds.begun)
    return rounds


def nothing() -> None:
    """No change."""


def test_each_change_begins_a_round_and_stops_the_one_before(tmp_path: Path) -> None:
    program, tools = tmp_path / "p.yaml", tmp_path / "tools.py"
    program.write_text("1")
    hidden = tmp_path / ".venv"
    hidden.mkdir()
    rounds = watched(
        tmp_path,
        [
            nothing,
            lambda: program.write_text("12"),
            nothing,
            lambda: (hidden / "x.py").write_text("no part of it"),
            lambda: (tmp_path / "runs.db").write_text("what runs write"),
            lambda: tools.write_text("x"),
            lambda: program.write_text("123"),  # a moment later: the same save
            nothing,
            nothing,
        ],
    )
    assert rounds.begun == [[], ["p.yaml"], ["p.yaml", "tools.py"]]


def test_a_file_that_goes_and_comes_back_is_two_changes(tmp_path: Path) -> None:
    program = tmp_path / "p.yaml"
    program.write_text("1")
    rounds = watched(
        tmp_path,
        [program.unlink, nothing, nothing, lambda: program.write_text("1"), nothing, nothing],
    )
    assert rounds.begun == [[], ["p.yaml"], ["p.yaml"]]


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "p.yaml").write_text("1")

    def gone() -> None:
        (folder / "p.yaml").unlink()
        folder.rmdir()

    rounds = watched(folder, [gone, nothing, folder.mkdir, nothing])
    assert rounds.begun == [[], ["p.yaml"]]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_it_watches_until_it_is_interrupted(project: Path) -> None:
    command = [sys.executable, "-u", "-m", "nano_vm", "dev", "program.yaml"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = process.stdout

        def until(part: str) -> str:
            return next(line for line in lines if part in line)

        assert "5 passed" in until("tests ")
        Path("program.test.yaml").unlink()
        assert "(program.test.yaml)" in until("program.yaml (")
        assert " ok " in until("check ")
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS_SECONDS) == 0
        assert "Traceback" not in lines.read()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_round_outlives_the_watch(project: Path, number: signal.Signals) -> None:
    os.mkfifo("pid")
    os.mkfifo("never")
    hung = "import os\nopen('pid', 'w').write(str(os.getpid()))\nopen('never').read()\n"
    Path("tools.py").write_text(hung)
    command = [sys.executable, "-m", "nano_vm", "dev", "program.yaml"]
    with warm.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        child = int(Path("pid").read_text())  # waits until the round is under way
        process.send_signal(number)
        expected = 0 if number == signal.SIGINT else 128 + number
        assert process.wait(HANGS_SECONDS) == expected
        assert process.stdout is not None
        assert b"Traceback" not in process.stdout.read()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
