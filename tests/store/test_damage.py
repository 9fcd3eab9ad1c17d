"""Stores that were damaged, cut off from their log, or lie where nothing can be written: every
command has a message, and none breaks.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import damage
import pytest
import warm
from campaigns import cases

from nano_vm import ExecutionVM, Program, TraceStatus, VMError
from nano_vm.cli import main
from nano_vm.errors import StoreError, TraceError
from nano_vm.replay import fork, replay
from nano_vm.store.protocol import open_store
from nano_vm.store.sql.schema import SCHEMA_VERSION
from nano_vm.values import canonical

STORE = "sqlite:///runs.db"
TOOLS = (
    "def get(n): return [n, n] if type(n) is int else ['x']\n"
    "def pay(n): return 'paid'\ndef fail(): return 1\ndef slow(): return 1\n"
    "tools = {'get': get, 'pay': pay, 'fail': fail, 'slow': slow}\n"
)
ONE = Program.from_dict({"name": "one", "steps": [{"id": "a", "type": "set", "values": {"x": 1}}]})

# What a column is set to, as SQL: nothing, other types, numbers that no row has, and JSON of another
# shape.
VALUES = (
    "NULL x'80ff' 'text' 12345.5 zeroblob(0) -1 2 '[1]' x'5b5d' x'7b7d' x'6e756c6c' x'3132' "
    "x'5b7b7d5d' "
    "x'7b226572726f72223a357d'"
).split()
COMMANDS = (
    "runs",
    "runs --json",
    "runs --waiting",
    "show RUN",
    "show RUN --json",
    "verify RUN",
    "replay RUN",
    "diff RUN failed",
    "fork RUN --tools tools.py:tools",
    "migrate order.json --dry-run",
    "store check",
    "store export RUN -o out.jsonl",
    "keys list",
    "resume RUN --tools tools.py:tools",
    "approve RUN ask --shown 000000000000 --by ann",
    "event RUN paid null",
    "resolve RUN pay --retry --by ann",
    "cancel RUN --by ann",
    "work --until-idle --tools tools.py:tools",
    "store erase RUN",
    "store prune --older-than 0s --yes",
)
LOOKING = COMMANDS[:13]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("store") / "runs.db"
    damage.make(f"sqlite:///{path}")
    assert not Path(f"{path}-wal").exists()
    return path.read_bytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANO_VM_STORE", STORE)
    monkeypatch.setenv("NANO_VM_DEBUG", "")
    Path("order.json").write_text(json.dumps(damage.PROGRAM))
    Path("tools.py").write_text(TOOLS)
    Path("runs.db").write_bytes(whole)
    return Path("runs.db")


class Commands:
    """`nano-vm` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, line: str, *codes: int) -> str:
        code = main(line.split())
        out, err = self.capsys.readouterr()
        assert code in (codes or (0,)), (line, code, out, err)
        return out + err


@pytest.fixture
def sh(capsys: pytest.CaptureFixture[str]) -> Iterator[Commands]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    yield Commands(capsys)
    logging.disable(before)


def restore(place: Path, data: bytes) -> None:
    for name in ("runs.db-wal", "runs.db-shm"):
        Path(name).unlink(missing_ok=True)
    place.write_bytes(data)


# --- fuzz -----------------------------------------------------------------------------------------

TRIED = cases(360)
"""Damages of each kind."""


@pytest.mark.campaign
@pytest.mark.parametrize("mended", [False, True])
def test_every_damage_of_a_column_has_a_message(
    place: Path, whole: bytes, sh: Commands, mended: bool
) -> None:
    rng = random.Random(f"columns {mended}")
    with damage.opened(place) as connection:
        edits = list(damage.edits(connection))
        runs = dict(connection.execute("SELECT key, run_id FROM nano_runs").fetchall())
    for _ in range(TRIED):
        table, column, row = rng.choice(edits)
        value = rng.choice(VALUES)
        restore(place, whole)
        try:
            with damage.opened(place) as connection:
                connection.execute(
                    f"UPDATE {table} SET {column} = {value} WHERE {damage.where(table)}", row
                )
                if mended:
                    damage.mend(connection)
        except sqlite3.IntegrityError:
            continue  # the database itself takes no such value
        run = (
            runs.get(row[0], "ended")
            if table in ("nano_runs", "nano_rows")
            else rng.choice(list(runs.values()))
        )
        for line in (*rng.sample(LOOKING, 5), rng.choice(COMMANDS)):
            sh(line.replace("RUN", run), 0, 1, 2, 3)


@pytest.mark.campaign
def test_every_damage_of_a_page_has_a_message(place: Path, whole: bytes, sh: Commands) -> None:
    rng = random.Random("pages")
    for _ in range(TRIED):
        data = bytearray(whole)
        page = rng.randrange(len(data) // 4096) * 4096
        for _ in range(rng.choice((1, 8, 400))):
            data[page + rng.randrange(4096)] = rng.randrange(256)
        restore(place, bytes(data))
        for line in (*rng.sample(LOOKING, 4), rng.choice(COMMANDS)):
            sh(line.replace("RUN", rng.choice(list(damage.RUNS))), 0, 1, 2, 3)


OTHERS: list[Any] = [
    None,
    5,
    -1,
    "x",
    "",
    [],
    {},
    [{}],
    {"a": 1},
    True,
    1.5,
    2**70,
    [[]],
    {"error": 5},
]


def hashed(lines: list[dict[str, Any]]) -> str:
    """An export whose own hashes are made anew."""
    made, seen = [], sha256()
    for line in lines:
        match line.get("record"):
            case "program":
                line = {**line, "sha256": sha256(canonical(line.get("document"))).hexdigest()}
            case "run":
                seen = sha256(canonical(line) + b"\n")
            case "row":
                seen.update(canonical(line) + b"\n")
            case "end":
                line = {key: value for key, value in line.items() if key != "sha256"}
                seen.update(canonical(line))
                line["sha256"] = seen.hexdigest()
        made.append(canonical(line).decode() + "\n")
    return "".join(made)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside of *value*."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in inside:
        yield (*path, key)
        yield from places(item, (*path, key))


@pytest.mark.campaign
def test_every_damage_of_an_export_has_a_message(
    place: Path, sh: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one whose hashes and seal were made anew, so that nothing but its shape is wrong."""
    sh("store export -o whole.jsonl")
    monkeypatch.setattr("nano_vm.store.transfer.sealed_as", lambda run: run.status)
    lines = [json.loads(line) for line in Path("whole.jsonl").read_text().splitlines()]
    rng = random.Random("exports")
    for number in range(TRIED):
        edited = json.loads(json.dumps(lines))
        at = line = rng.choice(edited)
        *way, last = rng.choice(list(places(line)))
        for key in way:
            at = at[key]
        if isinstance(at, dict) and rng.random() < 0.2:
            del at[last]
        else:
            at[last] = rng.choice(OTHERS)
        Path("runs.jsonl").write_text(hashed(edited))
        run = rng.choice(list(damage.RUNS))
        for command in (
            "verify runs.jsonl",
            f"replay runs.jsonl#{run}",
            f"diff runs.jsonl#{run} runs.jsonl#failed",
            f"fork runs.jsonl#{run} --tools tools.py:tools",
            f"store import runs.jsonl --unfinished --store sqlite:///other{number}.db",
        ):
            sh(command, 0, 1, 2, 3)


@pytest.mark.parametrize("column", ["output", "waiting", "about", "inputs"])
def test_a_column_that_is_not_there_names_the_run_and_the_remedy(
    place: Path, sh: Commands, column: str
) -> None:
    with damage.opened(place) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        try:
            connection.execute(f"UPDATE nano_runs SET {column} = NULL WHERE run_id = 'ended'")
        except sqlite3.IntegrityError:
            connection.execute(f"UPDATE nano_runs SET {column} = x'5b' WHERE run_id = 'ended'")
    for line in (
        "show ended",
        "verify ended",
        "replay ended",
        "resume ended --tools tools.py:tools",
    ):
        told = sh(line, 1)
        assert "run 'ended'" in told
        assert "restore a copy" in told or "damaged" in told
    told = sh("runs", 1)
    assert "nano-vm: run 'ended'" in told
    assert "suspended" in told, "the others are listed all the same"
    assert "run 'ended'" in sh("store check", 1)


def test_a_status_that_no_run_has_is_found(place: Path, sh: Commands) -> None:
    with damage.opened(place) as connection:
        connection.execute("UPDATE nano_runs SET status = 'zombie' WHERE run_id = 'suspended'")
    what = (
        "run 'suspended': its header (its status 'zombie' is none that a run has) is not what "
        "was written"
    )
    for line in (
        "store check",
        "show suspended",
        "verify suspended",
        "replay suspended",
        "resume suspended --tools tools.py:tools",
    ):
        assert what in sh(line, 1), line
    assert what in sh("store export suspended -o out.jsonl", 1)


# --- erased runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "replay erased",
        "fork erased --tools tools.py:tools",
        "diff erased ended",
        "diff ended erased",
    ],
)
def test_what_cannot_be_done_with_an_erased_run_says_so(
    place: Path, sh: Commands, line: str
) -> None:
    assert "the values of run 'erased' were erased" in sh(line, 1)


async def test_an_erased_run_has_no_digest_and_no_replay(place: Path) -> None:
    vm = ExecutionVM(store=STORE)
    trace = vm.load("erased")
    assert trace.inputs == trace.about == {}
    with pytest.raises(TraceError, match="its digest can no longer be computed"):
        _ = trace.digest
    assert vm.store is not None
    with pytest.raises(VMError, match="the values of run 'erased' were erased"):
        replay("erased", store=vm.store)
    with pytest.raises(VMError, match="the values of run 'erased' were erased"):
        await fork(vm, "erased")
    vm.close()


def test_an_erased_run_is_shown_verified_and_exported(place: Path, sh: Commands) -> None:
    assert "its values were erased" in sh("show erased")
    assert "verified" in sh("verify erased")
    sh("store export erased -o out.jsonl")
    assert "verified" in sh("verify out.jsonl")


# --- tables and the log ---------------------------------------------------------------------------


@pytest.mark.parametrize("table", damage.TABLES)
def test_a_lost_table_is_found(place: Path, sh: Commands, table: str) -> None:
    with damage.opened(place) as connection:
        connection.execute(f"DROP TABLE {table}")
    assert f"table {table} is missing" in sh("store check", 1, 2)
    for line in ("runs", "show ended", "work --until-idle --tools tools.py:tools"):
        sh(line, 0, 1, 2)
    assert f"table {table} is missing" in sh("work --until-idle --tools tools.py:tools", 2)


def killed(path: Path, *, checkpoint: bool = False) -> None:
    """A run that suspends in a process that ends without closing the store."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); import damage; from nano_vm import "
        "ExecutionVM, Program\n"
        "vm = ExecutionVM(None, damage.tools(), store=f'sqlite:///{sys.argv[1]}')\n"
        "vm.run_sync(Program.from_dict(damage.WAITING), run_id='late'); os._exit(9)"
    )
    done = warm.run(
        [sys.executable, "-c", code, str(path), str(Path(__file__).parents[1])], check=False
    )
    assert done.returncode == 9
    assert Path(f"{path}-wal").stat().st_size


@pytest.mark.slow
def test_a_file_without_its_log_is_read_and_not_written_to(
    place: Path, sh: Commands, tmp_path: Path
) -> None:
    killed(place)
    shutil.copy("runs.db", "copy.db")
    with open_store("sqlite:///copy.db", read_only=True) as store:  # type: ignore[attr-defined]
        assert "late" not in [run.run_id for run in store.runs()]
        assert ["copied without it" in problem for problem in store.check()] == [True]
    with pytest.raises(
        StoreError,
        match=r"copy\.db was in use, and its log copy\.db-wal is not there.*nano-vm store accept",
    ):
        open_store("sqlite:///copy.db")
    Path("runs.db-wal").unlink()
    for line in (
        "work --until-idle --tools tools.py:tools",
        "run order.json --tools tools.py:tools -i n:=3",
        "cancel sent --by ann",
    ):
        assert "runs.db was in use, and its log runs.db-wal is not there" in sh(line, 2)
    assert "its log runs.db-wal is not there" in sh("store check", 1)
    sh("show suspended")
    sh("verify ended")
    sh("store accept")
    assert "no problem was found" in sh("store check")
    sh("cancel sent --by ann")


@pytest.mark.slow
@pytest.mark.parametrize("ended", ["store.close()", "pass"])
def test_who_only_looks_after_a_kill_does_not_shut_the_store(
    place: Path, sh: Commands, ended: str
) -> None:
    killed(place)
    looks = (
        "import sys; from nano_vm.store.protocol import open_store\n"
        f"store = open_store(f'sqlite:///{{sys.argv[1]}}'); store.load('late'); {ended}"
    )
    warm.run([sys.executable, "-c", looks, str(place)], check=True)
    assert not Path(f"{place}-wal").exists()  # SQLite put it into the file
    with open_store(STORE) as store:  # type: ignore[attr-defined]
        assert store.load("late").status == "suspended"
    assert "no problem was found" in sh("store check")


@pytest.mark.slow
def test_a_file_with_its_log_goes_on(place: Path, sh: Commands) -> None:
    killed(place)
    shutil.copy("runs.db", "copy.db")
    shutil.copy("runs.db-wal", "copy.db-wal")
    for url in (STORE, "sqlite:///copy.db"):
        with open_store(url) as store:  # type: ignore[attr-defined]
            assert store.load("late").status == "suspended"
            assert store.check() == []
            store.send("late", damage.Message("cancel", "", {}, "ann", 5))
        assert not Path(f"{url.removeprefix('sqlite:///')}-wal").exists()
        with open_store(url) as store:  # type: ignore[attr-defined]
            assert store.check() == []


@pytest.mark.slow
def test_an_end_without_close_leaves_no_mark(place: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import damage; from nano_vm import "
        "ExecutionVM, Program\n"
        "vm = ExecutionVM(None, damage.tools(), store='sqlite:///runs.db')\n"
        "vm.run_sync(Program.from_dict(damage.WAITING), run_id='late')"
    )
    warm.run([sys.executable, "-c", code, str(Path(__file__).parents[1])], check=True)
    with damage.opened(place) as connection:
        assert [
            name for (name,) in connection.execute("SELECT name FROM nano_meta ORDER BY name")
        ] == [
            "schema",
            "store",
        ]
    with open_store(STORE) as store:  # type: ignore[attr-defined]
        assert store.check() == []


def test_a_copy_of_a_store_in_use_with_its_log_is_a_store(place: Path) -> None:
    vm = ExecutionVM(store=STORE)
    vm.run_sync(ONE, run_id="one")
    for name in ("runs.db", "runs.db-wal"):
        shutil.copy(name, name.replace("runs", "copy"))
    for _ in range(2):
        with open_store("sqlite:///copy.db") as store:  # type: ignore[attr-defined]
            assert store.load("one").status == "success"
            assert store.check() == []
            store.send("sent", damage.Message("event", "x", {"payload": 1}, None, 5))
    vm.close()


@pytest.mark.slow
def test_who_closes_last_takes_the_marks_of_the_dead_away(place: Path) -> None:
    vm = ExecutionVM(store=STORE)
    vm.run_sync(ONE)
    killed(place)
    vm.close()
    assert not Path("runs.db-wal").exists()
    with open_store(STORE) as store:  # type: ignore[attr-defined]
        assert store.load("late").status == "suspended"
        assert store.check() == []


@pytest.mark.slow
def test_a_child_that_is_forked_does_not_take_the_mark_away(place: Path) -> None:
    """A fork waits until no connection is in use and takes the mark away; while one is in use it
    stays, and the child has a copy."""
    vm = ExecutionVM(store=STORE)
    vm.run_sync(ONE)
    database = vm.store.database  # type: ignore[union-attr]
    mark = database.dialect._mark
    with database.reading():
        pid = os.fork()
        if pid == 0:
            mark.take_away(1.0)
            os._exit(0 if mark.is_set else 1)
        assert os.waitpid(pid, 0)[1] == 0
        with damage.opened(place) as connection:
            assert mark.name in [
                name for (name,) in connection.execute("SELECT name FROM nano_meta")
            ]
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert not mark.is_set
    vm.run_sync(ONE)
    assert mark.is_set, "the next that writes leaves it again"
    vm.close()


# --- where nothing can be written -----------------------------------------------------------------

READ_ONLY = """
import os, sys
folder = sys.argv[1]
os.chdir(folder)
sys.path.insert(0, sys.argv[2])
from nano_vm.cli import main
COMMANDS = ("runs", "show ended", "show ended --json", "verify ended", "replay ended", "store check", "store head", "keys list")
for line in COMMANDS:  # so that all is imported: the other user may not read this interpreter
    main([*line.split(), "--store", "sqlite:///" + sys.argv[3]])
main(["cancel", "nobody", "--by", "ann", "--store", "sqlite:///" + sys.argv[3]])
os.setgid(65534)
os.setuid(65534)
try:
    open("x", "w")
except PermissionError:
    pass
else:
    sys.exit("it can be written to")
for line in COMMANDS:
    code = main(line.split())
    assert code == 0, (line, code)
code = main(["cancel", "sent", "--by", "ann"])
assert code in (1, 2), code
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
@pytest.mark.elsewhere(reason="needs to be root, to become another user")
@pytest.mark.parametrize("log", ["", "whole", "without its index"])
def test_a_store_is_read_where_nothing_can_be_written(place: Path, log: str) -> None:
    if log:
        killed(place)
    if log == "without its index":
        Path("runs.db-shm").unlink()
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are root's alone
        folder = Path(name)
        (folder / "other").mkdir()
        shutil.copy("runs.db", folder / "other")
        for path in Path().glob("runs.db*"):
            shutil.copy(path, folder)
            (folder / path).chmod(0o444)
        folder.chmod(0o555)
        env = {**os.environ, "NANO_VM_STORE": STORE}
        args = [
            sys.executable,
            "-c",
            READ_ONLY,
            name,
            str(Path(__file__).parents[1]),
            "other/runs.db",
        ]
        ran = warm.run(args, env=env, capture_output=True, text=True, check=False)
        left = sorted(path.name for path in folder.glob("runs.db*"))
        folder.chmod(0o755)
    assert left == sorted(path.name for path in Path().glob("runs.db*"))
    if log == "without its index":
        assert ran.returncode == 1
        assert (
            "runs.db: part of it is in runs.db-wal, which can be read only in a folder that may "
            "be written" in ran.stderr
        )
        assert "copy both files together into one" in ran.stderr
    else:
        assert ran.returncode == 0, ran.stderr + ran.stdout
        assert "see that the file and its folder may be written" in ran.stderr, (
            "of the command that writes"
        )


@pytest.mark.slow
def test_looking_leaves_nothing_beside_the_file(place: Path, sh: Commands) -> None:
    before = place.stat().st_mtime_ns
    for line in ("runs", "show ended", "verify ended", "store check", "store export -o out.jsonl"):
        sh(line)
        assert not [path.name for path in Path().glob("runs.db-*")], line
    assert place.stat().st_mtime_ns == before


def test_what_is_written_while_it_is_read_is_told(place: Path) -> None:
    with open_store(STORE, read_only=True) as store:  # type: ignore[attr-defined]

        def read() -> None:
            with store.database.reading():
                vm = ExecutionVM(store=STORE)
                assert vm.run_sync(ONE).status is TraceStatus.SUCCESS
                vm.close()

        with pytest.raises(StoreError, match="was written to while it was read; try again"):
            read()
        with pytest.raises(StoreError, match="readonly"):
            store.erase("ended")


# --- what a command is given ----------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite:///", "sqlite://", "sqlite:///:memory:"])
def test_a_store_that_ends_with_the_command_is_refused(
    place: Path, sh: Commands, url: str, whole: bytes
) -> None:
    for line in (
        "run order.json --tools tools.py:tools -i n:=3",
        "runs",
        "store import order.json",
    ):
        assert "is a database in memory: it begins empty and ends with this command" in sh(
            f"{line} --store {url}", 2
        )


def test_decisions_beside_ended_runs_are_told(place: Path, sh: Commands) -> None:
    told = sh("store check")
    assert "note: run 'ended' has ended and did not use: resolve 'pay' by 'bob'" in told


def test_an_older_store_is_refused_in_one_line(place: Path, sh: Commands) -> None:
    with damage.opened(place) as connection:
        connection.execute("UPDATE nano_meta SET value = '1' WHERE name = 'schema'")
    for line in ("runs", "store check", "work --until-idle --tools tools.py:tools"):
        told = sh(line, 2)
        assert (
            "was made by an older llm-nano-vm: its tables are of version 1, this one knows "
            f"{SCHEMA_VERSION}"
        ) in told
        assert told.count("\n") == 1


# --- pruning --------------------------------------------------------------------------------------


def test_what_is_pruned_is_listed_and_asked_about(
    place: Path, sh: Commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = sh("store prune --older-than 0s --dry-run")
    assert [line.split()[0] for line in told.splitlines()] == ["ended", "erased", "failed", "would"]
    assert told.splitlines()[-1] == "would delete 3 runs; nothing was changed"
    assert json.loads(sh("store prune --older-than 0s --status failed --dry-run --json")) == {
        "would_delete": 1,
        "runs": ["failed"],
    }
    monkeypatch.setattr("nano_vm.cli.commands.store.on_terminal", lambda: True)
    asked: list[str] = []

    def answer(text: str) -> str:
        asked.append(text)
        return "n"

    monkeypatch.setattr("builtins.input", answer)
    assert "nothing was deleted" in sh("store prune --older-than 0s", 1)
    assert asked == ["delete 3 runs? [y/N] "]
    assert "3 runs" in sh("store prune --older-than 0s --dry-run")
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert sh("store prune --older-than 0s --status failed").splitlines()[-2:-1] == [
        "deleted 1 run"
    ]
    monkeypatch.setattr("builtins.input", None)
    assert "deleted 0 runs" in sh("store prune --older-than 1d"), (
        "nothing is asked where there is nothing to delete"
    )
    assert "deleted 2 runs" in sh("store prune --older-than 0s --yes")
    assert "no problem" in sh("store check")


def _other(place: str) -> None:
    """Another database in the place of the one that is open."""
    vm = ExecutionVM(store="sqlite:///other.db")
    vm.close()
    os.replace("other.db", place)


@pytest.mark.parametrize("goes", [os.unlink, lambda place: os.rename(place, "moved.db"), _other])
def test_a_file_that_went_away_under_a_run_is_told_before_its_next_effect(
    goes: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paid: list[int] = []

    def look() -> int:
        goes("runs.db")
        return 1

    vm = ExecutionVM(tools={"look": look, "pay": lambda: paid.append(1)}, store="sqlite:///runs.db")
    steps = [{"id": name, "type": "tool", "tool": name} for name in ("look", "pay")]
    program = Program.from_dict({"name": "p", "steps": steps})
    with pytest.raises(StoreError, match=r"runs\.db was deleted, moved or replaced while it was"):
        vm.run_sync(program, run_id="r")
    with pytest.raises(StoreError, match="was deleted, moved or replaced"):
        vm.runs()
    there = os.path.exists("runs.db")
    vm.close()
    assert paid == []
    assert os.path.exists("runs.db") == there, "closing the store makes none"


def test_a_copy_without_its_log_that_replaced_an_open_file_keeps_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say that its newest records are missing; who had the file open would take them away."""
    monkeypatch.chdir(tmp_path)

    def look() -> int:
        shutil.copy("runs.db", "copy.db")
        os.replace("copy.db", "runs.db")
        os.unlink("runs.db-wal")
        return 1

    vm = ExecutionVM(tools={"look": look}, store="sqlite:///runs.db")
    steps = [{"id": "look", "type": "tool", "tool": "look"}]
    with pytest.raises(StoreError, match="was deleted, moved or replaced"):
        vm.run_sync(Program.from_dict({"name": "p", "steps": steps}), run_id="r")
    vm.close()
    with pytest.raises(StoreError, match=r"runs\.db was in use, and its log .* is not there"):
        ExecutionVM(store="sqlite:///runs.db").close()


def test_a_file_that_cannot_be_looked_at_for_a_moment_is_not_taken_for_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"sqlite:///{tmp_path}/runs.db")
    assert store.head() is None  # a connection is kept
    stat = os.stat

    def stale(path: Any, *rest: Any, **more: Any) -> Any:
        if str(path).endswith("runs.db"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return stat(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stale)
        with pytest.raises(StoreError, match=r"cannot look at .*runs\.db: .*Stale") as raised:
            store.head()
    assert raised.value.passing
    assert store.head() is None
    store.close()


def test_a_process_that_goes_to_another_folder_keeps_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    tools = {"go": lambda: os.chdir(tmp_path / "elsewhere")}
    vm = ExecutionVM(tools=tools, store="sqlite:///runs.db")
    program = Program.from_dict({"name": "p", "steps": [{"id": "a", "type": "tool", "tool": "go"}]})
    assert vm.run_sync(program, run_id="r").status.value == "success"
    assert [run.run_id for run in vm.runs().runs] == ["r"]
    vm.close()
    assert os.listdir() == []
    os.chdir(tmp_path)
    with open_store("sqlite:///runs.db", read_only=True) as store:  # type: ignore[attr-defined]
        os.chdir("elsewhere")
        assert [run.run_id for run in store.runs()] == ["r"]
        assert store.check() == []
