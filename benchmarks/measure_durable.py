"""Measurements of durable runs that need a process of their own: ``python -m measure_durable NAME
FOLDER [ARGUMENT ...]`` prints JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from replay import loaded, looped, mapped, measured

from nano_vm import ExecutionVM, Program, tool
from nano_vm.replay import Replayer
from nano_vm.run.durable.stored import trace_of
from nano_vm.store.protocol import RunFilter, Store, open_store
from nano_vm.store.records import STEP
from nano_vm.store.seals import seal_of
from nano_vm.testing import ScriptedLLM

Figures = dict[str, float]

ROUNDS = 5
LONG = 10_000
"""Steps of the long run: as many as one may have."""


async def noop(x: str) -> str:
    return x


def straight(steps: int, name: str = "noop") -> Program:
    """*steps* tool steps that hand a text on."""
    inputs = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    step = {"type": "tool", "tool": name, "args": {"x": "$x"}, "output_key": "x"}
    steps_ = [{"id": f"s{number}", **step} for number in range(steps)]
    return Program.from_dict({"name": "durable", "inputs": inputs, "steps": steps_})


# --- a step alone ---------------------------------------------------------------------------------


def alone(folder: Path, rounds: int) -> Figures:
    """Milliseconds of a step with nothing beside it, and of a bare commit, in turns."""
    connection = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, body TEXT)")

    def bare(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            connection.execute("BEGIN")
            connection.execute("INSERT INTO records (body) VALUES ('some text')")
            connection.execute("COMMIT")
        return (time.perf_counter() - began) * 1e3 / times

    work = straight(20)

    async def main() -> Figures:
        vm = ExecutionVM(tools={"noop": noop}, store=f"sqlite:///{folder / 'alone.db'}")
        steps, bares = [], []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            (await vm.run(work, {"x": "some text"})).raise_for_status()
            steps.append((time.perf_counter() - began) * 1e3 / 20)
            bares.append(bare(20))
        vm.close()
        del steps[0], bares[0]
        ratios = [step / commit for step, commit in zip(steps, bares, strict=True)]
        return {"step_ms": median(steps), "bare_ms": median(bares), "ratio": median(ratios)}

    return asyncio.run(main())


# --- storage --------------------------------------------------------------------------------------


def size(
    folder: Path, name: str, run: Callable[[ExecutionVM], Any], llm: Any = None
) -> tuple[int, int, int]:
    """Bytes of a database after *run*, less those of an empty one; of the values it holds; and how
    many those are.
    """
    path = folder / f"{name}.db"
    vm = ExecutionVM(llm, {"noop": noop}, store=f"sqlite:///{path}")
    empty = written(path)
    asyncio.run(run(vm))
    vm.close()
    total = written(path)
    connection = sqlite3.connect(path)
    count, bodies = connection.execute(
        "SELECT count(*), coalesce(sum(length(body)), 0) FROM nano_contents"
    ).fetchone()
    connection.close()
    return total - empty, bodies, count


def written(path: Path) -> int:
    """Bytes in use, once the log is in the file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages, free, page = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    connection.close()
    return int((pages - free) * page)


def storage(folder: Path) -> Figures:
    """Bytes a step beside the texts of distinct values; copies of a prompt that many steps
    share.
    """
    work, single = straight(20), straight(1)
    many = 500
    text = "a text of some sixty characters, which is longer than what is kept in a cell {}"

    def runs(program: Program) -> Callable[[ExecutionVM], Any]:
        async def go(vm: ExecutionVM) -> None:
            for first in range(0, many, 20):
                numbers = range(first, min(first + 20, many))
                await asyncio.gather(
                    *(vm.run(program, {"x": text.format(number)}) for number in numbers)
                )

        return go

    total, bodies, count = size(folder, "twenty", runs(work))
    single_total, single_bodies, single_count = size(folder, "one", runs(single))
    # Each value has its row in nano_contents: 32 bytes of hash and some ten of headers, which hang on the
    # value and not on the step.
    step = ((total - bodies) - (single_total - single_bodies)) / (many * 19)
    assert count - single_count < 5, (count, single_count)

    async def long(vm: ExecutionVM) -> None:
        (await vm.run(straight(1_000), {"x": text})).raise_for_status()

    long_total, long_bodies, _ = size(folder, "long", long)

    prompt = "Is this a refund? " + "Consider what was written before. " * 117
    asks = Program.from_dict(
        {
            "name": "asks",
            "steps": [
                {"id": f"s{n}", "type": "llm", "prompt": f"$text {prompt}"} for n in range(1_000)
            ],
        }
    )

    async def ask(vm: ExecutionVM) -> None:
        (await vm.run(asks, {"text": "the blender arrived broken"})).raise_for_status()

    size(folder, "prompts", ask, ScriptedLLM(["yes"] * 1_000))
    connection = sqlite3.connect(folder / "prompts.db")
    bodies_with = connection.execute(
        "SELECT count(*) FROM nano_contents WHERE instr(body, CAST(? AS BLOB)) AND length(body) < "
        "?",
        (prompt, 2 * len(prompt)),
    ).fetchone()[0]
    return {
        "step": step,
        "with_runs": (total - bodies) / (many * 20),
        "long": (long_total - long_bodies) / 1_000,
        "prompts": bodies_with,
    }


# --- reading --------------------------------------------------------------------------------------


def timed(call: Callable[[], Any]) -> float:
    """Milliseconds of CPU time, the median of some."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        call()
        taken.append((time.process_time() - began) * 1e3)
    return median(taken)


def reading(folder: Path) -> Figures:
    """Replay, verify and resume of a long run."""
    url = f"sqlite:///{folder / 'long.db'}"
    work = straight(LONG)

    def fresh() -> ExecutionVM:
        return ExecutionVM(tools={"noop": tool(effect="read")(noop)}, store=url)

    async def make(vm: ExecutionVM) -> str:
        trace = (await vm.run(work, {"x": "some text"})).raise_for_status()
        return trace.run_id

    vm = fresh()
    run_id = asyncio.run(make(vm))
    vm.close()
    store = open_store(url)
    stored = store.load(run_id)
    trace = trace_of(stored)
    replayer = Replayer(work)

    def replay() -> None:
        found = replayer.replay(trace)
        assert found, found

    def verify() -> None:
        run = store.load(run_id)
        assert seal_of(run) == run.seal
        assert replayer.replay(trace_of(run))

    figures = {
        "steps": float(LONG),
        **{f"replay {name}": figure for name, figure in replayed().items()},
        "replay_ms": timed(replay),
        "verify_ms": timed(verify),
        "load_ms": timed(lambda: store.load(run_id)),
        "seal_ms": timed(lambda: seal_of(stored)),
    }
    store.close()

    subprocess.run([sys.executable, "-m", "measure_durable", "killed", str(folder)], check=False)
    cpu, wall = [], []
    for number in range(ROUNDS + 1):
        home = folder / f"resume-{number}"
        home.mkdir()
        for file in folder.glob("killed.db*"):
            shutil.copy(file, home)
        vm = ExecutionVM(tools={"look": look(done=True)}, store=f"sqlite:///{home / 'killed.db'}")

        async def resume(vm: ExecutionVM = vm) -> None:
            work = straight(LONG, "look")
            vm.plan(work)  # a worker has the plan of a program that it knows
            stored = vm.store.load("killed")  # type: ignore[union-attr]
            assert sum(row.kind == STEP for row in stored.rows) == LONG - 1
            vm.preparer.of_stored(stored)
            gc.collect()  # as it has looked at that plan long ago
            began, spent = time.perf_counter(), time.process_time()
            (await vm.resume("killed")).raise_for_status()
            cpu.append((time.process_time() - spent) * 1e3)
            wall.append((time.perf_counter() - began) * 1e3)

        asyncio.run(resume())
        vm.close()
        shutil.rmtree(home)
    return figures | {"resume_ms": median(cpu[1:]), "resume_wall_ms": median(wall[1:])}


def replayed() -> Figures:
    """Steps a second of runs of other shapes."""
    shapes = {"loop, model, condition": looped(1_500), "map of 1,000 items": mapped(1_000)}
    return {
        name: measured(program, loaded(program, 1))["steps_per_second"]
        for name, program in shapes.items()
    }


def look(*, done: bool) -> Callable[..., Any]:
    """A tool that reads; unless *done*, the process dies in the last call of the long run, once
    those before it are stored.
    """
    calls = itertools.count(1)

    @tool(effect="read")
    async def look(x: str) -> str:
        if not done and next(calls) == LONG:
            await asyncio.sleep(1)
            os._exit(1)
        return x

    return look


def killed(folder: Path) -> Figures:
    """A process that dies in the last step of the long run; it never returns."""
    vm = ExecutionVM(tools={"look": look(done=False)}, store=f"sqlite:///{folder / 'killed.db'}")
    asyncio.run(vm.run(straight(LONG, "look"), {"x": "some text"}, run_id="killed"))
    raise SystemExit("the process was to die in the last step")


# --- many that wait -------------------------------------------------------------------------------


def waiting(folder: Path, count: int) -> Figures:
    """A store with *count* runs that wait for an approval."""
    logging.disable(logging.WARNING)
    url = f"sqlite:///{folder / 'waiting.db'}"
    asks = Program.from_dict(
        {
            "name": "asks",
            "inputs": {
                "type": "object",
                "properties": {"amount": {"type": "number"}},
                "required": ["amount"],
            },
            "steps": [
                {
                    "id": "ask",
                    "type": "approval",
                    "role": "manager",
                    "show": ["$amount"],
                    "then": "pay",
                    "otherwise": "$end",
                },
                {"id": "pay", "type": "tool", "tool": "noop", "args": {"x": "paid"}},
            ],
        }
    )
    vm = ExecutionVM(tools={"noop": noop}, store=url)

    async def fill() -> float:
        numbers = iter(range(count))

        async def worker() -> None:
            for number in numbers:
                trace = await vm.run(asks, {"amount": number}, run_id=f"run-{number}")
                assert trace.status == "suspended", trace.error

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(100)))
        return count / (time.perf_counter() - began)

    started = asyncio.run(fill())
    store: Store = vm.store  # type: ignore[assignment]

    def wall(call: Callable[[], Any]) -> float:
        taken = []
        for _ in range(2 * ROUNDS):
            began = time.perf_counter()
            call()
            taken.append((time.perf_counter() - began) * 1e3)
        return median(taken)

    figures = {
        "started_per_second": started,
        "runs_ms": wall(lambda: list(store.runs(limit=50))),
        "suspended_ms": wall(lambda: list(store.runs(RunFilter(status="suspended"), limit=50))),
        "claimable_ms": wall(lambda: store.claimable(time.time_ns(), 64)),
    }

    async def idle() -> tuple[float, float]:
        work = asyncio.create_task(vm.work())
        await asyncio.sleep(1)
        spent = time.process_time()
        await asyncio.sleep(5)
        percent = (time.process_time() - spent) / 5 * 100
        taken = []
        for number in itertools.islice(range(count // 2, count), ROUNDS):
            run_id = f"run-{number}"
            (entry,) = await asyncio.to_thread(vm.waiting, run_id)
            began = time.perf_counter()
            await asyncio.to_thread(
                vm.approve, run_id, entry["path"], shown=entry["shown"], by="ann"
            )
            while (await asyncio.to_thread(store.load, run_id, rows=False)).status != "success":  # noqa: ASYNC110 - another process would look too
                await asyncio.sleep(0.005)
            taken.append((time.perf_counter() - began) * 1e3)
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        return percent, median(taken)

    percent, approve = asyncio.run(idle())
    vm.close()
    return figures | {
        "work_percent": percent,
        "approve_ms": approve,
        "bytes": written(folder / "waiting.db") / count,
    }


if __name__ == "__main__":
    name, home, *arguments = sys.argv[1:]
    measures: dict[str, Callable[..., Figures]] = {
        "alone": alone,
        "storage": storage,
        "reading": reading,
        "killed": killed,
        "waiting": waiting,
    }
    print(json.dumps(measures[name](Path(home), *map(int, arguments))))
