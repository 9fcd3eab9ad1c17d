"""What an author wants to hear of a program that runs: tests that decide nothing, fields that are not there, what nobody reads.

A `Flow` without faults comes in; Diagnostics go out. What is known of names and values is worked out once for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import Diagnostic
from ..flow import Flow
from ..tools import ToolContract
from .branches import Domains, check_branches, check_fields
from .names import Assigned, assigned, check_unused
from .shape import check_entries


def advise(flow: Flow, contracts: Mapping[str, ToolContract], solved: Assigned | None = None) -> Iterator[Diagnostic]:
    """Warnings and hints of *flow*, and errors where a field is read that surely is not there."""
    if solved is None:
        solved = assigned(flow)
    domains = Domains(flow, contracts, solved)
    yield from check_entries(flow)
    yield from check_branches(flow, contracts, solved, domains)
    yield from check_fields(flow, contracts, solved, domains)
    yield from check_unused(flow, contracts)
