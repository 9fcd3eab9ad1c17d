"""All campaigns at length, and their figures into reliability.md: `make soak`, about an hour.

python -m soak                     # all
python -m soak --only kill-sqlite  # one, printed as JSON
python -m soak --only sizes --write  # and its figures into the page, where they have their place
python -m soak --only drawn        # the tests marked `campaign`, with all of their drawn cases
python -m soak --small             # all, much shorter; the page stays as it is
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from campaigns import VARIABLE, WHOLE

from . import page

TESTS = Path(__file__).parents[1]

CAMPAIGNS = {
    "kill-sqlite": ["kill", "--kills", "500", "--url", "sqlite"],
    "kill-postgres": ["kill", "--kills", "200", "--url", "postgres"],
    "frozen-sqlite": ["frozen", "--runs", "10000", "--url", "sqlite", "--every", "3"],
    "frozen-postgres": ["frozen", "--runs", "1000", "--url", "postgres", "--every", "2"],
    "storm-sqlite": ["storm", "--seconds", "600", "--url", "sqlite"],
    "storm-postgres": ["storm", "--seconds", "300", "--url", "postgres"],
    "faults-sqlite": ["faults", "--url", "sqlite", "--flips", "300"],
    "faults-postgres": ["faults", "--url", "postgres"],
    "waiting-sqlite": ["waiting", "--runs", "100000", "--url", "sqlite"],
    "waiting-postgres": ["waiting", "--runs", "10000", "--url", "postgres"],
    "cluster": ["cluster", "--kills", "200", "--restarts", "20", "--long", "30"],
    "sizes": [
        *["sizes", "--items", "1000", "--steps", "10000", "--bytes", "16000000"],
        *["--approvals", "2000"],
    ],
}

DRAWN = "drawn"
"""The name, here, of the tests that draw their cases: they prove nothing about processes, and are
run by pytest.
"""

SABOTAGED = {
    "repeat": ["kill", "--kills", "60"],
    "answer_early": ["kill", "--kills", "60"],
    "never_look_at_the_lease": ["frozen", "--runs", "400", "--every", "0.4"],
    "forget_lost_calls": ["kill", "--kills", "60"],
    "doubt_nothing": ["cluster", "--kills", "60", "--long", "2"],
    "keep_what_failed": ["storm", "--seconds", "15", "--url", "postgres"],
}
"""What is broken on purpose, and the campaign that must find it."""

SIZES = (
    *("--kills", "--runs", "--seconds", "--flips", "--restarts", "--long"),
    *("--items", "--steps", "--bytes", "--approvals"),
)
"""Options that say how long a campaign is, or how much it tries."""

LIMIT_SECONDS = 3_600


def smaller(arguments: list[str]) -> list[str]:
    """The *arguments* of a campaign that is a tenth as long."""
    return [
        str(max(int(argument) // 10, 1)) if before in SIZES else argument
        for before, argument in zip(["", *arguments], arguments, strict=False)
    ]


def run(*arguments: str) -> dict[str, Any]:
    """What a campaign counted."""
    done = subprocess.run(
        [sys.executable, "-m", f"soak.{arguments[0]}", *arguments[1:]],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    if not done.stdout:
        return {"faults": [done.stderr[-2_000:]]}
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run_drawn(*, whole: bool) -> int:
    """Run the tests marked `campaign`, and give pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-m", "campaign", "-n", "2", "--dist", "worksteal"]
    environment = {**os.environ, VARIABLE: WHOLE if whole else ""}
    return subprocess.run(command, cwd=TESTS.parent, env=environment, check=False).returncode


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[*CAMPAIGNS, DRAWN], help="one campaign, printed as JSON")
    parser.add_argument(
        "--small", action="store_true", help="much shorter; the page stays as it is"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"with --only {' or '.join(page.OWN)}: into the page"
    )
    given = parser.parse_args()
    if given.write and (given.small or given.only not in page.OWN):
        parser.error(f"--write is for the whole of --only {' or '.join(page.OWN)}")
    campaigns = {
        name: smaller(arguments) if given.small else arguments
        for name, arguments in CAMPAIGNS.items()
    }
    if given.only == DRAWN:
        return run_drawn(whole=not given.small)
    if given.only:
        result = run(*campaigns[given.only])
        print(json.dumps(result, indent=1))
        if given.write and len(result) > 1:
            page.write_own(given.only, result)
        return 1 if result["faults"] else 0
    results, faults = {}, run_drawn(whole=not given.small)
    for name, arguments in campaigns.items():
        results[name] = run(*arguments)
        faults += len(results[name]["faults"])
        print(f"{name}: {results[name]['faults'] or 'as it must be'}", flush=True)
        if results[name]["faults"] and len(results[name]) == 1:
            return 1
    found = {}
    for name, arguments in SABOTAGED.items():
        found[name] = page.found_as(run(*arguments, "--sabotage", name)["faults"])
        faults += found[name] == page.NOT_FOUND
        print(f"{name} broken: {found[name]}", flush=True)
    if given.small:
        print(page.told(results, found))
        return 1 if faults else 0
    page.write(page.MAIN, page.told(results, found))
    for name in page.OWN:
        page.write_own(name, results[name])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
