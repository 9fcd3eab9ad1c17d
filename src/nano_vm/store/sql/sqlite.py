"""SQLite: a file on one machine, written by one transaction at a time; opened to be written, or to
be read only; and the mark that ties it to its log.

SQLite writes to a log beside the file (``runs.db-wal``) and moves it into the file later. A file
whose log is missing is a sound database of an earlier moment, and nothing in it says so; whoever
went on with it would make calls again. So a process that writes leaves a *mark* in the file itself,
and takes it away when it closes the store. A file with a mark and without a log was copied alone
while it was in use, or its log was taken away.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from decimal import Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from ...errors import StoreError
from ..clock import boot_id
from .dialect import Dialect

if TYPE_CHECKING:
    from .database import Connection

OLDEST_SQLITE = (3, 35, 0)
"""The first that answers an INSERT with the row's key (RETURNING)."""

SYNCHRONOUS = ("FULL", "NORMAL")

EXACT = Context(prec=200)
"""Of sums: no two amounts lie further apart."""

LOCKED_SECONDS = 0.01
"""How long to wait where SQLite itself does not."""

_MARK = "open:"

_forked_files: set[str] = set()  # of which this process has what its parent knew


class _Sum:
    """The exact sum of decimals: SQLite itself adds them as floats."""

    def __init__(self) -> None:
        self.total: Decimal | None = None

    def step(self, text: str | None, /) -> None:
        """One more."""
        if text is not None:
            self.total = EXACT.add(self.total or Decimal(0), Decimal(text))

    def finalize(self) -> str | None:
        """The sum."""
        return None if self.total is None else str(self.total)


class SQLite(Dialect):
    """``sqlite:///runs.db``, or ``sqlite://`` in memory."""

    alone = one_machine = True
    begin_write = "BEGIN IMMEDIATE"
    for_update = for_share = skip_locked = ""
    words: ClassVar = {
        "bytes": "BLOB",
        # never given twice, also not after a run was deleted: an owner that slept through it must
        # not find its key on another run
        "number": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "clustered": "WITHOUT ROWID",
        "key": "",  # which every index has
        "ordered": "",
    }
    hints = (
        ("database is locked", "another process held it for longer than busy_timeout_seconds; end its "
                               "transaction, or give more"),
        ("disk is full", "make room on its disk; what was acknowledged is there"),
        ("malformed", "the file is damaged: restore a copy, or save what can be read with sqlite3's "
                      ".recover"),
        ("codec can't decode", "the file is damaged: restore a copy"),
        ("not a database", "the file is something else; name another"),
        ("unable to open", "see that the folder exists and may be written"),
        ("readonly", "see that the file and its folder may be written"),
        ("disk i/o error", "the disk or the file failed; see the system's log; what was acknowledged "
                           "is there"),
    )  # fmt: skip

    def __init__(self, url: str, *, synchronous: str, busy_timeout_seconds: float) -> None:
        super().__init__(url, synchronous=synchronous, busy_timeout_seconds=busy_timeout_seconds)
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"synchronous is one of {', '.join(SYNCHRONOUS)}, not {synchronous!r}")
        self.place = _place(url)
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(
                f"SQLite {sqlite3.sqlite_version} is too old for a store; it takes 3.35, or "
                f"PostgreSQL"
            )
        self.api = sqlite3
        self.in_memory = self.place in ("", ":memory:")
        # as it was named from the folder of that time, and which file that is
        self._path = os.path.abspath(self.place) if is_file(self.place) else self.place
        self._file: str | None = None
        self._memory: Any = None
        self._mark: Mark | None = None
        self._forked = False

    def connected(self, *, read_only: bool) -> tuple[Any, Any]:
        if read_only:
            return to_read(self._path, self.busy_timeout_seconds, self.place)
        if self._memory is not None:
            return self._memory, None
        driver = to_write(self._path, self.synchronous, self.busy_timeout_seconds)
        if self.in_memory:
            self._memory = driver
        elif self._file is None and is_file(self._path):
            self._file = _file(self._path)
        return driver, None

    def unchanged(self, state: Any) -> bool:
        return unchanged(self._path, state)

    def undo(self, driver: Any) -> None:
        driver.rollback()

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()

    # --- the mark of this process ---

    def enter(self, *, accept: bool) -> None:
        if not is_file(self.place):
            return
        lost = lost_log(self.place)
        if lost is not None and not accept:
            raise StoreError(
                f"{lost}; to go on would make calls again that are not in it. It can be read "
                f"(show, verify, store check, store export); "
                "to use it as it is: nano-vm store accept"
            )
        if lost is not None:
            _accepted(self.place)
        self._new_mark()

    def _new_mark(self) -> None:
        """The mark of this process is taken away at its end, if nobody closes the store before."""
        self._mark = Mark(self._path)
        weakref.finalize(self, self._mark.take_away, self.busy_timeout_seconds)

    def writes(self, driver: Any) -> None:
        if self._mark is not None and not self._mark.is_set:
            self._mark.set(driver)

    def leave(self, seconds: float) -> None:
        if self._mark is not None:
            self._mark.take_away(seconds)

    def forked(self, *, rested: bool) -> None:
        """If a connection was in use, what SQLite knows here of locks on the file is the parent's,
        for any connection: then this process cannot use the file.
        """
        if self._mark is not None:
            self._new_mark()
        if not rested:
            self._forked = True
            _forked_files.add(os.path.realpath(self._path))

    def usable(self) -> None:
        try:
            gone = self._file is not None and _found(self._path) != self._file
        except OSError as error:
            raise StoreError(f"cannot look at {self.place}: {error}", passing=True) from error
        if gone:
            raise StoreError(
                f"{self.place} was deleted, moved or replaced while it was open here, and what is "
                f"written here would be lost; put the file and its log back, and start again"
            )
        if self._forked or (_forked_files and os.path.realpath(self._path) in _forked_files):
            raise StoreError(
                f"{self.name} was in use when this process was forked; make the store after the "
                f"fork, "
                "or start processes by 'spawn'"
            )

    # --- statements ---

    def now(self, clock: Callable[[], int]) -> str:
        return str(clock())

    def sum(self, column: str) -> str:
        return f"nano_sum({column})"

    def tables(self, connection: Connection) -> list[str]:
        text = (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 5) = 'nano_'"
        )
        return [name for (name,) in connection.all(text)]

    def faults(self, connection: Connection) -> Iterator[str]:
        for (text,) in connection.all("PRAGMA integrity_check(20)"):
            if text != "ok":
                yield f"SQLite: {text}"

    def lost(self) -> str | None:
        return lost_log(self.place)

    def flush(self, connection: Connection) -> None:
        """Empty the log, which still has what was dropped, unless somebody reads from it right
        now.
        """
        connection.all("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        # the second where it cannot read its own message: of a schema that was damaged
        return (sqlite3.Error, UnicodeDecodeError)

    @property
    def passing(self) -> tuple[type[BaseException], ...]:
        return (sqlite3.OperationalError,)


def _place(url: str) -> str:
    """What the driver takes for a URL."""
    rest = url.partition("://")[2]
    if "?" in rest and not rest.startswith("/file:"):
        raise StoreError(
            f"{url!r} has options, and a store in SQLite takes none in its URL; write "
            f"sqlite:///runs.db"
        )
    if rest and not rest.startswith("/"):
        raise StoreError(
            f"{url!r} names a host; a file is sqlite:///runs.db, or sqlite:////var/runs.db"
        )
    return rest[1:]


# --- the file -------------------------------------------------------------------------------------


def is_file(place: str) -> bool:
    """Whether *place* is the path of a file, and neither a database in memory nor a URI."""
    return place not in ("", ":memory:") and not place.startswith("file:")


def to_write(place: str, synchronous: str, busy_timeout_seconds: float) -> sqlite3.Connection:
    """A connection that may write; a file is made where there is none."""
    driver = _connected(place, busy_timeout_seconds)
    try:
        _log_ahead(driver, busy_timeout_seconds)
        driver.execute(f"PRAGMA synchronous = {synchronous}")
        driver.execute("PRAGMA cell_size_check = ON")
        driver.execute("PRAGMA secure_delete = ON")  # what is erased is gone from the file too
    except BaseException:
        driver.close()
        raise
    return driver


def to_read(
    place: str, busy_timeout_seconds: float, name: str
) -> tuple[sqlite3.Connection, str | None]:
    """A connection that changes nothing, not even the files beside; with what `unchanged` needs,
    where nobody had the file open. A message calls it *name*.
    """
    if not is_file(place):
        return _connected(place, busy_timeout_seconds), None
    state = _state(place)
    uri = f"file:{quote(os.path.abspath(place))}?mode=ro"
    if state is not None:
        driver = _connected(f"{uri}&immutable=1", busy_timeout_seconds)
    else:
        driver = _connected(uri, busy_timeout_seconds)
        try:
            driver.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            driver.close()
            if "unable to open" not in str(error) and "readonly" not in str(error):
                raise
            raise StoreError(
                f"{name}: part of it is in {name}-wal, which can be read only in a folder that "
                f"may be written; "
                "copy both files together into one"
            ) from error
    driver.execute("PRAGMA query_only = ON")
    return driver, state


def unchanged(place: str, state: str | None) -> bool:
    """Whether the file is as it was when `to_read` opened it; another process that writes meanwhile
    is not waited for then.
    """
    return state is None or _state(place) == state


def _state(place: str) -> str | None:
    """What changes with the file, where it has no log; None where it has."""
    try:
        if os.stat(f"{place}-wal").st_size:
            return None
    except FileNotFoundError:
        pass
    with suppress(OSError):
        found = os.stat(place)
        return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
    return None


def _connected(place: str, busy_timeout_seconds: float) -> sqlite3.Connection:
    driver = sqlite3.connect(
        place,
        isolation_level=None,
        timeout=busy_timeout_seconds,
        check_same_thread=False,
        uri=place.startswith("file:"),
    )
    driver.create_aggregate("nano_sum", 1, _Sum)  # type: ignore[arg-type]
    return driver


def _log_ahead(driver: sqlite3.Connection, busy_timeout_seconds: float) -> None:
    """Switch to a log that is written ahead. SQLite does not wait for others that do the same at
    this moment.
    """
    until = time.monotonic() + busy_timeout_seconds
    while True:
        try:
            driver.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(LOCKED_SECONDS)


# --- the mark -------------------------------------------------------------------------------------


def lost_log(place: str) -> str | None:
    """What is wrong with a file that has a mark and no log; None where nothing is."""
    if not is_file(place) or os.path.exists(f"{place}-wal") or not _marks(place):
        return None
    # another process may have begun, or ended, in between
    if os.path.exists(f"{place}-wal") or not _marks(place):
        return None
    return (
        f"{place} was in use, and its log {place}-wal is not there: it was copied without it, or "
        f"the log was taken away, and the "
        "newest records are missing"
    )


def _marks(place: str) -> list[str]:
    """The marks in the file itself, without its log."""
    if not Path(place).is_file() or not os.path.getsize(place):
        return []
    uri = f"file:{quote(os.path.abspath(place))}?mode=ro&immutable=1"
    # what is damaged is told where the file is opened; SQLite's words may hold its bytes
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(_connected(uri, 0.0)) as driver:
        return [
            name
            for (name,) in driver.execute(
                "SELECT name FROM nano_meta WHERE name LIKE ?", (f"{_MARK}%",)
            )
        ]
    return []


class Mark:
    """The mark of this process in a file; *process* is the one that may take it away: a child that
    was forked is another.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.process = os.getpid()
        self.name = (
            f"{_MARK}{socket.gethostname()}/{boot_id()}/{self.process}/{os.urandom(4).hex()}"
        )
        self.is_set = False
        self.file: str | None = None  # in which it is set

    def set(self, driver: sqlite3.Connection) -> None:
        """Leave the mark, in the file itself."""
        self.file = _file(self.place)
        driver.execute("BEGIN IMMEDIATE")
        _forget_the_gone(driver, self.place)
        driver.execute("INSERT INTO nano_meta (name, value) VALUES (?, ?)", (self.name, self.file))
        driver.execute("COMMIT")
        self.is_set = True
        driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def take_away(self, busy_timeout_seconds: float) -> None:
        """Remove the mark, before the last connection is closed and SQLite removes the log; also
        those of processes that were killed, though nothing was written here: without the log their
        marks say that it was lost. In another file that stands in the place of this one they stay.
        """
        if os.getpid() != self.process or not self._is_there():  # a file is not made here
            return
        if not self.is_set and not os.path.exists(f"{self.place}-wal"):
            return
        with (
            suppress(sqlite3.Error),
            closing(_connected(self.place, busy_timeout_seconds)) as driver,
        ):
            if not self.is_set and not _gone(driver, self.place):
                return
            driver.execute("BEGIN IMMEDIATE")
            _forget_the_gone(driver, self.place)
            driver.execute("DELETE FROM nano_meta WHERE name = ?", (self.name,))
            driver.execute("COMMIT")
            self.is_set = False

    def _is_there(self) -> bool:
        """Whether the file is there, and still the one in which the mark was set."""
        try:
            found = _found(self.place)
        except OSError:
            return False
        return found is not None and self.file in (None, found)


def _forget_the_gone(driver: sqlite3.Connection, place: str) -> None:
    """Take away the marks of the gone: the log is there, since whoever asks has it open."""
    driver.executemany("DELETE FROM nano_meta WHERE name = ?", _gone(driver, place))


def _gone(driver: sqlite3.Connection, place: str) -> list[tuple[str]]:
    """The marks of processes that are not seen alive here, or have the file open that this is a
    copy of.
    """
    found = driver.execute(
        "SELECT name, value FROM nano_meta WHERE name LIKE ?", (f"{_MARK}%",)
    ).fetchall()
    return [(name,) for name, file in found if file != _file(place) or not _alive(name)]


def _file(place: str) -> str:
    """What tells a file from its copies."""
    found = os.stat(place)
    return f"{found.st_dev}:{found.st_ino}"


def _found(place: str) -> str | None:
    """The same, or None where there is none."""
    try:
        return _file(place)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _accepted(place: str) -> None:
    """Take away all marks of a file whose log is not there."""
    with closing(_connected(place, 1.0)) as driver:
        driver.execute("DELETE FROM nano_meta WHERE name LIKE ?", (f"{_MARK}%",))


def _alive(mark: str) -> bool:
    """Whether the process of a mark is seen alive on this machine."""
    host, boot, process, _ = (*mark.removeprefix(_MARK).split("/"), "", "", "", "")[:4]
    return host == socket.gethostname() and boot == boot_id() and os.path.exists(f"/proc/{process}")
