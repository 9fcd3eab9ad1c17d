"""The tools of program.yaml. Their types and effects are what `nano-vm check` holds programs
against.
"""

import re
from pathlib import Path
from typing import TypedDict

from nano_vm import tool

DOCUMENTS = Path(__file__).parent / "documents"
SHOWN = 3


class Passage(TypedDict):
    """A paragraph of a document; its id says which."""

    id: str
    text: str


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def _passages() -> list[Passage]:
    return [
        {"id": f"{file.stem}-{number}", "text": " ".join(paragraph.split())}
        for file in sorted(DOCUMENTS.glob("*.txt"))
        for number, paragraph in enumerate(file.read_text(encoding="utf-8").split("\n\n"), 1)
    ]


@tool(effect="read")
async def search(question: str) -> list[Passage]:
    """The passages with the most words of the question. A real one asks a search index."""
    asked = _words(question)
    ranked = sorted(_passages(), key=lambda one: -len(asked & _words(one["text"])))
    return [one for one in ranked[:SHOWN] if asked & _words(one["text"])]


@tool(effect="read")
async def known(sources: list[str], passages: list[Passage]) -> bool:
    """Whether there are sources, and each is one of the passages."""
    ids = {one["id"] for one in passages}
    return bool(sources) and set(sources) <= ids


tools = {"search": search, "known": known}
