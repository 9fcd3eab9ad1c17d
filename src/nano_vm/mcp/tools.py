"""The tools of an MCP server as tools of ours: what it lists goes in, callables with contracts come
out.

Arguments are held against the server's schema before anything is sent, results against its schema
for them. What a server says of its tools' effects is a hint of somebody else's: it counts only
where the host says so, and results are text from outside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ..errors import ToolError, VMError
from ..language.policy import EFFECTS, Effect
from ..language.schemas import schema_check, schema_fault
from ..spelling import meant
from ..tools.contract import BIND, Recheck, tool
from ..tools.schema import NOT_GIVEN, with_signature
from ..values import canonical, short
from .connection import CONNECT_SECONDS, Connection

TIMEOUT_SECONDS = 60.0
"""For one call, unless the step or the host says otherwise: the default of MCP's own clients."""

MAX_RESULT_BYTES = 1_000_000
"""Of a result, as JSON: many times what a model can read. The machine's own limit is 16 MB."""


async def mcp_tools(
    source: str,
    *,
    allow: Iterable[str] | None = None,
    prefix: str = "",
    effects: Mapping[str, Effect] | None = None,
    trust_hints: bool = False,
    timeout_seconds: float = TIMEOUT_SECONDS,
    max_result_bytes: int = MAX_RESULT_BYTES,
    connect_seconds: float = CONNECT_SECONDS,
    env: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> McpTools:
    """The tools of the MCP server *source*: a command (``"uvx mcp-server-time"``) that is started,
    or the URL of streamable HTTP.

    ``allow`` names those that are wanted, all unless it is given; each is called *prefix* and its
    name. ``effects`` says what calls do, by the server's names; any other counts as ``write``,
    unless ``trust_hints`` takes the server's word. ``env`` is set for a command, which
    has nothing else of this process's but ``PATH``, ``HOME`` and the like; ``headers`` are sent to
    a URL.

    Raises:
        MissingExtra: If the official SDK is not installed.
        VMError: If an argument is wrong, the server cannot be reached, or has no such tool.
    """
    options = _Options(prefix, dict(effects or {}), trust_hints, timeout_seconds, max_result_bytes)
    options.check()
    wanted = None if allow is None else _names(allow)
    connection = Connection(source, env=env, headers=headers, connect_seconds=connect_seconds)
    try:
        listed = await connection.run(connection.tools())
        return McpTools(connection, listed, wanted, options)
    except BaseException:
        connection.close()
        raise


class McpTools(Mapping[str, Callable[..., Any]]):
    """Tools by name, as ``ExecutionVM(tools=...)`` takes them. `close` ends the connection; so does
    leaving a ``with`` or ``async with``.
    """

    def __init__(
        self,
        connection: Connection,
        listed: list[Any],
        wanted: list[str] | None,
        options: _Options,
    ) -> None:
        self._connection = connection
        there = {one.name: one for one in listed}
        for name in (*(wanted or ()), *options.effects):
            if name not in there:
                hint = meant(name, sorted(there)) or f"it has {', '.join(sorted(there)) or 'none'}"
                raise VMError(f"{connection} has no tool {name!r}; {hint}")
        self._known = {
            name: McpTool(connection, there[name], options)
            for name in (there if wanted is None else wanted)
        }
        self._tools = {
            options.prefix + name: known.callable() for name, known in self._known.items()
        }

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def close(self) -> None:
        """End the connection, and a server that was started for it."""
        self._connection.close()

    def __enter__(self) -> McpTools:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> McpTools:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class McpTool:
    """One tool of a server, and what was known of it when it was listed."""

    def __init__(self, connection: Connection, listed: Any, options: _Options) -> None:
        self.connection, self.options = connection, options
        self.name: str = listed.name
        self.contract = contract_of(listed)
        self.schema: dict[str, Any] = listed.input_schema
        self.doc: str = listed.description or ""
        self.effect = options.effect(listed)
        self._arguments = self._check(self.schema, "arguments")
        output = listed.output_schema
        self._result = None if output is None else self._check(output, "results")
        self._passed: list[Any] | None = None  # the list in which its contract was found last

    def _check(self, schema: dict[str, Any], what: str) -> Callable[[Any], str | None]:
        fault = schema_fault(schema)
        if fault is not None:
            raise VMError(
                f"the schema that {self.connection} has for {what} of {self.name!r} cannot be "
                f"used: {fault}; leave the tool out by allow=[...]"
            )
        return schema_check(schema)

    async def __call__(self, **arguments: Any) -> Any:
        """Call it.

        Raises:
            ContractChanged: If the server has another contract for it now; nothing was called.
            ToolError: If the arguments do not fit, the server refuses, or what it gives is too
                large or does not fit.
            ConnectionError: If the connection was lost on the way.
        """
        given = {name: value for name, value in arguments.items() if value is not NOT_GIVEN}
        fault = self._arguments(given)
        if fault is not None:
            raise ToolError(f"arguments of {self.name!r}: {fault}", retryable=False)
        return self._value(await self.connection.run(self._call(given)))

    async def _call(self, given: dict[str, Any]) -> Any:
        now = await self.connection.alive()
        if now is not self._passed:
            self._unchanged(now)
            self._passed = now
        return await self.connection.call(self.name, given)

    def _unchanged(self, listed: list[Any]) -> None:
        """Make sure that the server's contract is that which programs were checked against."""
        found = next((one for one in listed if one.name == self.name), None)
        if found is None:
            raise ToolError(
                f"{self.connection} has no longer the tool {self.name!r}, which it had when "
                f"programs were checked",
                retryable=False,
            )
        if contract_of(found) != self.contract:
            raise ContractChanged(self, found)

    def _value(self, result: Any) -> Any:
        """What the step gives."""
        value = result.structured_content
        if value is None:
            value = _content(result.content)
        size = len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
        if size > self.options.max_result_bytes:
            raise ToolError(
                f"{self.name!r} gave {size:,} bytes, and at most "
                f"{self.options.max_result_bytes:,} are taken (max_result_bytes)",
                retryable=False,
            )
        if result.is_error:
            raise ToolError(f"{self.name!r}: {_text(result.content) or 'it failed'}")
        if self._result is not None:
            fault = self._result(result.structured_content)
            if fault is not None:
                raise ToolError(
                    f"the result of {self.name!r} is not what its schema says: {fault}",
                    retryable=False,
                )
        return value

    def callable(self) -> Callable[..., Any]:
        """Itself as a function whose signature says what the server takes. Bound to a program, it
        goes on under another contract of the server's once the program was checked against that.
        """

        async def call(**arguments: Any) -> Any:
            return await self(**arguments)

        def bind(recheck: Recheck) -> Callable[..., Any]:
            current = self

            async def call(**arguments: Any) -> Any:
                nonlocal current
                used = current
                try:
                    return await used(**arguments)
                except ContractChanged as changed:
                    if current is used:  # else another call has seen it before
                        renewed = changed.renewed()
                        await recheck(renewed.callable())
                        current = renewed
                return await current(**arguments)

            return call

        call.__name__ = call.__qualname__ = self.name
        call.__doc__ = self.doc
        setattr(call, BIND, bind)
        with_signature(call, self.schema)
        declare = tool(effect=self.effect, timeout_seconds=self.options.timeout_seconds)
        return declare(call)


class ContractChanged(ToolError):
    """A server has another contract for a tool than the one that programs were checked against."""

    def __init__(self, known: McpTool, listed: Any) -> None:
        super().__init__(
            f"{known.connection} has another contract for the tool {known.name!r} than when "
            f"programs were checked; call mcp_tools() again, for a VM that checks them anew",
            retryable=False,
        )
        self.known, self.listed = known, listed

    def renewed(self) -> McpTool:
        """The tool as the server has it now.

        Raises:
            ToolError: If it cannot be used.
        """
        known = self.known
        try:
            return McpTool(known.connection, self.listed, known.options)
        except VMError as error:
            raise ToolError(str(error), retryable=False) from None


class _Options:
    """What the host says of a server's tools."""

    def __init__(
        self,
        prefix: str,
        effects: dict[str, Effect],
        trust_hints: bool,
        timeout_seconds: float,
        max_result_bytes: int,
    ) -> None:
        self.prefix = prefix
        self.effects = effects
        self.trust_hints = trust_hints
        self.timeout_seconds = timeout_seconds
        self.max_result_bytes = max_result_bytes

    def check(self) -> None:
        """Raises `VMError` at what cannot be."""
        if not isinstance(self.prefix, str):
            raise VMError(f"prefix is a string, not {short(self.prefix)}")
        for name, effect in self.effects.items():
            if effect not in EFFECTS:
                raise VMError(f"effects[{name!r}] is one of {', '.join(EFFECTS)}, not {effect!r}")
        if type(self.max_result_bytes) is not int or self.max_result_bytes < 1:
            raise VMError(f"max_result_bytes is a positive integer, not {self.max_result_bytes!r}")
        tool(timeout_seconds=self.timeout_seconds)  # which says what is wrong with it

    def effect(self, listed: Any) -> Effect:
        """What a call of a tool does."""
        said = self.effects.get(listed.name)
        hints = listed.annotations
        if said is not None or not self.trust_hints or hints is None:
            return said or "write"
        if hints.read_only_hint:
            return "read"
        if hints.idempotent_hint:
            return "idempotent"
        return "irreversible" if hints.destructive_hint else "write"


def contract_of(listed: Any) -> bytes:
    """What programs rely on of a tool: another is another contract."""
    return canonical([listed.name, listed.input_schema, listed.output_schema])


def _names(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise VMError(f"allow is a list of names, not {short(given)}")
    return list(dict.fromkeys(given))


def _content(blocks: Iterable[Any]) -> Any:
    """A string where it is one, else each block as MCP has it."""
    shown = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in blocks]
    if all(block.get("type") == "text" for block in shown):
        texts = [block["text"] for block in shown]
        return texts[0] if len(texts) == 1 else texts
    return shown


def _text(blocks: Iterable[Any]) -> str:
    return "\n".join(block.text for block in blocks if getattr(block, "type", "") == "text")
