"""Names that an address can hold, so that whatever is made by a name is reached by it."""

from __future__ import annotations

from ..errors import VMError
from ..store.records import checked_text
from ..values import short

_PARTS_OF_ADDRESSES = frozenset({".", ".."})  # which browsers and proxies take away


def addressed(what: str, name: str) -> str:
    """*name*, if it can be a part of an address.

    Raises:
        VMError: If it is empty or holds a slash, or an address would lead elsewhere by it.
    """
    if not name or "/" in name or name in _PARTS_OF_ADDRESSES:
        raise VMError(
            f"{what} stands in addresses, so it is not empty, not '.' or '..', and has no '/' in "
            f"it: {short(name)}"
        )
    return name


def account_name(name: str) -> str:
    """*name*, if somebody can be called that: a line on which nothing is hidden.

    Raises:
        VMError: If not.
    """
    checked_text("a name", name)
    if name != name.strip():
        raise VMError(f"a name does not begin or end with a space: {short(name)}")
    return addressed("a name", name)
