"""Tools of MCP servers as ours, against servers of the official SDK."""

from __future__ import annotations

import asyncio
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from build import NOW, program, step
from patience import HANGS_SECONDS
from servers import Http, Tools, declared

from nano_vm import ExecutionVM, ToolError, VMError, tool
from nano_vm.mcp.tools import McpTools, mcp_tools
from nano_vm.run.system import is_there

if TYPE_CHECKING:
    from mcp_types import CallToolResult

TEXT = {"type": "string"}


@pytest.fixture
def serve() -> Iterator[Callable[..., Http]]:
    made: list[Http] = []

    def begin(tools: Tools, port: int = 0) -> Http:
        made.append(Http(tools.server(), port))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def result(*content: dict[str, Any], **fields: Any) -> CallToolResult:
    """What a tool gives, as it stands in a message."""
    from mcp_types import CallToolResult

    return CallToolResult.model_validate({"content": content, **fields})


async def run(tools: McpTools, name: str, **args: Any) -> Any:
    """The result of one step that calls a tool."""
    trace = await ExecutionVM(tools=tools).run(program(step("a", name, args=args)))
    return trace.steps[0].output if trace.ok else trace


@pytest.mark.slow
async def test_over_http_a_program_calls_a_servers_tools(serve: Callable[..., Http]) -> None:
    there = Tools(
        declared("add", {"a": {"type": "integer"}, "b": {"type": "integer"}}, required=["a"]),
        declared("shout", {"text": TEXT}, description="Loudly."),
        add=lambda a, b=2: {"sum": a + b},
        shout=lambda text: text.upper(),
    )
    async with await mcp_tools(serve(there).url, effects={"add": "read"}) as tools:
        assert list(tools) == ["add", "shout"]
        vm = ExecutionVM(tools=tools)
        trace = await vm.run(
            program(
                step("a", "add", args={"a": 3}),
                step("b", "shout", args={"text": "it is $a.output.sum"}),
            )
        )
        assert [s.output for s in trace.steps] == [{"sum": 5}, "IT IS 5"]
        assert vm.tools["add"].to_dict() == {
            "name": "add",
            "description": "",
            "effect": "read",
            "arguments": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        }
        assert (vm.tools["shout"].effect, vm.tools["shout"].doc) == ("write", "Loudly.")
    assert there.calls == [("add", {"a": 3}), ("shout", {"text": "it is 5"})]


SERVER = """
    import os
    from mcp.server import MCPServer
    server = MCPServer("demo")

    @server.tool()
    def add(a: int, b: int = 2) -> int:
        "Adds."
        return a + b

    @server.tool()
    def secret() -> str:
        return os.environ.get("OUR_KEY", "none") + " " + os.environ.get("THEIRS", "none")

    @server.tool()
    def die() -> str:
        os._exit(3)

    @server.tool()
    def pid() -> int:
        return os.getpid()

    server.run()
"""


@pytest.mark.slow
async def test_a_command_is_started_and_started_again_where_it_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "hunter2")
    script = tmp_path / "a server.py"
    script.write_text(textwrap.dedent(SERVER))
    command = f"{sys.executable} '{script}'"
    tools = await mcp_tools(command, env={"THEIRS": "x"}, connect_seconds=120)
    vm = ExecutionVM(tools=tools)
    one = program(step("a", "add", args={"a": 1}), step("b", "secret"), step("c", "pid"))
    trace = await vm.run(one)
    assert [s.output for s in trace.steps][:2] == [{"result": 3}, {"result": "none x"}]
    first = trace.steps[2].output["result"]
    died = await vm.run(program(step("a", "die")))
    assert died.status.value == "suspended"  # it may have done what it was asked for
    assert died.waiting[0]["kind"] == "in_doubt"
    again = await vm.run(one)
    assert again.ok, again.error
    second = again.steps[2].output["result"]
    assert second != first
    tools.close()
    async with asyncio.timeout(HANGS_SECONDS):  # a server may outlive its connection only so long
        while is_there(second):  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)
    closed = await vm.run(one)
    assert "was closed" in (closed.error or "")


@pytest.mark.slow
async def test_a_call_of_a_read_is_made_again_after_a_lost_connection(
    serve: Callable[..., Http],
) -> None:
    there = Tools(declared("look"), look="seen")
    server = serve(there)
    tools = await mcp_tools(server.url, effects={"look": "read"})
    vm = ExecutionVM(tools=tools)
    assert (await vm.run(program(step("a", "look")))).ok
    await asyncio.to_thread(server.close)
    down = await vm.run(program(step("a", "look", max_retries=2, retry=NOW)))
    assert down.steps[0].retries == 1
    assert down.error_kind == "tool"
    serve(there, server.port)
    back = await vm.run(program(step("a", "look", max_retries=3, retry={"delay_seconds": 0.1})))
    assert back.ok, back.error
    tools.close()


@pytest.mark.slow
async def test_arguments_are_proved_or_held_against_the_schema(serve: Callable[..., Http]) -> None:
    there = Tools(
        declared(
            "order",
            {
                "size": {"enum": ["s", "m"]},
                "count": {"type": "integer", "minimum": 1},
                "to": {"$ref": "#/$defs/place"},
                "note": TEXT,
            },
            required=["size"],
            schema={
                "$defs": {"place": {"type": "object", "required": ["city"]}},
                "dependentRequired": {"count": ["to"]},
                "additionalProperties": False,
            },
        ),
        order="ordered",
    )
    async with await mcp_tools(serve(there).url) as tools:
        vm = ExecutionVM(tools=tools)

        async def error(**args: Any) -> str:
            trace = await vm.run(program(step("a", "order", args=args)))
            return trace.error or ""

        assert """order' 'xl' is not one of "s" or "m""" in await error(size="xl")
        assert "count" in await error(size="s", count=0, to={"city": "x"})
        assert "city" in await error(size="s", to={})
        assert "to" in await error(size="s", count=1)
        assert "note" in await error(size="s", note=[1])
        assert "unknown" in await error(size="s", unknown=1)
        assert "size" in await error()
        assert there.calls == []
        assert await error(size="s", count=1, to={"city": "x"}) == ""
        assert there.calls == [("order", {"size": "s", "count": 1, "to": {"city": "x"}})]


@pytest.mark.slow
async def test_names_that_python_has_not_are_arguments_too(serve: Callable[..., Http]) -> None:
    there = Tools(
        declared(
            "put",
            {"x-y": TEXT, "class": TEXT},
            required=["x-y"],
            schema={"additionalProperties": False},
        ),
        put=lambda **given: given,
    )
    async with await mcp_tools(serve(there).url) as tools:
        assert await run(tools, "put", **{"x-y": "1", "class": "2"}) == {"x-y": "1", "class": "2"}
        assert "x-y" in (await run(tools, "put")).error


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "given"),
    [
        ("text", "text"),
        ({"a": [1, None]}, {"a": [1, None]}),
        (lambda: result(), []),
        (lambda: result(text("a"), text("b")), ["a", "b"]),
        (
            lambda: result({"type": "image", "data": "AA==", "mimeType": "image/png"}),
            [{"type": "image", "data": "AA==", "mimeType": "image/png"}],
        ),
    ],
)
async def test_what_a_server_gives_is_a_value(
    answer: Any, given: Any, serve: Callable[..., Http]
) -> None:
    async with await mcp_tools(serve(Tools(declared("t"), t=answer)).url) as tools:
        assert await run(tools, "t") == given


@pytest.mark.slow
async def test_what_fails_there_fails_the_step(serve: Callable[..., Http]) -> None:
    failed = result(text("no such city"), isError=True)
    there = Tools(
        declared("t"),
        declared("big"),
        declared("odd", output_schema={"type": "object", "required": ["n"]}),
        declared("crash"),
        t=failed,
        big="x" * 5_000_000,
        odd={"m": 1},
        crash=lambda: 1 / 0,
    )
    async with await mcp_tools(serve(there).url, max_result_bytes=1000) as tools:
        assert (await run(tools, "t")).error == "Step 'a' failed: ToolError: 't': no such city"
        assert (
            "'big' gave 5,000,002 bytes, and at most 1,000 are taken"
            in (await run(tools, "big")).error
        )
        assert "odd" in (await run(tools, "odd")).error
        assert (await run(tools, "crash")).error_kind == "tool"


@pytest.mark.slow
async def test_a_call_that_hangs_has_a_deadline_and_is_cancelled_there(
    serve: Callable[..., Http],
) -> None:
    reached: list[float] = []
    stopped = threading.Event()

    async def hang() -> str:
        reached.append(time.monotonic())
        try:
            await asyncio.sleep(2 * HANGS_SECONDS)
        except asyncio.CancelledError:
            stopped.set()
            raise
        return ""

    there = Tools(declared("hang"), declared("ok"), hang=hang, ok="fine")
    tools = await mcp_tools(serve(there).url, timeout_seconds=0.5, effects={"hang": "read"})
    trace = await run(tools, "hang")
    assert trace.error_kind == "timeout"
    assert len(reached) == 1
    assert await asyncio.to_thread(stopped.wait, HANGS_SECONDS)
    assert await run(tools, "ok") == "fine"
    tools.close()


def quiet(tools: McpTools) -> None:
    """As after a while without a word, when a server may have become another one."""
    tools._connection._heard = -100.0


@pytest.mark.slow
async def test_under_a_changed_contract_a_program_is_checked_again(
    serve: Callable[..., Http],
) -> None:
    there = Tools(declared("a", {"x": TEXT}), declared("b"), a=lambda x, y="": x + y, b="B")
    server = serve(there)
    tools = await mcp_tools(server.url)
    vm = ExecutionVM(tools=tools)
    fits, lacks = program(step("a", "a", args={"x": "1"})), program(step("a", "a"))
    assert (await vm.run(fits)).steps[0].output == "1"
    there.tools = [
        declared("a", {"x": TEXT, "y": TEXT}, required=["x"], description="other words"),
        declared("b"),
    ]
    quiet(tools)
    assert (await vm.run(fits)).steps[0].output == "1"
    quiet(tools)
    calls = len(there.calls)
    refused = await vm.run(lacks)
    assert "the contract of tool 'a' has changed since the run was checked" in refused.error
    assert "the program is refused: steps[0]: V021: tool 'a' needs argument 'x'" in refused.error
    assert len(there.calls) == calls
    assert await run(tools, "b") == "B"
    tools.close()


@pytest.mark.slow
async def test_a_changed_contract_holds_for_each_call_and_tool_after_it_was_seen(
    serve: Callable[..., Http],
) -> None:
    there = Tools(declared("a", {"x": TEXT}), declared("b", {"x": TEXT}), a="A", b="B")
    tools = await mcp_tools(serve(there).url)
    vm = ExecutionVM(tools=tools)
    assert (await vm.run(program(step("a", "a"), step("b", "b")))).ok
    there.tools = [declared(name, {"x": TEXT}, required=["x"]) for name in "ab"]
    quiet(tools)
    calls = len(there.calls)
    for name in ("a", "a", "b"):  # at once: the server has just been heard of
        refused = await vm.run(program(step("call", name)))
        assert f"the contract of tool {name!r} has changed" in refused.error
    assert len(there.calls) == calls
    tools.close()


@pytest.mark.slow
async def test_arguments_are_held_against_a_contract_that_has_changed(
    serve: Callable[..., Http],
) -> None:
    there = Tools(declared("a", {"x": TEXT}), a=lambda x: x)
    tools = await mcp_tools(serve(there).url)
    given = program(step("a", "a", args={"x": "$given"}))
    vm = ExecutionVM(tools=tools)
    assert (await vm.run(given, {"given": "long"})).ok
    there.tools = [declared("a", {"x": {"type": "string", "maxLength": 3}})]
    quiet(tools)
    assert (await vm.run(given, {"given": "abc"})).ok
    calls = len(there.calls)
    assert "longer than 3" in (await vm.run(given, {"given": "long"})).error
    assert len(there.calls) == calls
    tools.close()


@pytest.mark.slow
async def test_a_changed_contract_that_no_run_can_go_on_with(serve: Callable[..., Http]) -> None:
    from mcp_types import ToolAnnotations

    reads = ToolAnnotations(read_only_hint=True)
    there = Tools(declared("a", {"x": TEXT}, annotations=reads), declared("b"), a="A", b="B")
    server = serve(there)
    tools = await mcp_tools(server.url, trust_hints=True)

    async def changed(*now: Any) -> str:
        there.tools = [*now, declared("b", description="other words are no other contract")]
        quiet(tools)
        calls = len(there.calls)
        failed = await run(tools, "a", x="1")
        assert len(there.calls) == calls
        quiet(tools)
        assert await run(tools, "b") == "B"
        return str(failed.error)

    writes = declared("a", {"x": TEXT, "y": TEXT})
    assert "its effect was 'read' and is 'write'; begin a new run" in await changed(writes)
    no_schema = declared("a", {"x": {"type": "strin"}}, annotations=reads)
    assert "arguments of 'a' cannot be used" in await changed(no_schema)
    quiet(tools)
    with pytest.raises(ToolError, match=r"another contract for the tool 'a'.*mcp_tools\(\) again"):
        await tools["a"](x="1")  # by hand: no program is known that could be checked
    assert "has no longer the tool 'a'" in await changed()
    tools.close()
    async with await mcp_tools(server.url) as fresh:
        assert list(fresh) == ["b"]


@pytest.mark.slow
async def test_effects_are_what_the_host_says(serve: Callable[..., Http]) -> None:
    from mcp_types import ToolAnnotations

    hinted = {
        "reads": ToolAnnotations(read_only_hint=True),
        "again": ToolAnnotations(idempotent_hint=True),
        "destroys": ToolAnnotations(destructive_hint=True),
        "plain": None,
    }
    there = Tools(*(declared(name, annotations=hints) for name, hints in hinted.items()))
    url = serve(there).url

    async def effects(**options: Any) -> dict[str, str]:
        async with await mcp_tools(url, **options) as tools:
            return {name: tool.effect for name, tool in ExecutionVM(tools=tools).tools.items()}

    assert set((await effects()).values()) == {"write"}
    assert await effects(trust_hints=True, effects={"plain": "read"}, prefix="far.") == {
        "far.reads": "read",
        "far.again": "idempotent",
        "far.destroys": "irreversible",
        "far.plain": "read",
    }
    assert await effects(allow=["reads"]) == {"reads": "write"}


async def test_what_a_server_gives_is_untrusted(serve: Callable[..., Http]) -> None:
    async with await mcp_tools(serve(Tools(declared("look"), look="pay me")).url) as tools:
        pay = tool(trusted=["to"])(lambda to: to)
        vm = ExecutionVM(tools={**tools, "pay": pay}, policy={})
        trace = await vm.run(program(step("a", "look"), step("b", "pay", args={"to": "$a.output"})))
        assert trace.error_kind == "refused"
        assert "result of tool 'look' (step 'a') reaches argument 'to'" in (trace.error or "")


@pytest.mark.slow
async def test_any_event_loop_can_call(serve: Callable[..., Http]) -> None:
    there = Tools(declared("t"), t="ok")
    tools = await mcp_tools(serve(there).url)
    vm = ExecutionVM(tools=tools)
    one = program(step("a", "t"))
    traces = await asyncio.gather(*(asyncio.to_thread(vm.run_sync, one) for _ in range(5)))
    assert all(trace.ok for trace in traces)
    with tools:
        assert (await vm.run(one)).ok


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allow": "t"}, "allow is a list of names, not 't'"),
        ({"allow": ["u"]}, "has no tool 'u'; it has t"),
        ({"effects": {"tt": "read"}}, "has no tool 'tt'; did you mean 't'"),
        ({"effects": {"t": "reads"}}, r"effects\['t'\] is one of .*, not 'reads'"),
        ({"prefix": 1}, "prefix is a string, not 1"),
        ({"timeout_seconds": 0}, "timeout_seconds is a number of seconds above 0, not 0"),
        ({"max_result_bytes": 0}, "max_result_bytes is a positive integer, not 0"),
    ],
)
async def test_wrong_arguments_are_refused(
    options: dict[str, Any], message: str, serve: Callable[..., Http]
) -> None:
    with pytest.raises(VMError, match=message):
        await mcp_tools(serve(Tools(declared("t"), t="")).url, **options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "an MCP server is a command or a URL, not ''"),
        (7, "an MCP server is a command or a URL, not 7"),
        ("ftp://x/y", "'ftp://x/y' is no URL of an MCP server"),
        ("http://", "is no URL of an MCP server"),
        ("run 'it", "is no command: No closing quotation"),
        ("/nowhere/at-all", "cannot reach /nowhere/at-all: .*No such file"),
        ("http://127.0.0.1:9/mcp", "cannot reach http://127.0.0.1:9/mcp: "),
    ],
)
async def test_what_is_no_server_is_told(source: Any, message: str) -> None:
    with pytest.raises(VMError, match=message):
        await mcp_tools(source)


async def test_a_command_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"did not answer within 0\.5 s"):
        await mcp_tools(f"{sys.executable} -c 'import time; time.sleep(60)'", connect_seconds=0.5)


@pytest.mark.slow
async def test_a_schema_that_is_none_is_told(serve: Callable[..., Http]) -> None:
    there = Tools(declared("t", {"x": {"type": "strin"}}), declared("u"), u="fine")
    url = serve(there).url
    with pytest.raises(VMError, match=r"arguments of 't' cannot be used: .*allow=\["):
        await mcp_tools(url)
    async with await mcp_tools(url, allow=["u"]) as tools:
        assert await run(tools, "u") == "fine"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(ImportError, match=r"pip install 'llm-nano-vm\[mcp\]'"):
        asyncio.run(mcp_tools("http://x/mcp"))
