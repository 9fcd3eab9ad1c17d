"""The tools of refund.yaml. `issue_refund` takes the VM's key, so that the bank would see a repeated call as the same one."""

from nano_vm import tool

ORDERS = {"A-1001": {"item": "blender", "amount": 49.9}, "A-1002": {"item": "lamp", "amount": 19.0}}


@tool(effect="read")
async def get_order(order_id: str) -> dict:
    """The order with this id."""
    if order_id not in ORDERS:
        raise LookupError(f"no order {order_id!r}")
    return ORDERS[order_id]


@tool(effect="irreversible")
async def issue_refund(order_id: str, amount: float, idempotency_key: str) -> str:
    """Pay back *amount* dollars. A real one would give the key to the bank, which then knows a repeated call."""
    return f"refunded ${amount:.2f} for {order_id}"


@tool(effect="idempotent")
async def answer_politely(message: str) -> str:
    """What the customer gets who did not ask for a refund."""
    return "Thank you for your message. A colleague will read it."


tools = {"get_order": get_order, "issue_refund": issue_refund, "answer_politely": answer_politely}
