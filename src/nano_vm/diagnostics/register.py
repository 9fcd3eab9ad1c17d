"""Every code of a diagnostic, by its name. A code stands once, or the package cannot be imported.

Codes come in; descriptions and traits go out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from .code import Code
from .codes import (
    branches,
    demands,
    fields,
    flow,
    host,
    names,
    policies,
    program_tests,
    text,
    worst_case,
)


def register(*groups: Iterable[Code]) -> Mapping[str, Code]:
    """All codes of *groups* by name, in their order.

    Raises:
        ValueError: If two have one name: a code has one meaning.
    """
    found: dict[str, Code] = {}
    for one in (one for group in groups for one in group):
        if found.setdefault(one.code, one) is not one:
            raise ValueError(
                f"code {one.code!r} stands twice: {found[one.code].title!r} and {one.title!r}; "
                f"give one of them another number"
            )
    return MappingProxyType(found)


CODES: Final = register(
    text.CODES,
    fields.CODES,
    policies.CODES,
    program_tests.CODES,
    flow.CODES,
    names.CODES,
    host.CODES,
    demands.CODES,
    branches.CODES,
    worst_case.CODES,
)


def has(code: str, trait: str) -> bool:
    """Whether a *code* has a trait; a code of another version has none."""
    return code in CODES and trait in CODES[code].traits


def explained(code: str) -> str | None:
    """What *code* means, as Markdown; None where there is no such code."""
    found = CODES.get(code.upper())
    return found.text if found is not None else None
