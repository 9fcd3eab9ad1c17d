"""What every contestant of `durable.py` is: a process that runs the programs it is told to, 20 in
flight, and says what they took.

In come lines on standard input, each a number of programs; out goes one line of JSON for each, with
wall time and the CPU time of the process and of the servers that it started. A program is 20 steps
that give their argument back, each stored durably. A contestant that does not reach the right
answer never measures anything. Standard library only: this runs in the environment of every peer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STEPS = 20
IN_FLIGHT = 20
START_SECONDS = 60.0
"""How long a server may take to come up on a busy machine."""


def folder() -> Path:
    """Where the contestant keeps its data, and what else it needs: ``--folder``."""
    return Path(options().folder)


def options() -> argparse.Namespace:
    """What the benchmark says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--server", help="a peer's server program")
    parser.add_argument("--effect", help="what the tool declares")
    return parser.parse_args()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(
    command: Sequence[str], port: int, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server of this contestant's own, once it listens on *port*; it is ended by its id, whatever
    happens.
    """
    log = folder() / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder(), stdout=out, stderr=out, env={**os.environ, **environment}
        )
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    tail = log.read_text(errors="replace").strip().splitlines()[-1:]
                    raise SystemExit(f"{command[0]} did not come up: {tail}") from None
                time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_ns(servers: Sequence[int]) -> int:
    """CPU time of this process and of *servers*."""
    total = time.process_time_ns()
    for pid in servers:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return total


def say(programs: int, wall_ns: int, spent_ns: int, **more: Any) -> None:
    """Answer a line."""
    print(
        json.dumps({"programs": programs, "wall_ns": wall_ns, "cpu_ns": spent_ns, **more}),
        flush=True,
    )


async def serve(
    run: Callable[[str], Awaitable[Any]],
    servers: Sequence[int] = (),
    told: Callable[[], dict[str, float]] = dict,
) -> None:
    """Time *run*, which gives the last output of a program, as often as each line says; *told* are
    counters of its own.
    """
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        programs = int(line)
        numbers = iter(range(programs))

        async def worker(numbers: Iterator[int] = numbers) -> None:
            for number in numbers:
                text = f"value {number}"
                answer = await run(text)
                if answer != text:
                    raise SystemExit(f"the answer is {answer!r} and not {text!r}")

        before, wall, spent = told(), time.perf_counter_ns(), cpu_ns(servers)
        await asyncio.gather(*(worker() for _ in range(min(IN_FLIGHT, programs))))
        wall, spent = time.perf_counter_ns() - wall, cpu_ns(servers) - spent
        say(programs, wall, spent, **{name: count - before[name] for name, count in told().items()})
