"""llm-nano-vm with a store in SQLite, as it opens it: WAL, ``synchronous=FULL``.

A tool that declares nothing is taken for one that writes: its call is stored before it is made, and
its outcome before the next one is.
"""

from __future__ import annotations

import asyncio
from typing import Any

from durable_peer import STEPS, folder, options, serve

from nano_vm import ExecutionVM, Program, tool


async def noop(x: str) -> str:
    return x


def program(steps: int) -> Program:
    """*steps* tool steps that hand a text on."""
    step = {"type": "tool", "tool": "noop", "args": {"x": "$x"}, "output_key": "x"}
    inputs = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    return Program.from_dict(
        {
            "name": "durable",
            "inputs": inputs,
            "steps": [{"id": f"s{number}", **step} for number in range(steps)],
        }
    )


async def main() -> None:
    effect: Any = options().effect
    vm = ExecutionVM(
        tools={"noop": tool(effect=effect)(noop) if effect else noop},
        store=f"sqlite:///{folder() / 'runs.db'}",
    )
    work = program(STEPS)

    async def run(text: str) -> Any:
        return (await vm.run(work, {"x": text})).raise_for_status().output

    def told() -> dict[str, float]:
        return {"commits": vm.store.writer.transactions}  # type: ignore[union-attr]

    try:
        await serve(run, told=told)
    finally:
        vm.close()


if __name__ == "__main__":
    asyncio.run(main())
