"""The tool of extract.yaml."""

from nano_vm import tool

paged: list[str] = []


@tool(effect="idempotent")
async def page_somebody(product: str) -> str:
    """Tell whoever is on call."""
    paged.append(product)
    return f"paged for {product}"


tools = {"page_somebody": page_somebody}
