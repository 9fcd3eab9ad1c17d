"""The figures of campaigns as Markdown, and where they stand in reliability.md."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
MAIN = "`make soak`"
"""What writes all that has no place of its own."""


FOUND_CHARS = 60
"""Of what a campaign found, in its table."""


def write(writer: str, text: str) -> None:
    """Put *text* into the page, where what *writer* writes stands."""
    begin, end = (
        f"<!-- written by {writer}; do not edit -->",
        f"<!-- end of what {writer} writes -->",
    )
    before, mark, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, end_mark, after = rest.partition(end)
    if not (mark and end_mark):
        raise ValueError(f"{PAGE} has no place for what {writer} writes")
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def measured() -> str:
    """When and where."""
    return (
        f"Measured on {datetime.now(UTC).date()}: {os.cpu_count()} cores at load "
        f"{os.getloadavg()[0]:.0f}, {platform.system()} {platform.machine()}, "
        f"CPython {platform.python_version()}."
    )


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a table; columns of numbers to the right."""
    cells = [
        [f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in row]
        for row in rows
    ]
    marks = [
        "---:" if all(row[i] == "" or isinstance(row[i], int | float) for row in rows) else "---"
        for i in range(len(head))
    ]
    return [f"| {' | '.join(line)} |" for line in ([*head], marks, *cells)]


NOT_FOUND = "not found"


def found_as(faults: list[str]) -> str:
    """What the first fault of a run says; what a process wrote as it died only where no run has
    one.
    """
    of_runs = [one for one in faults if not one.startswith("---")]
    first = [*of_runs, *faults, NOT_FOUND][0].strip().splitlines()[-1]
    told = first.partition(": ")[2] or first
    return told if len(told) <= FOUND_CHARS else f"{told[:FOUND_CHARS].rstrip()}…"


def told(results: dict[str, dict[str, Any]], found: dict[str, str]) -> str:
    """The figures as Markdown."""
    lite, post = results["kill-sqlite"], results["kill-postgres"]
    lines = [measured(), "", "### Kills", ""]
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
    return "\n".join(lines)


def of_cluster(result: dict[str, Any]) -> str:
    """What became of the runs of a Temporal cluster whose workers and server were disturbed."""
    rows: list[list[Any]] = [[name, count] for name, count in result.items() if name != "faults"]
    rows.append(["**what was not as it must be**", len(result["faults"])])
    return "\n".join([measured(), "", *table(["what", "count"], rows)])


def of_sizes(result: dict[str, Any]) -> str:
    """What the largest programs take on a Temporal cluster."""
    names = {
        "map": "`map` over {:,} items, 16 at a time",
        "steps": "{:,} calls, one after the other",
        "value": "a value of {:,} bytes, handed on four times",
        "approvals": "{:,} approvals that wait at once",
        "year": "a wait of {:,} year, its time skipped",
    }
    rows: list[list[Any]] = [
        [
            names[name].format(row["tried"]),
            row["executions"],
            row["largest_events"],
            kilobytes(row["largest_bytes"]),
            kilobytes(row["largest_event_bytes"]),
            row["events"],
            megabytes(row["bytes"]),
            row["seconds"],
            row["cpu_seconds"],
            round(row["peak_bytes"] / 2**20),
        ]
        for name, row in result["sizes"].items()
    ]
    events, size, event = result["limits"].values()
    limits = [events, kilobytes(size), kilobytes(event)]
    rows.append(["**a server's limits**", "", *limits, *[""] * 5])
    head = [
        "what",
        "histories",
        "events of the largest",
        "its kB",
        "its largest event, kB",
        "events of all",
        "MB of all",
        "seconds",
        "the worker's processor seconds",
        "its memory at most, MB",
    ]
    lines = [measured(), "", *table(head, rows)]
    waiting = result["sizes"]["approvals"]
    lines += [
        "",
        f"While the {waiting['tried']:,} wait, the worker takes {waiting['idle_percent']} % of "
        "a core.",
    ]
    lines += [f"- **not as it must be**: {fault}" for fault in result["faults"]]
    return "\n".join(lines)


def megabytes(count: int) -> float:
    """For a cell."""
    return round(count / 2**20, 2)


def kilobytes(count: int) -> float:
    """For a cell."""
    return round(count / 2**10, 1)


OWN = {"cluster": of_cluster, "sizes": of_sizes}
"""Campaigns whose figures have a place of their own in the page."""


def write_own(name: str, result: dict[str, Any]) -> None:
    """Put the figures of the campaign *name* into their place."""
    write(f"`python -m soak --only {name} --write`", OWN[name](result))
