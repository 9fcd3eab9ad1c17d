"""The tools of triage.yaml. `read_lines` reads nothing but files of this folder: the path is an
input, and so data.
"""

import hashlib
from pathlib import Path

from nano_vm import ToolError, tool

FOLDER = Path(__file__).parent


@tool(effect="read")
def read_lines(path: str) -> list[str]:
    """The lines of a text file beside this one."""
    file = (FOLDER / path).resolve()
    if file.parent != FOLDER.resolve():
        raise ToolError(f"{path!r} is not in the examples' folder", retryable=False)
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


@tool(effect="idempotent")
async def open_ticket(message: str) -> str:
    """The ticket for a message: the same message has the same one."""
    return "T-" + hashlib.sha256(message.encode()).hexdigest()[:6]


@tool(effect="idempotent")
async def reply_to(message: str, tone: str) -> str:
    """What the customer is told."""
    return {"sorry": "We are sorry and will call you.", "glad": "Thank you for writing."}[tone]


tools = {"read_lines": read_lines, "open_ticket": open_ticket, "reply_to": reply_to}
