"""Breaks the runtime on purpose in many small ways, and sees at which seed a simulated world shows it.

PYTHONPATH=tests python -m simulation.mutants                         # all, up to 10,000 worlds each
PYTHONPATH=tests python -m simulation.mutants --only lease --seeds 300
PYTHONPATH=tests python -m simulation.mutants --seconds 60 --keep     # a piece, from where the last one ended

Each mutant has a process of its own, which loads the broken sources in the place of those of the
package; nothing is written there. With ``--keep`` what is known stands in `found.yaml`, and a
mutant is gone on with at the first seed that was not tried; ``--table`` prints that.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from mutants import Mutant as One  # noqa: E402 - stands in the folder of benchmarks
from mutants import unfit as unfit_one  # noqa: E402

PACKAGE = ROOT / "src" / "nano_vm"
FOUND = Path(__file__).parent / "found.yaml"

CHUNK = 20
"""Worlds between two looks at the clock."""

CHUNK_SECONDS = 20.0
"""How much of a processor they may take, ten times as much as they do: else one of them goes
round in a circle.
"""

CIRCLES = "a world from there on goes round in a circle"

LATE_SECONDS = 600
"""How much later than asked for a process may end, on a machine that has much else to do."""


@dataclass(frozen=True)
class Mutant:
    """What is broken, by one or several texts of the package that are replaced; ``harmless`` is why
    nothing can notice it. ``worlds`` is the kind of those that are to show it, as `kinds` names it.
    """

    what: str
    changes: tuple[One, ...]
    harmless: str | None = None
    worlds: str = "plain"

    @property
    def file(self) -> str:
        """The first file that is changed."""
        return self.changes[0].file

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


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
    worlds: str = "plain",
) -> Mutant:
    more = (One(one.get("file", file), what, one["old"], one["new"]) for one in also)
    return Mutant(what, (One(file, what, old, new), *more), harmless, worlds)


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


# --- in the process of a mutant ---


class _Loader(SourceFileLoader):
    """Loads a module from a source that stands in no file, and from no cache."""

    source = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec")


class Instead(MetaPathFinder):
    """Finds the broken *sources*, by file of the package; ``loaded`` are those that were."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = {str(PACKAGE / file): source for file, source in sources.items()}
        self.loaded: set[str] = set()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith("nano_vm."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin not in self.sources:
            return None
        loader = _Loader(fullname, spec.origin)
        loader.source = self.sources[spec.origin]
        spec.loader = loader
        self.loaded.add(spec.origin)
        return spec


def tried(mutant: Mutant | None, seeds: range, seconds: float) -> None:
    """Break the package in this process, and say of each chunk of worlds that was tried where it
    ended; of the first world that is broken, how.
    """
    instead = Instead(broken(mutant, PACKAGE) if mutant is not None else {})
    sys.meta_path.insert(0, instead)
    from .campaign import campaign
    from .kinds import kind_of

    kind = kind_of(mutant.worlds if mutant is not None else "plain")
    assert instead.loaded == set(instead.sources), "the broken sources are not those that are run"
    until = time.process_time() + seconds

    def circles(*_: Any) -> None:
        print(json.dumps({"seed": first, "how": CIRCLES}), flush=True)
        os._exit(0)

    signal.signal(signal.SIGVTALRM, circles)
    for first in range(seeds.start, seeds.stop, CHUNK):
        last = min(first + CHUNK, seeds.stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, CHUNK_SECONDS)
        for seed, faults in campaign(range(first, last), kind=kind, stop_at=1).broken.items():
            print(json.dumps({"seed": seed, "how": faults[0]}), flush=True)
            return
        print(json.dumps({"tried": last}), flush=True)
        if time.process_time() > until:
            return


# --- in the process that asks ---


@dataclass
class Known:
    """How far a mutant was tried, and the first world that shows it."""

    tried: int = 0
    seed: int | None = None
    how: str = ""


def found_by(mutant: Mutant, seeds: range, seconds: float) -> Known:
    """Which of the worlds *seeds* is the first that shows the mutant, as far as *seconds* go."""
    command = [sys.executable, "-m", "simulation.mutants", "--one", str(mutant)]
    command += ["--from", str(seeds.start), "--seeds", str(seeds.stop), "--seconds", str(seconds)]
    path = os.pathsep.join(filter(None, (str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=seconds * 20 + LATE_SECONDS,
        check=False,
    )
    known = Known(seeds.start)
    for line in done.stdout.splitlines():
        told = json.loads(line)
        known = Known(told.get("tried", known.tried), told.get("seed"), told.get("how", ""))
    if done.returncode:
        last = "".join(done.stderr.strip().splitlines()[-1:])
        return Known(known.tried, known.tried, f"the simulation itself fails: {last}")
    return known


def kept(path: Path = FOUND) -> dict[str, Known]:
    """What `found.yaml` says, by mutant."""
    if not path.exists():
        return {}
    table = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {name: Known(**known) for name, known in table.items()}


def keep(known: Mapping[str, Known], path: Path = FOUND) -> None:
    """Write `found.yaml`, in the order of the mutants."""
    lines = [
        "# At which seed a simulated world shows each mutant; written by `python -m "
        "simulation.mutants --keep`."
    ]
    for mutant in mutants():
        one = known.get(str(mutant))
        if one is not None:
            lines.append(f"{json.dumps(str(mutant))}:")
            lines.append(f"  tried: {one.tried}")
            if one.seed is not None:
                lines.append(f"  seed: {one.seed}")
                lines.append(f"  how: {json.dumps(one.how, ensure_ascii=False)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(known: Mapping[str, Known]) -> str:
    """What is known, as docs/reliability.md has it: those first that are found soonest."""
    found, alive, harmless = [], [], []
    for mutant in mutants():
        one = known.get(str(mutant), Known())
        worlds = "" if mutant.worlds == "plain" else f", {mutant.worlds}"
        if mutant.harmless is not None:
            harmless.append((0, f"| {mutant.what} | {mutant.harmless} |"))
        elif one.seed is None:
            alive.append((one.tried, f"| {mutant.what} | none of {one.tried:,}{worlds} |"))
        else:
            found.append((one.seed, f"| {mutant.what} | {one.seed:,}{worlds} |"))
    rows = [*sorted(found), *sorted(alive), *harmless]
    return "\n".join(
        ["| broken | first world that shows it |", "| --- | ---: |", *(row for _, row in rows)]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a part of the file or of what is broken")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--seeds", type=int, default=10_000, help="the seed before which to end")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of a processor, for each")
    parser.add_argument("--part", default="0/1", help="which of them: 0/2 is each second one")
    parser.add_argument(
        "--keep",
        nargs="?",
        type=Path,
        const=FOUND,
        metavar="FILE",
        help="go on from what FILE says, found.yaml here, and write it",
    )
    parser.add_argument("--table", action="store_true", help="print what found.yaml says")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print(table(kept()))
        return 0
    if options.one is not None:
        one = next(mutant for mutant in mutants() if str(mutant) == options.one)
        tried(one, range(options.first, options.seeds), options.seconds)
        return 0
    part, of = map(int, re.split("/", options.part))
    chosen = [m for m in mutants() if options.only in str(m) and m.harmless is None][part::of]
    alive = 0
    for mutant in chosen:
        before = Known() if options.keep is None else kept(options.keep).get(str(mutant), Known())
        if before.seed is not None or before.tried >= options.seeds:
            alive += before.seed is None
            continue
        why = unfit(mutant, PACKAGE)
        began = time.perf_counter()
        seeds = range(max(before.tried, options.first), options.seeds)
        known = Known(how=why, seed=-1) if why else found_by(mutant, seeds, options.seconds)
        alive += known.seed is None
        how = f"seed {known.seed}: {known.how}" if known.seed is not None else "not found"
        took = time.perf_counter() - began
        print(f"{mutant}: {how[:160]} (of {known.tried}, {took:.0f} s)", flush=True)
        if options.keep is not None and why is None:
            keep({**kept(options.keep), str(mutant): known}, options.keep)
    print(f"{len(chosen)} broken, {alive} not found")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
