"""Hosts in network namespaces of Linux, each at the end of a wire of its own. A wire can be pulled:
packets are lost then, where a proxy would keep them.

All is in a namespace that has no other way out, so no port is open to anybody else.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAM = ("unshare", "--map-root-user", "--net")
"""What runs a command in a namespace of its own; no rights are needed where the system allows it."""

_CLONE_NEWNET = 0x40000000  # of setns(2)


def possible() -> bool:
    """Whether this machine has network namespaces and wires for this user."""
    wire = ["ip", "link", "add", "near", "type", "veth", "peer", "name", "far"]
    try:
        return subprocess.run([*PROGRAM, *wire], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def apart(module: str, arguments: Sequence[str]) -> None:
    """Become *module* in a namespace of its own, which has a loopback."""
    python = [sys.executable, "-m", module, *arguments]
    started = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *python]
    os.execvp(PROGRAM[0], [*PROGRAM, *started])


def enter(pid: int) -> None:
    """Have this process in the network namespace of another."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/net").open() as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Wire:
    """A wire to a host number *number*, which reaches this one at `ip`. Its namespace is that of
    the process `namespace`, which does nothing.
    """

    def __init__(self, number: int) -> None:
        self.name, self.ip = f"wire{number}", f"10.213.{number}.1"
        own = os.readlink("/proc/self/ns/net")
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.namespace = self._holder.pid
        while os.readlink(f"/proc/{self.namespace}/ns/net") == own:
            time.sleep(0.01)
        there = ["nsenter", "--target", str(self.namespace), "--net", "ip"]
        far = ["peer", "name", "eth0", "netns", str(self.namespace)]
        _ip("link", "add", self.name, "type", "veth", *far)
        _ip("addr", "add", f"{self.ip}/24", "dev", self.name)
        subprocess.run([*there, "addr", "add", f"10.213.{number}.2/24", "dev", "eth0"], check=True)
        subprocess.run([*there, "link", "set", "eth0", "up"], check=True)
        self.mend()

    def cut(self) -> None:
        """Pull it."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        """Plug it in."""
        _ip("link", "set", self.name, "up")

    def end(self) -> None:
        """The host is gone, and its wire."""
        self._holder.kill()
        self._holder.wait()
