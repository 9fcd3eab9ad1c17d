"""Which runs of a list a page asks for, in the words of its address."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..errors import VMError
from ..store.protocol import RunFilter

LAST_NS = 2**63
"""Nanoseconds that a database holds: until the year 2262."""

Query = Mapping[str, str]


class NoSuchFilter(VMError):
    """No run can have what is asked for."""


def asked_for(query: Query) -> RunFilter:
    """The runs that a query asks for, in the words of `RunFilter`.

    Raises:
        NoSuchFilter: If no run can have what is asked for.
    """
    labels = {}
    for text in filter(None, query.get("labels", "").split("\n")):
        name, _, value = text.partition("=")
        labels[name] = value
    try:
        return RunFilter(
            status=query["status"].split(",") if query.get("status") else None,
            program=query.get("program") or None,
            project=query.get("project") or None,
            submitter=query.get("submitter") or None,
            parent=query.get("parent") or None,
            labels=labels,
            since_ns=_moment(query, "since"),
            until_ns=_moment(query, "until"),
            min_cost_usd=query.get("min_cost") or None,
            version=query["version"].split(",") if query.get("version") else None,
            waiting=query.get("waiting") or None,
        )
    except (ValueError, OverflowError) as error:  # what no run has
        raise NoSuchFilter(str(error)) from None


def _moment(query: Query, name: str) -> int | None:
    """A time in nanoseconds, given in milliseconds.

    Raises:
        ValueError: If it is none that a store can look for.
    """
    if not query.get(name):
        return None
    try:
        found = float(query[name]) * 1e6
    except ValueError:
        found = math.nan
    if not abs(found) < LAST_NS:
        raise ValueError(f"{name} is a time in milliseconds since 1970, not {query[name]!r}")
    return int(found)
