"""``nano-vm batch``: a line for each input, a clean end at any time, and another start that goes on
and repeats nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from patience import HANGS_SECONDS

from nano_vm.cli import main
from nano_vm.run.batch.inputs import Inputs, read_line

SOURCE = Path(__file__).parents[2] / "src"

PROGRAM = """\
name: demo
steps:
  - {id: double, type: tool, tool: double, args: {n: $n}}
"""

TOOLS = """\
import asyncio, os, pathlib, signal

async def double(n):
    if n == 13:
        raise ValueError("unlucky \\x1b[31m")
    await asyncio.sleep(0)
    return n * 2

async def slow(n):
    with open("calls", "a") as file:
        file.write(f"{n}\\n")
    await asyncio.sleep(0.02)
    return n * 2

async def stuck(n):
    pathlib.Path(f"began{n}").write_text("")
    while n == 2 and not pathlib.Path("go").exists():
        await asyncio.sleep(0.01)
    return n * 2

async def deadly(n):
    with open("calls", "a") as file:
        file.write(f"{n}\\n")
    await asyncio.sleep(0.01)
    if n == 5 and not pathlib.Path("killed").exists():
        pathlib.Path("killed").write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return n * 2

def large(n):
    return "x" * 1000

def noisy(n):
    print("printed by a tool")
    return n

double_ = {"double": double}
slow_ = {"double": slow}
stuck_ = {"double": stuck}
deadly_ = {"double": deadly}
large_ = {"double": large}
noisy_ = {"double": noisy}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "demo.yaml").write_text(PROGRAM)
    (tmp_path / "tools.py").write_text(TOOLS)
    inputs(tmp_path, 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NANO_VM_STORE", raising=False)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("tools_file_tools", None)


def inputs(folder: Path, count: int) -> None:
    (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1, count + 1)))


def arguments(*more: str, tools: str = "double_", out: str = "out.jsonl") -> list[str]:
    return ["batch", "demo.yaml", "in.jsonl", "-o", out, "--tools", f"tools.py:{tools}", *more]


def results(path: str = "out.jsonl") -> dict[int, dict[str, Any]]:
    found = [json.loads(line) for line in Path(path).read_text().splitlines()]
    assert len({result["line"] for result in found}) == len(found)
    return {result["line"]: result for result in found}


def process(
    *args: str,
    cwd: Path,
    start: type[subprocess.Popen[str]] = warm.Popen,
    **kwargs: Any,
) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "NANO_VM_DEBUG": ""}
    kwargs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", **kwargs}
    return start([sys.executable, "-m", "nano_vm", *args], cwd=cwd, env=env, **kwargs)


def until(condition: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    """Wait for what *running* does: only its end, not a time, says that it will not come."""
    while not condition():
        assert running.poll() is None or condition(), running.communicate()
        time.sleep(0.005)


# --- results --------------------------------------------------------------------------------------


def test_each_input_has_a_line_and_a_failure_stops_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments()) == 1
    found = results()
    assert sorted(found) == list(range(1, 21))
    assert found[4] == {
        "line": 4,
        "status": "success",
        "output": 8,
        "run_id": found[4]["run_id"],
        "steps": 1,
        "duration_ms": found[4]["duration_ms"],
        "digest": found[4]["digest"],
        "input": found[4]["input"],
        "program": found[4]["program"],
    }
    assert (found[13]["status"], found[13]["error_kind"]) == ("failed", "tool")
    assert "\x1b" not in Path("out.jsonl").read_text()
    told = capsys.readouterr()
    assert told.out.startswith("20 inputs: 19 success, 1 failed; ")
    assert told.err == "line 13: failed: Step 'double' failed: ValueError: unlucky \\x1b[31m\n"


def test_all_well_is_code_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs(folder, 5)
    assert main(arguments("--json")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["inputs"], told["success"], told["failed"], told["before"], told["complete"]) == (
        5,
        5,
        0,
        0,
        True,
    )


def test_a_line_that_is_no_input_is_a_failed_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        '\ufeff{"n": 1}',
        "oops",
        "[1]",
        "",
        "null",
        '{"n": 1, "n": 2}',
        '{"m": 1}',
        '{"n": NaN}',
        '{"n": 2}\r',
    ]
    (folder / "in.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"n": "\xff"}\n{"n": 9}')
    assert main(arguments("--concurrency", "2")) == 1
    found = results()
    assert {
        line: result["status"] for line, result in found.items() if result["status"] != "failed"
    } == {
        1: "success",
        9: "success",
        11: "success",
    }
    assert sorted(found) == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    errors = {line: result["error"] for line, result in found.items() if "error" in result}
    assert errors[2].startswith("not JSON: ")
    assert errors[3] == "an object of inputs is needed, not [1]"
    assert errors[5] == "an object of inputs is needed, not null"
    assert "a key stands twice" in errors[6]
    assert "input 'n' is needed" in errors[7]
    assert "not a JSON number" in errors[8]
    assert errors[10].startswith("not UTF-8")


@pytest.mark.slow
def test_what_tools_print_does_not_go_into_json(folder: Path) -> None:
    done = process(*arguments("--json", tools="noisy_"), cwd=folder)
    out, err = done.communicate(timeout=HANGS_SECONDS)
    assert json.loads(out)["success"] == 20
    assert err.count("printed by a tool") == 20


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [False, True])
def test_results_come_as_runs_end_or_in_order(folder: Path, ordered: bool) -> None:
    (folder / "go.py").write_text("")
    running = process(*arguments(*(["--ordered"] if ordered else []), tools="stuck_"), cwd=folder)
    until(lambda: (folder / "began20").exists(), running)
    (folder / "go").write_text("")
    running.communicate(timeout=HANGS_SECONDS)
    order = list(results())
    assert (order == sorted(order)) is ordered
    assert sorted(order) == list(range(1, 21))


def test_an_empty_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "in.jsonl").write_text("\n\n")
    assert main(arguments()) == 0
    assert Path("out.jsonl").read_text() == ""
    assert capsys.readouterr().out.startswith("0 inputs: 0 success")


# --- another start --------------------------------------------------------------------------------


def test_another_start_does_what_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tools="slow_")) == 0
    lines = Path("out.jsonl").read_text().splitlines(keepends=True)
    Path("out.jsonl").write_text("".join(lines[:8]))
    left = {json.loads(line)["line"] for line in lines[8:]}
    Path("calls").unlink()
    assert main(arguments(tools="slow_")) == 0
    assert {int(n) for n in Path("calls").read_text().split()} == left
    assert sorted(results()) == list(range(1, 21))
    Path("calls").unlink()
    assert main(arguments(tools="slow_")) == 0
    assert not Path("calls").exists()
    assert "nothing was left to do" in capsys.readouterr().out


def test_a_failure_from_before_still_counts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments()) == 1
    assert main(arguments()) == 1
    assert "1 of 20 failed: out.jsonl has all" in capsys.readouterr().err


@pytest.mark.parametrize(
    "torn",
    ['{"l', '{"line": 9, "sta', '{"line":9,"status":"success"', '{"line":9,"output":"' + "x" * 999],
)
def test_a_line_that_was_cut_short_is_run_again(
    folder: Path, capsys: pytest.CaptureFixture[str], torn: str
) -> None:
    assert main(arguments(tools="slow_")) == 0
    lines = Path("out.jsonl").read_text().splitlines(keepends=True)
    Path("out.jsonl").write_text("".join(lines[:19]) + torn.replace(" ", ""))
    assert main(arguments(tools="slow_")) == 0
    assert sorted(results()) == list(range(1, 21))
    assert "was cut short" in capsys.readouterr().err


def change(folder: Path, what: str) -> list[str]:
    """Change something between two starts; the arguments of the second."""
    text = (folder / "in.jsonl").read_text()
    match what:
        case "an input":
            (folder / "in.jsonl").write_text(text.replace('"n": 7}', '"n": 77}'))
        case "inputs are missing":
            (folder / "in.jsonl").write_text(text[:45])
        case "the program":
            (folder / "demo.yaml").write_text(PROGRAM.replace("n: $n", "n: '${n}0'"))
        case "the order":
            lines = (folder / "out.jsonl").read_text().splitlines(keepends=True)
            (folder / "out.jsonl").write_text(lines[3] + lines[0])
            return arguments("--ordered")
        case "twice":
            lines = (folder / "out.jsonl").read_text().splitlines(keepends=True)
            (folder / "out.jsonl").write_text(lines[0] + lines[0])
    return arguments()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("an input", "line 7 of the inputs is not what it was"),
        ("inputs are missing", "has the result of line 20, and in.jsonl has only"),
        ("the program", "was made by another program"),
        ("the order", "was begun without --ordered"),
        ("twice", "has a second result of line"),
    ],
)
def test_what_was_changed_is_an_error_and_nothing_is_run(
    folder: Path, capsys: pytest.CaptureFixture[str], what: str, message: str
) -> None:
    main(arguments("--concurrency", "1"))
    again = change(folder, what)
    before = Path("out.jsonl").read_bytes()
    assert main(again) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert Path("out.jsonl").read_bytes() == before


@pytest.mark.parametrize("what", ["an input", "inputs are missing", "the program"])
def test_restart_begins_anew(folder: Path, what: str) -> None:
    main(arguments())
    first = results()
    again = change(folder, what)
    assert main([*again, "--restart", "--yes"]) in (0, 1)
    assert not {r["run_id"] for r in first.values()} & {r["run_id"] for r in results().values()}


def test_new_inputs_at_the_end_are_run(folder: Path) -> None:
    inputs(folder, 5)
    assert main(arguments()) == 0
    inputs(folder, 8)
    assert main(arguments()) == 0
    assert sorted(results()) == list(range(1, 9))


# --- files that are no good -----------------------------------------------------------------------


@pytest.mark.parametrize("restart", [[], ["--restart"]])
@pytest.mark.parametrize(
    "text", ["precious", "precious\n", '{"line": 5}\n', "[]\n", '{"line":1,"status":"odd"}\n', "\n"]
)
def test_another_file_is_not_written_over(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, restart: list[str]
) -> None:
    Path("out.jsonl").write_text(text)
    assert main(arguments(*restart)) == 2
    assert "is no result of a batch; nothing was changed" in capsys.readouterr().err
    assert Path("out.jsonl").read_text() == text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (arguments(out="in.jsonl"), "it is the file of inputs"),
        (arguments(out="/dev/null"), "it is no regular file"),
        (arguments(out="."), "Is a directory"),
        (arguments(out="no/where.jsonl"), "No such file or directory"),
        (arguments(out="-"), "-o takes a file"),
        (arguments(out="a\0b"), "cannot write 'a\\x00b'"),
        (
            ["batch", "demo.yaml", "none.jsonl", "-o", "out.jsonl"],
            "cannot read none.jsonl: No such file",
        ),
        (["batch", "demo.yaml", ".", "-o", "out.jsonl"], "cannot read .: Is a directory"),
        (arguments("--concurrency", "0"), "'0' is not a positive integer"),
        (arguments("--concurrency", "x"), "'x' is not a positive integer"),
        (arguments("--store", "mysql://a/b"), "--store: no store is kept in 'mysql'"),
        (arguments("--store", "sqlite:////proc/none/runs.db"), "see that the folder exists"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    assert main(args) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert message in told[0]
    assert not Path("calls").exists()


def test_a_program_that_cannot_run_is_refused_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", "demo.yaml", "in.jsonl", "-o", "out.jsonl"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert "tool 'double' is not registered" in told[0]
    assert told[1:] == ["nano-vm: refused: no input was run"]
    assert not Path("out.jsonl").exists()


def test_two_batches_do_not_write_one_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("out.jsonl", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert main(arguments()) == 2
    assert "is being written by another batch" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_leaves_whole_lines_and_says_what_was_done(folder: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    running = process(
        *arguments("--concurrency", "4", tools="large_"),
        cwd=folder,
        start=subprocess.Popen,
        preexec_fn=small,
    )
    _, err = running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == 1
    assert Path("out.jsonl").read_text().endswith("\n")
    done = results()
    assert 2 <= len(done) <= 4
    assert "cannot write out.jsonl: File too large" in err
    assert "whose result could not be written: line" in err
    assert main(arguments(tools="large_")) == 0
    assert sorted(results()) == list(range(1, 21))


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_lets_what_is_under_way_end(folder: Path) -> None:
    running = process(*arguments("--concurrency", "2", tools="stuck_"), cwd=folder)
    until(lambda: (folder / "began8").exists(), running)
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    assert "stopping: " in running.stderr.readline()
    (folder / "go").write_text("")
    _, err = running.communicate(timeout=HANGS_SECONDS)
    done = results()
    assert 2 in done
    # 0: all were taken before the signal came
    assert running.returncode == (0 if len(done) == 20 else 130)
    assert ("the same command goes on where it stopped" in err) is (len(done) < 20)
    assert main(arguments(tools="stuck_")) == 0
    assert sorted(results()) == list(range(1, 21))


@pytest.mark.slow
def test_ctrl_c_twice_cancels_what_is_under_way(folder: Path) -> None:
    running = process(*arguments("--concurrency", "2", tools="stuck_"), cwd=folder)
    until(lambda: (folder / "began20").exists(), running)
    running.send_signal(signal.SIGINT)
    assert running.stderr is not None
    assert "stopping: " in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == 130
    assert sorted(results()) == [1, *range(3, 21)]
    (folder / "go").write_text("")
    assert main(arguments(tools="stuck_")) == 0
    assert sorted(results()) == list(range(1, 21))


@pytest.mark.slow
def test_a_pipe_that_waits_does_not_hold_up_the_end(folder: Path) -> None:
    running = process(
        "batch",
        "demo.yaml",
        "-",
        "-o",
        "out.jsonl",
        "--tools",
        "tools.py:double_",
        cwd=folder,
        stdin=subprocess.PIPE,
    )
    assert running.stdin is not None
    running.stdin.write('{"n": 1}\n{"n": 2}\n')
    running.stdin.flush()
    until(
        lambda: Path("out.jsonl").exists() and len(Path("out.jsonl").read_text().splitlines()) == 2,
        running,
    )
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=HANGS_SECONDS) == 130
    for stream in (running.stdin, running.stdout, running.stderr):
        assert stream is not None
        stream.close()


@pytest.mark.slow
def test_inputs_by_a_pipe_go_on_too(folder: Path) -> None:
    text = (folder / "in.jsonl").read_text()
    args = ["batch", "demo.yaml", "-", "-o", "out.jsonl", "--tools", "tools.py:slow_"]
    process(*args, cwd=folder, stdin=subprocess.PIPE).communicate(text[:36], timeout=HANGS_SECONDS)
    assert sorted(results()) == [1, 2, 3, 4]
    process(*args, cwd=folder, stdin=subprocess.PIPE).communicate(text, timeout=HANGS_SECONDS)
    assert sorted(int(n) for n in Path("calls").read_text().split()) == list(range(1, 21))
    changed = process(*args, cwd=folder, stdin=subprocess.PIPE)
    _, err = changed.communicate(text.replace('"n": 7}', '"n": 8}'), timeout=HANGS_SECONDS)
    assert changed.returncode == 2
    assert "line 7 of the inputs is not what it was" in err
    assert "goes on" not in err


@pytest.mark.slow
def test_killed_and_started_again_without_a_store(folder: Path) -> None:
    running = process(*arguments("--concurrency", "3", tools="deadly_"), cwd=folder)
    running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == -signal.SIGKILL
    assert 1 <= len(results()) <= 6
    assert main(arguments("--concurrency", "3", tools="deadly_")) == 0
    assert {line: r["output"] for line, r in results().items()} == {n: 2 * n for n in range(1, 21)}


# --- with a store ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_with_a_store_what_was_under_way_is_in_doubt_and_not_repeated(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = arguments("--concurrency", "3", "--store", "sqlite:///runs.db", tools="deadly_")
    running = process(*args, cwd=folder)
    running.communicate(timeout=HANGS_SECONDS)
    assert running.returncode == -signal.SIGKILL
    assert Path("out.jsonl.batch").exists()
    assert main(args) == 3  # a call whose end nobody knows waits for a person
    found = results()
    calls = [int(n) for n in Path("calls").read_text().split()]
    assert len(calls) == len(set(calls))
    doubtful = {n for n, result in found.items() if result["status"] == "suspended"}
    # recorded as begun, and killed before the tool was
    assert {*range(1, 21)} - {*calls} <= doubtful - {5}
    assert len(doubtful) <= 3
    assert {found[n]["waiting"][0]["kind"] for n in doubtful} == {"in_doubt"}
    assert found[5]["status"] == "suspended"
    assert len({r["run_id"].rpartition("-")[0] for r in found.values()}) == 1
    assert not Path("out.jsonl.batch").exists()
    run_id = found[5]["run_id"]
    assert main(["resolve", run_id, "double", "--done", "10", "--store", "sqlite:///runs.db"]) == 0
    assert (
        main(
            ["work", "--until-idle", "--tools", "tools.py:deadly_", "--store", "sqlite:///runs.db"]
        )
        == 0
    )
    assert main(["show", run_id, "--store", "sqlite:///runs.db"]) == 0
    assert "output: 10" in capsys.readouterr().out


@pytest.mark.slow
def test_results_that_are_lost_come_again_from_the_store(folder: Path) -> None:
    args = arguments("--store", "sqlite:///runs.db", tools="slow_")
    assert main(args) == 0
    calls = Path("calls").read_text()
    found = results()
    mark = next(iter(found.values()))["run_id"].rpartition("-")[0]
    Path("out.jsonl").write_text("")
    Path("out.jsonl.batch").write_text(mark)  # as it stands while the batch is not complete
    assert main(args) == 0
    assert Path("calls").read_text() == calls
    again = results()
    assert {n: (r["output"], r["digest"]) for n, r in again.items()} == {
        n: (r["output"], r["digest"]) for n, r in found.items()
    }


@pytest.mark.slow
def test_a_complete_batch_begins_anew_under_other_ids(folder: Path) -> None:
    args = arguments("--store", "sqlite:///runs.db", tools="slow_")
    assert main(args) == 0
    Path("out.jsonl").unlink()
    assert main(args) == 0
    assert len(Path("calls").read_text().split()) == 40


def test_a_mark_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.jsonl.batch").write_bytes(b"\xff")
    assert main(arguments("--store", "sqlite:///runs.db")) == 2
    assert "is no mark of a batch" in capsys.readouterr().err


def test_a_run_that_waits_without_a_store_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "demo.yaml").write_text("name: w\nsteps:\n  - {id: w, type: wait, event: e}\n")
    inputs(folder, 2)
    assert main(arguments()) == 3
    err = capsys.readouterr().err
    assert "line 1: suspended: waits for wait" in err
    assert "only with --store can a run that waits go on" in err


# --- progress -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_a_terminal_a_bar_shows_how_far_it_is(folder: Path) -> None:
    ours, theirs = pty.openpty()
    running = process(*arguments("--concurrency", "1", tools="slow_"), cwd=folder, stderr=theirs)
    os.close(theirs)
    out, _ = running.communicate(timeout=HANGS_SECONDS)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert b"/20" in shown
    assert b"/s" in shown
    assert out.startswith("20 inputs: 20 success")


# --- lines ----------------------------------------------------------------------------------------


def test_a_line_that_is_too_long_is_skipped_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.run.batch.inputs.MAX_LINE_BYTES", 100)
    (folder / "in.jsonl").write_text(f'{{"n": 1}}\n{{"n": "{"x" * 500}"}}\n{{"n": 3}}\n{"y" * 102}')
    assert main(arguments()) == 1
    found = results()
    assert {line: r["status"] for line, r in found.items()} == {
        1: "success",
        2: "failed",
        3: "success",
        4: "failed",
    }
    assert found[2]["error"] == "longer than 100 bytes"


def test_numbers_of_lines_count_blank_ones(folder: Path) -> None:
    (folder / "x").write_text("\n \n{}\n\n{}")
    source = Inputs("x")
    assert [number for number, _ in source.lines()] == [3, 5]
    source.close()
    assert read_line(3, b" {} \n").value == {}


# --- what has a result and gets another -----------------------------------------------------------

ASKING = """\
name: asking
steps:
  - {id: ask, type: approval, role: boss, show: {n: $n}}
  - {id: double, type: tool, tool: double, args: {n: $n}}
"""
STORE = "sqlite:///runs.db"


def asking(*more: str, tools: str = "slow_") -> list[str]:
    return arguments("--store", STORE, *more, tools=tools)


def approve_all(resumed: bool) -> None:
    import asyncio

    from nano_vm import ExecutionVM

    def double(n: int) -> int:
        with open("calls", "a") as file:
            file.write(f"{n}\n")
        return n * 2

    vm = ExecutionVM(tools={"double": double}, store=STORE)
    assert vm.store is not None
    for run in list(vm.store.runs()):
        (request,) = vm.waiting(run.run_id)
        vm.approve(run.run_id, "ask", shown=request["shown"], by="ann")
    if resumed:
        asyncio.run(vm.work(until_idle=True))
    vm.close()


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [[], ["--ordered"]])
@pytest.mark.parametrize("resumed", [True, False])
def test_what_waited_is_followed_to_where_it_is_now(
    folder: Path, capsys: pytest.CaptureFixture[str], resumed: bool, ordered: list[str]
) -> None:
    Path("demo.yaml").write_text(ASKING)
    inputs(folder, 5)
    assert main(asking(*ordered)) == 3
    order = list(results())
    assert {result["status"] for result in results().values()} == {"suspended"}
    ids = {line: result["run_id"] for line, result in results().items()}
    capsys.readouterr()
    assert main(asking(*ordered)) == 3, "nothing has come"
    told = capsys.readouterr()
    assert "5 inputs: 0 success, 5 suspended" in told.out
    assert "5 of 5 suspended" in told.err or "line 1: suspended" in told.err
    approve_all(resumed)
    assert main(asking(*ordered)) == 0
    assert "5 inputs: 5 success" in capsys.readouterr().out
    assert list(results()) == order, "each keeps its place"
    assert {line: result["run_id"] for line, result in results().items()} == ids
    assert {line: result["output"] for line, result in results().items()} == {
        n: 2 * n for n in range(1, 6)
    }
    assert sorted(Path("calls").read_text().split()) == ["1", "2", "3", "4", "5"], (
        "each effect once"
    )
    assert main(asking(*ordered)) == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert not Path("out.jsonl.again").exists()


def test_what_waits_in_no_store_stays_as_it_is(folder: Path) -> None:
    Path("demo.yaml").write_text(ASKING)
    inputs(folder, 2)
    assert main(arguments()) == 3
    before = Path("out.jsonl").read_bytes()
    assert main(asking()) == 3
    assert Path("out.jsonl").read_bytes() == before


FLAKY = """
def flaky(n):
    import pathlib
    with open("calls", "a") as file:
        file.write(f"{n}\\n")
    if n in (2, 5) and not pathlib.Path("mended").exists():
        raise ValueError("not yet")
    return n * 2

flaky_ = {"double": flaky}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [[], ["--ordered"], ["--store", STORE], ["--store", STORE, "--ordered"]]
)
def test_what_failed_is_tried_again_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    Path("tools.py").write_text(TOOLS + FLAKY)
    inputs(folder, 6)
    assert main(arguments(*more, tools="flaky_")) == 1
    order, ids = list(results()), {result["run_id"] for result in results().values()}
    assert main(arguments(*more, tools="flaky_")) == 1
    assert "nothing was left to do" in capsys.readouterr().out
    assert main(arguments(*more, "--retry-failed", tools="flaky_")) == 1
    Path("mended").write_text("")
    Path("calls").write_text("")
    assert main(arguments(*more, "--retry-failed", tools="flaky_")) == 0
    assert sorted(Path("calls").read_text().split()) == ["2", "5"]
    assert "6 inputs: 6 success; 4 of them before" in capsys.readouterr().out
    assert list(results()) == order
    assert {line: result["output"] for line, result in results().items()} == {
        n: 2 * n for n in range(1, 7)
    }
    assert len({result["run_id"] for result in results().values()} - ids) == 2


DYING = """
def dying(n):
    import time
    again = pathlib.Path("out.jsonl.again")
    if n == 5:
        while not (again.exists() and again.read_text().endswith("\\n")):
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
    return n * 2

dying_ = {"double": dying}
"""


@pytest.mark.slow
def test_a_batch_that_is_killed_while_it_tries_again_loses_nothing(folder: Path) -> None:
    Path("tools.py").write_text(TOOLS + FLAKY)
    inputs(folder, 6)
    main(arguments(tools="flaky_"))
    Path("tools.py").write_text(TOOLS + DYING)
    ran = process(*arguments("--retry-failed", "--concurrency", "2", tools="dying_"), cwd=folder)
    ran.communicate(timeout=HANGS_SECONDS)
    assert ran.returncode == -9
    assert results()[2]["status"] == "failed", "the file is as it was"
    assert json.loads(Path("out.jsonl.again").read_text())["line"] == 2
    assert main(arguments(tools="double_")) == 1
    assert results()[2]["output"] == 4, "what was had is in its place"
    assert results()[5]["status"] == "failed"
    assert not Path("out.jsonl.again").exists()


def test_restart_says_that_effects_are_made_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs(folder, 3)
    assert main(arguments("--restart", tools="slow_")) == 0, "there is nothing to repeat"
    before = Path("out.jsonl").read_bytes()
    assert main(arguments("--restart", tools="slow_")) == 2
    told = capsys.readouterr().err
    assert (
        "3 of them ended before: what double did for them is done a second time; give --yes if "
        "that is meant" in told
    )
    monkeypatch.setattr("nano_vm.cli.batch.on_terminal", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "")
    assert main(arguments("--restart", tools="slow_")) == 2
    assert Path("out.jsonl").read_bytes() == before
    assert len(Path("calls").read_text().split()) == 3
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(arguments("--restart", tools="slow_")) == 0
    assert main(arguments("--restart", "--yes", tools="slow_")) == 0
    assert len(Path("calls").read_text().split()) == 9


def test_restart_of_what_only_reads_asks_nothing(folder: Path) -> None:
    Path("tools.py").write_text(
        "from nano_vm import tool\n@tool(effect='read')\ndef double(n): return n\ntools = "
        "{'double': double}\n"
    )
    inputs(folder, 3)
    for _ in range(2):
        assert main(arguments("--restart", tools="tools")) == 0


def test_how_many_failed_is_told_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tools.py").write_text(
        TOOLS + "\ndef never(n): raise ValueError('no')\nnever_ = {'double': never}\n"
    )
    inputs(folder, 12)
    assert main(arguments(tools="never_")) == 1
    assert "12 of 12 failed: out.jsonl has all" in capsys.readouterr().err
