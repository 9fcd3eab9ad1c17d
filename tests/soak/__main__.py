"""All campaigns at length, and their figures into reliability.md: `make soak`, about forty
minutes.

python -m soak                     # all
python -m soak --only kill-sqlite  # one, printed as JSON
python -m soak --only drawn        # the tests marked `campaign`, with all of their drawn cases
python -m soak --small             # all, much shorter; the page stays as it is
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from campaigns import VARIABLE, WHOLE

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "explanation" / "reliability.md"
BEGIN, END = (
    "<!-- written by `make soak`; do not edit -->",
    "<!-- end of what `make soak` writes -->",
)

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
    "cluster": ["cluster", "--kills", "200", "--restarts", "20"],
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
    "keep_what_failed": ["storm", "--seconds", "15", "--url", "postgres"],
}
"""What is broken on purpose, and the campaign that must find it."""

SIZES = ("--kills", "--runs", "--seconds", "--flips", "--restarts")
"""Options that say how long a campaign is."""

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


# --- the page ---


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a table; numbers to the right."""
    cells = [
        [f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in row]
        for row in rows
    ]
    marks = [
        "---:" if all(isinstance(row[i], int | float) for row in rows) else "---"
        for i in range(len(head))
    ]
    return [f"| {' | '.join(line)} |" for line in ([*head], marks, *cells)]


def told(results: dict[str, dict[str, Any]], found: dict[str, str]) -> str:
    """The figures as Markdown."""
    lite, post = results["kill-sqlite"], results["kill-postgres"]
    lines = [
        BEGIN,
        f"Measured on {datetime.now(UTC).date()}: {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, "
        f"CPython {platform.python_version()}.",
        "",
        "### Kills",
        "",
    ]
    kills = [
        ["processes killed", "kills"],
        ["at random instants", "random"],
        ["at a chosen point", "at_points"],
        ["workers among them", "of_workers"],
        ["seconds", "seconds"],
        ["steps of all runs", "steps"],
    ]
    rows: list[list[Any]] = [[name, lite[key], post[key]] for name, key in kills]
    for status in ("success", "failed", "cancelled"):
        rows.append([f"runs: {status}", lite["runs"].get(status, 0), post["runs"].get(status, 0)])
    for name, key in (
        ("calls begun", "begin"),
        ("effects", "done"),
        ("calls in doubt that had not happened", "in doubt, had not happened"),
        ("calls made again: safe ones, and models", "begun again, safe or a model"),
    ):
        rows.append([name, lite["world"].get(key, 0), post["world"].get(key, 0)])
    rows.append(["**what was not as it must be**", len(lite["faults"]), len(post["faults"])])
    lines += table(["what", "SQLite", "PostgreSQL"], rows)
    lines += ["", "Each point: how often it was passed, and how many processes died at it.", ""]
    lines += table(
        ["point", "SQLite: passed", "died", "PostgreSQL: passed", "died"],
        [
            [
                name,
                lite["passed"][name],
                lite["died"][name],
                post["passed"][name],
                post["died"][name],
            ]
            for name in lite["passed"]
        ],
    )
    lines += ["", "### Freezes", ""]
    lite, post = results["frozen-sqlite"], results["frozen-postgres"]
    rows = [["runs", sum(lite["runs"].values()), sum(post["runs"].values())]]
    for name, key in (
        ("freezes", "freezes"),
        ("at random instants", "at random instants"),
        ("seconds", "seconds"),
    ):
        rows.append([name, lite.get(key, 0), post.get(key, 0)])
    for name, key in (
        ("calls begun", "begin"),
        ("effects", "done"),
        ("calls in doubt that had not happened", "in doubt, had not happened"),
        ("safe calls made again, with the same key", "begun again, safe or a model"),
    ):
        rows.append([name, lite["world"].get(key, 0), post["world"].get(key, 0)])
    points = sorted({*lite["frozen"], *post["frozen"]})
    rows += [
        [f"frozen at `{name}`", lite["frozen"].get(name, 0), post["frozen"].get(name, 0)]
        for name in points
    ]
    rows.append(["**what was not as it must be**", len(lite["faults"]), len(post["faults"])])
    lines += table(["what", "SQLite", "PostgreSQL"], rows)
    lines += [
        "",
        "### Storms",
        "",
        "Kills, freezes, a clock that is set by an hour, and outages of the store, all at once.",
        "",
    ]
    lite, post = results["storm-sqlite"], results["storm-postgres"]
    rows = []
    for name, key in (
        ("seconds", "seconds"),
        ("processes killed", "kills"),
        ("freezes", "freezes"),
        ("times the clock was set", "clock set"),
        ("times the file was locked", "file locked"),
        ("times the server was killed and started", "server killed and started"),
        ("steps of all runs", "steps"),
    ):
        rows.append([name, lite.get(key, 0), post.get(key, 0)])
    for status in ("success", "failed", "cancelled"):
        rows.append([f"runs: {status}", lite["runs"].get(status, 0), post["runs"].get(status, 0)])
    for name, key in (
        ("calls begun", "begin"),
        ("effects", "done"),
        ("calls recorded as lost", "calls recorded as lost"),
        ("calls in doubt that had not happened", "in doubt, had not happened"),
        ("calls made again: safe ones, and models", "begun again, safe or a model"),
    ):
        rows.append([name, lite["world"].get(key, 0), post["world"].get(key, 0)])
    rows.append(["**what was not as it must be**", len(lite["faults"]), len(post["faults"])])
    lines += table(["what", "SQLite", "PostgreSQL"], rows)
    lines += ["", "### Faults of the store", ""]
    rows = []
    for name, database in (("faults-sqlite", "SQLite"), ("faults-postgres", "PostgreSQL")):
        for fault in results[name]["rows"]:
            found_by = ", ".join(
                f"{fault[key]} {key}"
                for key in fault
                if key.startswith(("found", "in bytes", "unnoticed"))
            )
            hit = f"{fault['transactions']} transactions" if "transactions" in fault else found_by
            says = fault["says"][0] if fault["says"] else "nothing: nothing was lost"
            for url in ("sqlite:///", "postgresql+psycopg://", "postgresql://"):
                if url in says:
                    before, _, after = says.partition(url)
                    says = f"{before}{url}…{after[after.index(':') if url == 'sqlite:///' else after.index('/') :]}"
            rows.append([fault["fault"], fault["moment"], database, hit, says.replace("|", "\\|")])
        rows.append(["**not as it must be**", "", database, str(len(results[name]["faults"])), ""])
    lines += table(["fault", "when", "database", "hit", "what is said"], rows)
    lines += [
        "",
        "### A Temporal cluster",
        "",
        "Its workers killed and frozen, and its server.",
        "",
    ]
    cluster = results["cluster"]
    rows = [[name, count] for name, count in cluster.items() if name != "faults"]
    rows.append(["**what was not as it must be**", len(cluster["faults"])])
    lines += table(["what", "count"], rows)
    lines += ["", "### Runs that wait", ""]
    rows = []
    for name, database in (("waiting-sqlite", "SQLite"), ("waiting-postgres", "PostgreSQL")):
        result = results[name]
        rows.append([database, "runs that wait", f"{result['runs']:,}"])
        rows.append([database, "CPU of an idle worker", f"{result['cpu_percent']} %"])
        rows += [[database, what, f"{value} ms"] for what, value in result["milliseconds"].items()]
        if "bytes_a_run" in result:
            rows.append([database, "bytes of the database for each", result["bytes_a_run"]])
    lines += table(["database", "what", "figure"], rows)
    lines += [
        "",
        "### What the campaigns find",
        "",
        "Broken on purpose, each in a campaign that is shorter:",
        "",
    ]
    lines += table(["broken", "found as"], [[f"`{name}`", text] for name, text in found.items()])
    return "\n".join([*lines, END])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=[*CAMPAIGNS, DRAWN], help="one campaign; the page stays as it is"
    )
    parser.add_argument(
        "--small", action="store_true", help="much shorter; the page stays as it is"
    )
    given = parser.parse_args()
    campaigns = {
        name: smaller(arguments) if given.small else arguments
        for name, arguments in CAMPAIGNS.items()
    }
    if given.only == DRAWN:
        return run_drawn(whole=not given.small)
    if given.only:
        result = run(*campaigns[given.only])
        print(json.dumps(result, indent=1))
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
        first = next(iter(run(*arguments, "--sabotage", name)["faults"]), "not found")
        found[name] = (
            (first.partition(": ")[2].partition(":")[0] or first).splitlines()[0]
            if first != "not found"
            else first
        )
        faults += first == "not found"
        print(f"{name} broken: {found[name]}", flush=True)
    if given.small:
        print(told(results, found))
    else:
        write(results, found)
    return 1 if faults else 0


def write(results: dict[str, dict[str, Any]], found: dict[str, str]) -> None:
    """Put the figures into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + told(results, found) + rest.partition(END)[2])


if __name__ == "__main__":
    sys.exit(main())
