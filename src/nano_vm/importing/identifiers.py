"""Names that a program can have, made of those of a workflow, each used once."""

from __future__ import annotations

import re
from collections.abc import Iterable


def identifier(name: str) -> str:
    """*name* with letters, digits and ``_`` alone."""
    made = re.sub(r"\W+", "_", name).strip("_")
    return f"_{made}" if not made or made[0].isdigit() else made


def error_name(name: str) -> str:
    """*name* as the name of an error: it begins with a capital."""
    made = identifier(name).lstrip("_") or "Failed"
    made = made[0].upper() + made[1:]
    return made if made[0].isalpha() else f"Error_{made}"


class Identifiers:
    """Identifiers of the states of a workflow, and others beside them."""

    def __init__(self, names: Iterable[str], reserved: Iterable[str] = ()) -> None:
        self._taken = set(reserved)
        self._known: dict[str, str] = {}
        for name in names:
            self._known[name] = self.another(identifier(name))

    def of(self, name: str) -> str:
        """The identifier of a state or node."""
        return self._known[name]

    def another(self, wanted: str) -> str:
        """An identifier like *wanted* that nothing else has."""
        made, number = wanted, 1
        while made in self._taken:
            number += 1
            made = f"{wanted}_{number}"
        self._taken.add(made)
        return made
