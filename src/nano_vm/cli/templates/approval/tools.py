"""The tools of program.yaml. Their types and effects are what `nano-vm check` holds programs
against.
"""

from nano_vm import tool


@tool(effect="irreversible")
async def pay(recipient: str, amount: float, idempotency_key: str) -> str:
    """Pay. A real one gives the key to the bank, which then knows a repeated call."""
    return f"paid ${amount:.2f} to {recipient}"


tools = {"pay": pay}
