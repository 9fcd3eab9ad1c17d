"""A store's file of SQLite, where it lies: opened to be written, or to be read only; and the mark
that ties it to its log.

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
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from ...errors import StoreError
from ..clock import boot_id

LOCKED_SECONDS = 0.01
"""How long to wait where SQLite itself does not."""

_MARK = "open:"


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


def to_read(place: str, busy_timeout_seconds: float) -> tuple[sqlite3.Connection, str | None]:
    """A connection that changes nothing, not even the files beside; with what `unchanged` needs,
    where nobody had the file open.
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
                f"{place}: part of it is in {place}-wal, which can be read only in a folder that "
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
    return sqlite3.connect(
        place,
        isolation_level=None,
        timeout=busy_timeout_seconds,
        check_same_thread=False,
        uri=place.startswith("file:"),
    )


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
    with suppress(sqlite3.Error), closing(_connected(uri, 0.0)) as driver:
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

    def set(self, driver: sqlite3.Connection) -> None:
        """Leave the mark, in the file itself."""
        driver.execute("BEGIN IMMEDIATE")
        _forget_the_gone(driver, self.place)
        driver.execute(
            "INSERT INTO nano_meta (name, value) VALUES (?, ?)", (self.name, _file(self.place))
        )
        driver.execute("COMMIT")
        self.is_set = True
        driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def take_away(self, busy_timeout_seconds: float) -> None:
        """Remove the mark, before the last connection is closed and SQLite removes the log."""
        if not self.is_set or os.getpid() != self.process:
            return
        with (
            suppress(sqlite3.Error),
            closing(_connected(self.place, busy_timeout_seconds)) as driver,
        ):
            driver.execute("BEGIN IMMEDIATE")
            _forget_the_gone(driver, self.place)
            driver.execute("DELETE FROM nano_meta WHERE name = ?", (self.name,))
            driver.execute("COMMIT")
            self.is_set = False


def _forget_the_gone(driver: sqlite3.Connection, place: str) -> None:
    """Take away the marks of processes that are not seen alive here, or have the file open that
    this is a copy of: the log is there, since whoever asks has it open.
    """
    found = driver.execute(
        "SELECT name, value FROM nano_meta WHERE name LIKE ?", (f"{_MARK}%",)
    ).fetchall()
    gone = [(name,) for name, file in found if file != _file(place) or not _alive(name)]
    driver.executemany("DELETE FROM nano_meta WHERE name = ?", gone)


def _file(place: str) -> str:
    """What tells a file from its copies."""
    found = os.stat(place)
    return f"{found.st_dev}:{found.st_ino}"


def accept(place: str) -> None:
    """Take away all marks of a file whose log is not there."""
    with closing(_connected(place, 1.0)) as driver:
        driver.execute("DELETE FROM nano_meta WHERE name LIKE ?", (f"{_MARK}%",))


def _alive(mark: str) -> bool:
    """Whether the process of a mark is seen alive on this machine."""
    host, boot, process, _ = (*mark.removeprefix(_MARK).split("/"), "", "", "", "")[:4]
    return host == socket.gethostname() and boot == boot_id() and os.path.exists(f"/proc/{process}")
