"""Who owns runs: a process by its name, its lease, and what other processes can see of it.

A lease is renewed by a thread and compared by the store's clock, which nobody sets: the server's, or for a file the time since
the machine was started. Whether an owner's process is there can be seen besides, where it runs on this machine.

Rule 1: no call is begun after the lease ended here, and it ends here before it ends in the store.
Rule 2: a run is not taken from a process that is seen alive, whatever a clock says.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache

from .errors import StoreError
from .store import Store
from .store.clock import UNKNOWN_BOOT, boot_id, boot_ns

LEASE_SECONDS = 30.0
"""How long an owner that gives no sign of life keeps its runs: longer than any pause of a healthy process, shorter than patience."""

LEASE_MARGIN = 0.2
"""The part of a lease, at its end, in which no call is begun: a renewal takes time to arrive, and a check is not yet the call."""

_NO_PROCESS = "-"


class Seen(Enum):
    """What can be seen of an owner's process from here."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, as another can find it: *boot* and *space* (of process ids; each container has its own) say where its *pid*
    means something, *born* tells it from a later one with the same pid."""

    host: str
    boot: str
    space: str
    pid: int
    born: str

    @classmethod
    def own(cls) -> Process:
        """This one."""
        pid = os.getpid()
        return cls(socket.gethostname(), boot_id(), _space(), pid, _born(pid))

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


def _born(pid: int) -> str:
    """When process *pid* began, as its system counts: a number that another process with the same id does not have."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[19] if fields[0] not in "ZX" else _NO_PROCESS  # a zombie makes no calls
    except (OSError, IndexError):
        return _NO_PROCESS


# The leases of this process that were not given back: of others it is enough that their process is there.
_leases_here: set[str] = set()


def seen(owner: str, here: Process, *, one_machine: bool = False) -> Seen:
    """What can be seen of *owner* from *here*; with *one_machine*, an owner of another boot is gone with it."""
    process = Process.of(owner)
    if process is None or UNKNOWN_BOOT in (process.boot, here.boot) or process.born == _NO_PROCESS:
        return Seen.UNKNOWN
    if process.boot != here.boot:
        return Seen.GONE if one_machine else Seen.UNKNOWN
    if process.space != here.space or here.space == _NO_PROCESS:
        return Seen.UNKNOWN
    if process == here:
        return Seen.ALIVE if owner in _leases_here else Seen.GONE
    return Seen.ALIVE if _born(process.pid) == process.born else Seen.GONE


class Lease:
    """A process as an owner of runs: its name, and until when it may begin calls.

    *clock* is seconds that nobody sets and that go on while the machine sleeps. The time is taken before the store is
    told, so that this side always gives up first.
    """

    def __init__(
        self,
        store: Store,
        seconds: float = LEASE_SECONDS,
        *,
        process: Process | None = None,
        clock: Callable[[], float] = lambda: boot_ns() / 1e9,
    ) -> None:
        self.store, self.seconds, self.clock = store, seconds, clock
        self.process = process or Process.own()
        self.owner = f"{self.process}/{os.urandom(4).hex()}"
        self.until = 0.0
        self.lapses = 0  # how often it ran out before it was renewed: then others may have taken any run
        self._held: set[str] = set()  # runs that are driven here, or being claimed
        self._lock = threading.Lock()
        self._beginning = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def hold(self, run_ids: Iterable[str]) -> list[str]:
        """Mark runs as this process's to claim and drive; those of *run_ids* that were not marked before."""
        with self._lock:
            free = [run_id for run_id in run_ids if run_id not in self._held]
            self._held.update(free)
            return free

    def let_go(self, run_ids: Iterable[str]) -> None:
        """Take the mark of `hold` away."""
        with self._lock:
            self._held.difference_update(run_ids)

    def begin(self) -> None:
        """Take the lease, and renew it from now on."""
        with self._beginning:
            if self._thread is None:
                _leases_here.add(self.owner)
                self.renew()
                self._thread = threading.Thread(target=self._renew, name="nano-vm-lease", daemon=True)
                self._thread.start()

    def renew(self) -> None:
        """Tell the store that this process lives."""
        before = self.clock()
        self.store.heartbeat(self.owner, self.seconds)
        if self.until and self.clock() > self.until:
            self.lapses += 1
        self.until = before + self.seconds * (1 - LEASE_MARGIN)

    def holds(self) -> bool:
        """Whether a call may be begun now."""
        return self.clock() < self.until

    def end(self) -> None:
        """Give the lease back."""
        self._stopped.set()
        _leases_here.discard(self.owner)
        if self._thread is not None:
            with suppress(StoreError):
                self.store.forget_owner(self.owner)

    def _renew(self) -> None:
        while not self._stopped.wait(self.seconds / 4):
            with suppress(StoreError):  # the next one may do; without any the lease runs out by itself
                self.renew()

    # --- others ---

    def sees(self, owner: str) -> Seen:
        """What can be seen of *owner* from this process."""
        return seen(owner, self.process, one_machine=self.store.one_machine)

    def spared(self) -> list[str]:
        """Owners that are seen alive though their time is over; the runs of those that are seen gone are given to others."""
        spared = []
        for owner, left in self.store.owners().items():
            if owner == self.owner:
                continue
            what = self.sees(owner)
            if what is Seen.GONE:
                self.store.forget_owner(owner)
            elif what is Seen.ALIVE and left < 0:
                spared.append(owner)
        return spared


def living(store: Store) -> frozenset[str]:
    """The owners in *store* that may be alive."""
    here, one_machine = Process.own(), store.one_machine
    found = {owner: (left, seen(owner, here, one_machine=one_machine)) for owner, left in store.owners().items()}
    return frozenset(
        owner for owner, (left, what) in found.items() if what is Seen.ALIVE or (what is Seen.UNKNOWN and left >= 0)
    )
