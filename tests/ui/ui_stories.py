"""Runs of one program for the pages to show: paid, waiting for a manager, failed after retries,
with a fan-out of twenty and a loop; and one whose every string is hostile.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from nano_vm import Completion, ExecutionVM, Program, tool

REFUND = """
name: refund
inputs:
  type: object
  properties:
    user_input: {type: string}
    order_id: {type: string}
  required: [user_input, order_id]
steps:
  - id: analyze
    type: llm
    system: Answer yes or no, then the reason.
    prompt: "Does this customer report damaged goods? $user_input"
    max_tokens: 40
  - id: guard
    type: condition
    condition: "'yes' in '$analyze.output'.lower()"
    then: fetch
    otherwise: reject
  - {id: fetch, type: tool, tool: get_order, args: {order_id: $order_id}, next: score}
  - id: score
    type: map
    over: $fetch.output.lines
    as: line
    max_items: 50
    on_item_error: continue
    steps:
      - {id: price, type: tool, tool: price, args: {line: $line}, max_retries: 2}
      - id: high
        type: condition
        condition: "$price.output > 15"
        then: [{id: flag, type: set, values: {flagged: true}}]
        otherwise: [{id: pass, type: set, values: {flagged: false}}]
  - {id: start, type: set, values: {draft: "", turn: 0}}
  - id: draft
    type: loop
    max_iterations: 6
    until: "$write.output.turn >= 4"
    steps:
      - {id: write, type: set, values: {turn: {expr: "$turn + 1"}}}
  - id: tell
    type: parallel
    parallel_steps:
      - {id: mail, type: tool, tool: notify, args: {to: $order_id, how: mail}}
      - [{id: ticket, type: tool, tool: notify, args: {to: $order_id, how: ticket}},
         {id: note, type: set, values: {noted: true}}]
  - id: approve
    type: approval
    role: manager
    show: {order: $order_id, amount: $fetch.output.amount, customer: $user_input}
    then: refund
    otherwise: reject
  - id: refund
    type: tool
    tool: refund
    args: {order_id: $order_id, amount: $fetch.output.amount}
    max_retries: 3
    next: $end
  - {id: reject, type: tool, tool: notify, args: {to: $order_id, how: reply}, when: "$user_input != ''"}
"""

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=1'>",
    "[click](javascript:window.hacked=1)",
    "\u202egnp.exe\u2066 zero\u200bwidth",
    "\x1b[31mred\x1b[0m \x00",
    '=HYPERLINK("http://example.invalid")',
    "<!--<script>",
)


class Model:
    """Answers as it is asked, and says what it used."""

    model = "small-model"

    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def complete(self, messages: list[dict[str, str]], **options: Any) -> Completion:
        return Completion(
            text=self.answer,
            usage={"prompt_tokens": 401, "completion_tokens": 30, "cost_usd": "0.000078"},
        )


class GatewayDown(Exception):
    """The payment gateway does not answer."""


def tools(refund_fails: int) -> dict[str, Any]:
    failed = {"refund": 0, 13: 0}

    @tool(effect="read")
    async def get_order(order_id: str) -> dict[str, Any]:
        lines = [{"sku": f"SKU-{i}", "price": i} for i in range(20)]
        return {"order_id": order_id, "amount": 149.9, "huge": 12345678901234567890, "lines": lines}

    @tool(effect="read")
    async def price(line: dict[str, Any]) -> int:
        if line["price"] == 13:
            raise ValueError(f"no price for {line['sku']}")
        return int(line["price"])

    @tool(effect="idempotent")
    async def notify(to: str, how: str) -> str:
        return f"{how} sent to {to}"

    @tool(effect="irreversible")
    async def refund(order_id: str, amount: float) -> str:
        failed["refund"] += 1
        if failed["refund"] <= refund_fails:
            raise GatewayDown("payment gateway timed out after 5 s")
        return f"refund-{order_id}"

    return {f.__name__: f for f in (get_order, price, notify, refund)}


async def _story(
    url: str, run_id: str, answer: str, said: str, *, fails: int = 0, approve: bool = True
) -> None:
    vm = ExecutionVM(Model(answer), tools(fails), store=url)
    program = Program.from_yaml(REFUND)
    inputs = {"user_input": said, "order_id": f"A-{run_id[-4:]}"}
    trace = await vm.run(program, inputs, run_id=run_id, labels={"team": "shop"})
    if approve and trace.waiting:
        inbox = vm.inbox.aio
        asked = trace.waiting[0]
        await inbox.approve(run_id, asked["path"], shown=asked["shown"], by="mia", reason="checked")
        await vm.resume(run_id)


async def tell(url: str) -> None:
    """All stories, into the store at *url*."""
    damaged = "The TV arrived damaged, the screen has a crack."
    await _story(url, "refund-2001", "Yes - damaged goods", damaged, fails=2)
    await _story(url, "refund-2002", "yes - damaged goods", damaged, approve=False)
    await _story(url, "refund-2003", "yes - damaged goods", damaged, fails=3)
    await reject(url)
    hostile = "\n".join(HOSTILE).replace("\x00", "")
    await _story(url, "refund-2005", f"yes {hostile}", hostile, approve=False)


async def reject(url: str) -> None:
    """Of the stories, the one of a customer who is happy, into the store at *url*."""
    await _story(url, "refund-2004", "no, they are happy", "Thank you, a lovely TV!")


def host(url: str) -> ExecutionVM:
    """A host of the program of the stories."""
    return ExecutionVM(Model("yes"), tools(0), store=url)


@tool(effect="read")
async def payments(amount: float) -> str:
    return f"two payments of {amount} today"


async def ask(url: str) -> None:
    """Two runs that wait for a person, into the store at *url*: for an approval, and for what
    became of a call.
    """
    await _story(url, "refund-2002", "yes", "The TV arrived damaged", approve=False)

    @tool(effect="irreversible", timeout_seconds=0.05)
    async def pay(amount: float) -> str:
        await asyncio.sleep(60)
        return "paid"

    program = Program.from_dict(
        {
            "name": "payout",
            "steps": [
                {
                    "id": "pay",
                    "type": "tool",
                    "tool": "pay",
                    "args": {"amount": 12.5},
                    "reconcile": {"tool": "payments", "args": {"amount": 12.5}},
                },
                {"id": "done", "type": "set", "values": {"paid": "$pay.output"}},
            ],
        }
    )
    vm = ExecutionVM(None, {"pay": pay, "payments": payments}, store=url)
    await vm.run(program, {}, run_id="payout-1")


async def go_on(url: str, run_id: str) -> str:
    """Resume a run of `ask`; how it stands then."""
    return (await host(url).resume(run_id)).status.value


def store_with_stories(folder: Path) -> str:
    """The URL of a new store with the stories in it."""
    url = f"sqlite:///{folder / 'runs.db'}"
    asyncio.run(tell(url))
    return url


if __name__ == "__main__":
    import sys

    print(store_with_stories(Path(sys.argv[1])))
