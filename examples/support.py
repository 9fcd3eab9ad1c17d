"""The tools of the support programs; real ones would ask a database and send mail."""

import re
from typing import Any

from nano_vm import tool


@tool(effect="read", inline=True, returns_secret=True)
def get_customer(customer_id: str) -> dict[str, Any]:
    """What we keep of a customer."""
    return {
        "id": customer_id,
        "name": "Ada Byron",
        "iban": "DE89 3704 0044 0532 0130 00",
        "orders": 3,
    }


@tool(effect="read", inline=True)
def redact(text: str) -> str:
    """*text* without what looks like a name or a number."""
    return re.sub(r"\b(?:[A-Z]\w+ [A-Z]\w+|[A-Z]{2}\d[\d ]+|\d+)", "[...]", text)


@tool(effect="write", inline=True)
def reply_to_customer(customer_id: str, text: str) -> str:
    """Send *text* to the address of the customer."""
    return f"sent {len(text)} characters to customer {customer_id}"


tools = {f.__name__: f for f in (get_customer, redact, reply_to_customer)}
