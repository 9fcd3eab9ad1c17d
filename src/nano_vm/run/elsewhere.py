"""A host made of what another one announces: it checks programs and starts runs as that one would, and
calls nothing. Nobody's code is imported for it.

A run that was started so is checked once more, by the tools themselves, by the host that claims it:
so one that announces what is not true gets no call made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import VMError
from ..language.program import Program
from ..machine.billing import Served
from ..machine.terms import RunTerms
from ..tools.contract import IDEMPOTENCY_KEY, tool
from ..tools.schema import hint_of, with_signature
from .announced import FORMAT
from .vm import ExecutionVM


def host_of(announced: Any) -> ExecutionVM:
    """A host that checks programs and starts runs as the one that *announced* itself would.

    Raises:
        VMError: If it is none that this version understands.
    """
    try:
        if announced["format"] != FORMAT:
            raise VMError(f"an announcement of another format: {announced['format']!r}")
        return _host_of(announced)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VMError(f"not an announcement of a host: {error}") from error


def _host_of(announced: Mapping[str, Any]) -> ExecutionVM:
    terms = announced["terms"]
    told = RunTerms.of_record(terms, None)
    vm = ExecutionVM(
        _models_of(announced["models"]),
        {told["name"]: _tool_of(told) for told in announced["tools"]},
        programs={
            name: Program.from_dict(document) for name, document in announced["programs"].items()
        },
        prices=told.prices,
        budget=told.budget,
        budgets=announced.get("budgets", {}),  # before there were any, none were said
        policy=announced["policy"],
        approved=announced["approved"],
        limits=told.limits,
    )
    vm.preparer.price_sources = dict(told.price_sources) if told.price_sources else None
    return vm


class Elsewhere(VMError):
    """A call that only the host can make that was announced."""


async def _nowhere(**_: Any) -> Any:
    raise Elsewhere("this host only checks and starts; a worker calls")


def _tool_of(told: Mapping[str, Any]) -> Callable[..., Any]:
    async def call(**arguments: Any) -> Any:
        return await _nowhere()

    schema = dict(told["arguments"])
    if told["takes_key"]:
        schema["properties"] = {**schema["properties"], IDEMPOTENCY_KEY: {}}
    call.__doc__ = told["description"]
    with_signature(call, schema)
    call.__annotations__ = {**call.__annotations__, "return": hint_of(told["result"], {})}
    declare = tool(
        effect=told["effect"] if told["declared"] else None,
        timeout_seconds=told["timeout_seconds"],
        trusted=told.get("trusted", ()),
        returns=told.get("returns"),
        returns_secret=told.get("returns_secret", False),
        accepts=told.get("accepts"),
    )
    return declare(call)


class _Model:
    """An adapter of another host: what it takes, and nothing that answers."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.model = told["model"]
        self.images, self.files = told["images"], told["files"]
        self.option_names = told["options"]
        self.served = Served.from_dict(told["pool"]) if told["pool"] is not None else None
        self.tags = frozenset(told["tags"])
        self.prices: dict[str, Any] = {}
        self._named, self._open = frozenset(told["named"]), told["open"]

        async def complete(messages: Any, **options: Any) -> Any:
            return await _nowhere()

        taken = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in told["named"]
            if name != "messages"
        ]
        first = inspect.Parameter("messages", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        rest = [inspect.Parameter("more", inspect.Parameter.VAR_KEYWORD)] if told["open"] else []
        complete.__signature__ = inspect.Signature([first, *taken, *rest])  # type: ignore[attr-defined]
        self.complete = complete

    def takes(self, name: str) -> bool:
        """As `Adapter.takes` of a pool."""
        return name in self._named or self._open


def _models_of(told: list[Mapping[str, Any]]) -> Any:
    named = {one["name"]: _Model(one) for one in told if one["name"] is not None}
    alone = [one for one in told if one["name"] is None]
    if named:
        return named
    return _Model(alone[0]) if alone else None
