"""The tools of program.yaml. Their types and effects are what `nano-vm check` holds programs
against.
"""

from nano_vm import tool


@tool(effect="write")
async def publish(text: str) -> str:
    """Publish a paragraph."""
    return f"published: {text}"


tools = {"publish": publish}
