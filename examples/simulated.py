"""A shop that pays refunds, in simulated worlds: its tool says that it may be called again, and it
may not. Needs ``pip install 'llm-nano-vm[simulation]'``, no network and no database.

    python examples/simulated.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from nano_vm import Program, Trace, tool
from nano_vm.testing import Outside, simulate

PROGRAM = Program.from_dict(
    {
        "name": "refund",
        "inputs": {"type": "object", "properties": {"order": {"type": "string"}}},
        "steps": [
            {"id": "look", "type": "tool", "tool": "look", "args": {"order": "$order"}},
            {
                "id": "boss",
                "type": "approval",
                "role": "boss",
                "show": {"order": "$order", "sum": "$look.output"},
                "then": [{"id": "pay", "type": "tool", "tool": "pay", "args": {"order": "$order"}}],
            },
        ],
    }
)
ORDERS = [{"order": f"A-{number}"} for number in range(3)]


class Shop(Outside):
    """What lies outside: orders, and a bank that pays whenever it is asked."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.paid: Counter[str] = Counter()

    def host(self) -> Mapping[str, Any]:
        return {"tools": {"look": self.look, "pay": self.pay}}

    @tool(effect="read")
    async def look(self, order: str) -> int:
        await self.world.travel()
        return 900

    @tool(effect="idempotent")  # the planted fault: the bank takes no key, and pays again
    async def pay(self, order: str) -> str:
        await self.world.travel()  # the request
        self.paid[order] += 1
        self.world.tell("bank", f"pays {order}")
        await self.world.travel()  # the answer
        return "paid"

    def check(self, runs: Mapping[str, Trace]) -> None:
        for order, times in self.paid.items():
            assert times == 1, f"{order} was paid {times} times"


class Honest(Shop):
    """The same with the effect that the tool has, and a person who asks the bank."""

    def host(self) -> Mapping[str, Any]:
        return {"tools": {"look": self.look, "pay": self.transfer}}

    @tool(effect="write")
    async def transfer(self, order: str) -> str:
        return await Shop.pay(self, order)

    def person(self, vm: Any, run_id: str, entry: Mapping[str, Any]) -> None:
        if entry["kind"] != "in_doubt":
            return super().person(vm, run_id, entry)
        if self.paid[entry["arguments"]["order"]]:
            vm.resolve(run_id, entry["path"], done="paid", by="ann")
        elif not (entry["process"] or {}).get("alive"):
            vm.resolve(run_id, entry["path"], fail="it was not paid", by="ann")


if __name__ == "__main__":
    wrong = simulate(PROGRAM, Shop, ORDERS, seeds=range(300))
    print(wrong.broken)
    right = simulate(PROGRAM, Honest, ORDERS, seeds=range(50))
    right.check()
    print(f"declared as it is: {right.worlds} worlds, {right.faults.total()} faults, none broken")
