"""What must hold of the tests themselves, which a run of one file does not show."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import campaigns
import pytest
import sharing

TESTS = Path(__file__).parent


def test_no_two_modules_have_one_name() -> None:
    """Pytest imports a module by its bare name, where its folder is no package, and refuses the
    whole suite where two have the same.
    """
    names = Counter(
        path.name for path in TESTS.rglob("*.py") if not (path.parent / "__init__.py").exists()
    )
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []


SESSION_FIXTURE = re.compile(r'fixture\([^)]*scope="session"[^)]*\)\s+(?:async )?def (\w+)')
IMPORTED = re.compile(r"^from \S+ import (\([^)]*\)|.*)", re.MULTILINE)


def copies(sources: dict[str, str]) -> list[str]:
    """Which of the *sources* import a fixture that all tests of a process are to share."""
    shared = {name for source in sources.values() for name in SESSION_FIXTURE.findall(source)}
    return [
        f"{path} imports {name}"
        for path, source in sources.items()
        for imported in IMPORTED.findall(source)
        for name in re.findall(r"\w+", imported)
        if name in shared
    ]


def test_no_module_has_its_own_copy_of_what_all_share() -> None:
    """Where a module imports a fixture, pytest makes another one of it, for that module: of a
    server that each process was to start once, nineteen were started.
    """
    sources = {str(path.relative_to(TESTS)): path.read_text() for path in TESTS.rglob("*.py")}
    assert copies(sources) == []


@pytest.mark.parametrize(
    ("scope", "found"), [("session", ["b.py imports server"]), ("function", [])]
)
def test_a_copy_is_found(scope: str, found: list[str]) -> None:
    fixture = f'@pytest.fixture(scope="{scope}")\ndef server(): ...'
    assert copies({"a.py": fixture, "b.py": "from a import server, other"}) == found


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run of the tests in *folder*, without plugins that take longer to import than these."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "xdist", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


TIMED = r"""
import subprocess, sys, time, pytest

@pytest.fixture
def server():
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        yield
        process.communicate(b"\n")

@pytest.mark.slow
def test_one(server):
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
"""


@pytest.mark.slow
def test_what_each_test_took_is_written(tmp_path: Path) -> None:
    """With its processes, also where these go on."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["processor_time"]')
    (tmp_path / "test_timed.py").write_text(TIMED)
    done = run_in(tmp_path, "--times=times.csv")
    assert done.returncode == 0, done.stdout
    with (tmp_path / "times.csv").open(encoding="utf-8") as file:
        setup, call, teardown = csv.DictReader(file)
    assert [row["phase"] for row in (setup, call, teardown)] == ["setup", "call", "teardown"]
    assert {row["test"] for row in (setup, call, teardown)} == {"test_timed.py::test_one"}
    assert float(setup["seconds"]) >= float(setup["of a processor"]) >= 0.18
    assert float(call["of a processor"]) >= 0.08
    assert call["marks"] == "slow"


CRASHING = r"""
import os

def test_one():
    pass

def test_that_ends_its_process():
    os._exit(1)
"""


@pytest.mark.slow
def test_what_took_how_long_is_written_where_a_worker_crashed(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["processor_time"]')
    (tmp_path / "test_crashing.py").write_text(CRASHING)
    done = run_in(tmp_path, "-n1", "--times=times.csv")
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "INTERNALERROR" not in done.stdout
    with (tmp_path / "times.csv").open(encoding="utf-8") as file:
        phases = [(row["test"], row["phase"]) for row in csv.DictReader(file)]
    one, ended = (f"test_crashing.py::test_{name}" for name in ("one", "that_ends_its_process"))
    assert phases[:3] == [(one, phase) for phase in ("setup", "call", "teardown")]
    # what it still said before it ended
    assert set(phases[3:]) <= {(ended, "setup")}


IMPORTED_BY = """
import os
with open("imported.txt", "a") as file:
    print(os.environ["PYTEST_XDIST_WORKER"], __name__, file=file)

def test_one():
    pass
"""


@pytest.mark.slow
def test_each_process_begins_with_modules_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sharing"]')
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests")
    (tmp_path / "tests").mkdir()
    names = [f"test_{letter}" for letter in "abcd"]
    for name in names:
        (tmp_path / "tests" / f"{name}.py").write_text(IMPORTED_BY)
    done = run_in(tmp_path, "-n2")
    assert done.returncode == 0, done.stdout
    lines = [line.split() for line in (tmp_path / "imported.txt").read_text().splitlines()]
    orders = [[name for by, name in lines if by == worker] for worker in ("gw0", "gw1")]
    assert orders == [[*names[0::2], *names[1::2]], [*names[1::2], *names[0::2]]]


RUN = """
import os

import pytest

def ran(request):
    with open("run.txt", "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], request.path.stem, file=file)

@pytest.mark.parametrize("number", range({many}))
def test_many(request, number):
    ran(request)

@pytest.mark.parametrize("number", range(10))
def test_left_out(number):
    pass
"""


@pytest.mark.slow
def test_what_takes_longest_is_run_first(tmp_path: Path) -> None:
    """By each process its share, of what is run at all."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sharing"]')
    (tmp_path / "soak").mkdir()
    for name, many in (("test_a", 9), ("test_kills", 1), ("soak/test_b", 1)):
        (tmp_path / f"{name}.py").write_text(RUN.format(many=many))
    for processes, first in (
        ("1", [["test_kills", "test_b"]]),
        ("2", [["test_b"], ["test_kills"]]),
    ):
        (tmp_path / "run.txt").unlink(missing_ok=True)
        given = ("test_a.py", "test_kills.py", "soak", "-k", "many")
        done = run_in(tmp_path, "-n", processes, "--dist", "worksteal", *given)
        assert done.returncode == 0, done.stdout
        lines = [line.split() for line in (tmp_path / "run.txt").read_text().splitlines()]
        assert len(lines) == 11
        workers = {worker for worker, _ in lines}
        orders = [[name for by, name in lines if by == worker] for worker in workers]
        assert sorted(order[: len(first[0])] for order in orders) == first


@pytest.mark.parametrize(("few", "many"), [(0, 7), (7, 0), (3, 1), (1, 3), (5, 9), (9, 20)])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_process_has_its_share_of_what_takes_longest(few: int, many: int, count: int) -> None:
    paths = [Path("a.py")] * many + [Path("soak", f"{number}.py") for number in range(few)]
    items: Any = [SimpleNamespace(path=path, number=n) for n, path in enumerate(paths)]
    order: Any = sharing.shared(items, count)
    assert sorted(item.number for item in order) == list(range(few + many))
    shares = []
    for left in range(count, 0, -1):  # as xdist gives them out
        size = len(order) // left
        shares.append(["soak" in item.path.parts for item in order[:size]])
        del order[:size]
    assert all(share == sorted(share, reverse=True) for share in shares)
    assert max(map(sum, shares)) - min(map(sum, shares)) <= 1


def test_a_part_of_a_campaign_is_not_less_than_its_fewest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(campaigns.VARIABLE, raising=False)
    part = campaigns.PART
    tried = [campaigns.cases(10 * part), campaigns.cases(10 * part, 3), campaigns.cases(part, 3)]
    assert tried == [10, 10, 3]
    monkeypatch.setenv(campaigns.VARIABLE, campaigns.WHOLE)
    assert [campaigns.cases(10 * part, 3), campaigns.cases(2, 3)] == [10 * part, 3]


SLOW_TO_IMPORT = re.compile(
    r"^(?:from|import) (?:openai|anthropic|litellm|mcp_types|schemathesis|playwright"
    r"|nano_vm\.lsp\.server)\b",
    re.MULTILINE,
)


def test_no_module_imports_at_its_head_what_takes_long() -> None:
    """Each process of a run reads every module, for four processes, a fourth of whose time it
    was: what takes a third of a second is imported by the tests that use it.
    """
    slow = [path for path in TESTS.rglob("*.py") if SLOW_TO_IMPORT.search(path.read_text())]
    assert [str(path.relative_to(TESTS)) for path in slow] == []
