"""The tools of program.yaml. Their types and effects are what `nano-vm check` holds programs
against.
"""

from typing import TypedDict

from nano_vm import tool


class Order(TypedDict):
    """An order as the shop's records have it."""

    amount: float
    returned: bool


ORDERS: dict[str, Order] = {
    "A-1": {"amount": 49.9, "returned": True},
    "A-2": {"amount": 19.0, "returned": False},
}


@tool(effect="read")
async def get_order(order_id: str) -> Order:
    """The order with this id."""
    return ORDERS[order_id]


@tool(effect="irreversible")
async def issue_refund(order_id: str, amount: float, idempotency_key: str) -> str:
    """Pay back *amount*. A real one gives the key to the bank, which then knows a repeated call."""
    return f"refunded ${amount:.2f} for {order_id}"


@tool(effect="idempotent")
async def reply(order_id: str) -> str:
    """Write to the customer of an order that is not refunded."""
    return f"a colleague looks at {order_id}"


tools = {"get_order": get_order, "issue_refund": issue_refund, "reply": reply}
