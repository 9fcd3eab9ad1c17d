"""Histories of runs as a released interpreter made them, which every later one must replay.

python -m temporal.recorded     # records them anew, beside those that are there, as the next version

A file is never changed: what is in flight on somebody's cluster was begun by some version.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from build import NOW, llm, mapped, parallel, program, step

from nano_vm import ExecutionVM, Program, tool
from nano_vm.temporal import TemporalRuns, worker, workflow
from nano_vm.testing import ScriptedLLM
from temporal.cluster import Server

FOLDER = Path(__file__).with_name("histories")
FAILS = ["once"]


@tool(effect="read")
async def look(x: Any = None) -> Any:
    return x


async def pay(x: int) -> str:
    return f"paid {x}"


@tool(effect="read")
async def flaky(x: int) -> int:
    if x == 2 and FAILS:
        FAILS.pop()
        raise RuntimeError("not yet")
    return x * 10


TOOLS = {"look": look, "pay": pay, "flaky": flaky}

EACH = step("each", tool="flaky", args={"x": "$item"}, max_retries=3, retry=NOW)
DECIDED = program(
    step("a", tool="look", args={"x": {"b": 1, "a": 2}}),
    llm("q", prompt="Is $a.output fine?", allowed_outputs=["yes", "no"]),
    {"id": "ok", "type": "approval", "role": "boss", "show": {"x": "$a.output"}},
    step("p", tool="pay", args={"x": "$a.output.b"}, undo={"tool": "pay", "args": {"x": 0}}),
    {"id": "go", "type": "wait", "event": "go"},
)
PROGRAMS: dict[str, Program] = {
    "approval": DECIDED,
    "listed": DECIDED,  # with search attributes
    "forks": program(
        mapped(EACH, over={"expr": "[1, 2, 3, 4]"}, max_concurrency=2),
        parallel(
            [step("b", tool="look", args={"x": 1})], [{"id": "t", "type": "wait", "seconds": 0.2}]
        ),
        step("last", tool="look", args={"x": "$m.output"}),
    ),
}


async def record() -> None:
    server = Server()
    server.start()
    workflow.MAX_CALLS = 4  # so that one of them continues as new
    try:
        client = await server.client()
        vm = ExecutionVM(ScriptedLLM({"": "yes"}), TOOLS)
        async with worker(client, vm, "record"):
            for name, made in PROGRAMS.items():
                runs = TemporalRuns(client, "record", vm=vm, search_attributes=name == "listed")
                await runs.run(made, run_id=name, seed=1)
                for entry in await runs.waiting(name):
                    if entry["kind"] == "approval":
                        await runs.approve(name, "ok", shown=entry["shown"], by="ann")
                        await runs.send_event(name, "go", {"x": 1})
                assert (await runs.result(name)).ok
                number = 0
                async for one in client.list_workflows(f"WorkflowId = '{name}'"):
                    handle = client.get_workflow_handle(name, run_id=one.run_id)
                    history = await handle.fetch_history()
                    number += 1
                    taken = len(list(FOLDER.glob(f"{name}-*.json")))
                    (FOLDER / f"{name}-{taken + 1}.json").write_text(history.to_json())
    finally:
        server.stop()


if __name__ == "__main__":
    asyncio.run(record())
