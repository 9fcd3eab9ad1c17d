"""The tool of the transfer programs. A real one would give the key to the bank, which then knows a
repeated call.
"""

from nano_vm import tool


@tool(effect="irreversible")
async def send_money(recipient: str, amount: float, idempotency_key: str) -> str:
    """Send *amount* euros to the account *recipient*."""
    return f"sent {amount:.2f} EUR to {recipient}"


tools = {"send_money": send_money}
