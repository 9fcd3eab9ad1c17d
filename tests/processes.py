"""A process that runs meanwhile, what Linux counts of one, and a standard output that is its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(command: Sequence[str]) -> Iterator[int]:
    """A process of *command*, by its id, which is killed in the end."""
    process = subprocess.Popen(command)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _fields(pid: int) -> list[str]:
    """What ``/proc/PID/stat`` says, from the state on: the name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def born(pid: int) -> str:
    """When a process began, in ticks since the start of the machine: no later one of its id has it."""
    return _fields(pid)[19]


def processor_seconds(pid: int) -> float:
    """The processor time of a process and all its threads, to a hundredth of a second."""
    user, system = _fields(pid)[11:13]
    return (int(user) + int(system)) / _TICKS


def family_seconds(pid: int) -> float:
    """The same of a process, the processes that it has begun, and theirs; of those that have ended
    too, where it waited for them.
    """
    began: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            began.setdefault(int(_fields(int(folder.name))[1]), []).append(int(folder.name))
    family = [pid]
    for one in family:  # grows meanwhile
        family += began.get(one, [])
    total = 0
    for one in family:
        with suppress(OSError):
            total += sum(map(int, _fields(one)[11:15]))
    return total / _TICKS


def peak_bytes(pid: int) -> int:
    """The most memory that a process had at a time."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def identity(pid: int) -> str:
    """A process, and no later one with its number; nothing where there is none."""
    try:
        fields = _fields(pid)
    except OSError:
        return ""
    return f"{pid}@{fields[19]}" if fields[0] != "Z" else ""


def lives(process: str) -> bool:
    """Whether the process of this `identity` is there; one that was stopped is."""
    return identity(int(process.partition("@")[0])) == process


def own_output() -> TextIO:
    """The standard output of this process; all else that is written there, as libraries in other
    languages do, goes to the error output from now on.
    """
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    return own
