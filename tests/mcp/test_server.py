"""Programs as tools of an MCP server, called by the client of the official SDK."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from build import llm, mapped, program, step
from patience import HANGS_SECONDS
from servers import Http

from nano_vm import ExecutionVM, Program, VMError, tool
from nano_vm.cli import main
from nano_vm.mcp.server import OUTCOME, mcp_server
from nano_vm.mcp.tools import mcp_tools
from nano_vm.testing import ScriptedLLM

if TYPE_CHECKING:
    from mcp import Client

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
COUNT = program(
    mapped(step("one", "double", args={"n": "$n"}), over=[1, 2], id="each"),
    llm("say"),
    step("last", "double", args={"n": "$n"}),
    inputs=SCHEMA,
    name="count",
    description="Doubles a number.",
)


@tool(effect="read")
async def double(n: int) -> int:
    return 2 * n


@asynccontextmanager
async def client(
    programs: dict[str, Program], *, vm: ExecutionVM | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A client of the official SDK at a server of ours, over HTTP."""
    from mcp import Client

    vm = vm or ExecutionVM(ScriptedLLM({"": "yes"}), {"double": double})
    served = Http(mcp_server(vm, programs, **options))
    try:
        async with Client(served.url) as made:
            yield made
    finally:
        await asyncio.to_thread(served.close)


async def test_programs_are_listed_with_their_inputs() -> None:
    bare = program(step("a", "double", args={"n": 1}), name="bare")
    async with client({"count": COUNT, "bare": bare}) as one:
        listed = await one.list_tools()
    assert [(t.name, t.description, t.input_schema, t.output_schema) for t in listed.tools] == [
        ("count", "Doubles a number.", SCHEMA, OUTCOME),
        ("bare", "Runs the program bare", {"type": "object"}, OUTCOME),
    ]


@pytest.mark.slow
async def test_a_call_runs_a_program_and_tells_of_its_steps() -> None:
    told: list[tuple[float, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, message))

    async with client({"count": COUNT}) as one:
        result = await one.call_tool("count", {"n": 21}, progress_callback=progress)
    assert not result.is_error
    assert result.structured_content.pop("run_id")
    assert result.structured_content == {"status": "success", "output": 42}
    assert [block.text for block in result.content] == ["42"]
    assert sorted(told) == [
        (1, "each[0]/one: success"),
        (2, "each[1]/one: success"),
        (3, "each: success"),
        (4, "say: success"),
        (5, "last: success"),
    ]


@pytest.mark.slow
async def test_a_refusal_carries_its_diagnostics_and_no_place_of_the_machine(
    tmp_path: Path,
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "name: p\ninputs: {type: object, properties: {n: {type: integer}}, required: [n]}\n"
        "steps: [{id: a, type: tool, tool: double, args: {n: $n}}]\n"
    )
    async with client({"p": Program.from_file(str(file))}) as one:
        result = await one.call_tool("p", {"m": 1})
        wrong = await one.call_tool("p", {"n": "x"})
    assert result.is_error
    told = result.structured_content
    assert (told["status"], told["error_kind"]) == ("failed", "refused")
    assert [d["code"] for d in told["diagnostics"]] == ["V040"]
    assert "input 'n' is needed and not given" in result.content[0].text
    assert str(tmp_path) not in json.dumps([told, result.content[0].text])
    assert wrong.is_error
    assert wrong.structured_content["diagnostics"]


async def test_a_failed_run_is_an_error_with_its_kind() -> None:
    def broken() -> None:
        raise ValueError("out of paper")

    vm = ExecutionVM(tools={"broken": broken})
    async with client({"p": program(step("a", "broken"))}, vm=vm) as one:
        result = await one.call_tool("p", {})
    assert result.is_error
    assert result.content[0].text == "Step 'a' failed: ValueError: out of paper"
    assert result.structured_content["error_kind"] == "tool"


@pytest.mark.slow
async def test_a_run_that_waits_says_for_what_and_is_no_error(tmp_path: Path) -> None:
    vm = ExecutionVM(store=f"sqlite:///{tmp_path / 'runs.db'}")
    ask = program({"id": "ask", "type": "approval", "role": "boss", "show": {"sum": 3}})
    async with client({"p": ask}, vm=vm) as one:
        result = await one.call_tool("p", {})
    told = result.structured_content
    assert not result.is_error
    assert told["status"] == "suspended"
    assert told["waiting"] == [
        {"kind": "approval", "path": "ask", "role": "boss", "show": {"sum": 3}}
    ]
    assert result.content[0].text == f"run {told['run_id']} waits for approval at ask"
    assert vm.load(told["run_id"]).status.value == "suspended"
    vm.close()


@pytest.mark.slow
async def test_inputs_are_untrusted_unless_the_host_says_otherwise() -> None:
    pay = tool(trusted=["n"])(lambda n: n)
    paying = program(step("a", "pay", args={"n": "$n"}), inputs=SCHEMA)
    vm = ExecutionVM(tools={"pay": pay}, policy={})
    async with client({"p": paying}, vm=vm) as one:
        refused = await one.call_tool("p", {"n": 1})
    assert refused.structured_content["error_kind"] == "refused"
    assert "argument 'n' of 'pay'" in refused.content[0].text
    async with client({"p": paying}, vm=vm, trusted_inputs=True) as one:
        assert (await one.call_tool("p", {"n": 1})).structured_content["output"] == 1


@pytest.mark.slow
async def test_an_unknown_tool_is_an_error_of_the_protocol() -> None:
    from mcp.shared.exceptions import MCPError

    async with client({"count": COUNT}) as one:
        with pytest.raises(MCPError, match="there is no tool 'cont'; there is count"):
            await one.call_tool("cont", {})


@pytest.mark.slow
async def test_who_gives_up_a_call_cancels_its_run() -> None:
    reached, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @tool(effect="read")
    async def hang() -> None:
        loop.call_soon_threadsafe(reached.set)
        try:
            await asyncio.sleep(2 * HANGS_SECONDS)
        finally:
            loop.call_soon_threadsafe(ended.set)

    vm = ExecutionVM(tools={"hang": hang})
    async with client({"p": program(step("a", "hang"))}, vm=vm) as one:
        call = asyncio.create_task(one.call_tool("p", {}))
        await asyncio.wait_for(reached.wait(), HANGS_SECONDS)
        call.cancel()
        await asyncio.wait([call])
        await asyncio.wait_for(ended.wait(), HANGS_SECONDS)


@pytest.mark.slow
async def test_calls_at_the_same_time_are_told_apart() -> None:
    async with client({"count": COUNT}) as one:
        results = await asyncio.gather(*(one.call_tool("count", {"n": n}) for n in range(10)))
    assert [r.structured_content["output"] for r in results] == [2 * n for n in range(10)]


@pytest.mark.slow
async def test_a_program_calls_a_program_of_another_server() -> None:
    served = Http(
        mcp_server(ExecutionVM(ScriptedLLM({"": "y"}), {"double": double}), {"count": COUNT})
    )
    async with await mcp_tools(served.url) as tools:
        trace = await ExecutionVM(tools=tools).run(program(step("a", "count", args={"n": 4})))
    await asyncio.to_thread(served.close)
    assert trace.ok, trace.error
    assert trace.steps[0].output["output"] == 8


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ({}, "a server needs at least one program"),
        ({"a b": COUNT}, "'a b' is no name of a tool"),
        ({"": COUNT}, "'' is no name of a tool"),
    ],
)
def test_what_cannot_be_served_is_told(programs: Any, message: str) -> None:
    with pytest.raises(VMError, match=message):
        mcp_server(ExecutionVM(), programs)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(ImportError, match=r"pip install 'llm-nano-vm\[mcp\]'"):
        mcp_server(ExecutionVM(), {"count": COUNT})


# --- nano-vm mcp ----------------------------------------------------------------------------------

SHOP = """
name: shop
inputs: {type: object, properties: {who: {type: string}}, required: [who]}
steps:
  - {id: greet, type: tool, tool: greet, args: {who: $who}}
"""
TOOLS = """
def greet(who: str) -> str:
    print("this goes to stderr")
    return f"hello {who}"

tools = {"greet": greet}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "shop.yaml").write_text(SHOP)
    (tmp_path / "shop_tools.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ["-m", "nano_vm", "mcp", "shop.yaml", "--tools", "shop_tools.py:tools"]


@pytest.mark.slow
async def test_the_command_serves_over_stdio(folder: Path) -> None:
    from mcp import Client, StdioServerParameters

    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    server = StdioServerParameters(command=sys.executable, args=COMMAND, env=env, cwd=folder)
    async with Client(server) as one:
        assert [t.name for t in (await one.list_tools()).tools] == ["shop"]
        result = await one.call_tool("shop", {"who": "ann"})
        refused = await one.call_tool("shop", {})
    assert result.structured_content["output"] == "hello ann"
    assert refused.structured_content["error_kind"] == "refused"


@pytest.mark.slow
async def test_the_command_serves_over_http_and_stops_at_ctrl_c(folder: Path) -> None:
    from mcp import Client

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *COMMAND,
        "--http",
        "0",
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stderr is not None
    line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
    found = re.fullmatch(r"nano-vm: serving at (http://127\.0\.0\.1:\d+/mcp)\n", line)
    assert found is not None, line
    async with Client(found[1]) as one:
        assert (await one.call_tool("shop", {"who": "bob"})).structured_content[
            "output"
        ] == "hello bob"
    process.send_signal(signal.SIGINT)
    _, rest = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert b"Traceback" not in rest


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["shop.yaml"], 1, "tool 'greet' is not registered"),
        (
            ["shop.yaml", "shop.yaml", "--tools", "shop_tools.py"],
            2,
            "two programs are called 'shop'",
        ),
        (["none.yaml"], 2, "none.yaml"),
        (["no name.yaml"], 2, "'no name' is no name of a tool"),
        (["bad name.yaml", "--tools", "shop_tools.py"], 2, "'bad name' is no name of a tool"),
        (["shop.yaml", "--tools", "shop_tools.py", "--http", "x"], 2, "'x' is not a port"),
        (
            ["shop.yaml", "--tools", "shop_tools.py", "--http", "192.0.2.1:80"],
            2,
            "--http: cannot listen",
        ),
        ([], 2, "PROGRAM"),
    ],
)
def test_misuse_is_told(
    arguments: list[str],
    code: int,
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "no name.yaml").write_text("steps: [{id: a, type: set, values: {x: 1}}]")
    (folder / "bad name.yaml").write_text(SHOP.replace("shop", "bad name"))
    assert main(["mcp", *arguments]) == code
    assert message in capsys.readouterr().err


MARK = "zq-secret-zq"
MARKED = Program.from_yaml("""
name: marked
inputs: {type: object, properties: {iban: {type: string}, ask: {type: string}}, required: [iban, ask]}
steps:
- {id: keep, type: tool, tool: keep, args: {text: $iban}}
- {id: wait, type: approval, role: boss, show: "$keep.output", when: "'$ask' == 'wait'"}
- {id: fail, type: tool, tool: lose, args: {text: $iban}, when: "'$ask' == 'fail'"}
output: done
""")


@pytest.mark.slow
@pytest.mark.parametrize("ask", ["end", "wait", "fail"])
async def test_a_caller_is_given_no_secret_that_it_does_not_accept(ask: str) -> None:
    @tool(effect="read")
    def keep(text: str) -> str:
        return f"kept {text}"

    @tool(effect="read")
    def lose(text: str) -> str:
        raise ValueError(f"lost {text}")

    policy: dict[str, Any] = {
        "inputs": {"iban": "secret", "ask": "public"},
        "tools": {"*": {"args": {"*": "any"}}},
        "roles": {"boss": {"accepts": "secret"}},
    }
    accepting = {**policy, "accepts": {"output": "any", "errors": "any"}}
    for host, shown in ((policy, False), (accepting, ask != "end")):
        told: list[str | None] = []

        async def progress(
            done: float, total: float | None, message: str | None, told: list[Any] = told
        ) -> None:
            told.append(message)

        vm = ExecutionVM(tools={"keep": keep, "lose": lose}, policy=host, store="sqlite://")
        async with client({"marked": MARKED}, vm=vm) as one:
            given = {"iban": MARK, "ask": ask}
            result = await one.call_tool("marked", given, progress_callback=progress)
        assert result.is_error == (ask == "fail")
        assert (MARK in result.model_dump_json()) == shown
        assert told
        assert MARK not in str(told)
