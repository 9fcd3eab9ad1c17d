"""What a process takes from the system that it runs on: threads and what they wait for, random
numbers, a clock that nobody sets, and what can be seen of other processes.

It is passed in, as the time of day and the store are, so that the same code runs in a simulation,
where every thread and every random number follows from a seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Protocol, TypeVar

from ..store.clock import UNKNOWN_BOOT, boot_id, boot_ns
from .host import Threads
from .ids import run_ids

_NO_PROCESS = "-"

T = TypeVar("T")


class Seen(Enum):
    """What can be seen of an owner's process from here."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, as another can find it: *boot* and *space* (of process ids; each container has its
    own) say where its *pid* means something, *born* tells it from a later one with the same pid.
    """

    host: str
    boot: str
    space: str
    pid: int
    born: str

    @classmethod
    def own(cls) -> Process:
        """This one."""
        pid = os.getpid()
        return cls(socket.gethostname(), boot_id(), _space(), pid, born(pid) or _NO_PROCESS)

    @classmethod
    def of(cls, owner: str) -> Process | None:
        """The process of an owner, by its name."""
        match owner.split("/"):
            case [host, boot, space, pid, born, _] if pid.isdigit():
                return cls(host, boot, space, int(pid), born)
            case _:
                return None

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.space}/{self.pid}/{self.born}"


@cache
def _space() -> str:
    """The namespace of process ids."""
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return _NO_PROCESS


def born(pid: int) -> str | None:
    """When process *pid* began, as its system counts: a number that another process with the same
    id does not have. None where it cannot be read.
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[19] if fields[0] not in "ZX" else _NO_PROCESS  # a zombie makes no calls
    except (OSError, IndexError):
        return None


def is_there(pid: int) -> bool:
    """Whether there is a process *pid*, though nothing can be read of it: it is another user's on a
    system that hides those, or this process has no file left to open.
    """
    try:
        os.kill(pid, 0)  # which signals nothing
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return pid > 0  # 0 is no process


class Thread(Protocol):
    """A thread that runs."""

    def join(self) -> None:
        """Wait for its end."""
        ...


class Event(Protocol):
    """What threads wait for, as `threading.Event`."""

    def set(self) -> None:
        """Wake those who wait, and let nobody wait."""
        ...

    def clear(self) -> None:
        """Let those wait who come."""
        ...

    def is_set(self) -> bool:
        """Whether nobody waits."""
        ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, for *timeout* seconds at most; whether it is set."""
        ...


class System:
    """The system that this process really runs on; a simulation has another with these methods."""

    def __init__(self) -> None:
        # of this process, that were not given back: of others it is enough that their process is
        # there
        self.leases: set[str] = set()
        self._own: Process | None = None

    def process(self) -> Process:
        """This process."""
        own = self._own
        if own is None or own.pid != os.getpid():  # the child of a fork is another
            own = self._own = Process.own()
        return own

    def boot_ns(self) -> int:
        """Nanoseconds since the machine was started, by a clock that nobody sets."""
        return boot_ns()

    def random(self) -> float:
        """A number from 0 to 1, for what nobody has to guess."""
        return random.random()  # noqa: S311 - nothing is to be guessed

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess."""
        return os.urandom(count)

    def run_id(self) -> str:
        """The id of a run that was given none."""
        return run_ids.drawn()

    def lock(self) -> AbstractContextManager[Any]:
        """A new lock."""
        return threading.Lock()

    def event(self) -> Event:
        """A new event, not set."""
        return threading.Event()

    def thread(self, work: Callable[[], None], name: str) -> Thread:
        """Run *work* in a thread that does not keep the process from its end."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread

    def tool_threads(self, size: int) -> Threads:
        """Up to *size* threads for sync tools."""
        return Threads(size)

    def sleep(self, seconds: float) -> None:
        """Let this thread wait."""
        time.sleep(seconds)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What *work* gives, in an event loop of its own; for a thread that has none."""
        return asyncio.run(work)

    def born(self, pid: int) -> str | None:
        """When process *pid* began, as `born` has it."""
        return born(pid)

    def is_there(self, pid: int) -> bool:
        """Whether there is a process *pid*, as `is_there` has it."""
        return is_there(pid)

    def sees(self, owner: str, here: Process, *, one_machine: bool = False) -> Seen:
        """What can be seen of *owner* from *here*; with *one_machine*, an owner of another boot is
        gone with it.
        """
        process = Process.of(owner)
        boots = (process.boot, here.boot) if process is not None else ()
        if process is None or UNKNOWN_BOOT in boots or process.born == _NO_PROCESS:
            return Seen.UNKNOWN
        if process.boot != here.boot:
            return Seen.GONE if one_machine else Seen.UNKNOWN
        if process.space != here.space or here.space == _NO_PROCESS:
            return Seen.UNKNOWN
        if process == here:
            return Seen.ALIVE if owner in self.leases else Seen.GONE
        born = self.born(process.pid)
        if born is None:
            return Seen.UNKNOWN if self.is_there(process.pid) else Seen.GONE
        return Seen.ALIVE if born == process.born else Seen.GONE


SYSTEM = System()
"""Of this process: all that runs in it shares what it knows of its leases."""
