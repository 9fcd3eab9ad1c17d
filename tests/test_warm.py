"""A process that starts warm is like one that starts cold, but for what it has imported."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import forked
import pytest
import warm
from patience import HANGS_SECONDS

FACTS = """
import atexit, gc, json, os, random, signal, sys, threading, time
took = time.process_time()
def annotated(x: int): ...
streams = [(s.name, s.buffer.name, s.encoding, s.errors, s.mode, s.newlines, s.isatty(),
            s.line_buffering, s.write_through, s.fileno(), s.seekable())
           for s in (sys.stdin, sys.stdout, sys.stderr)]
print(json.dumps({
    "argv": sys.argv, "orig_argv": sys.orig_argv, "path": sys.path, "flags": str(sys.flags),
    "warnings": sys.warnoptions, "annotations": str(annotated.__annotations__), "name": __name__,
    "environment": dict(os.environ), "folder": os.getcwd(), "own streams":
    [sys.stdin is sys.__stdin__, sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
    "streams": streams, "parent": os.getppid(), "session": os.getsid(0), "group": os.getpgid(0),
    "leads": os.getpid() == os.getpgid(0), "zone": time.tzname, "mask": os.umask(0),
    "open": sorted(os.listdir("/proc/self/fd")), "threads": threading.active_count(),
    "tasks": len(os.listdir("/proc/self/task")), "blocked": str(signal.pthread_sigmask(0, [])),
    "signals": {n: str(signal.getsignal(n)) for n in signal.valid_signals()},
    "collector": [gc.isenabled(), gc.get_threshold()], "quick": took < 2,
    "tests": [name for name in ("pytest", "_pytest", "hypothesis", "warm") if name in sys.modules],
    "given": sys.stdin.read(),
}))
atexit.register(print, "at exit", file=sys.stderr)
sys.exit(7)
"""


def facts(start: Any, command: list[str], **given: Any) -> dict[str, Any]:
    done = start(command, capture_output=True, text=True, timeout=HANGS_SECONDS, **given)
    assert (done.returncode, done.stderr) == (7, "at exit\n")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["-c", "-m"])
def test_what_starts_warm_is_like_what_starts_cold(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "facts.py").write_text(FACTS)
    command = [sys.executable, kind, FACTS if kind == "-c" else "facts", "one", "-two"]
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        own = dict(os.environ)  # without what a library has put there for processes alone
        cold, now = facts(subprocess.run, command, env=own), facts(warm.run, command)
        assert now == cold
    path = os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    environment = {**warm.read_at_start(os.environ), "PYTHONPATH": path, "TZ": "Asia/Tokyo"}
    given = {"env": environment, "input": "zwölf\r\n", "cwd": tmp_path, "start_new_session": True}
    cold, now = facts(subprocess.run, command, **given), facts(warm.run, command, **given)
    sessions = [found.pop(name) for name in ("session", "group") for found in (cold, now)]
    assert len({*sessions}) == 2
    assert os.getsid(0) not in sessions
    assert now == cold


def test_what_cannot_start_warm_is_refused() -> None:
    for command, given in [
        ([sys.executable, "-W", "error", "-c", "pass"], {}),
        (["/bin/true", "-c", ""], {}),
        ([sys.executable, "-c", "pass"], {"env": {"PYTHONHASHSEED": "1"}}),
        ([sys.executable, "-c", "pass"], {"env": {**os.environ, "LC_ALL": "nowhere"}}),
        ([sys.executable, "-c", "pass"], {"preexec_fn": list}),
    ]:
        with pytest.raises(ValueError, match="cannot start warm"):
            warm.Popen(command, **given)  # type: ignore[arg-type]


@pytest.mark.slow
def test_how_it_ends_is_seen() -> None:
    def ended(code: str) -> tuple[int, str]:
        done = warm.run([sys.executable, "-c", code], capture_output=True, text=True)
        return done.returncode, done.stderr

    assert ended("pass") == (0, "")
    assert ended("import os; os._exit(9)") == (9, "")
    assert ended("import sys; sys.exit('so')") == (1, "so\n")
    code, shown = ended("1 / 0")
    assert (code, shown.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    assert ended("import os; os.kill(os.getpid(), 9)") == (-9, "")
    with pytest.raises(subprocess.CalledProcessError):
        warm.run([sys.executable, "-c", "raise SystemExit(1)"], check=True)


@pytest.mark.slow
def test_it_is_a_child_that_is_signalled_and_waited_for() -> None:
    code = "import time; print('here', flush=True); time.sleep(600)"
    for number, status in [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, -2)]:
        with warm.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            assert process.poll() is None
            os.kill(process.pid, number)
            assert process.wait(HANGS_SECONDS) == status
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=0.1)


@pytest.mark.slow
def test_its_time_of_the_processor_is_that_of_a_child() -> None:
    before = os.times()
    warm.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"])
    after = os.times()
    assert sum(after[2:4]) - sum(before[2:4]) >= 0.25


@pytest.mark.slow
def test_they_share_no_chance_and_start_at_the_same_time() -> None:
    code = "import os, random, uuid; print(random.random(), uuid.uuid4(), os.getppid())"
    drawn: list[str] = []

    def draw() -> None:
        done = warm.run([sys.executable, "-c", code], capture_output=True, text=True)
        drawn.extend(done.stdout.split())

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANGS_SECONDS)
    assert len({*drawn}) == 2 * 8 + 1
    assert drawn.count(str(os.getpid())) == 8


@pytest.mark.slow
def test_an_orphan_of_a_test_is_not_left_to_it() -> None:
    """Only what starts warm is adopted."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=-3, stderr=-3).pid)"
    done = warm.run([sys.executable, "-c", code], capture_output=True)
    orphan = int(done.stdout)
    status = Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()
    os.kill(orphan, signal.SIGKILL)
    assert int(status[1]) != os.getpid()


@pytest.mark.slow
def test_an_interrupt_of_all_processes_ends_no_later_start() -> None:
    assert warm.run([sys.executable, "-c", "pass"]).returncode == 0
    os.kill(warm._forked(warm.COMMANDS).process.pid, signal.SIGINT)
    assert warm.run([sys.executable, "-c", "pass"]).returncode == 0


@pytest.mark.slow
def test_what_is_longer_than_a_request_is_refused() -> None:
    """It would be cut without a word, up to what a socket takes."""
    code = "pass" + " " * forked.MOST_BYTES
    with pytest.raises(AssertionError, match="too much to start warm"):
        warm.run([sys.executable, "-c", code])
    assert warm.run([sys.executable, "-c", "raise SystemExit(5)"]).returncode == 5


class Interrupted:
    """A socket at which a Ctrl-C comes before one of its answers is there."""

    def __init__(self, socket: Any, number: int) -> None:
        self.socket, self.numbers = socket, iter(range(number, -2, -1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.socket, name)

    def recv(self, size: int) -> Any:
        if next(self.numbers, -1) == 0:
            raise KeyboardInterrupt
        return self.socket.recv(size)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_start_that_is_interrupted_leaves_no_process_and_no_answer(number: int) -> None:
    assert warm.run([sys.executable, "-c", "pass"]).returncode == 0
    server = warm._forked(warm.COMMANDS)
    server.socket = Interrupted(server.socket, number)  # type: ignore[assignment]
    reading, writing = os.pipe()
    with pytest.raises(KeyboardInterrupt):
        warm.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=writing)
    os.close(writing)
    assert select.select([reading], [], [], HANGS_SECONDS)[0], "the process lives on"
    os.close(reading)
    assert server.process.returncode == 0
    assert warm.run([sys.executable, "-c", "raise SystemExit(5)"]).returncode == 5
