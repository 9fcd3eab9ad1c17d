"""A page of docs/ as a story: its blocks happen one after the other, in a folder of their own.

A block that has a title is a file. Untitled Python runs, and prints what its comments say; an
untitled program or policy in YAML loads and has no fault; a console block holds commands, and what
each prints. Anything else carries a reason, in a comment before it, why nothing runs it:

    <!-- not run: needs an account -->

Everything runs in this process, which a new interpreter for each block would make ten times as
long.
"""

from __future__ import annotations

import io
import os
import re
import runpy
import shlex
import signal
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import warm
from pages import DOCS, shown
from patience import HANGS_SECONDS

from nano_vm import ExecutionVM, Policy, Program, tool
from nano_vm.cli.main import main
from nano_vm.language.program import ToolStep
from nano_vm.testing import ScriptedLLM

ROOT = DOCS.parent
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
EXTRAS = set(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
)
_BLOCK = re.compile(
    r"^(?: *<!-- not run: (?P<reason>[^>]+) -->\n)?"
    r'(?P<indent> *)```(?P<kind>\w*)(?: title="(?P<title>[^"]+)")?[^\n]*\n'
    r"(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


_STEPS = re.compile(r"^(?:\{.*)?steps:", re.MULTILINE)


class Block(NamedTuple):
    """A block of code, and the line that it begins at."""

    kind: str
    title: str | None
    text: str
    reason: str | None
    line: int


def blocks(text: str) -> list[Block]:
    """The blocks of a page."""
    return [
        Block(
            found["kind"],
            found["title"],
            textwrap.dedent(found["text"]),
            found["reason"],
            text.count("\n", 0, found.start("text")),
        )
        for found in _BLOCK.finditer(text)
    ]


def tools_of(program: Program) -> set[str]:
    """The names of the tools that *program*, and the programs in it, call."""
    found = set()
    for step, _ in program.walk():
        if isinstance(step, ToolStep):
            found |= {step.tool, *(call.tool for call in (step.undo, step.reconcile) if call)}
        if isinstance(inner := getattr(step, "program", None), Program):
            found |= tools_of(inner)
    return found


@tool(effect="read")
async def anything(**_: object) -> None:
    """A tool of any program."""


def check_program(text: str) -> None:
    """A program loads, and passes the check of a VM that has its tools."""
    program = Program.from_yaml(text)
    assert program.warnings == ()
    vm = ExecutionVM(ScriptedLLM([]), dict.fromkeys(tools_of(program), anything))
    assert [d for d in vm.check(program) if d.severity == "error"] == []


def plain(line: str) -> str:
    """A line without what differs from run to run: digests, times, widths, accounts."""
    line = re.sub(
        r"\b[0-9a-f]{4,64}(?:…|\b)", lambda m: "H" if "…" in m[0] or len(m[0]) >= 32 else m[0], line
    )
    line = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "WHEN", line)
    line = re.sub(r"\b[\d.]+ (?:µs|ms|s|min)\b|\b\d+[smhd]\b", "TIME", line)
    line = re.sub(r"[\d,.]+/s", "RATE", line)
    line = re.sub(r"^submitted by .+", "submitted by ACCOUNT", line)
    return " ".join(line.split())


def fits(expected: list[str], printed: list[str]) -> bool:
    """Whether they are equal, where a line ``...`` stands for any number of lines, and ``...`` in a
    line for any characters.
    """
    pattern = "".join(
        "(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in printed)) is not None


def commands(console: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block and the lines below it."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        command = lines.pop(0)
        while command.endswith("\\"):
            command = command[:-1] + lines.pop(0).strip()
        yield command, lines


@contextmanager
def at(folder: Path) -> Iterator[None]:
    """This process as one that was started in *folder*, until the story ends."""
    before, path, environment = Path.cwd(), sys.path[:], dict(os.environ)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(folder)):
                del sys.modules[name]


def installs(block: Block) -> None:
    """What installs is not run; what it names is there."""
    for line in block.text.splitlines():
        names = re.findall(r"llm-nano-vm\[([\w,]+)\]", line)
        assert {name for extras in names for name in extras.split(",")} <= EXTRAS, line
        command = shlex.split(line, comments=True)
        match command:
            case [] | ["pip", "install", *_] | ["git", "clone", *_] | ["cd", _]:
                pass
            case ["make", target, *_]:
                assert f"\n{target}:" in MAKEFILE, f"line {block.line}: no target {target}"
            case _:
                raise AssertionError(f"line {block.line}: {line} installs nothing")


def killed(arguments: list[str]) -> None:
    """A command that ends by ``kill -9``, in a process of its own."""
    done = warm.run(
        [sys.executable, "-m", "nano_vm", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        timeout=HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


class Story:
    """The blocks of one page in *folder*."""

    def __init__(self, folder: Path, labels: Iterable[str] = ()) -> None:
        self.folder = folder
        self.labels = re.compile("|".join(f'"{label}"' for label in labels) or r"(?!)")
        self.names: dict[str, Any] = {"__name__": "story"}
        self.digests: dict[str, str] = {}

    def tell(self, block: Block) -> None:
        """Let *block* happen."""
        if block.title is not None:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.reason is not None:
            return
        elif block.kind == "sh":
            installs(block)
        elif block.kind == "python":
            self.python(block)
        elif block.kind == "console":
            for command, expected in commands(block.text):
                self.command(command, expected)
        elif block.kind == "yaml":
            check_program(block.text) if _STEPS.search(block.text) else Policy.from_yaml(block.text)
        else:
            raise AssertionError(f"line {block.line}: nothing runs this block, and it says not why")

    def python(self, block: Block) -> None:
        """Untitled Python prints what its comments say."""
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * block.line + block.text, "page", "exec"), self.names)
        self.compare(f"line {block.line}", shown(block.text).splitlines(), printed.getvalue())

    def command(self, command: str, expected: list[str]) -> None:
        """A command of the console."""
        for there, here in self.digests.items():
            command = command.replace(there, here)
        program, *arguments = shlex.split(command, comments=True)
        if expected == ["Killed"]:
            killed(arguments)
            return
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            match program:
                case "export":
                    name, _, value = arguments[0].partition("=")
                    os.environ[name] = value
                case "cat":
                    print(Path(arguments[0]).read_text(encoding="utf-8"), end="")
                case "python":
                    runpy.run_path(arguments[0], run_name="__main__")
                case "nano-vm":
                    main(arguments)
                case _:
                    raise AssertionError(f"a story has no command {program!r}")
        self.remember(expected, printed.getvalue())
        self.compare(f"$ {command}", expected, printed.getvalue())

    def remember(self, expected: list[str], printed: str) -> None:
        """The digest of what is asked, for the command that answers."""
        here = re.findall(r"^  shown ([0-9a-f]{64})$", printed, re.MULTILINE)
        there = [line.split()[1] for line in expected if line.startswith("  shown ")]
        self.digests.update(zip(there, here, strict=False))

    def compare(self, what: str, expected: list[str], printed: str) -> None:
        """Hold what was printed against the page."""
        lines = printed.splitlines()
        assert fits([*map(self.plain, expected)], [*map(self.plain, lines)]), "\n".join(
            [f"{what} prints", *lines]
        )

    def plain(self, line: str) -> str:
        """As `plain`, and without what a real model chooses: its label, and how many tokens."""
        chosen = self.labels.sub('"LABEL"', line)
        return plain(
            re.sub(r"\d+ tok", "N tok", chosen) if self.labels.pattern != r"(?!)" else line
        )


def told(page: Path, folder: Path, labels: Iterable[str] = ()) -> None:
    """Let all of *page* happen in *folder*; a real model may answer with any of *labels*."""
    story = Story(folder, labels)
    (folder / "examples").symlink_to(ROOT / "examples")
    with at(folder):
        for block in blocks(page.read_text(encoding="utf-8")):
            story.tell(block)
