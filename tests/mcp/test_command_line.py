"""Tools of MCP servers on the command line and in a host file, against servers that the command
starts and ends: one of the official SDK, and one that gives the same answers and starts at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nano_vm.cli import main

pytestmark = pytest.mark.slow  # each starts a server

SERVER = """\
import os, sys
from mcp.server import MCPServer

server = MCPServer("shop")


@server.tool()
def stock(item: str, shelf: int = 1) -> str:
    return f"{item} {3 * shelf} {os.environ.get('SHOP_KEY', 'no key')}"


open(sys.argv[1], "a").write("started\\n")
server.run()
open(sys.argv[1], "a").write("ended\\n")
"""

PLAIN = """\
import json, os, sys

TEXT, NUMBER = {"type": "string"}, {"type": "integer", "default": 1}
ASKED = {"type": "object", "properties": {"item": TEXT, "shelf": NUMBER}, "required": ["item"]}
GIVEN = {"type": "object", "properties": {"result": TEXT}, "required": ["result"]}
TOOL = {"name": "stock", "description": "", "inputSchema": ASKED, "outputSchema": GIVEN}


def stock(item, shelf=1):
    return f"{item} {3 * shelf} {os.environ.get('SHOP_KEY', 'no key')}"


def result(method, params):
    match method:
        case "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            output = stock(**params["arguments"])
            content = [{"type": "text", "text": output}]
            return {"content": content, "structuredContent": {"result": output}}


open(sys.argv[1], "a").write("started\\n")
for line in sys.stdin:
    request = json.loads(line)
    about = {"io.modelcontextprotocol/serverInfo": {"name": "shop", "version": ""}}
    more = {"resultType": "complete", "cacheScope": "private", "ttlMs": 0, "_meta": about}
    answer = {**result(request["method"], request["params"]), **more}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer}), flush=True)
"""

PROGRAM = 'steps: [{id: count, type: tool, tool: "TOOL", args: {item: lamp, shelf: 2}}]'


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "official.py").write_text(SERVER)
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "p.yaml").write_text(PROGRAM.replace("TOOL", "stock"))
    return f"{sys.executable} plain.py log.txt"


@pytest.mark.parametrize("server", ["official", "plain"])
def test_a_program_runs_with_the_tools_of_a_server(
    command: str, server: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = command.replace("plain", server)
    assert main(["run", "p.yaml", "--mcp", command, "--json"]) == 0
    trace = json.loads(capfd.readouterr().out)
    assert trace["output"] == {"result": "lamp 6 no key"}
    assert Path("log.txt").read_text().split()[0] == "started"
    assert main(["run", "p.yaml", "--mcp", command]) == 0
    assert Path("log.txt").read_text().count("started") == 2, "each command has its own"


def test_a_check_holds_a_program_against_the_schemas_of_a_server(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "p.yaml", "--mcp", command]) == 0
    capfd.readouterr()
    Path("p.yaml").write_text(Path("p.yaml").read_text().replace("shelf: 2", "shelf: many"))
    assert main(["check", "p.yaml", "--mcp", command]) == 1
    assert "V022" in capfd.readouterr().out


def test_a_host_file_says_which_tools_what_they_do_and_what_they_are_given(
    command: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "k123")
    Path("p.yaml").write_text(PROGRAM.replace("TOOL", "shop_stock"))
    Path("nano-vm.toml").write_text(
        f'[mcp.shop]\nsource = "{command}"\nallow = ["stock"]\nprefix = "shop_"\n'
        'effects = {stock = "read"}\nenv = ["SHOP_KEY"]\ntimeout_seconds = 20\n'
    )
    assert main(["run", "p.yaml", "--json"]) == 0
    trace = json.loads(capfd.readouterr().out)
    assert trace["output"] == {"result": "lamp 6 k123"}
    monkeypatch.delenv("SHOP_KEY")
    assert main(["run", "p.yaml"]) == 2
    assert "mcp.shop: SHOP_KEY is not set in the environment" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--mcp", "no-such-command-here"], "--mcp: "),
        (["--mcp", "COMMAND", "--mcp", "COMMAND"], "--mcp: there are two tools 'stock'"),
        (["--mcp", "COMMAND", "--tools", "own.py"], "--mcp: there are two tools 'stock'"),
        (["--mcp", "ftp://x"], "--mcp: "),
    ],
)
def test_what_is_no_server_is_one_line(
    command: str, capfd: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    Path("own.py").write_text("def stock(item, shelf): ...\ntools = [stock]\n")
    given = [one.replace("COMMAND", command) for one in arguments]
    assert main(["run", "p.yaml", *given]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('sauce = "x"', "mcp.shop"),
        ('source = "x"\neffects = {stock = "reads"}', "mcp.shop.effects.stock: "),
        ('source = "x"\ntimeout_seconds = 0', "mcp.shop.timeout_seconds: "),
        ('source = "x"\nalow = ["stock"]', "did you mean 'allow'?"),
        ('source = "COMMAND"\nallow = ["stok"]', "has no tool 'stok'; did you mean 'stock'?"),
    ],
)
def test_what_a_host_file_cannot_say_of_a_server(
    command: str, capfd: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    Path("nano-vm.toml").write_text(f"[mcp.shop]\n{text.replace('COMMAND', command)}\n")
    assert main(["run", "p.yaml"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line
