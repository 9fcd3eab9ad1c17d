"""The tools of program.yaml. Their types and effects are what `nano-vm check` holds programs
against.
"""

from pathlib import Path

from nano_vm import tool


@tool(effect="read")
def read_lines(path: str) -> list[str]:
    """The lines of a text file that are not empty."""
    return [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line]


@tool(effect="read")
async def count(moods: list[str | None]) -> dict[str, int]:
    """How often each label was given; one that failed is null."""
    return {name: moods.count(name) for name in ("happy", "unhappy")}


tools = {"read_lines": read_lines, "count": count}
