"""Simulates worlds, and shows one: ``make simulate SEED=17``, or ``ARGS='--seeds 0:20000'``."""

from __future__ import annotations

import argparse
import sys
import time

from nano_vm.simulation.shrink import diagram, without_needless

from .campaign import campaign
from .kinds import KINDS, kind_of
from .life import Life


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="the world whose history is shown")
    parser.add_argument("--seeds", help="first and last of many worlds, as 0:20000")
    parser.add_argument("--stop", type=int, help="end once so many are broken")
    parser.add_argument("--worlds", choices=KINDS, default="plain", help="of which kind they are")
    options = parser.parse_args()
    kind = kind_of(options.worlds)
    if options.seeds is not None:
        first, _, last = options.seeds.partition(":")
        began = time.perf_counter()
        found = campaign(
            range(int(first), int(last)),
            kind=kind,
            stop_at=options.stop,
            tell=lambda line: print(line, flush=True),
        )
        print(found.told(time.perf_counter() - began))
        return 1 if found.broken else 0
    life = kind(options.seed if options.seed is not None else time.time_ns() % 10**9).live()
    print(f"world {life.seed}: {life.world.rates}")
    for happening in life.world.history:
        print(happening)
    if not life.broken:
        return 0
    small = smallest(life)
    print(f"\nwith {len(small.world.faults)} of {len(life.world.faults)} faults:\n")
    print(diagram(small.world.history))
    for fault in small.broken:
        print(f"BROKEN {fault}")
    return 1


def smallest(life: Life) -> Life:
    """A broken world with as few faults as it takes."""
    found = life

    def fails(left_out: frozenset[int]) -> list[int] | None:
        nonlocal found
        again = type(life)(life.seed, life.runs, life.workers, left_out, life.faults).live()
        if not again.broken:
            return None
        found = again
        return [fault.number for fault in again.world.faults]

    without_needless([fault.number for fault in life.world.faults], fails)
    return found


if __name__ == "__main__":
    sys.exit(main())
