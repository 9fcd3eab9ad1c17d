"""Time that no operator sets: what leases of one machine are compared by."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial

UNKNOWN_BOOT = "-"


boot_ns: Callable[[], int] = (
    partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic_ns
)
"""Nanoseconds since the machine was started, those in which it slept too where the system counts
them.
"""


@cache
def boot_id() -> str:
    """What this start of the machine is called, the same in all its containers; `UNKNOWN_BOOT`
    where it has no name.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()[:8]
    except OSError:
        return UNKNOWN_BOOT


def machine_clock() -> Callable[[], int]:
    """The clock that all processes of this machine share: `boot_ns`, or the wall clock where a boot
    has no name.

    A time since another boot means nothing, so without a name for the boot it must not be stored.
    """
    return time.time_ns if boot_id() == UNKNOWN_BOOT else boot_ns
