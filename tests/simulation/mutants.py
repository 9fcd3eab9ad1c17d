"""Breaks the runtime in many small ways, and sees after how many simulated worlds each is found.

PYTHONPATH=tests python -m simulation.mutants                # all of them, up to 10,000 worlds
PYTHONPATH=tests python -m simulation.mutants --only lease --seeds 300
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from mutants import Mutant as One  # noqa: E402 - stands in the folder of benchmarks
from mutants import unfit as unfit_one  # noqa: E402

PACKAGE = ROOT / "src" / "nano_vm"


@dataclass(frozen=True)
class Mutant:
    """What is broken, by one or several texts of the package that are replaced; ``harmless`` is why
    nothing can notice it.
    """

    what: str
    changes: tuple[One, ...]
    harmless: str | None = None

    @property
    def file(self) -> str:
        """The first file that is changed."""
        return self.changes[0].file


def mutants() -> list[Mutant]:
    """What `mutants.yaml` says. ``also`` are further changes, where one guard stands behind
    another.
    """
    table = yaml.safe_load((Path(__file__).parent / "mutants.yaml").read_text(encoding="utf-8"))
    return [_mutant(file, **change) for file, changes in table.items() for change in changes]


def _mutant(
    file: str,
    what: str,
    old: str,
    new: str,
    also: Sequence[Mapping[str, str]] = (),
    harmless: str | None = None,
) -> Mutant:
    more = (One(one.get("file", file), what, one["old"], one["new"]) for one in also)
    return Mutant(what, (One(file, what, old, new), *more), harmless)


def unfit(mutant: Mutant, package: Path) -> str | None:
    """Why the mutant does not fit the source any more."""
    return next((why for one in mutant.changes if (why := unfit_one(one, package))), None)


def broken(mutant: Mutant, package: Path) -> dict[str, str]:
    """The sources of the mutant's files with the texts replaced."""
    sources: dict[str, str] = {}
    for one in mutant.changes:
        source = sources.get(one.file) or (package / one.file).read_text(encoding="utf-8")
        sources[one.file] = source.replace(one.old, one.new)
    return sources


def found_by(mutant: Mutant, seeds: int, seconds: float) -> str | None:
    """How the campaign notices a mutant: the first world that is broken; None where none is among
    *seeds*, or among those that were tried within *seconds*.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "nano_vm"
        shutil.copytree(
            PACKAGE, package
        )  # with what is compiled, which takes as long as ten worlds
        for file, source in broken(mutant, package).items():
            (package / file).write_text(source, encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([folder, str(ROOT / "tests")]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "simulation", "--seeds", f"0:{seeds}", "--stop", "1"]
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("seed ")]
    return lines[0] if lines else f"fails: {done.stderr.strip().splitlines()[-1]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a part of the file or of what is broken")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for each")
    parser.add_argument("--part", default="0/1", help="which of them: 0/2 is each second one")
    options = parser.parse_args()
    part, of = map(int, re.split("/", options.part))
    chosen = [
        mutant for mutant in mutants() if options.only in mutant.file or options.only in mutant.what
    ][part::of]
    alive = 0
    for mutant in chosen:
        why = unfit(mutant, PACKAGE)
        began = time.perf_counter()
        how = why or found_by(mutant, options.seeds, options.seconds)
        alive += how is None and mutant.harmless is None
        told = how or f"not found{f': {mutant.harmless}' if mutant.harmless else ''}"
        place = f"{mutant.file}: {mutant.what}"
        print(f"{place}: {told[:160]} ({time.perf_counter() - began:.0f} s)", flush=True)
    print(f"{len(chosen)} broken, {alive} not found")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
