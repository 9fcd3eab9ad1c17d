"""Durable runs beside their peers: ``python benchmarks/durable.py [--quick] [--no-peers] [--only
SECTION ...]``.

A full run prints its tables and writes ``durable-benchmarks.md`` and
``benchmarks/durable.json``; a partial or quick one only prints. What is bounded by the disk is told
as a ratio to what was measured in the same round, since a shared disk is three times as fast one
minute as the next. The bars are shown, never enforced.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from contest import HERE, Unavailable, interpreter
from report import Bar, Table, machine, number

DOCS = HERE.parent / "docs" / "explanation"
RESTATE = "1.7.12"
TURN_SECONDS = 3.0
"""Wall time of one turn: some hundred commits, so that the one slow commit in a hundred weighs in
all of them.
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A module of ``peers``, what it runs in, and how it stores."""

    name: str
    module: str
    stores: str
    environment: str | None = None
    server: Callable[[], str] | None = None
    arguments: tuple[str, ...] = ()
    bar: tuple[str, float] | None = None  # how many times its programs a second we want


def restate_server() -> str:
    """The server's program, from its npm package."""
    home = HERE / ".envs" / f"restate-server-{RESTATE}"
    pattern = "node_modules/@restatedev/restate-server-*/bin/restate-server"
    if not list(home.glob(pattern)):
        print(f"setting up restate-server {RESTATE} ...", file=sys.stderr)
        home.mkdir(parents=True, exist_ok=True)
        command = [
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(home),
        ]
        try:
            done = subprocess.run(
                [*command, f"@restatedev/restate-server@{RESTATE}"], capture_output=True, text=True
            )
        except OSError as error:
            raise Unavailable(f"npm: {error}") from None
        if done.returncode or not list(home.glob(pattern)):
            raise Unavailable(
                f"npm: {(done.stderr.strip().splitlines() or ['no server for this machine'])[-1]}"
            )
    return str(next(home.glob(pattern)))


def temporal_server() -> str:
    """The server's program, from its wheel."""
    return str(Path(interpreter("durable-temporal")).parent / "temporal")


OURS = Contestant(
    "llm-nano-vm",
    "durable_vm",
    "the intent of a call before it, its outcome before the next; 22 rows a program, those of 20 "
    "programs in one transaction",
)
READS = Contestant(
    "llm-nano-vm, tool declared `read`",
    "durable_vm",
    "the outcome alone; the next step does not wait for it, since only a read would be lost, but "
    "the end of the run and every call with an "
    "effect or a price do",
    arguments=("--effect", "read"),
)
LOOP = Contestant(
    "a loop over SQLite",
    "durable_loop",
    "the outcome, in a transaction of its own",
    bar=("the loop", 3),
)
DBOS = Contestant(
    "DBOS 3.4.0 on SQLite",
    "durable_dbos",
    "the outcome, in a transaction of its own; rollback journal and `synchronous=FULL`, as it "
    "opens the file",
    "durable-dbos",
    bar=("DBOS", 100),
)
TEMPORAL = Contestant(
    "Temporal's development server 1.32.0",
    "durable_temporal",
    "scheduled, started, finished and the workflow's tasks; SQLite file with WAL and "
    "`synchronous=FULL`, as asked for",
    "durable-temporal",
    temporal_server,
    bar=("Temporal", 100),
)
RESTATE_SERVER = Contestant(
    f"Restate {RESTATE}",
    "durable_restate",
    "the outcome, in a replicated log of one node; the log is synced for each batch "
    "(`rocksdb-disable-wal-fsync = false`, its default)",
    "durable-restate",
    restate_server,
    bar=("Restate", 10),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    turn_seconds: float
    waiting: int
    peers: bool


@dataclass(slots=True)
class Turn:
    """A running contestant."""

    process: subprocess.Popen[str]
    errors: Path
    programs: int = 20
    figures: list[dict[str, float]] = field(default_factory=list)

    def block(self, programs: int) -> dict[str, float]:
        """Run so many programs; what they took."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # it is gone; what it said is in its errors
            print(programs, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            said = self.errors.read_text().strip().splitlines()
            raise Unavailable(said[-1] if said else f"exit code {self.process.returncode}")
        figures: dict[str, float] = json.loads(line)
        return figures

    def calibrate(self, seconds: float) -> None:
        """Settle how many programs fill a turn; warms up as well."""
        for _ in range(3):
            wall = self.block(self.programs)["wall_ns"] / 1e9
            self.programs = max(20, round(self.programs * seconds / wall))
            if wall > seconds / 2:
                break

    def median(self, name: str) -> float:
        """Of a figure, for one program."""
        return median(figures[name] / figures["programs"] for figures in self.figures)


@contextmanager
def started(contestant: Contestant, seconds: float) -> Iterator[Turn]:
    command = [
        interpreter(contestant.environment),
        "-m",
        f"peers.{contestant.module}",
        *contestant.arguments,
    ]
    if contestant.environment is not None:
        # a PYTHONPATH that leads to this tree would put it in place of the peer
        command.insert(1, "-E")
    if contestant.server is not None:
        command += ["--server", contestant.server()]
    with ExitStack() as stack:
        # beside the environments: /tmp may be in memory, where a commit costs nothing
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=HERE / ".envs"))
        errors = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".txt"))
        process = subprocess.Popen(
            [*command, "--folder", folder],
            cwd=HERE,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        stack.enter_context(process)  # closes its input, upon which it ends its server and itself
        turn = Turn(process, Path(errors.name))
        turn.calibrate(seconds)
        yield turn


def peers(effort: Effort) -> Table:
    table = Table(
        "20 steps, 20 programs in flight",
        "No-op steps that hand a string on. Each contestant and its server keep their data on the "
        "same disk.\n\n"
        f"- Contestants take turns of about {effort.turn_seconds:g} s, {effort.rounds} rounds.\n"
        "- Programs a second are by wall time. CPU time is that of the process and its server.\n"
        "- *Writes over it* is programs a second of the first row over its own, *reads over it* of "
        "the second, each the median of the ratios within a round.\n"
        "- The first row waits for every step, as its peers do, and stores an intent besides. A "
        "step of a peer may run again after a crash, here only what is declared `read` or "
        "`idempotent`.\n\n"
        "What each stores of a step:",
        [
            "",
            "programs/s",
            "ms CPU a program",
            "commits a program",
            "writes over it",
            "reads over it",
        ],
    )
    entries = [OURS, READS, LOOP, *([DBOS, TEMPORAL, RESTATE_SERVER] if effort.peers else [])]
    turns: dict[Contestant, Turn] = {}
    missing: dict[Contestant, str] = {}
    with ExitStack() as stack:
        for who in entries:
            try:
                turns[who] = stack.enter_context(started(who, effort.turn_seconds))
            except Unavailable as reason:
                missing[who] = str(reason)
        for round_number in range(effort.rounds):
            order = list(turns)
            at = round_number % len(order)
            for who in order[at:] + order[:at]:  # nobody is always first
                turns[who].figures.append(turns[who].block(turns[who].programs))
    for who in entries:
        if who in missing:
            table.add(who.name, "", "", "", "", missing[who])
            continue
        turn = turns[who]
        wall = [figures["wall_ns"] / figures["programs"] for figures in turn.figures]
        over, reads_over = (
            median(
                theirs / own["wall_ns"] * own["programs"]
                for theirs, own in zip(wall, turns[us].figures, strict=True)
            )
            for us in (OURS, READS)
        )
        commits = number(turn.median("commits")) if "commits" in turn.figures[0] else ""
        bars = []
        if who.bar is not None:
            for kind, times in (("writes", over), ("reads", reads_over)):
                bars.append(
                    Bar(
                        f"{kind} over {who.bar[0]}",
                        times,
                        who.bar[1],
                        f"× with {kind}",
                        at_least=True,
                    )
                )
        cpu_ms = turn.median("cpu_ns") / 1e6
        table.add(
            who.name,
            number(1e9 / median(wall)),
            number(cpu_ms),
            commits,
            number(over),
            number(reads_over),
            bars=bars,
        )
        table.raw[who.name] = {
            "wall_ms": [ns / 1e6 for ns in wall],
            "cpu_ms": cpu_ms,
            "writes_over_it": over,
            "reads_over_it": reads_over,
        }
    table.text += "\n\n" + "\n".join(f"- {who.name}: {who.stores}." for who in entries)
    return table


def measured(name: str, *arguments: Any) -> dict[str, float]:
    """The figures that a fresh process measures; see ``measure_durable.py``."""
    with tempfile.TemporaryDirectory(dir=HERE / ".envs") as folder:
        command = [sys.executable, "-m", "measure_durable", name, folder, *map(str, arguments)]
        process = subprocess.run(command, cwd=HERE, capture_output=True, text=True)
    if process.returncode:
        raise Unavailable((process.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    figures: dict[str, float] = json.loads(process.stdout)
    return figures


def alone(effort: Effort) -> Table:
    table = Table(
        "One durable step alone",
        "Milliseconds by wall time, in turns with a bare commit: SQLite, WAL, `synchronous=FULL`, "
        "one row. "
        "A run of 20 steps with nothing beside it, by the step; the ratio is the median of those "
        "within a round.",
        ["", "ms", "× bare commit"],
    )
    found = measured("alone", effort.rounds * 8)
    table.add("a bare commit", number(found["bare_ms"]), "1")
    bar = Bar("bare commits for a step alone", found["ratio"], 2.5, "bare commits")
    table.add("a step", number(found["step_ms"]), number(found["ratio"]), bars=[bar])
    table.raw["alone"] = found
    return table


def storage(effort: Effort) -> Table:
    table = Table(
        "Storage",
        "Bytes of the database a step, after its log was written back: tables and indexes, beside "
        "the values that are distinct. "
        "Each step is its intent and its outcome.",
        ["", "bytes"],
    )
    found = measured("storage")
    table.add(
        "a tool step that writes, 500 runs of 20",
        number(found["step"]),
        bars=[Bar("bytes a step", found["step"], 450, "bytes")],
    )
    table.add(
        "the same with all of a run's own: header, program, inputs", number(found["with_runs"])
    )
    table.add("a step of one run of 1,000", number(found["long"]))
    prompts = Bar("copies of a prompt of 1,000 steps", found["prompts"], 1, "copies")
    table.add(
        "copies of one prompt of 4,000 characters in 1,000 model steps",
        number(found["prompts"]),
        bars=[prompts],
    )
    table.raw["storage"] = found
    return table


def reading(effort: Effort) -> Table:
    table = Table(
        "Replay, verify, resume",
        "Of a run of 10,000 tool steps, the most that one may have; CPU time, the median of "
        "five.\n\n"
        "- *Verify* reads the run from the store, computes its seal again and replays it.\n"
        "- *Resume* ends a run whose process is gone with all but its last step done.",
        ["", "steps/s", "ms"],
    )
    found = measured("reading")

    def speed(ms: float) -> float:
        return found["steps"] / ms * 1e3

    replayed, verified = speed(found["replay_ms"]), speed(found["verify_ms"])
    table.add(
        "replay of a loaded trace",
        number(replayed),
        number(found["replay_ms"]),
        bars=[Bar("steps/s of replay", replayed, 200_000, "steps/s", at_least=True)],
    )
    for shape in ("loop, model, condition", "map of 1,000 items"):
        rate = found[f"replay {shape}"]
        bar = Bar(f"steps/s of replay, {shape}", rate, 200_000, "steps/s", at_least=True)
        table.add(f"replay of a {shape}", number(rate), "", bars=[bar])
    table.add(
        "verify from the store",
        number(verified),
        number(found["verify_ms"]),
        bars=[Bar("steps/s of verify", verified, 50_000, "steps/s", at_least=True)],
    )
    for part in ("load", "seal"):
        table.add(f"— of this, to {part}", "", number(found[f"{part}_ms"]))
    table.add(
        "resume",
        number(speed(found["resume_ms"])),
        number(found["resume_ms"]),
        bars=[Bar("ms to resume", found["resume_ms"], 80, "ms")],
    )
    table.add("resume, wall time", "", number(found["resume_wall_ms"]))
    table.raw["reading"] = found
    return table


def waiting(effort: Effort) -> Table:
    table = Table(
        f"{effort.waiting:,} waiting runs",
        "Each waits for a manager's approval. `vm.work()` looks twice a second. Times are "
        "medians, by wall clock.",
        ["", "figure"],
    )
    found = measured("waiting", effort.waiting)
    table.add("to start them, runs/s", number(found["started_per_second"]))
    table.add(
        "`store.runs(limit=50)`, ms",
        number(found["runs_ms"]),
        bars=[Bar("ms of runs", found["runs_ms"], 100, "ms")],
    )
    suspended = Bar("ms of runs by status", found["suspended_ms"], 100, "ms")
    table.add(
        "`store.runs(RunFilter(status='suspended'), limit=50)`, ms",
        number(found["suspended_ms"]),
        bars=[suspended],
    )
    table.add(
        "`store.claimable`, ms",
        number(found["claimable_ms"]),
        bars=[Bar("ms of claimable", found["claimable_ms"], 100, "ms")],
    )
    table.add(
        "CPU of `vm.work()`, % of one core over 5 s",
        number(found["work_percent"]),
        bars=[Bar("% of a core", found["work_percent"], 5, "%")],
    )
    table.add("to approve one, and have it ended by the worker, ms", number(found["approve_ms"]))
    table.add("bytes of the database a run", number(found["bytes"]))
    table.raw["waiting"] = found
    return table


SECTIONS: dict[str, Callable[[Effort], Table]] = {
    "peers": peers,
    "alone": alone,
    "storage": storage,
    "reading": reading,
    "waiting": waiting,
}


def page(tables: dict[str, Table], described: str, date: str) -> str:
    bars = [bar for table in tables.values() for bar in table.bars]
    missed = [f"- {bar.what}: {bar}" for bar in bars if not bar.met]
    head = [
        "# Benchmarks of durable runs",
        "",
        "<!-- written by `make durable`; do not edit -->",
        f"Measured on {date}: {described}.",
        "",
        "Everything is stored in SQLite with WAL and `synchronous=FULL`: what was acknowledged "
        "survives a loss of power. Other "
        "programs used the same processor and disk meanwhile, so a figure is worth as much as its "
        "neighbours in the same table. "
        "`make durable` does it again.",
        "",
        f"Bars met: {len(bars) - len(missed)} of {len(bars)}.",
        *(["", "Missed:", "", *missed] if missed else []),
    ]
    return (
        "\n".join(head) + "\n\n" + "\n\n".join(table.markdown() for table in tables.values()) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure durable runs of this tree and its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="few and short rounds: a look, not a result"
    )
    parser.add_argument(
        "--no-peers", action="store_true", help="leave out what needs other environments"
    )
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION"
    )
    parser.add_argument("--date", default=datetime.datetime.now(datetime.UTC).date().isoformat())
    options = parser.parse_args()
    effort = Effort(
        rounds=7, turn_seconds=TURN_SECONDS, waiting=100_000, peers=not options.no_peers
    )
    if options.quick:
        effort = Effort(rounds=3, turn_seconds=1.0, waiting=5_000, peers=effort.peers)
    (HERE / ".envs").mkdir(exist_ok=True)
    described = machine()
    tables: dict[str, Table] = {}
    for name in options.only:
        try:
            tables[name] = SECTIONS[name](effort)
        except Unavailable as reason:
            sys.exit(f"{name}: {reason}")
        print(tables[name].markdown(), end="\n\n", flush=True)
    if options.quick or options.no_peers or len(tables) < len(SECTIONS):
        return
    DOCS.mkdir(exist_ok=True)
    (DOCS / "durable-benchmarks.md").write_text(page(tables, described, options.date))
    figures = {name: table.raw for name, table in tables.items()}
    (HERE / "durable.json").write_text(
        json.dumps({"date": options.date, "machine": described, "figures": figures}, indent=1)
        + "\n"
    )


if __name__ == "__main__":
    main()
