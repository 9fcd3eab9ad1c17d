"""A host's models in one file, ``nano-vm.toml``: models with their limits, pools of them, prices. In
comes a path, out come adapters by name; anything wrong is said with its place.

A key is named by the variable of the environment that holds it, and stands in no file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import VMError
from ..language.policy import Budget, Effect
from ..language.program import Strategy
from ..prices import Price, checked_price, price_table
from ..spelling import meant
from ..store.shared_budget import SharedBudget
from ..tools.named import tools_file
from ..values import short
from .names import adapter_named
from .pool import Member, Pool

HOST_FILE = "nano-vm.toml"
"""Its name, where it is looked for."""

MAX_FILE_BYTES = 1_000_000
"""Of a host file, as of a program."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[Decimal | int, Field(ge=0)]


class _Model(_Table):
    model: str
    base_url: str | None = None
    key_env: str | None = None
    weight: Annotated[Decimal | int, Field(gt=0)] = 1
    concurrency: Positive | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    context: Positive | None = None
    tags: list[str] = []
    lacks: list[str] = []
    timeout_seconds: Seconds | None = None
    price: Any = None
    queue: Annotated[str, Field(min_length=1)] | None = None


class _Pool(_Table):
    members: Annotated[list[str], Field(min_length=1)]
    strategy: Strategy = "ordered"
    require: list[str] = []
    attempts: Positive | None = None
    hedge_after_seconds: Seconds | None = None
    patience_seconds: Seconds | None = None
    seed: int = 0


class _Mcp(_Table):
    source: Annotated[str, Field(min_length=1)]
    allow: list[str] | None = None
    prefix: str = ""
    effects: dict[str, Effect] = {}
    trust_hints: bool = False
    timeout_seconds: Annotated[Decimal | int, Field(gt=0)] | None = None
    env: list[str] = []
    headers: dict[str, str] = {}


class _File(_Table):
    tools: str | None = None
    mcp: dict[str, _Mcp] = {}
    policy: str | None = None
    default: str | None = None
    price_source: Literal["genai-prices"] | None = None
    models: dict[str, _Model] = {}
    pools: dict[str, _Pool] = {}
    prices: dict[str, Any] = {}
    budget: Budget | None = None
    budgets: dict[str, SharedBudget] = {}


@dataclass(frozen=True, slots=True)
class HostFile:
    """What a host file says: ``models``, adapters and pools by name, the default one first, as
    ``ExecutionVM(llm=...)`` takes them; the ``budget`` of each run, and the ``budgets`` that runs
    share.
    """

    models: dict[str, Any]
    budget: Budget | None = None
    budgets: Mapping[str, SharedBudget] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class McpServer:
    """An MCP server whose tools a host has: ``source`` is a command or a URL, the rest as
    `nano_vm.mcp.tools.mcp_tools` takes it; but ``env`` names variables of this process that a
    command gets, and ``headers`` the variable that holds the value of each.
    """

    source: str
    name: str = ""
    allow: Sequence[str] | None = None
    prefix: str = ""
    effects: Mapping[str, Effect] = field(default_factory=dict)
    trust_hints: bool = False
    timeout_seconds: Decimal | int | None = None
    env: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Project:
    """What a host file says beside models: where ``tools`` (``tools.py:tools``) and the ``policy``
    of programs are, as paths from where the process stands; the names of its ``models``, and the
    ``servers`` whose tools it has.
    """

    tools: str | None = None
    policy: str | None = None
    models: tuple[str, ...] = ()
    servers: tuple[McpServer, ...] = ()


def read_project(path: str | Path) -> Project:
    """What the host file at *path* says of tools and policy. No adapter is made, and no key needed.

    Raises:
        VMError: If it cannot be read, or says what it cannot.
    """
    said, folder = _said(path), Path(path).parent
    tools = beside(folder, said.tools) if said.tools is not None else None
    policy = str(folder / said.policy) if said.policy is not None else None
    servers = tuple(McpServer(name=name, **dict(one)) for name, one in said.mcp.items())
    return Project(tools, policy, (*said.models, *said.pools), servers)


def beside(folder: Path, spec: str) -> str:
    """*spec*, which stands in a file of *folder*, from where the process stands: its file is
    beside that file.
    """
    return spec if tools_file(spec) is None else str(folder / spec)


def read_host(path: str | Path) -> HostFile:
    """The host file at *path*.

    Raises:
        VMError: If it cannot be read, says what it cannot, or a key is not in the environment.
    """
    said = _said(path)
    return HostFile(_Reading(str(path), said).adapters(), said.budget, said.budgets)


def _said(path: str | Path) -> _File:
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode()
        if len(text) > MAX_FILE_BYTES:
            raise VMError(f"{path}: more than {MAX_FILE_BYTES:,} bytes")
        data = tomllib.loads(text, parse_float=Decimal)
        return _File.model_validate(_with_floats(data))
    except OSError as error:
        raise VMError(f"{path}: {error.strerror or error}") from None
    except ValidationError as error:
        # what is not known first: it is mostly what is missing, misspelled
        found = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise VMError(f"{path}: {'; '.join(map(_fault, found))}") from None
    except ValueError as error:
        raise VMError(f"{path}: not TOML: {error}") from None


def prices_in(path: str | Path) -> dict[str, Price]:
    """The prices that a host file has: of ``[prices]``, and of models by their names and by what
    they are. No key is needed for it.

    Raises:
        VMError: If it cannot be read, or has none.
    """
    said = _said(path)
    try:
        found = {name: checked_price(name, price) for name, price in said.prices.items()}
        for name, model in said.models.items():
            if model.price is not None:
                found[name] = checked_price(name, model.price)
                found.setdefault(model.model.partition("/")[2] or model.model, found[name])
    except VMError as error:
        raise VMError(f"{path}: {error}") from None
    if not found:
        raise VMError(f"{path}: it has no prices; write [prices]")
    return found


def budgets_in(path: str | Path) -> dict[str, SharedBudget]:
    """The budgets that runs share, in a host file. No key is needed for it.

    Raises:
        VMError: If it cannot be read.
    """
    return _said(path).budgets


def _with_floats(data: dict[str, Any]) -> dict[str, Any]:
    """*data* with its budget as a budget has it; elsewhere amounts stay exact."""
    budget = data.get("budget")
    if isinstance(budget, dict):
        plain = {k: float(v) if isinstance(v, Decimal) else v for k, v in budget.items()}
        return {**data, "budget": plain}
    return data


class _Reading:
    """The adapters of one file."""

    def __init__(self, path: str, said: _File) -> None:
        self.path = path
        self.said = said
        self.members: dict[str, Member] = {}

    def adapters(self) -> dict[str, Any]:
        """By name, the default first."""
        said = self.said
        if not said.models and not said.pools and (said.tools or said.policy or said.mcp):
            return {}
        if not said.models:
            raise self.fault("models", "there is none; write [models.NAME]")
        twice = next((name for name in said.pools if name in said.models), None)
        if twice is not None:
            raise self.fault(f"pools.{twice}", "a model has this name, too; rename one of them")
        found: dict[str, Any] = {
            name: Pool([self.member(name)], name=name, queue=given.queue)
            for name, given in said.models.items()
        }
        found |= {name: self.pool(name, pool) for name, pool in said.pools.items()}
        if said.default is not None:
            if said.default not in found:
                raise self.fault("default", self.unknown(said.default, found))
            found = {said.default: found[said.default], **found}
        return found

    def member(self, name: str) -> Member:
        if name in self.members:
            return self.members[name]
        given = self.said.models[name]
        at = f"models.{name}"
        key = None
        if given.key_env is not None:
            key = os.environ.get(given.key_env)
            if not key:
                raise self.fault(f"{at}.key_env", f"{given.key_env} is not set in the environment")
        try:
            member = self.members[name] = Member(
                adapter_named(self.beside(given), given.base_url, key),
                name=name,
                weight=float(given.weight),
                concurrency=given.concurrency,
                requests_per_minute=given.requests_per_minute,
                tokens_per_minute=given.tokens_per_minute,
                context=given.context,
                tags=given.tags,
                lacks=given.lacks,
                timeout_seconds=_seconds(given.timeout_seconds),
                price=self.price(name, given),
            )
            if member.price is None and self.said.price_source is not None:
                table = price_table([given.model])
                member.price = table.get(given.model)
                member.price_source = table.sources.get(given.model)
        except (VMError, ValueError) as error:
            raise self.fault(at, str(error)) from None
        return member

    def beside(self, given: _Model) -> str:
        """The model's name; a file in it is relative to the host file, like all paths there."""
        kind, colon, file = given.model.partition(":")
        if given.base_url is None and kind in ("local", "scripted") and file:
            return f"{kind}{colon}{Path(self.path).parent / file}"
        return given.model

    def price(self, name: str, given: _Model) -> Any:
        """The model's own price, else that of the table."""
        if given.price is not None:
            return checked_price(name, given.price)
        for known in (name, given.model):
            if known in self.said.prices:
                return checked_price(known, self.said.prices[known])
        return None

    def pool(self, name: str, given: _Pool) -> Pool:
        at = f"pools.{name}"
        for i, member in enumerate(given.members):
            if member in self.said.pools:
                what = "itself" if member == name else f"the pool {member!r}"
                message = f"it has {what} in it, and a pool has no pools; name the models"
                raise self.fault(f"{at}.members[{i}]", message)
            if member not in self.said.models:
                raise self.fault(f"{at}.members[{i}]", self.unknown(member, self.said.models))
        more: dict[str, Any] = {}
        if given.patience_seconds is not None:
            more["patience_seconds"] = float(given.patience_seconds)
        try:
            return Pool(
                [self.member(member) for member in given.members],
                given.strategy,
                name=name,
                require=given.require,
                attempts=given.attempts,
                hedge_after=_seconds(given.hedge_after_seconds),
                seed=given.seed,
                **more,
            )
        except VMError as error:
            raise self.fault(at, str(error)) from None

    def unknown(self, name: str, known: Mapping[str, Any]) -> str:
        hint = meant(name, known, otherwise=f"there are {', '.join(known)}")
        return f"there is no model {name!r}; {hint}"

    def fault(self, at: str, message: str) -> VMError:
        return VMError(f"{self.path}: {at}: {message}")


def _seconds(given: Decimal | int | None) -> float | None:
    return None if given is None else float(given)


def _fault(error: Any) -> str:
    """One fault of a file, with its place and, for an unknown field, the nearest known."""
    loc = [str(part) for part in error["loc"] if part not in ("decimal", "int", "is-instance")]
    at = ".".join(loc)
    if error["type"] == "missing":
        return f"{at}: it is missing"
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{at}: {message[:1].lower()}{message[1:]}, not {short(error['input'])}"
    tables: dict[str, type[BaseModel]] = {"models": _Model, "pools": _Pool, "mcp": _Mcp}
    table = tables.get(loc[0], _File) if len(loc) > 1 else _File
    fields = table.model_fields
    known = meant(loc[-1], fields, otherwise=f"known are {', '.join(fields)}")
    return f"{at}: unknown field; {known}"
