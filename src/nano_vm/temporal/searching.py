"""Search attributes of runs, by which the lists of a cluster find them: ``NanoProgram = 'refund' AND
NanoStatus = 'failed'``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from ..errors import VMError
from ..language.program import Program

PROGRAM = SearchAttributeKey.for_keyword("NanoProgram")
VERSION = SearchAttributeKey.for_keyword("NanoVersion")
STATUS = SearchAttributeKey.for_keyword("NanoStatus")
PROJECT = SearchAttributeKey.for_keyword("NanoProject")
LABELS = SearchAttributeKey.for_keyword_list("NanoLabels")

BEGUN = "running"
"""The status of a run from its beginning; the workflow says when it waits, and how it ended."""

_TYPES = {
    **dict.fromkeys(
        (PROGRAM.name, VERSION.name, STATUS.name, PROJECT.name),
        IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    ),
    LABELS.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
}


async def register(client: Client) -> None:
    """Have the namespace of *client* know the attributes; nothing where it does.

    Raises:
        VMError: If who is connected may not; the message says what to run.
    """
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=_TYPES)
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return
        commands = "; ".join(
            f"temporal operator search-attribute create --namespace {client.namespace} "
            f"--name {name} --type {'KeywordList' if name == LABELS.name else 'Keyword'}"
            for name in _TYPES
        )
        raise VMError(
            f"the search attributes of runs cannot be registered in namespace "
            f"{client.namespace!r}: {error.message}; have an operator run: {commands}"
        ) from error


def attributes_of(program: Program, said: Mapping[str, Any]) -> TypedSearchAttributes:
    """Those of a run of *program* that begins; *said* is what its caller says of it."""
    pairs: list[SearchAttributePair[Any]] = [
        SearchAttributePair(PROGRAM, program.name),
        SearchAttributePair(VERSION, program.version),
        SearchAttributePair(STATUS, BEGUN),
    ]
    if "project" in said:
        pairs.append(SearchAttributePair(PROJECT, said["project"]))
    if "labels" in said:
        labels = [f"{name}={value}" for name, value in sorted(said["labels"].items())]
        pairs.append(SearchAttributePair(LABELS, labels))
    return TypedSearchAttributes(pairs)
