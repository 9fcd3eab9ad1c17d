"""One run, seen from outside: its spans go to the address given, its log to stderr as JSON.

python examples/observability/refund.py http://localhost:6006    (a Phoenix)
python examples/observability/refund.py http://localhost:4318    (Jaeger, a collector)
"""

from __future__ import annotations

import asyncio
import logging
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from nano_vm import Completion, ExecutionVM, Program, tool
from nano_vm.records.usage import LLMUsage
from nano_vm.telemetry.logs import JsonFormatter, Logs
from nano_vm.telemetry.otlp import Otlp
from nano_vm.telemetry.redaction import Redaction


class StandIn:
    """Answers as a model would, and says what that has cost."""

    model = "small"

    async def complete(self, messages: list[dict[str, Any]], **_: Any) -> Completion:
        await asyncio.sleep(0.12)
        usage = LLMUsage(62, 3, 65, Decimal("0.0000112"))
        return Completion("unhappy", usage, "small-2026", "stop")


class Shop:
    """Its database is busy at the first call."""

    def __init__(self) -> None:
        self.calls = 0

    def tools(self) -> dict[str, Any]:
        @tool(effect="read")
        async def get_order(order_id: str) -> dict[str, Any]:
            await asyncio.sleep(0.03)
            self.calls += 1
            if self.calls == 1:
                raise ConnectionError("the database is busy")
            return {"id": order_id, "amount": 49.9, "days": 12, "returned": True}

        @tool(effect="read")
        async def carrier(name: str, order_id: str) -> str:
            await asyncio.sleep(0.05)
            return f"{name}: {order_id} is delivered"

        @tool(effect="idempotent")
        async def issue_refund(order_id: str, amount: float) -> str:
            await asyncio.sleep(0.04)
            return f"refunded ${amount:.2f} for {order_id}"

        return {"get_order": get_order, "carrier": carrier, "issue_refund": issue_refund}


def main(address: str) -> int:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.getLogger("nano_vm").addHandler(handler)
    logging.getLogger("nano_vm").setLevel(logging.INFO)
    hidden = Redaction(patterns=[r"\b\d{4}[ -]?\d{4}\b"])
    spans = Otlp(address, service_name="refunds", content=True, redaction=hidden)
    vm = ExecutionVM(StandIn(), Shop().tools(), observers=[spans, Logs()])
    program = Program.from_file(str(Path(__file__).with_name("refund.yaml")))
    inputs = {"user_input": "It arrived broken. My card is 4000-1234.", "order_id": "A-1001"}
    trace = vm.run_sync(program, inputs)
    spans.close()
    print(trace.final_output)
    print(f"{spans.counts.delivered} of {spans.counts.ended} spans were sent to {address}")
    return 0 if trace.ok and not spans.counts.dropped else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
