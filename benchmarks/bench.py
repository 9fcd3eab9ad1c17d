"""The benchmarks: ``make bench``, or ``python benchmarks/bench.py [--quick] [--no-peers] [--only
SECTION ...]``.

A full run prints its tables and writes ``benchmarks.md``, ``benchmarks.svg`` and
``benchmarks/benchmarks.json``, and a partial one with ``--update`` its sections of these; else it
only prints, as a quick one does. The bars are shown, never enforced: a figure depends on the
machine, and a test that depends on the machine is no test.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from contest import BLOCK_MS, HERE, Contestant, Entry, Samples, Unavailable, contest
from report import Bar, Table, chart, machine, number
from workload import KINDS, Workload

DOCS = HERE.parent / "docs" / "explanation"

LIMIT = Contestant("hand-written coroutine", "hand_written")
LOOP = Contestant("hand-written loop", "hand_written", arguments=("--loop",))
RECORDING_LOOP = Contestant(
    "hand-written loop that keeps records", "hand_written", arguments=("--records",)
)
OURS = Contestant("llm-nano-vm, this tree", "execution_vm")
V01 = Contestant("llm-nano-vm 0.1.4", "execution_vm", "llm-nano-vm-0.1.4")
# 0.8 takes a reference inside quotes for text and would run the wrong branch
V08 = Contestant(
    "llm-nano-vm 0.8.9", "execution_vm", "llm-nano-vm-0.8.9", ("--condition", "'ok' in ${output}")
)
BURR = Contestant("Apache Burr 0.43.0", "burr_application", "burr")
LANGGRAPH = Contestant("LangGraph 1.2.22", "state_graph", "langgraph")


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    growth_rounds: int
    import_rounds: int
    block_ms: float
    peers: bool
    kind_ms: float = 15


def per(count: int) -> Callable[[float], str]:
    return lambda us: number(us / count)


def stress(effort: Effort) -> Table:
    table = Table(
        "The stress test",
        "20 tool steps, a condition, one more tool step, 50 context keys. The runs follow each "
        "other in one task.\n\n"
        "- The limit is a hand-written coroutine with a line for each step. It keeps nothing.\n"
        "- The loop makes its names as it goes. It keeps nothing either.\n"
        "- The loop that keeps records keeps (name, value, start, end) of each step, the least "
        "that a trace needs.\n\n"
        "A ratio is taken within a round; ± is half the interquartile range of those to the "
        "limit.",
        ["", "µs a program", "programs/s", "× limit", "±", "× loop", "× records", "× ours"],
    )
    contestants = [
        LIMIT, LOOP, RECORDING_LOOP, OURS, *([V01, V08, BURR, LANGGRAPH] if effort.peers else [])
    ]  # fmt: skip
    results = contest([(who, Workload()) for who in contestants], effort.rounds, effort.block_ms)
    samples = {who: result for (who, _), result in results.items() if isinstance(result, Samples)}
    for (who, _), result in results.items():
        if isinstance(result, Unavailable):
            table.add(who.name, str(result), "", "", "", "", "", "")
            continue
        columns = (LIMIT, LOOP, RECORDING_LOOP, OURS)
        over = {to: result.over(samples[to]) for to in columns if to in samples}
        bars = []
        if who is OURS:
            bars.append(
                Bar("× the loop that keeps records", over[RECORDING_LOOP], 2.5, "× records")
            )
            bars.append(Bar("× the hand-written loop", over[LOOP], 4, "× loop"))
        elif who is V01 and OURS in over:
            bars.append(Bar("× faster than 0.1.4", over[OURS], 15, "× ours", at_least=True))
        elif who is LANGGRAPH and OURS in over:
            bars.append(Bar("× faster than LangGraph", over[OURS], 300, "× ours", at_least=True))
        ratios = [number(over[to]) if to in over else "" for to in columns]
        ratios.insert(1, f"{result.spread_over(samples[LIMIT]) * 100:.0f} %")
        table.add(who.name, number(result.median), number(1e6 / result.median), *ratios, bars=bars)
        table.raw[who.name] = {
            "us": result.median,
            "over_limit": over[LIMIT],
            "samples_us": result.us,
        }
        table.plot[who.name] = (result.median, over[LIMIT])
    return table


def growth(
    effort: Effort,
    table: Table,
    workloads: Mapping[Any, Workload],
    count: Callable[[Workload], int],
) -> dict[Any, Samples]:
    """A row for each workload: this tree and the limit, by the step or program as *count* says."""
    entries: list[Entry] = [(who, work) for work in workloads.values() for who in (LIMIT, OURS)]
    results = contest(entries, effort.growth_rounds, effort.block_ms)
    ours: dict[Any, Samples] = {}
    for size, work in workloads.items():
        limit, mine = results[LIMIT, work], results[OURS, work]
        name = f"{size:,}" if isinstance(size, int) else str(size)
        if not isinstance(limit, Samples) or not isinstance(mine, Samples):
            missing = mine if isinstance(mine, Unavailable) else limit
            table.add(name, "", str(missing), "")
            continue
        text = per(count(work))
        table.add(name, text(limit.median), text(mine.median), number(mine.over(limit)))
        table.raw[str(size)] = {
            "limit_us": limit.median,
            "ours_us": mine.median,
            "ratio": mine.over(limit),
        }
        ours[size] = mine
    return ours


def steps(effort: Effort) -> Table:
    table = Table(
        "Growth with steps",
        "Tool steps in a straight line, microseconds a step.",
        ["steps", "limit", "ours", "× limit"],
    )
    workloads = {size: Workload(steps=size, branch=0) for size in (20, 100, 1_000, 10_000)}
    ours = growth(effort, table, workloads, lambda work: work.steps)
    if 20 in ours and 10_000 in ours:
        bar = Bar(
            "growth of a step's cost, 20 to 10,000 steps",
            ours[10_000].over(ours[20]) / 500,
            1.2,
            "× that at 20",
        )
        table.bars.append(bar)
        table.rows[-1][-1] = str(bar)
    return table


def concurrent(effort: Effort) -> Table:
    table = Table(
        "Growth with concurrent runs",
        "The stress test in one `asyncio.gather`, with a tool that awaits `asyncio.sleep(0)`; "
        "microseconds a program.",
        ["runs", "limit", "ours", "× limit"],
    )
    workloads = {
        size: Workload(concurrent=size, yielding=1) for size in (1, 10, 100, 1_000, 10_000)
    }
    growth(effort, table, workloads, lambda work: 1)
    return table


def keys(effort: Effort) -> Table:
    table = Table(
        "Growth with the context",
        "The stress test over a larger context, of which it reads 22 keys at the most; "
        "microseconds a program.",
        ["keys", "limit", "ours", "× limit"],
    )
    growth(
        effort, table, {size: Workload(keys=size) for size in (5, 50, 500, 5_000)}, lambda work: 1
    )
    return table


def kinds(effort: Effort) -> Table:
    table = Table(
        "Other values and arguments",
        "The 20 steps of the stress test with other things to pass on; microseconds a program. "
        "Objects are copied for "
        "the tool and checked when they come back.",
        ["the tool takes", "limit", "ours", "× limit"],
    )
    names = {
        "text": "a short text",
        "number": "a number",
        "accents": "a text that is not ASCII",
        "object": "an object with a list in it",
        "template": "`got $key`",
        "two": "two arguments",
    }
    growth(
        effort,
        table,
        {names[kind]: Workload(kind=kind, branch=0) for kind in KINDS},
        lambda work: 1,
    )
    return table


def measured(*arguments: str, module: str = "measure") -> dict[str, Any]:
    """The figures that a fresh process measures; see ``measure.py``."""
    process = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=HERE, capture_output=True, text=True
    )
    if process.returncode:
        raise Unavailable(process.stderr.strip().splitlines()[-1])
    figures: dict[str, Any] = json.loads(process.stdout)
    return figures


def kinds_of_steps(effort: Effort) -> Table:
    """A row for each kind of step, and what the start of a run costs; see ``kinds.py``."""
    figures = measured("rows", str(effort.rounds), str(effort.kind_ms), module="kinds")
    table = Table(
        "Every kind of step",
        "Runs of 20 equal steps, iterations or items, without a store; microseconds for one of "
        "them, the run's start included. All rows are measured in one process in turns. "
        f"*Quickest* is the quickest row: {figures['quickest']}.",
        ["a step is", "µs", "× quickest"],
    )
    for name, row in figures["rows"].items():
        bars = [Bar(name, row["over"], row["bar"], "× quickest")] if row["bar"] else []
        table.add(name, number(row["us"]), number(row["over"]), bars=bars)
    for name, value, most in (
        ("stress test × the loop by hand that keeps records", "over_recording", 2.5),
        ("stress test × the plain loop by hand", "over_plain", 4),
    ):
        ratio = figures["stress"][value]
        table.add(name, "", number(ratio), bars=[Bar(name, ratio, most, "× by hand")])
    for name, most in (("a run", 10), ("with run_id", 20), ("with a ready-made budget", 15)):
        us = figures["start"][name]
        table.add(f"the start of {name}" if name == "a run" else f"the start of a run {name}",
                  number(us), "", bars=[Bar(f"start of a run, {name}", us, most, "µs")])  # fmt: skip
    many = measured("growth", str(max(1, effort.growth_rounds // 3)), module="kinds")
    for (setting, found), most in zip(many.items(), (2, 1.3), strict=True):
        name = f"a run, 10,000 at a time over 10; the collector {setting}"
        bars = [Bar(name, found["over"], most, "× 10 at a time")]
        table.add(name, number(found["us"]["10000"]), "", bars=bars)
    table.raw = {**figures, "at_a_time": many}
    return table


def memory(effort: Effort) -> Table:
    table = Table(
        "Memory",
        "- A finished step: of a 10,000-step trace that is kept, beside its values. Looked at, its "
        "`StepResult` is there as well.\n"
        "- A waiting run: of 10,000 runs of the stress test that wait in a tool, the first or the "
        "eleventh.\n"
        "- Allocated is what `tracemalloc` counts, resident what the process has grown by.",
        ["bytes", "limit", "ours", "ours less limit"],
    )

    def row(name: str, limit: float, ours: float, most: float | None = None) -> None:
        bars = [Bar(f"bytes of {name}", ours, most, "bytes")] if most is not None else []
        table.add(name, number(limit), number(ours), number(ours - limit), bars=bars)
        table.raw[name] = {"limit_bytes": limit, "ours_bytes": ours}

    kept = measured("kept_steps")
    row("a finished step", kept["by_hand"], kept["trace"], 400)
    row("a finished step, looked at", kept["by_hand"], kept["trace"] + kept["looked_at"])
    for after, where in ((0, "first"), (10, "eleventh")):
        for how, word in (("traced", "allocated"), ("resident", "resident")):
            limit, ours = (
                measured("waiting_runs", who, how, str(after))["bytes"]
                for who in ("by_hand", "ours")
            )
            most = 4200 if (after, how) == (0, "traced") else 8192
            row(f"a run waiting in its {where} tool, {word}", limit, ours, most)
    return table


def conditions(effort: Effort) -> Table:
    table = Table(
        "Conditions", "One evaluation by the closure that a run calls.", ["condition", "µs"]
    )
    for text, us in measured("conditions").items():
        table.add(f"`{text}`", number(us), bars=[Bar(f"µs for {text}", us, 0.5, "µs")])
        table.raw[text] = us
    return table


def loading(effort: Effort) -> Table:
    table = Table(
        "Loading, checking and compiling",
        "Milliseconds from a dict or a YAML text to a program that `vm.check` has passed and "
        "compiled.",
        ["steps", "dict", "dict to Program", "YAML", "YAML to Program", "check and compile"],
    )
    for size in (100, 1_000, 10_000):
        ms = measured("loading", str(size))
        bars = []
        if size == 1_000:
            bars = [
                Bar("ms from a dict", ms["dict_all"], 100, "ms"),
                Bar("ms from YAML", ms["yaml_all"], 300, "ms"),
            ]
        parts = ("dict_all", "dict_load", "yaml_all", "yaml_load", "dict_check")
        table.add(f"{size:,}", *(number(ms[part]) for part in parts), bars=bars)
        table.raw[str(size)] = ms
    return table


def imports(effort: Effort) -> Table:
    table = Table(
        "Imports",
        "Milliseconds of CPU time, each in a fresh process, in turns.",
        ["statement", "ms"],
    )
    ms = measured("imports", str(effort.import_rounds))
    for statement, took in ms.items():
        bars = []
        if statement == "import nano_vm":
            bars = [Bar("× import pydantic", took / ms["import pydantic"], 2, "× import pydantic")]
        table.add(f"`{statement}`", number(took), bars=bars)
        table.raw[statement] = took
    return table


SECTIONS: dict[str, Callable[[Effort], Table]] = {
    "stress": stress,
    "steps": steps,
    "concurrent": concurrent,
    "keys": keys,
    "kinds": kinds,
    "steps-of-all-kinds": kinds_of_steps,
    "memory": memory,
    "conditions": conditions,
    "loading": loading,
    "imports": imports,
}


def sections_of(page: str) -> dict[str, str]:
    """The sections of a page by title."""
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part.strip() for part in parts}


def bars_of(sections: Mapping[str, str]) -> list[tuple[str, str]]:
    """What each bar in *sections* is of, and how it stands."""
    found = []
    for title, section in sections.items():
        for line in section.splitlines():
            if line.startswith("| "):
                first, *_, last = [cell.strip() for cell in line.strip("| ").split(" | ")]
                found += [(f"{title}, {first}", bar) for bar in re.findall("[✓✗][^;|]*", last)]
    return found


HEADLINES = (
    ("The stress test", OURS.name, "µs a program", "a run of the stress test, 22 steps, µs"),
    (
        "The stress test",
        OURS.name,
        "× records",
        "the same, times a loop by hand that keeps as many records",
    ),
    ("The stress test", OURS.name, "× loop", "the same, times a loop by hand that keeps nothing"),
    ("The stress test", LANGGRAPH.name, "× ours", "LangGraph, times ours"),
    ("Growth with steps", "10,000", "ours", "a tool step, one of 10,000 in a row, µs"),
    ("Every kind of step", "model step", "µs", "a model step, µs"),
    ("Every kind of step", "an item of a `map`", "µs", "an item of a `map`, µs"),
    ("Every kind of step", "the start of a run", "µs", "the start of a run, µs"),
    ("Memory", "a finished step", "ours", "a finished step that is kept, bytes"),
    ("Loading, checking and compiling", "1,000", "YAML", "1,000 steps, YAML to compiled, ms"),
    ("Imports", "`import nano_vm`", "ms", "`import nano_vm`, ms"),
)
"""Of each figure at the top of the page: section, row, column, and what it is."""


def figures_of(sections: Mapping[str, str]) -> dict[tuple[str, str, str], str]:
    """Each figure of a table, by section, row and column."""
    found = {}
    for title, section in sections.items():
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
        for row in rows:
            found |= {(title, row[0], column): cell for column, cell in zip(head, row, strict=True)}
    return found


WHY_MISSED = " [What the costs are made of](costs.md) says why one is missed."


def page(sections: Mapping[str, str], measured_on: str) -> str:
    """The whole page; *measured_on* says when and where."""
    bars = bars_of(sections)
    missed = [f"- {what}: {bar.strip()}" for what, bar in bars if bar.startswith("✗")]
    figures = figures_of(sections)
    short = [
        f"| {what} | {figures[section, row, column]} |"
        for section, row, column, what in HEADLINES
        if (section, row, column) in figures
    ]
    head = [
        "# Benchmarks",
        "",
        "<!-- written by `make bench`; do not edit -->",
        measured_on,
        "",
        "| in short | figure |",
        "|---|---:|",
        *short,
        "",
        f"Bars met: {len(bars) - len(missed)} of {len(bars)}." + (WHY_MISSED if missed else ""),
        *(["", "Missed:", "", *missed] if missed else []),
        "",
        "![CPU time for one program of the stress test, on a logarithmic axis](benchmarks.svg)",
        "",
        "How it is measured; `make bench` does it again:",
        "",
        "- Figures are process CPU time, and medians.",
        "- Every contestant is a process of its own in an environment of its own. They take turns "
        f"of about {BLOCK_MS} ms, each round on one core, so that a busy machine slows all of "
        "them alike.",
        "- The garbage collector is as Python sets it, and every answer is checked.",
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(sections.values()) + "\n"


def write(tables: dict[str, Table], described: str, date: str) -> None:
    """Write the page, its figures and its plot; of a partial run the sections that were measured,
    each with its own date.
    """
    told = f"Measured on {date}: {described}."
    where, figures = DOCS / "benchmarks.md", HERE / "benchmarks.json"
    kept, measured_on = {}, told
    known: dict[str, Any] = {"date": date, "machine": described, "later": {}, "figures": {}}
    if len(tables) < len(SECTIONS):
        before = where.read_text()
        kept = sections_of(before)
        measured_on = next(line for line in before.splitlines() if line.startswith("Measured on"))
        known |= json.loads(figures.read_text())
        for name, table in tables.items():
            table.measured = told
            known["later"][name] = told
    sections = kept | {table.title: table.markdown() for table in tables.values()}
    where.write_text(page(sections, measured_on))
    if "stress" in tables:
        subtitle = (
            "20 tool steps, a condition, one more tool step; CPU time for one program, logarithmic "
            "axis"
        )
        plot = tables["stress"].plot
        (DOCS / "benchmarks.svg").write_text(
            chart("The stress test", subtitle, plot, ours=OURS.name, limit=LIMIT.name)
        )
    known["figures"] |= {name: table.raw for name, table in tables.items()}
    figures.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure this tree, its limit and its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="few and short rounds: a look, not a result"
    )
    parser.add_argument(
        "--no-peers", action="store_true", help="leave out what needs other environments"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION"
    )
    parser.add_argument(
        "--update", action="store_true", help="write what --only measures into the page"
    )
    parser.add_argument("--date", default=datetime.datetime.now(datetime.UTC).date().isoformat())
    options = parser.parse_args()
    effort = Effort(
        rounds=41, growth_rounds=15, import_rounds=21, block_ms=BLOCK_MS, peers=not options.no_peers
    )
    if options.quick:
        effort = replace(effort, rounds=7, growth_rounds=3, import_rounds=5, block_ms=20, kind_ms=5)
    described = machine()
    tables: dict[str, Table] = {}
    for name in options.only:
        try:
            tables[name] = SECTIONS[name](effort)
        except Unavailable as reason:
            sys.exit(f"{name}: {reason}")
        print(tables[name].markdown(), end="\n\n", flush=True)
    whole = len(tables) == len(SECTIONS)
    if not options.quick and not options.no_peers and (whole or options.update):
        write(tables, described, options.date)


if __name__ == "__main__":
    main()
