"""Simulates worlds, and shows one: ``make simulate SEED=17``, or ``ARGS='--seeds 0:20000'``."""

from __future__ import annotations

import argparse
import sys
import time

from .campaign import campaign
from .life import Life


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    parser.add_argument("seed", nargs="?", type=int, help="the world whose history is shown")
    parser.add_argument("--seeds", help="first and last of many worlds, as 0:20000")
    parser.add_argument("--stop", type=int, help="end once so many are broken")
    options = parser.parse_args()
    if options.seeds is not None:
        first, _, last = options.seeds.partition(":")
        began = time.perf_counter()
        found = campaign(
            range(int(first), int(last)),
            stop_at=options.stop,
            tell=lambda line: print(line, flush=True),
        )
        print(found.told(time.perf_counter() - began))
        return 1 if found.broken else 0
    life = Life(options.seed if options.seed is not None else time.time_ns() % 10**9).live()
    print(f"world {life.seed}: {life.world.rates}")
    for happening in life.world.history:
        print(happening)
    for fault in life.broken:
        print(f"BROKEN {fault}")
    return 1 if life.broken else 0


if __name__ == "__main__":
    sys.exit(main())
