"""The command line: what it prints, where, and with which exit code. A process of its own where
that is the point.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from patience import HANGS_SECONDS
from rich.console import Console

from nano_vm import Program, Trace
from nano_vm.cli import main, models
from nano_vm.cli.inputs import read_inputs
from nano_vm.cli.models import load_models
from nano_vm.cli.rules import read_budget, read_prices
from nano_vm.cli.text import diagnostic_lines, dollars, safe, shown
from nano_vm.cli.tools import load_tools
from nano_vm.cli.view import Lines, Table
from nano_vm.diagnostics import Diagnostic
from nano_vm.errors import TraceError
from nano_vm.language.canonical import formatted
from nano_vm.records.result import StepResult
from nano_vm.records.status import StepStatus
from nano_vm.run.observers import Event
from nano_vm.visible import safe_json

SOURCE = Path(__file__).parents[2] / "src"
EVIL = (
    "\x1b[31mred\x1b]0;title\x07 [bold]x[/bold] [link=http://a]y[/link]\r\nforged: "
    "ok\n\u202eabc\x9b2J\u2028z\x00"
)

PROGRAM = """\
name: demo
steps:
  - {id: ask, type: tool, tool: echo, args: {text: $who}}
  - {id: known, type: condition, condition: "$ask.output == 'ann'", then: greet, otherwise: refuse}
  - {id: greet, type: tool, tool: echo, args: {text: "hello $who"}}
  - {id: refuse, type: tool, tool: fail, args: {}}
"""

RUN_DEMO = ("run", "demo.yaml", "--tools", "demo_tools.py:tools", "-i", "who=ann")

TOOLS = '''\
"""Tools of the tests."""
import asyncio, pathlib, sys, time

EVIL = EVIL_TEXT

async def echo(text):
    return text

async def evil():
    return EVIL

async def fail():
    raise ValueError("no " + EVIL)

async def noisy():
    print("printed by a tool")
    import os; os.write(1, b"written below python\\n")
    return 1

async def wait(mark):
    pathlib.Path(mark).write_text("started")
    await asyncio.sleep(60)

async def stubborn(mark):
    pathlib.Path(mark).write_text("started")
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pathlib.Path(mark).write_text("asked to stop")

async def book(mark):
    return "booked"

async def unbook(mark):
    pathlib.Path(mark).write_text("undone")

tools = {name: globals()[name] for name in "echo evil fail noisy wait stubborn book unbook".split()}
not_callable = {"echo": 5}
""" another """
five = 5
'''.replace("EVIL_TEXT", repr(EVIL))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a program and its tools, in which the command is called."""
    (tmp_path / "demo.yaml").write_text(PROGRAM)
    (tmp_path / "demo_tools.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("demo_tools", None)


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def process(
    *arguments: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    start: Callable[..., subprocess.CompletedProcess[str]] = warm.run,
    **kwargs: Any,
) -> subprocess.CompletedProcess[str]:
    return start(
        [sys.executable, "-m", "nano_vm", *arguments],
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS_SECONDS,
        **kwargs,
    )


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "NANO_VM_DEBUG": "", **(more or {})}


def step(**fields: Any) -> StepResult:
    return StepResult(
        **{
            "step_id": "a",
            "status": StepStatus.SUCCESS,
            "path": "a",
            "type": "tool",
            "duration_ms": 1.0,
            **fields,
        }
    )


# --- running --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_shows_each_step_and_how_it_ended(folder: Path) -> None:
    done = process(*RUN_DEMO, cwd=folder, start=subprocess.run)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert rows[:3] == [
        ["ok", "ask", "tool"],
        ["ok", "known", "condition"],
        ["ok", "greet", "tool"],
    ]
    assert "then -> greet" in done.stdout
    output, last = done.stdout.splitlines()[-2:]
    assert output == 'output: "hello ann"'
    assert re.fullmatch(r"success, 3 steps, .+ [mµ]?s, digest [0-9a-f]{64}", last)
    assert "\x1b" not in done.stdout


def test_a_failed_run_has_code_1_and_its_error_on_stderr(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "demo.yaml", "--tools", "demo_tools.py:tools", "-i", "who=bob"]) == 1
    out, err = capsys.readouterr()
    assert "failed, 3 steps" in out
    assert err.startswith("error: Step 'refuse' failed: ValueError: no \\x1b[31mred")
    assert len(err.splitlines()) == 1


def test_a_suspended_run_has_code_3_and_says_what_it_waits_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "pause.yaml", "steps: [{id: ok, type: approval, role: boss, show: hello}]")
    assert main(["run", "pause.yaml"]) == 3
    out, _ = capsys.readouterr()
    assert "waiting: " in out
    assert '"role":"boss"' in out
    assert "suspended, " in out


def test_a_run_that_the_host_refuses_tells_every_fault_at_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        folder,
        "bad.yaml",
        "steps:\n  - {id: a, type: llm, prompt: hi}\n  - {id: b, type: tool, tool: ecko}\n",
    )
    assert main(["run", "bad.yaml", "--tools", "demo_tools.py"]) == 1
    _, err = capsys.readouterr()
    first, second, last = err.splitlines()
    assert first.startswith("bad.yaml:2:5: steps[0]: V030: step 'a' calls a model")
    assert "--model" in first
    assert second.startswith("bad.yaml:3:")
    assert "did you mean 'echo'" in second
    assert last == "refused: no step was run"


def test_a_missing_input_is_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "demo.yaml", "--tools", "demo_tools.py:tools"]) == 1
    assert "-i name=value" in capsys.readouterr().err


def test_a_faulty_program_is_told_without_a_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "bad.yaml", "steps:\n  - {id: a, type: tol, tool: x}\n  - {id: a, type: tool}\n")
    assert main(["run", "bad.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean 'tool'" in err
    assert all(re.match(r"bad\.yaml:\d+:\d+: ", line) for line in err.splitlines())


# --- values are data ------------------------------------------------------------------------------


@pytest.fixture
def evil_program(folder: Path) -> str:
    return write(
        folder,
        "evil.yaml",
        """\
steps:
  - {id: a, type: tool, tool: evil, args: {}}
  - {id: c, type: condition, condition: "$a.output == 'x'", then: $end, otherwise: b}
  - {id: b, type: tool, tool: fail, args: {}, on_error: retry, retry: {delay_seconds: 0}}
""",
    )


def harmless(text: str) -> bool:
    """Whether nothing in *text* does more than be seen."""
    return all(c == "\n" or (c.isprintable() and c not in "\u202e\u2028") for c in text)


@pytest.mark.slow
def test_no_value_reaches_the_terminal_as_anything_but_text(
    evil_program: str, folder: Path
) -> None:
    done = process(
        "run", evil_program, "--tools", "demo_tools.py:tools", "--trace", "t.json", cwd=folder
    )
    assert done.returncode == 1
    assert harmless(done.stdout + done.stderr)
    assert not any(line.startswith("forged") for line in (done.stdout + done.stderr).splitlines())
    assert "[bold]x[/bold]" in done.stdout, "shown as it is, and not taken for markup"
    shown_trace = process("trace", "show", "t.json", cwd=folder, start=subprocess.run)
    assert shown_trace.returncode == 0
    assert harmless(shown_trace.stdout)
    assert harmless((folder / "t.json").read_text())
    as_json = process("run", evil_program, "--tools", "demo_tools.py:tools", "--json", cwd=folder)
    assert harmless(as_json.stdout)
    assert Trace.from_json(as_json.stdout).steps[0].output == EVIL


def test_the_live_table_shows_values_as_text() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=400, color_system=None)
    table = Table(console)
    table.event(Event("step_started", EVIL, "a", "llm"))
    table.event(Event("text", EVIL, "a", "llm", text=EVIL))
    table.live.refresh()
    table.event(Event("step_finished", "a", "a", "tool", result=step(path=EVIL, output=EVIL)))
    failed = step(status=StepStatus.FAILED, error=EVIL)
    table.event(Event("step_finished", "a", "a", "tool", result=failed))
    table.close()
    # what the live view itself does
    text = re.sub(r"\x1b\[(\?25[lh]|2K|\d*A)|\r", "", stream.getvalue())
    assert harmless(text)
    assert "[bold]x[/bold]" in text


def test_a_row_is_one_line_of_the_terminal_however_wide_its_characters_are() -> None:
    for width in (20, 44, 45, 69, 70, 80, 200):
        console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
        table = Table(console)
        table.event(Event("step_started", "items[0]/a", "a", "llm"))
        table.event(Event("text", "items[0]/a", "a", "llm", text="字" * 300))
        table.live.refresh()
        table.close()
        console.file = stream = io.StringIO()
        path = "items[12345]/" + "很长" * 30
        table.event(
            Event("step_finished", result=step(path=path, output="字" * 300, type="condition"))
        )
        (line,) = stream.getvalue().splitlines()
        assert console.measure(line).maximum <= width


@pytest.mark.slow
def test_a_terminal_gets_the_live_table(folder: Path) -> None:
    arguments = [sys.executable, "-m", "nano_vm", *RUN_DEMO]
    parent, child = pty.openpty()
    env = environment({"TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": ""})
    env.pop("NO_COLOR")
    with subprocess.Popen(
        arguments, cwd=folder, env=env, stdout=child, stderr=child, stdin=child
    ) as running:
        os.close(child)
        text = read_all(parent)
        assert running.wait(HANGS_SECONDS) == 0
    assert "\x1b[" in text
    assert "status" in text
    assert "\x1b[?25h" in text, "the cursor is given back"
    assert 'output: "hello ann"' in text


def read_all(descriptor: int) -> str:
    chunks = []
    try:
        while chunk := os.read(descriptor, 65536):
            chunks.append(chunk)
    except OSError:  # Linux's way to say that the other side is closed
        pass
    os.close(descriptor)
    return b"".join(chunks).decode()


@pytest.mark.slow
@given(st.text())
def test_safe_text_is_one_harmless_line(text: str) -> None:
    assert safe(text).splitlines() in ([], [safe(text)])
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", safe(text))


@pytest.mark.slow
@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_safe_json_says_the_same(value: Any) -> None:
    text = safe_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]", text)


def test_long_values_are_cut() -> None:
    assert len(shown("x" * 10_000_000, 100)) == 100
    assert shown([1, "a"]) == '[1,"a"]'
    assert shown(True) == "true"


def test_costs_are_shown_with_figures_that_count() -> None:
    from decimal import Decimal

    assert [dollars(Decimal(c)) for c in ("0", "12.346", "0.00123", "0.5")] == [
        "no cost",
        "$12.35",
        "$0.00123",
        "$0.500",
    ]
    assert dollars(None) == "cost unknown"


# --- JSON and trace files -------------------------------------------------------------------------


@pytest.mark.slow
def test_json_is_the_trace_and_nothing_else_whatever_tools_print(folder: Path) -> None:
    write(folder, "noisy.yaml", "steps: [{id: a, type: tool, tool: noisy, args: {}}]")
    done = process("run", "noisy.yaml", "--tools", "demo_tools.py:tools", "--json", cwd=folder)
    assert done.returncode == 0
    assert Trace.from_json(done.stdout).ok
    assert "printed by a tool" in done.stderr
    assert "written below python" in done.stderr


def test_json_of_a_failed_run_is_its_trace(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["run", "demo.yaml", "--tools", "demo_tools.py:tools", "-i", "who=bob", "--json"]) == 1
    )
    assert not Trace.from_json(capsys.readouterr().out).ok


@pytest.mark.slow
def test_json_is_utf8_also_where_the_locale_is_not(folder: Path) -> None:
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    arguments = ("run", "demo.yaml", "--tools", "demo_tools.py:tools", "-i", "who=Zoë", "--json")
    done = process(*arguments, cwd=folder, env=env, start=subprocess.run)
    assert Trace.from_json(done.stdout).inputs == {"who": "Zoë"}
    # refuse: fails, and prints all the same
    assert process(*arguments[:-1], cwd=folder, env=env, start=subprocess.run).returncode == 1


def test_the_trace_file_is_whole_and_readable(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*RUN_DEMO, "--trace", "t.json"]
    assert main(arguments) == 0
    digest = capsys.readouterr().out.split()[-1]
    assert Trace.from_json((folder / "t.json").read_bytes()).digest == digest
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((folder / "t.json").stat().st_mode) == 0o666 & ~mask
    (folder / "t.json").chmod(0o600)
    assert main(arguments) == 0
    assert stat.S_IMODE((folder / "t.json").stat().st_mode) == 0o600, "as it was"
    assert sorted(p.name for p in folder.glob("*.json*")) == ["t.json"]
    assert not list(folder.glob(".t.json*")), "nothing is left behind"


def test_a_trace_file_behind_a_link_is_written_where_the_link_leads(folder: Path) -> None:
    (folder / "real.json").write_text("old")
    (folder / "link.json").symlink_to("real.json")
    assert main([*RUN_DEMO, "--trace", "link.json"]) == 0
    assert (folder / "link.json").is_symlink()
    assert Trace.from_json((folder / "real.json").read_text()).ok


@pytest.mark.parametrize("path", ["nowhere/t.json", "sub", "-", "a\0b"])
def test_a_trace_file_that_cannot_be_written_is_found_before_anything_runs(
    folder: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "sub").mkdir()
    write(
        folder,
        "wait.yaml",
        f"steps: [{{id: a, type: tool, tool: unbook, args: {{mark: '{folder}/ran'}}}}]",
    )
    assert main(["run", "wait.yaml", "--tools", "demo_tools.py:tools", "--trace", path]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert "--trace" in err
    assert not (folder / "ran").exists()


def test_a_trace_goes_to_a_device_too(folder: Path) -> None:
    assert main([*RUN_DEMO, "--trace", "/dev/null"]) == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.slow
def test_a_trace_that_cannot_be_written_in_the_end_is_told_after_the_result(folder: Path) -> None:
    arguments = (*RUN_DEMO, "--trace", "/dev/full")
    done = process(*arguments, cwd=folder)
    assert done.returncode == 1
    assert "success, 3 steps" in done.stdout
    assert done.stderr == "nano-vm: --trace: cannot write /dev/full: No space left on device\n"


# --- inputs ---------------------------------------------------------------------------------------


def test_inputs_are_text_json_or_files(folder: Path) -> None:
    write(folder, "mail.txt", "line 1\nline 2\n")
    write(folder, "n.json", "[1, 2]")
    write(folder, "all.yaml", "a: from file\nz: yes\n")
    given = [
        "a=1",
        "b:=1",
        "c=@mail.txt",
        "d:=@n.json",
        "e=",
        'f:={"x": null}',
        "g=x=y:=z",
        "h=a:b",
    ]
    assert read_inputs(given, "all.yaml") == {
        "a": "1",
        "z": "yes",
        "b": 1,
        "c": "line 1\nline 2\n",
        "d": [1, 2],
        "e": "",
        "f": {"x": None},
        "g": "x=y:=z",
        "h": "a:b",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "x"], "-i takes key=text, key:=json or key=@file, not 'x'"),
        (["-i", "=x"], "-i takes"),
        (["-i", "x:=nope"], "-i x:= takes JSON"),
        (["-i", 'x:={"a":1,"a":2}'], "twice"),
        (["-i", "x:=NaN"], "NaN"),
        (["-i", "x=1", "-i", "x=2"], "gives 'x' twice"),
        (["-i", "x=@nowhere"], "-i x: cannot read nowhere: No such file or directory"),
        (["-i", "x=@."], "cannot read .: Is a directory"),
        (["-i", "x=@binary"], "binary is not UTF-8"),
        (["--input-file", "nowhere"], "--input-file: cannot read nowhere"),
        (["--input-file", "list.json"], "an object of inputs is needed, not [1]"),
        (["--input-file", "bad.json"], "not JSON"),
        (["--input-file", "bad.yaml"], "bad.yaml:2:1: program: P001"),
        (["--input-file", "binary"], "not UTF-8"),
        (["--budget", "max_tokens"], "--budget takes name=number"),
        (["--budget", "tokens=1"], "names are max_steps"),
        (["--budget", "max_tokens=x"], "--budget max_tokens takes a number, not 'x'"),
        (["--budget", "max_tokens=-1"], "greater than or equal to 0"),
        (["--price", "m=1"], "--price takes MODEL=INPUT,OUTPUT"),
        (["--seed", "x"], "--seed: 'x' is not a valid integer"),
        (["--model", "gpt-9"], "unknown model 'gpt-9'; write local"),
        (["--model", "local:nowhere.gguf"], "nowhere.gguf"),
        (["--model", "openai/a", "--model", "openai/b"], "given twice"),
        (["--base-url", "http://127.0.0.1:1"], "--base-url needs --model"),
        (["--program", "x"], "--program takes name=FILE"),
        (["--program", "x=nowhere.yaml"], "cannot read nowhere.yaml"),
        (["--program", "x=demo.yaml", "--program", "x=demo.yaml"], "names 'x' twice"),
        (["--nonsense"], "there is no option --nonsense"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "list.json", "[1]")
    write(folder, "bad.json", "{")
    write(folder, "bad.yaml", "a: [")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    assert main(["run", "demo.yaml", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_price_makes_a_cost_budget_possible() -> None:
    assert read_prices(["a=b=1, 2.5"]) == {"a=b": ("1", "2.5")}
    assert read_budget(["max_cost_usd=0.5", "max_steps=3"]) == {
        "max_cost_usd": 0.5,
        "max_steps": 3,
    }


def test_a_budget_bounds_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*RUN_DEMO, "--budget", "max_steps=1"]
    assert main(arguments) == 1
    assert "max_steps" in capsys.readouterr().err


# --- tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py:tools", "there is no file nowhere.py"),
        ("nowhere:tools", "there is no module 'nowhere'"),
        ("demo_tools.py:nothing", "demo_tools.py has no 'nothing'"),
        ("demo_tools:tools.x", "has no 'tools.x'"),
        ("demo_tools.py:five", "'five' of demo_tools.py holds no tools"),
        ("demo_tools.py:echo", "holds no tools"),
        ("demo_tools.py:not_callable", "tool 'echo' is int, which cannot be called"),
        ("raises.py", "cannot load raises.py: ZeroDivisionError: division by zero ("),
        ("raises:tools", "raises.py:2)"),
        ("leaves.py:tools", "cannot load leaves.py: SystemExit: 3"),
        ("needs.py:tools", "No module named 'not_installed_anywhere'"),
        (
            "needs:tools",
            "cannot load needs: ModuleNotFoundError: No module named 'not_installed_anywhere'",
        ),
        ("syntax.py", "SyntaxError"),
        ("empty.py", "empty.py holds no tools"),
        ("nowhere", "there is no module 'nowhere'"),
        ("demo_tools.sub:x", "demo_tools.sub"),
        ("a b:c", "--tools takes module:object or file.py:object, not 'a b'"),
        ("", "--tools takes"),
    ],
)
def test_tools_that_cannot_be_had_are_one_line_and_code_2(
    folder: Path, spec: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "raises.py", "\n1 / 0\n")
    write(folder, "leaves.py", "import sys; sys.exit(3)")
    write(folder, "needs.py", "import not_installed_anywhere")
    write(folder, "syntax.py", "def (")
    write(folder, "empty.py", "x = 1")
    assert main(["check", "demo.yaml", "--tools", spec]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_tools_come_as_a_dict_a_list_a_namespace_or_marked_functions(folder: Path) -> None:
    marked = """\
from nano_vm import tool
from helper import base
@tool
def one(): return 1
@tool(name="second")
def two(): return 2
def three(): return 3
class space:
    @tool
    def inner(): return 4
    class deeper:
        listed = [one, three]
"""
    write(folder, "kit/marked.py", marked)
    write(folder, "kit/helper.py", "base = 1")
    assert sorted(load_tools("kit/marked.py")) == ["one", "second"]
    assert sorted(load_tools("kit/marked.py:space")) == ["inner"]
    assert sorted(load_tools("kit/marked.py:space.deeper.listed")) == ["one", "three"]
    assert "echo" in load_tools("demo_tools")
    assert "echo" in load_tools("demo_tools:tools")


# --- models ---------------------------------------------------------------------------------------


def test_a_models_form_decides_the_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    from nano_vm import adapters

    made: list[tuple[Any, ...]] = []
    for name in ("OpenAIAdapter", "LiteLLMAdapter", "LocalAdapter"):
        monkeypatch.setattr(
            adapters,
            name,
            lambda *a, name=name, **k: made.append((name, *a, k)) or name,
            raising=False,
        )
    assert load_models([], None) is None
    assert load_models(["local"], None) == "LocalAdapter"
    assert load_models(["fast=groq/a", "litellm:x/y", "z=local:a/b.gguf"], None) == {
        "fast": "OpenAIAdapter",
        None: "LiteLLMAdapter",
        "z": "LocalAdapter",
    }
    load_models(["any:thing"], "http://gpu:8000/v1")
    assert made == [
        ("LocalAdapter", None, {}),
        ("OpenAIAdapter", "groq/a", {}),
        ("LiteLLMAdapter", "x/y", {}),
        ("LocalAdapter", "a/b.gguf", {}),
        ("OpenAIAdapter", "any:thing", {"base_url": "http://gpu:8000/v1"}),
    ]


class Streaming:
    """A model that answers piece by piece, and wrongly at first."""

    model = "sham"

    def __init__(self) -> None:
        self.answers = iter(["maybe", "yes"])

    async def complete(self, messages: Any, **kwargs: Any) -> Any:
        return next(self.answers), {"prompt_tokens": 5, "completion_tokens": 1}


def test_tokens_cost_and_attempts_are_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        folder, "ask.yaml", "steps: [{id: a, type: llm, prompt: ok?, allowed_outputs: [yes, no]}]"
    )
    monkeypatch.setattr(models, "load_models", lambda *_: Streaming())
    assert main(["run", "ask.yaml", "--trace", "t.json", "--price", "sham=1,2"]) == 0
    out, _ = capsys.readouterr()
    assert '"yes" (attempt 2)' in out
    assert re.search(r"success, 1 step, 12 tokens, \$0\.000\d+, ", out)
    assert main(["trace", "show", "t.json"]) == 0
    out, _ = capsys.readouterr()
    assert re.search(r"  attempt 1 \(.*\): InvalidAnswer: .*, answer \"maybe\"", out)


# --- called programs ------------------------------------------------------------------------------


@pytest.fixture
def calls(folder: Path) -> Path:
    write(
        folder, "p/main.yaml", "steps: [{id: c, type: call, program: sub/check.yaml, with: {a: 1}}]"
    )
    write(
        folder,
        "p/sub/check.yaml",
        "steps:\n  - {id: d, type: call, program: deep.yaml, with: {a: $a}}\n",
    )
    write(
        folder,
        "p/sub/deep.yaml",
        "steps:\n  - {id: e, type: set, values: {b: 'got $a'}}\noutput: $b\n",
    )
    write(folder, "outside.yaml", "steps: [{id: o, type: set, values: {b: 1}}]")
    return folder


def test_a_call_names_a_file_relative_to_its_own(
    calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "p/main.yaml"]) == 0
    assert 'output: "got 1"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.yaml", "outside the program's folder"),
        ("sub/../../outside.yaml", "outside the program's folder"),
        ("link.yaml", "outside the program's folder"),
        ("linked/outside.yaml", "outside the program's folder"),
        ("{folder}/outside.yaml", "no relative path"),
        ("nowhere.yaml", "there is no such file"),
        ("folder.yaml", "is no file"),
        ("pipe.yaml", "is no file"),
        ("a\\0b.yaml", "is no path"),
        ("outside", "unknown program 'outside'"),
    ],
)
def test_a_call_leads_out_of_the_programs_folder_in_no_way(
    calls: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (calls / "p/link.yaml").symlink_to("../outside.yaml")
    (calls / "p/linked").symlink_to(calls)
    (calls / "p/folder.yaml").mkdir()
    os.mkfifo(calls / "p/pipe.yaml")
    name = name.replace("{folder}", str(calls))
    write(calls, "p/main.yaml", f'steps:\n  - {{id: c, type: call, program: "{name}"}}\n')
    for command in ("check", "run"):
        assert main([command, "p/main.yaml"]) == 1
        out, err = capsys.readouterr()
        assert message in out + err
        assert "p/main.yaml:2:" in out + err


def test_a_link_inside_the_folder_is_fine_and_so_is_a_way_up_within_it(calls: Path) -> None:
    (calls / "p/link.yaml").symlink_to("sub/deep.yaml")
    write(calls, "p/main.yaml", "steps: [{id: c, type: call, program: link.yaml, with: {a: 1}}]")
    assert main(["check", "p/main.yaml"]) == 0
    write(calls, "p/main.yaml", "steps: [{id: c, type: call, program: sub/up.yaml}]")
    write(calls, "p/sub/up.yaml", "steps: [{id: d, type: call, program: ../top.yaml}]")
    write(calls, "p/top.yaml", "steps: [{id: e, type: set, values: {a: 1}}]")
    assert main(["run", "p/main.yaml"]) == 0


def test_a_called_programs_faults_stand_in_its_own_file(
    calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        calls, "p/sub/deep.yaml", "steps:\n  - {id: e, type: tool, tool: ecko, args: {text: x}}\n"
    )
    assert main(["check", "p/main.yaml", "--tools", "demo_tools.py"]) == 1
    assert "\np/sub/deep.yaml:2:25: steps[0].tool: V020: " in capsys.readouterr().out
    assert main(["run", "p/main.yaml", "--tools", "demo_tools.py"]) == 1
    assert "\np/sub/deep.yaml:2:25: steps[0].tool: V020: " in capsys.readouterr().err
    write(calls, "p/sub/deep.yaml", "steps:\n  - {id: e, type: tol}\n")
    assert main(["check", "p/main.yaml"]) == 1
    assert capsys.readouterr().out.startswith("p/sub/deep.yaml:2:")


def test_programs_that_call_each_other_are_a_fault(
    calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(calls, "p/main.yaml", "steps: [{id: c, type: call, program: b.yaml}]")
    write(calls, "p/b.yaml", "steps: [{id: d, type: call, program: main.yaml}]")
    assert main(["check", "p/main.yaml"]) == 1
    assert "V007" in capsys.readouterr().out


def test_one_name_for_two_files_is_a_fault(calls: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = (
        "{id: c, type: call, program: sub/check.yaml, with: {a: 1}}, {id: x, type: call, "
        "program: deep.yaml}"
    )
    write(calls, "p/main.yaml", f"steps: [{steps}]")
    write(calls, "p/deep.yaml", "steps: [{id: o, type: set, values: {b: 1}}]")
    assert main(["check", "p/main.yaml"]) == 1
    assert "another file than elsewhere" in capsys.readouterr().out


def test_a_program_from_elsewhere_is_given_by_name(calls: Path) -> None:
    write(calls, "p/main.yaml", "steps: [{id: c, type: call, program: other}]")
    assert main(["run", "p/main.yaml", "--program", "other=outside.yaml"]) == 0
    write(calls, "p/main.yaml", "steps: [{id: c, type: call, program: ../outside.yaml}]")
    assert main(["run", "p/main.yaml", "--program", "../outside.yaml=outside.yaml"]) == 0


# --- programs that cannot be read ----------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "check", "explain", "graph", "fmt"])
def test_a_program_that_cannot_be_read(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "empty.yaml").write_text("")
    (folder / "nul.yaml").write_text("steps: \0")
    for path, code, message in (
        ("nowhere.yaml", 2, "cannot read nowhere.yaml: No such file or directory"),
        (".", 2, "cannot read .: Is a directory"),
        ("a\0b", 2, "null"),
        ("binary.yaml", 1, "binary.yaml: program: P008: not UTF-8"),
        ("empty.yaml", 1, "P006: a program is an object with 'steps', not nothing"),
        ("nul.yaml", 1, "P001: not YAML"),
    ):
        assert main([command, path]) == code, path
        out, err = capsys.readouterr()
        assert message in out + err
        assert "internal" not in err


@pytest.mark.slow
def test_a_program_comes_from_standard_input(folder: Path) -> None:
    done = process("check", "-", cwd=folder, input=PROGRAM)
    worst = "at most: 3 steps, 2 tool calls (echo 2, fail 1)\n"
    assert (done.returncode, done.stdout) == (
        0,
        f"{worst}-: no faults; not checked: tools (give --tools)\n",
    )
    done = process("check", "-", cwd=folder, input="steps: [{id: a}]")
    assert done.returncode == 1
    assert done.stdout.startswith("<stdin>:1:")


# --- check ----------------------------------------------------------------------------------------


def test_check_lists_what_the_text_the_graph_and_the_tools_show(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """\
steps:
  - {id: a, type: tool, tool: ecko, args: {text: x}, retry: {delay_seconds: 1}}
  - {id: b, type: condition, condition: "$a.output == 'x'", then: nowhere, otherwise: $end}
"""
    write(folder, "p.yaml", text)
    assert main(["check", "p.yaml"]) == 1
    out = capsys.readouterr().out
    assert "p.yaml:2:54: steps[0].retry: warning: P034" in out
    assert "p.yaml:3:" in out
    assert "V003" in out
    assert "V020" not in out
    assert out.endswith("p.yaml: 1 error, 1 warning; not checked: tools (give --tools)\n")
    assert main(["check", "p.yaml", "--tools", "demo_tools.py"]) == 1
    out = capsys.readouterr().out
    assert "V020" in out
    assert out.endswith("p.yaml: 2 errors, 1 warning\n")


BACK = """\
name: back
steps:
  - {id: draft, type: set, values: {x: 1}}
  - {id: gate, type: condition, condition: "$again == 'yes'", then: draft, otherwise: $end}
"""
EARLY = """\
name: early
steps:
  - {id: a, type: set, values: {y: $x}}
  - {id: b, type: set, values: {x: $y}}
"""


@pytest.mark.parametrize(
    ("text", "given", "code", "part"),
    [
        (BACK, "again=no", "V023", "step 'gate' jumps back to 'draft', which also runs in order"),
        (
            EARLY,
            "x=1",
            "V024",
            "'$x' is read before any step has written it, so it is needed as an input",
        ),
    ],
    ids=["a jump back", "an input that a step writes"],
)
def test_a_doubt_is_told_by_run_and_check_and_fails_a_strict_check(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, given: str, code: str, part: str
) -> None:
    write(folder, "p.yaml", text)
    assert main(["run", "p.yaml", "-i", given]) == 0
    assert f"warning: {code}: {part}" in capsys.readouterr().err
    assert main(["check", "p.yaml"]) == 0
    assert f"warning: {code}: {part}" in capsys.readouterr().out
    assert main(["check", "p.yaml", "--strict"]) == 1
    assert f" {code}: {part}" in capsys.readouterr().out


def test_warnings_fail_a_strict_check(folder: Path) -> None:
    write(folder, "p.yaml", "steps: [{id: a, type: tool, tool: f, retry: {delay_seconds: 1}}]")
    assert main(["check", "p.yaml"]) == 0
    assert main(["check", "p.yaml", "--strict"]) == 1


def test_check_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        folder,
        "p.yaml",
        "steps:\n  - {id: a, type: llm, prompt: hi, retry: {delay_seconds: 1}}\n  - {id: b, type: "
        "tool, tool: nope}\n",
    )
    assert main(["check", "p.yaml", "--json", "--tools", "demo_tools.py"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["not_checked"] == ["models"]
    faults = [d for d in report["diagnostics"] if d["severity"] != "hint"]
    assert [(d["code"], d["severity"], d["line"]) for d in faults] == [
        ("P034", "warning", 2),
        ("V020", "error", 3),
    ]
    write(folder, "p.yaml", "steps: 5")
    assert main(["check", "p.yaml", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["not_checked"] == ["graph", "tools", "models"]


def test_faults_fit_one_screen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = "\n".join(f"  - {{id: s{i}, type: tol, x{i}: 1}}" for i in range(100))
    write(folder, "p.yaml", f"steps:\n{steps}\n")
    assert main(["run", "p.yaml"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 16
    assert lines[-1].startswith("and ")
    many = [Diagnostic("V009", (), "w", severity="warning")] * 20 + [Diagnostic("V003", (), "bad")]
    assert next(iter(diagnostic_lines(many))) == "program: V003: bad", (
        "errors come first where not all are shown"
    )


# --- explain, graph, schema -----------------------------------------------------------------------


def test_explain_prints_the_plan_also_without_the_tools(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "demo.yaml", "--plan"]) == 0
    out, err = capsys.readouterr()
    assert "tool greet echo(text)" in out
    assert "--tools" in err
    assert main(["explain", "demo.yaml", "--plan", "--tools", "demo_tools.py"]) == 0
    assert capsys.readouterr().err == ""


def test_explain_says_in_words_what_a_program_does(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", "demo.yaml", "--tools", "demo_tools.py"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert (
        out
        == """\
demo
  ask: calls echo(text=$who), which writes
  known: decides $ask.output == 'ann'
      then -> greet
      otherwise -> refuse
  greet: calls echo(text="hello $who"), which writes
      then the run ends
  refuse: calls fail(), which writes
      then the run ends
  a step that fails ends it, unless it says otherwise; what has an undo is undone then
"""
    )


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("$who", "text=$who"),
        ("${who}", "text=${who}"),
        ("$who,fee=1", 'text="$who,fee=1"'),
        ("$who) then", 'text="$who) then"'),
        ({"a, b": ["$who"]}, 'text={"a, b": [$who]}'),
    ],
)
def test_no_value_is_taken_for_another_argument(
    folder: Path, value: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [{"id": "a", "type": "tool", "tool": "echo", "args": {"text": value}}]
    write(folder, "v.json", json.dumps({"steps": steps}))
    assert main(["explain", "v.json"]) == 0
    assert f"  a: calls echo({told})\n" in capsys.readouterr().out


EVERY_STEP = """\
name: everything
description: a step of each kind
timeout_seconds: 60
inputs:
  type: object
  properties: {who: {type: string}, tags: {type: array, default: []}, more: {}}
  required: [who]
steps:
  - {id: book, type: tool, tool: book, args: {to: [$who]}, undo: {tool: unbook}, max_retries: 2,
     on_error: retry, catch: [{errors: [Full, timeout], next: sorry}], timeout_seconds: 5}
  - {id: kind, type: llm, model: fast, prompt: "what is $who?", allowed_outputs: [a, b],
     on_invalid: b, output_key: kind, when: "$who != ''", default: b}
  - {id: by, type: switch, on: $kind, cases: {a: [{id: tell, type: set, values: {x: 1}}]},
     default: $next}
  - id: again
    type: loop
    max_iterations: 3
    until: "$more"
    steps: [{id: pause, type: wait, seconds: 1}]
  - {id: both, type: parallel, parallel_steps: [{id: l, type: tool, tool: look, on_error: skip},
     {id: paid, type: wait, event: paid}]}
  - {id: each, type: map, over: $tags, as: tag, steps: [{id: t, type: tool, tool: look}]}
  - {id: called, type: call, program: other, with: {n: {expr: "1 + 1"}}}
  - {id: ask, type: approval, role: boss, show: {who: $who}, then: $next, otherwise: sorry}
  - {id: last, type: set, values: {y: $kind}, next: $end}
  - {id: sorry, type: tool, tool: look, reconcile: {tool: look}}
output: {kind: $kind}
"""


def test_explain_has_words_for_every_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "every.yaml", EVERY_STEP)
    write(folder, "other.yaml", "name: other\nsteps: [{id: o, type: set, values: {z: $n}}]")
    assert main(["explain", "every.yaml", "--program", "other=other.yaml"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert (
        out
        == """\
everything: a step of each kind
  input who (string)
  input tags (array, [] unless it is given)
  input more (may be left out)
  it ends within 60 s
  book: calls book(to=[$who])
      tried again where it fails, at most 2 times
      within 5 s
      undone by unbook()
      on Full, timeout -> sorry
  kind: asks model 'fast' "what is $who?", for one of a, b
      only when $who != ''
      its output is $kind
      any other answer is asked again with what is wrong with it, then "b" is taken
  by: decides by $kind
      'a' -> tell
      default -> again
    tell: sets $x = 1
  again: repeats the steps below at most 3 times, until $more, and fails where that does not come
      until -> both
    pause: waits 1 s
        then the end of an iteration of again
  both: runs 2 branches side by side
      then -> each
    l: calls look()
        skipped where it fails
        then the branch ends
    paid: waits for the event 'paid'
        then the branch ends
  each: runs the steps below for each $tag of $tags, at most 1,000
      then -> called
    t: calls look()
        then the item ends
  called: runs the program other(n=1 + 1)
  ask: waits until 'boss' approves or rejects {who: $who}
      then -> last
      otherwise -> sorry
  last: sets $y = $kind
      then the run ends
  sorry: calls look()
      look is asked where it is not known whether it took place
      then the run ends
  output: {kind: $kind}
  a step that fails ends it, unless it says otherwise; what has an undo is undone then

other
  o: sets $z = $n
      then the program ends
  a step that fails ends it, unless it says otherwise; what has an undo is undone then
"""
    )


def test_explain_of_a_faulty_program_tells_the_faults(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "p.yaml", "steps: [{id: a, type: set, values: {b: 1}, next: nowhere}]")
    for command in ("explain", "graph"):
        assert main([command, "p.yaml"]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("p.yaml:1:")


def test_the_format_of_a_graph_follows_the_ending_of_its_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, begins in (("g.svg", "<svg"), ("g.dot", "digraph"), ("g.gv", "digraph")):
        assert main(["graph", "demo.yaml", "-o", name]) == 0
        assert (folder / name).read_text().lstrip().startswith(begins)
    assert main(["graph", "demo.yaml", "-o", "g.mmd"]) == 0
    assert (folder / "g.mmd").read_text().startswith("flowchart")
    assert main(["graph", "demo.yaml", "-o", "odd.svg", "--format", "dot"]) == 0
    assert (folder / "odd.svg").read_text().startswith("digraph")
    assert main(["graph", "demo.yaml", "--format", "png"]) == 2
    assert "PNG needs a file to write to: -o FILE.png" in capsys.readouterr().err


@pytest.mark.slow
def test_a_png_is_the_picture_in_pixels(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = main(["graph", "demo.yaml", "-o", "g.png"])
    if code == 0:
        data = (folder / "g.png").read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert main(["graph", "demo.yaml", "-o", "g.svg"]) == 0
        width = re.search(r'<svg[^>]* width="(\d+)', (folder / "g.svg").read_text())
        assert width is not None
        assert int.from_bytes(data[16:20], "big") == 2 * int(width[1])
    else:  # a machine without fonts says so, and draws no boxes without their texts
        assert "no font that a PNG could be written with" in capsys.readouterr().err
    monkeypatch.setattr("nano_vm.draw.png.FAMILIES", ("No Such Font",))
    assert main(["graph", "demo.yaml", "-o", "none.png"]) == 1
    assert "(apt-get install fonts-dejavu-core), or draw SVG" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert main(["graph", "demo.yaml", "-o", "none.png"]) == 2
    assert "pip install 'llm-nano-vm[png]'" in capsys.readouterr().err
    assert not (folder / "none.png").exists()


@pytest.mark.slow
def test_graph_writes_each_format(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form, start in (("mermaid", "flowchart TD"), ("dot", "digraph"), ("svg", "<svg")):
        assert main(["graph", "demo.yaml", "--format", form]) == 0
        out = capsys.readouterr().out
        assert out.startswith(start)
        assert main(["graph", "demo.yaml", "--format", form, "-o", "g"]) == 0
        assert (folder / "g").read_text() == out
    assert main(["graph", "demo.yaml", "-o", "nowhere/g"]) == 2
    steps = ", ".join(f"{{id: s{i}, type: set, values: {{a: 1}}}}" for i in range(502))
    write(folder, "long.yaml", f"steps: [{steps}]")
    assert main(["graph", "long.yaml"]) == 0
    assert "--format svg" in capsys.readouterr().err
    assert main(["graph", "demo.yaml", "--format", "gif"]) == 2


@pytest.mark.slow
def test_the_schema_fits_the_language(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import jsonschema_rs

    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid(Program.from_yaml(PROGRAM).to_dict())
    assert validator.is_valid(
        {"max_steps": 5, "steps": [{"id": "a", "type": "set", "values": {"b": 1}}]}
    )
    assert not validator.is_valid({"steps": [{"id": "a", "type": "llm", "allowed_outputs": "yes"}]})
    assert not validator.is_valid(
        {"max_steps": "x", "steps": [{"id": "a", "type": "set", "values": {"b": 1}}]}
    )


# --- fmt ------------------------------------------------------------------------------------------


def test_fmt_prints_writes_and_checks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Program.from_file("demo.yaml")
    assert main(["fmt", "demo.yaml"]) == 0
    text = capsys.readouterr().out
    assert (folder / "demo.yaml").read_text() == PROGRAM, "only -w writes"
    assert main(["fmt", "demo.yaml", "--check"]) == 1
    (folder / "demo.yaml").chmod(0o640)
    assert main(["fmt", "demo.yaml", "-w"]) == 0
    assert (folder / "demo.yaml").read_text() == text
    assert stat.S_IMODE((folder / "demo.yaml").stat().st_mode) == 0o640
    assert Program.from_file("demo.yaml").digest == before.digest
    assert main(["fmt", "demo.yaml", "--check"]) == 0
    capsys.readouterr()
    assert main(["fmt", "demo.yaml", "-w"]) == 0
    assert capsys.readouterr().out == "", "nothing to do"


def test_fmt_is_readable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """\
# a comment
steps:
- {type: llm, id: a, is_terminal: true, allowed_outputs: [yes, no, "1e3", 0o7x], prompt: "Is it?\\nSay \\"yes\\".\\n"}
max_tokens: 5
"""
    write(folder, "p.yaml", text)
    assert main(["fmt", "p.yaml"]) == 0
    assert (
        capsys.readouterr().out
        == """\
budget:
  max_tokens: 5
steps:
  - id: a
    type: llm
    next: $end
    prompt: |
      Is it?
      Say "yes".
    allowed_outputs: ['yes', 'no', '1e3', 0o7x]
"""
    )


def test_fmt_writes_an_expression_on_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = (
        '{n: {expr: $n + 1}, l: [{expr: "append($l, [1, 2])"}], d: {$$expr: "$n", k: 1}, e: '
        "{expr: \"'a: b' in $t\"}}"
    )
    write(folder, "p.yaml", f"steps: [{{id: a, type: set, values: {values}}}]")
    assert main(["fmt", "p.yaml"]) == 0
    assert (
        capsys.readouterr().out
        == """\
steps:
  - id: a
    type: set
    values:
      n: {expr: $n + 1}
      l:
        - {expr: 'append($l, [1, 2])'}
      d:
        $$expr: $n
        k: 1
      e: {expr: '''a: b'' in $t'}
"""
    )


def test_fmt_of_json_is_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "p.json", '{"steps":[{"type":"set","id":"a","values":{"b":"é"}}]}')
    assert main(["fmt", "p.json", "-w"]) == 0
    text = (folder / "p.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    assert list(json.loads(text)["steps"][0]) == ["id", "type", "values"]


def test_fmt_leaves_what_cannot_be_written_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, "p.yaml", "steps: [{id: a, type: nothing}]")
    assert main(["fmt", "p.yaml", "-w"]) == 1
    assert (folder / "p.yaml").read_text() == "steps: [{id: a, type: nothing}]"
    (folder / "demo.yaml").chmod(0o400)
    if not os.access("demo.yaml", os.W_OK):  # root writes everywhere
        assert main(["fmt", "demo.yaml", "-w"]) == 2
    assert main(["fmt", "-", "-w"]) == 2


TRAPS = (
    "yes null ~ 1e3 0o17 1_000 0x1F 1:30 2020-01-01 .5 +1 = << # !x &a *a % @ ` | > --- ... [ "
    "{ , ' \" 𝄞"
).split(" ")
TRAPS += [
    "- a",
    "a: b",
    "a\n",
    "\na",
    " a",
    "a ",
    "a\n\n b\n",
    "\ta\nb",
    "? x",
    "# a\nb",
    "a #b\nc: d\n",
    "x" * 300,
]
TRAPS += ["\x85", "\u2028", "\ufeff", "a\r\nb", "\x00", "\x07"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(TRAPS)
VALUES = st.recursive(
    TEXTS
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=200)
@given(VALUES, TEXTS)
def test_fmt_says_the_same_whatever_the_values(value: Any, prompt: str) -> None:
    def quiet(value: Any) -> Any:  # references are another matter
        if isinstance(value, str):
            return value.replace("$", "$$")
        if isinstance(value, list):
            return [quiet(item) for item in value]
        return {k: quiet(v) for k, v in value.items()} if isinstance(value, dict) else value

    steps = [
        {"id": "a", "type": "tool", "tool": "t", "args": {"x": quiet(value)}},
        {"id": "b", "type": "llm", "prompt": quiet(prompt) or "-", "description": prompt},
    ]
    program = Program.from_dict({"steps": steps, "metadata": {"m": value}})
    for json_form in (False, True):
        text = formatted(program, json_form=json_form)
        again = Program.from_json(text) if json_form else Program.from_yaml(text)
        assert again.digest == program.digest
        assert json.dumps(again.to_dict()) == json.dumps(program.to_dict())
        assert formatted(again, json_form=json_form) == text


# --- trace show -----------------------------------------------------------------------------------


@pytest.fixture
def recorded(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main([*RUN_DEMO, "--trace", "t.json"]) == 0
    capsys.readouterr()
    return folder / "t.json"


def test_trace_show_tells_steps_reasons_and_identity(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", "show", "t.json"]) == 0
    out = capsys.readouterr().out
    trace = Trace.from_json(recorded.read_text())
    for text in (trace.run_id, trace.digest, trace.seal, trace.program_digest, 'input who: "ann"'):
        assert text in out
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if " known " in line)
    assert "then -> greet" in lines[at]
    assert lines[at + 1] == '  because $ask.output = "ann"'


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"hello ann"', '"hello bob"', 1),
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "5",
        lambda text: text.replace('"status": "success"', '"status": "failed"', 1),
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace('"record": "end"', '"record": "step"'),
        lambda text: json.dumps({**json.loads(text), "records": json.loads(text)["records"][:2]}),
        lambda text: json.dumps({**json.loads(text), "records": []}),
        lambda text: json.dumps({**json.loads(text), "salt": "zz"}),
        lambda text: json.dumps({**json.loads(text), "salt": None}),
        lambda text: "[" * 100_000,
        lambda text: text.replace('"started_ns": ', '"started_ns": 9999999999999999999999', 1),
    ],
)
def test_a_trace_that_was_changed_or_cut_is_refused_in_one_line(
    recorded: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    text = recorded.read_text()
    assert damage(text) != text
    recorded.write_text(damage(text))
    assert main(["trace", "show", "t.json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("nano-vm: t.json: ")
    assert len(err.splitlines()) == 1


@pytest.mark.slow
@settings(max_examples=150)
@given(st.data())
def test_no_edited_value_passes(data: st.DataObject) -> None:
    trace = Trace.from_json(RECORDED)
    document = trace.to_dict()
    places = [(i, key) for i, record in enumerate(document["records"]) for key in record]
    i, key = data.draw(st.sampled_from(places))
    value = data.draw(
        st.none()
        | st.text()
        | st.integers()
        | st.lists(st.integers())
        | st.dictionaries(st.text(), st.text())
    )
    if document["records"][i][key] == value and type(document["records"][i][key]) is type(value):
        return
    document["records"][i][key] = value
    try:
        again = Trace.from_json(json.dumps(document))
    except TraceError:
        return
    assert again.to_dict()["records"] == trace.to_dict()["records"], (
        "it was left out, and nothing else was changed"
    )


RECORDED = ""


@pytest.fixture(scope="module", autouse=True)
def recorded_text() -> None:
    from nano_vm import ExecutionVM

    global RECORDED

    async def echo(text: str) -> str:
        return text

    program = Program.from_dict(
        {"steps": [{"id": "a", "type": "tool", "tool": "echo", "args": {"text": "$who"}}]}
    )
    RECORDED = ExecutionVM(tools={"echo": echo}).run_sync(program, {"who": "ann"}).to_json()


def test_trace_show_of_what_is_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "binary").write_bytes(b"\xff\x00")
    for path, code in (("nowhere", 2), (".", 2), ("binary", 1), ("demo.yaml", 1)):
        assert main(["trace", "show", path]) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["trace"]) == 2
    assert main(["trace", "frob"]) == 2


# --- signals and pipes ----------------------------------------------------------------------------


@contextmanager
def start(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with warm.Popen(
        [sys.executable, "-m", "nano_vm", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as running:
        try:
            yield running
        finally:
            running.kill()  # a test that fails is not to wait for ever


def until(condition: Any) -> None:
    deadline = time.monotonic() + HANGS_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_cancelled_undone_and_told(
    folder: Path, number: int, code: int
) -> None:
    text = """\
steps:
  - {id: book, type: tool, tool: book, args: {mark: b}, undo: {tool: unbook, args: {mark: undone}}}
  - {id: wait, type: tool, tool: wait, args: {mark: started}}
"""
    write(folder, "w.yaml", text)
    with start(
        folder, "run", "w.yaml", "--tools", "demo_tools.py:tools", "--trace", "t.json"
    ) as running:
        until((folder / "started").exists)
        running.send_signal(number)
        out, err = running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == code
    assert re.search(r"^ok +book ", out, re.MULTILINE)
    assert out.splitlines()[-1].startswith("cancelled, ")
    assert "Traceback" not in err
    assert (folder / "undone").read_text() == "undone"
    assert Trace.from_json((folder / "t.json").read_text()).status.value == "cancelled"


@pytest.mark.slow
def test_a_second_interrupt_ends_what_does_not_let_itself_be_cancelled(folder: Path) -> None:
    write(folder, "w.yaml", "steps: [{id: a, type: tool, tool: stubborn, args: {mark: m}}]")
    with start(
        folder, "run", "w.yaml", "--tools", "demo_tools.py:tools", "--trace", "t.json"
    ) as running:
        until((folder / "m").exists)
        running.send_signal(signal.SIGINT)
        until(lambda: (folder / "m").read_text() == "asked to stop")
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == 130
    assert err == "nano-vm: stopped at once; what was under way is unknown\n"
    assert not [p for p in folder.iterdir() if "t.json" in p.name], "nothing is left behind"


@pytest.mark.slow
def test_an_ignored_interrupt_stays_ignored(folder: Path) -> None:
    write(folder, "w.yaml", "steps: [{id: a, type: tool, tool: wait, args: {mark: m}}]")
    arguments = [sys.executable, "-m", "nano_vm", "run", "w.yaml", "--tools", "demo_tools.py:tools"]
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN) and None,
    ) as running:
        until((folder / "m").exists)
        running.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        running.kill()


@pytest.mark.slow
def test_an_interrupt_before_the_run_is_one_line(folder: Path) -> None:
    write(folder, "slow.py", "import pathlib, time\npathlib.Path('m').touch()\ntime.sleep(60)\n")
    with start(folder, "run", "demo.yaml", "--tools", "slow.py:tools") as running:
        until((folder / "m").exists)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=HANGS_SECONDS)
    assert (running.returncode, out, err) == (130, "", "nano-vm: interrupted\n")


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m nano_vm schema | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() in (["{", "141"], ["{", "0"])  # 0 where the pipe takes it all


@pytest.mark.slow
def test_a_run_goes_on_when_its_reader_goes_away(folder: Path) -> None:
    steps = "\n".join(
        f"  - {{id: s{i}, type: tool, tool: echo, args: {{text: {'x' * 500}}}}}" for i in range(300)
    )
    text = f"steps:\n{steps}\n  - {{id: last, type: tool, tool: unbook, args: {{mark: done}}}}\n"
    write(folder, "long.yaml", text)
    command = (
        f"{sys.executable} -m nano_vm run long.yaml --tools demo_tools.py:tools | head -1 "
        f">/dev/null"
    )
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stderr == ""
    assert (folder / "done").exists()


def test_lines_stop_at_a_closed_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            Closed.writes += 1
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    lines = Lines()
    lines.event(Event("step_finished", result=step()))
    lines.event(Event("step_finished", result=step()))
    assert Closed.writes == 1


# --- the frame ------------------------------------------------------------------------------------


def test_help_shows_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        [],
        ["run"],
        ["check"],
        ["explain"],
        ["graph"],
        ["schema"],
        ["fmt"],
        ["trace", "show"],
    ):
        assert main([*command, "--help"]) == 0
        out = capsys.readouterr().out
        assert ("130  interrupted" in out) is (not command), "once, and not on each page"
        assert "exit codes:" in out
    assert main(["run", "--help"]) == 0
    assert "examples:\n  nano-vm run" in capsys.readouterr().out
    assert main(["fmt", "--help"]) == 0
    assert "COMMENTS ARE LOST" in capsys.readouterr().out


def test_no_command_is_a_usage_error_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "write programs:" in capsys.readouterr().out
    assert main(["frob"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nano-vm ")


def test_our_own_fault_is_one_line_unless_asked_for_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a \x1b[31mbug")

    monkeypatch.setattr(Program, "from_file", broken)
    monkeypatch.delenv("NANO_VM_DEBUG", raising=False)
    assert main(["check", "demo.yaml"]) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "RuntimeError: a \\x1b[31mbug" in err
    assert "report" in err
    monkeypatch.setenv("NANO_VM_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["check", "demo.yaml"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], "rich pydantic yaml asyncio openai litellm xllamacpp"),
        (["run", "--help"], "rich pydantic yaml asyncio openai litellm xllamacpp"),
        (["schema"], "rich asyncio openai litellm xllamacpp"),
        (["check", "demo.yaml"], "rich openai litellm xllamacpp"),
        (
            ["run", "demo.yaml", "--tools", "demo_tools.py", "-i", "who=ann"],
            "rich openai litellm xllamacpp",
        ),
    ],
)
def test_nothing_is_imported_that_is_not_needed(
    folder: Path, arguments: list[str], absent: str
) -> None:
    code = (
        "import sys\nfrom nano_vm.cli import main\n"
        f"main({arguments!r})\n"
        f"print([name for name in {absent.split()!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("redirect", "code"), [("> /dev/full", 1), (">&-", 0), ("| head -c 1 > /dev/null", 0)]
)
def test_a_run_whose_output_goes_nowhere_still_leaves_its_trace(
    tmp_path: Path, redirect: str, code: int
) -> None:
    (tmp_path / "p.yaml").write_text(
        "steps: [{id: a, type: set, values: {x: 1}}]", encoding="utf-8"
    )
    command = f"{sys.executable} -m nano_vm run p.yaml --trace t.json {redirect}"
    ran = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == code
    assert "nano-vm itself" not in ran.stderr
    assert Trace.from_json((tmp_path / "t.json").read_text(encoding="utf-8")).ok


# --- what is mistaken in the first hour -----------------------------------------------------------


DECLARED = """\
inputs:
  $defs: {count: {type: integer}}
  type: object
  properties:
    kg: {type: number, minimum: 2}
    again: {type: boolean}
    tags: {type: array}
    level: {enum: [1, 2]}
    count: {$ref: "#/$defs/count"}
    same: {$ref: "#/properties/kg"}
    either: {type: [string, number]}
    name: {type: string}
    maybe: {anyOf: [{type: integer}, {type: "null"}]}
steps:
  - {id: a, type: set, values: {x: {expr: "%s"}}}
"""


def declared(folder: Path, given: str) -> None:
    """A program that reads the input that is *given*; it declares all but ``other``."""
    name = given.partition("=")[0].rstrip(":")
    text = DECLARED % f"${name}"
    write(folder, "declared.yaml", text if name != "other" else text[text.index("steps:") :])


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("kg=2", 2),
        ("kg=2.5", 2.5),
        ("again=false", False),
        ("tags=[1]", [1]),
        ("level=2", 2),
        ("count=3", 3),
        ("same=4", 4),
        ("maybe=null", None),
        ("either=5", "5"),
        ("name=5", "5"),
        ("name=true", "true"),
        ("other=false", "false"),
        ("kg:=2", 2),
    ],
)
def test_a_text_is_read_as_the_program_declares_the_input(
    folder: Path, given: str, value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    declared(folder, given)
    assert main(["run", "declared.yaml", "-i", given, "--json"]) == 0
    read = json.loads(capsys.readouterr().out)["output"]["x"]
    assert (read, type(read)) == (value, type(value))
    assert main(["explore", "declared.yaml", "-i", given]) == 0
    assert main(["run", "declared.yaml", "-i", given, "--trace", "t.json"]) == 0
    capsys.readouterr()
    fork = ["fork", "t.json", "--program", "declared.yaml", "-i", given, "--json"]
    assert main(fork) == 0
    assert json.loads(capsys.readouterr().out)["records"][-1]["output"] == {"x": value}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "kg=two",
            ["'two' is not of type", "-i kg=... is a string here, and the program declares"],
        ),
        ("kg=1", ["1 is less than the minimum of 2"]),
        ("again=yes", ["-i again=... is a string here"]),
        ("other=false", ["gives a string; for false write -i other:=false"]),
        ("other=no", []),
        ("name=false", []),
    ],
)
def test_a_text_that_is_not_what_was_meant_is_told_with_the_way_to_write_it(
    folder: Path, given: str, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    declared(folder, given)
    assert main(["run", "declared.yaml", "-i", given]) == (given.startswith(("kg", "again")))
    err = capsys.readouterr().err
    assert all(text.replace("'", '"') in err.replace("'", '"') for text in told), err
    assert (" a string" in err) is any(" a string" in text for text in told)


@pytest.mark.parametrize("schema", [{"enum": ["a", 1]}, {"const": {"a": 1}}, {"type": "integer"}])
@pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udfff": 1}', "9" * 1_300, "9" * 5_000])
def test_json_that_is_no_value_is_told_whatever_the_input_is_declared_as(
    folder: Path, schema: dict[str, Any], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [{"id": "a", "type": "set", "values": {"x": "$given"}}]
    document = {"inputs": {"type": "object", "properties": {"given": schema}}, "steps": steps}
    write(folder, "typed.json", json.dumps(document))
    for entry in (f"given={text}", f"given:={text}"):
        assert main(["run", "typed.json", "-i", entry]) in (1, 2)
        err = capsys.readouterr().err
        assert "V041" in err or "takes JSON" in err, err
        assert "sys.set_int_max_str_digits" not in err


def test_a_trace_in_place_of_a_program_is_called_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*RUN_DEMO, "--trace", "t.json"]) == 0
    assert main([*RUN_DEMO, "--json"]) == 0
    printed = capsys.readouterr().out
    write(folder, "summary.json", printed[printed.index("{") :])
    for file in ("t.json", "summary.json"):
        assert main(["graph", file]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "this is the trace of a run, and no program; nano-vm trace show prints it" in err


def test_a_fallback_that_is_no_allowed_output_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = "{id: a, type: llm, prompt: q, allowed_outputs: [a, b], on_invalid: %s}"
    for fallback, warned in (("maybe", True), ("a", False), ("null", False)):
        write(folder, "f.yaml", f"steps: [{step % fallback}]")
        assert main(["check", "f.yaml"]) == 0
        assert ("P016" in capsys.readouterr().out) is warned
