"""Breaks each static pass in many small ways, and sees whether the soundness campaign and the
pass's own tests notice.

    python benchmarks/mutants.py                  # all of them: half an hour on one core
    python benchmarks/mutants.py --only trust
    python benchmarks/mutants.py --programs 300   # sooner, and the campaign sees less
    python benchmarks/mutants.py --apply          # only whether every change still fits the source

A mutant is a copy of the package with one text replaced: an edge is forgotten, a join, a case, a
kill. All are meant to be *unsound*: to say *proved* where it is not so. Killed by ``campaign``
means that a drawn run contradicted a proof; by ``tests``, that the pass's own tests failed, which
are run where the campaign saw nothing. A survivor is work for tests, or does not matter; then it
says why.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Mutant:
    """One text of one file, what takes its place, and what that is; ``harmless`` is why nothing can
    notice it.
    """

    file: str
    what: str
    old: str
    new: str
    harmless: str | None = None


@dataclass(frozen=True)
class Pass:
    """The mutants of one pass: which attacks are to notice, and which test files."""

    attacks: str
    tests: list[str]
    mutants: list[Mutant]
    programs: int
    counterexamples: bool


def passes() -> dict[str, Pass]:
    """What `mutants.yaml` says."""
    table = yaml.safe_load((Path(__file__).parent / "mutants.yaml").read_text())
    return {
        name: Pass(
            one["attacks"],
            one["tests"].split(),
            [
                Mutant(file=file, **change)
                for file, changes in one["files"].items()
                for change in changes
            ],
            one["programs"],
            one.get("counterexamples", False),
        )
        for name, one in table.items()
    }


def unfit(mutant: Mutant, package: Path) -> str | None:
    """Why the mutant does not fit the source any more."""
    file = package / mutant.file
    if not file.exists():
        return f"{mutant.file}: there is no such file"
    count = file.read_text().count(mutant.old)
    return None if count == 1 else f"{mutant.file}: {mutant.old!r} stands there {count} times"


def killed(command: list[str], package: Path, seconds: float) -> bool:
    """Whether *command* fails with *package* in place of the installed one; one that never ends is
    dead too.
    """
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def broken(mutant: Mutant, source: str) -> str:
    """The *source* of the mutant's file with the one text replaced."""
    return source.replace(mutant.old, mutant.new)


def judge(one: Pass, mutant: Mutant | None, *, both: bool) -> tuple[bool, bool]:
    """Whether the campaign and the pass's own tests fail; without a mutant neither may."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "nano_vm"
        shutil.copytree(
            ROOT / "src" / "nano_vm", package, ignore=shutil.ignore_patterns("__pycache__")
        )
        if mutant is not None:
            file = package / mutant.file
            file.write_text(broken(mutant, file.read_text()))
        length = ["--programs", str(one.programs), "--runs", "8", "--first", "1000", "--stop", "1"]
        what = ["--counterexamples"] if one.counterexamples else ["--only", one.attacks]
        by_campaign = killed(["benchmarks/soundness.py", *length, *what], package, 600)
        if by_campaign and not both:
            return True, False
        quick = [
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
            "-m",
            "not campaign",
            "-k",
            "not test_mutants",  # which mutate what stands in the source
            *one.tests,
        ]
        return by_campaign, killed(quick, package, 600)


def main() -> int:
    table = passes()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(table), help="names of passes, with commas")
    parser.add_argument(
        "--apply", action="store_true", help="only see whether every change fits the source"
    )
    parser.add_argument(
        "--both", action="store_true", help="run the tests also of what the campaign has killed"
    )
    parser.add_argument("--programs", type=int, help="seeds that a campaign draws, at the most")
    options = parser.parse_args()
    began, alive, lost = time.perf_counter(), 0, 0
    for name in options.only.split(","):
        one, dead = table[name], 0
        if options.programs is not None:
            one = replace(one, programs=min(one.programs, options.programs))
        if not options.apply and any(judge(one, None, both=True)):
            print(f"{name:<9} fails as it is: nothing can be said of its mutants", flush=True)
            lost += len(one.mutants)
            continue
        for mutant in one.mutants:
            why = unfit(mutant, ROOT / "src" / "nano_vm")
            if why is not None:
                lost += 1
                print(f"{name:<9} does not fit: {mutant.what}: {why}", flush=True)
                continue
            if options.apply:
                continue
            found = judge(one, mutant, both=options.both)
            by = [
                word for word, noticed in zip(("campaign", "tests"), found, strict=True) if noticed
            ]
            dead += bool(by)
            alive += not by and mutant.harmless is None
            survived = f"survived: {mutant.harmless}" if mutant.harmless else "survived"
            print(
                f"{name:<9} {mutant.what}: {'killed by ' + ' and '.join(by) if by else survived}",
                flush=True,
            )
        if not options.apply:
            print(f"{name:<9} {dead} of {len(one.mutants)} killed", flush=True)
    print(
        f"{time.perf_counter() - began:.0f} s; {alive} survived without a reason, {lost} do not fit"
    )
    return 1 if alive or lost else 0


if __name__ == "__main__":
    sys.exit(main())
