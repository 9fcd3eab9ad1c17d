"""The soundness campaign at length: drawn programs and policies, and runs that look for one that a
proof says cannot be.

    python benchmarks/soundness.py --programs 20000 --runs 20
    python benchmarks/soundness.py --programs 2000 --counterexamples
    python benchmarks/soundness.py --only guards,trust --first 1000000
    python benchmarks/soundness.py --secrets --programs 8000 --runs 24

Prints the figures of `guarantees.md`, and every contradiction with program, policy, outcomes
and trace. The exit code is 1 where there was one. The generator, the outcomes and the judges are
those of `tests/soundness`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import secrecy_campaign
from soundness.campaign import ATTACKS, campaign, counterexamples

from nano_vm.verify.secrecy.proof import analyse


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--programs",
        type=int,
        default=5_000,
        help="seeds that are drawn; about three of four pass `check`",
    )
    parser.add_argument("--first", type=int, default=100_000, help="the first seed")
    parser.add_argument("--runs", type=int, default=20, help="runs of each program for each attack")
    parser.add_argument("--only", default=",".join(ATTACKS), help="names of attacks, with commas")
    parser.add_argument("--stop", type=int, default=20, help="end after so many contradictions")
    parser.add_argument(
        "--counterexamples",
        action="store_true",
        help="execute the runs that `verify` shows instead",
    )
    parser.add_argument(
        "--secrets",
        action="store_true",
        help="marked secrets instead, in programs of their own; with --counterexamples how many "
        "statements are refuted",
    )
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.programs)
    began = time.process_time()
    if options.secrets and options.counterexamples:
        print(secrecy_campaign.statuses(seeds))
        faults = []
    elif options.secrets:
        found = secrecy_campaign.campaign(analyse, seeds, options.runs)
        print(found)
        faults = found.contradictions
    elif options.counterexamples:
        shown = counterexamples(seeds, stop_at=options.stop)
        print(
            f"{shown.programs:,} programs, {sum(shown.refuted.values()):,} counterexamples, "
            f"{len(shown.wrong)} wrong"
        )
        print("\n".join(shown.lines()))
        faults = shown.wrong
    else:
        attacks = {name: ATTACKS[name] for name in options.only.split(",")}
        figures = campaign(seeds, options.runs, attacks, stop_at=options.stop)
        print("\n".join(figure.line(name) for name, figure in figures.items()))
        faults = [text for figure in figures.values() for text in figure.contradictions]
    print(f"{time.process_time() - began:.0f} s of processor time")
    for text in faults:
        print(f"\n{text}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
