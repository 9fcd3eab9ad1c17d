"""Contestants, each a long-lived process in its own environment, timed in turns.

A workload, a contestant and a number of rounds come in; the CPU time of one program in each round
goes out. The turns are interleaved, so that what slows the machine down slows everybody down, and a
ratio is taken within a round. A round takes place on one core, the next round on the next: where
neighbours share the machine, one core can be twice as fast as another, and a process left to itself
stays where it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from workload import Workload  # noqa: E402  (beside this file, wherever the benchmark is started)

BLOCK_MS = 75
"""CPU time of one turn: long enough for the clock and for caches to warm, short enough for many
rounds.
"""


class Unavailable(Exception):
    """A contestant cannot be set up or does not do the work; the text says why."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A module of ``peers`` and what it runs in: the pins in ``peers/<environment>.txt``, or this
    interpreter.
    """

    name: str
    module: str
    environment: str | None = None
    arguments: tuple[str, ...] = ()


@dataclass(slots=True)
class Samples:
    """Microseconds of CPU time for one program, one figure a round."""

    us: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.us)

    def over(self, other: Samples) -> float:
        """How many times *other* this is: the median of the ratios within each round."""
        return median(self._ratios(other))

    def spread_over(self, other: Samples) -> float:
        """Half the interquartile range of those ratios, as a part of their median."""
        low, middle, high = quantiles(self._ratios(other), n=4)
        return (high - low) / middle / 2

    def _ratios(self, other: Samples) -> list[float]:
        return [a / b for a, b in zip(self.us, other.us, strict=True)]


def interpreter(environment: str | None) -> str:
    """The Python of an environment, which is made first if it is missing or its pins have
    changed.
    """
    if environment is None:
        return sys.executable
    pins = HERE / "peers" / f"{environment}.txt"
    home = HERE / ".envs" / environment
    python = str(home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    ready, wanted = home / "ready.txt", f"{sys.version}\n{pins.read_text()}"
    if not ready.exists() or ready.read_text() != wanted:
        print(f"setting up {environment} ...", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        pip = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
            str(pins),
        ]
        installed = subprocess.run(pip, capture_output=True, text=True)
        if installed.returncode:
            raise Unavailable(f"pip: {installed.stderr.strip().splitlines()[-1]}")
        ready.write_text(wanted)
    return python


@dataclass(slots=True)
class Turn:
    """A running contestant, ready for its next block."""

    process: subprocess.Popen[str]
    errors: Path
    concurrent: int
    programs: int = 0

    def block(self, programs: int) -> float:
        """Run so many programs; microseconds of CPU time for each."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # it is gone; what it said is in its errors
            print(programs, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            said = self.errors.read_text().strip().splitlines()
            raise Unavailable(said[-1] if said else f"exit code {self.process.returncode}")
        figures = json.loads(line)
        return float(figures["cpu_ns"] / figures["programs"] / 1000)

    def calibrate(self, block_ms: float) -> None:
        """Settle how many programs make a block, in whole batches; warms the contestant up as
        well.
        """
        batches = 1
        while True:
            spent_ms = self.block(batches * self.concurrent) * batches * self.concurrent / 1000
            if spent_ms > block_ms / 4:
                break
            batches *= 4
        self.programs = max(1, round(batches * block_ms / spent_ms)) * self.concurrent


@contextmanager
def started(contestant: Contestant, workload: Workload, block_ms: float) -> Iterator[Turn]:
    command = [interpreter(contestant.environment), "-m", f"peers.{contestant.module}"]
    if contestant.environment is not None:
        # a PYTHONPATH that leads to this tree would put it in place of the peer
        command.insert(1, "-E")
    command += [*workload.options, *contestant.arguments]
    with ExitStack() as stack:
        errors = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".txt"))
        process = subprocess.Popen(
            command,
            cwd=HERE,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        stack.enter_context(process)  # closes its input, upon which it ends
        turn = Turn(process, Path(errors.name), workload.concurrent)
        turn.calibrate(block_ms)
        yield turn


def pin(process: int, number: int) -> None:
    """Keep *process* on the core whose turn it is in round *number*, where the system can do
    that.
    """
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(process, {cores[number % len(cores)]})


Entry = tuple[Contestant, Workload]


def contest(
    entries: Sequence[Entry], rounds: int, block_ms: float = BLOCK_MS
) -> dict[Entry, Samples | Unavailable]:
    """Time all *entries* in turns; who cannot take part is given with the reason."""
    results: dict[Entry, Samples | Unavailable] = {}
    turns: dict[Entry, Turn] = {}
    with ExitStack() as stack:
        for entry in entries:
            try:
                turns[entry] = stack.enter_context(started(*entry, block_ms))
                results[entry] = Samples()
            except Unavailable as reason:
                results[entry] = reason
        for number in range(rounds):
            order = list(turns)
            # nobody is always first
            for entry in order[number % len(order) :] + order[: number % len(order)]:
                samples, turn = results[entry], turns[entry]
                assert isinstance(samples, Samples)
                pin(turn.process.pid, number)
                samples.us.append(turn.block(turn.programs))
    return results
