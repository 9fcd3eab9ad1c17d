"""The tools of refund.yaml. `issue_refund` takes the VM's key, so that the bank would see a
repeated call as the same one.
"""

from typing import TypedDict

from nano_vm import tool


class Order(TypedDict):
    """An order as the shop's records have it; ``days`` have passed since it was delivered."""

    item: str
    amount: float
    returned: bool
    days: int


ORDERS: dict[str, Order] = {
    "A-1001": {"item": "blender", "amount": 49.9, "returned": True, "days": 6},
    "A-1002": {"item": "lamp", "amount": 19.0, "returned": False, "days": 3},
    "A-1003": {"item": "sofa", "amount": 899.0, "returned": True, "days": 12},
    "A-1004": {"item": "kettle", "amount": 24.5, "returned": True, "days": 71},
}


@tool(effect="read")
async def get_order(order_id: str) -> Order:
    """The order with this id."""
    if order_id not in ORDERS:
        raise LookupError(f"no order {order_id!r}")
    return ORDERS[order_id]


@tool(effect="irreversible")
async def issue_refund(order_id: str, amount: float, idempotency_key: str) -> str:
    """Pay back *amount* dollars. A real one would give the key to the bank, which then knows a
    repeated call.
    """
    return f"refunded ${amount:.2f} for {order_id}"


@tool(effect="idempotent")
async def explain_refusal(order_id: str) -> str:
    """What the customer gets whose order is not one that is refunded without a colleague."""
    return (
        f"We refund returned orders of at most $100 within 30 days; a colleague will look at "
        f"{order_id}."
    )


@tool(effect="idempotent")
async def answer_politely(message: str) -> str:
    """What the customer gets who did not ask for a refund."""
    return "Thank you for your message. A colleague will read it."


tools = {
    "get_order": get_order,
    "issue_refund": issue_refund,
    "explain_refusal": explain_refusal,
    "answer_politely": answer_politely,
}
