"""``nano-vm mcp``."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from .. import completion
from ..faults import OK, Failure, UsageFault
from ..grammar import Options, argument, command, flag, option, values
from ..output import note
from ..parameters import (
    PLACE,
    RULES,
    keeps_in_store,
    takes_budget,
    takes_host,
    takes_keys,
    takes_price,
    takes_rules,
    takes_telemetry,
)
from ..stdin import claim_standard_input
from ..text import diagnostic_lines, safe

if TYPE_CHECKING:
    from ...language.program import Program
    from ...run.vm import ExecutionVM
    from ..sources import Loaded

EXAMPLES = """\
nano-vm mcp refund.yaml --tools refund.py:tools --model local --policy refund.policy.yaml
nano-vm mcp refund.yaml triage.yaml --tools shop.py:tools --model local --http 8000
"""


@command(examples=EXAMPLES)
@argument(
    "programs",
    nargs=-1,
    required=True,
    metavar="PROGRAM...",
    help="files in YAML or JSON",
    shell_complete=completion.programs,
)
@values(
    "--program",
    "program_file",
    metavar="NAME=FILE",
    help="a program that 'call' steps name",
)
@option(
    "--http",
    type=PLACE,
    metavar="[HOST:]PORT",
    help="serve streamable HTTP there, and not standard input and output",
)
@takes_host
@flag("--trusted-inputs", help="what callers give counts as trusted", section=RULES)
@takes_rules
@takes_budget("a limit for each run: max_steps, max_tokens, ...")
@takes_price("for max_cost_usd")
@keeps_in_store("the runs")
@takes_keys
@takes_telemetry
def mcp(options: Options) -> int:
    """
    Serve programs as tools of an MCP server, over standard input and output or HTTP.

    A tool is called as its program, or as the file where the program has no name, and takes the
    program's inputs. A caller gets the run's output, or why it failed or was refused; it is notified of
    each step that ends. What callers give counts as untrusted: a program whose policy protects
    something from it is refused. A caller that gives up cancels its run.

    Over HTTP, the server is at http://HOST:PORT/mcp, for this machine alone unless a host is given.
    Needs the extra 'mcp'.
    """
    with ExitStack() as stack:
        return _mcp(options, stack)


def _mcp(options: Options, stack: ExitStack) -> int:
    import asyncio

    from ...mcp.server import mcp_server
    from .. import host, rules, sources, stores, telemetry

    if options.http is None:
        claim_standard_input("what a client says")
    policy = rules.load_policy(options.policy)
    budget = rules.read_budget(options.budget)
    loaded = [sources.load(path, options.program_file) for path in options.programs]
    store = stores.store_if_named(options)
    observers = telemetry.observers_of(options, store, stack)
    called = {name: program for one in loaded for name, program in one.programs.items()}
    vm = host.vm_of(
        options, programs=called, policy=policy, budget=budget, store=store, observers=observers
    )
    stack.callback(vm.close)
    for one in loaded:
        _check(vm, one)
    named = _named(options.programs, loaded)
    server = mcp_server(vm, named, trusted_inputs=options.trusted_inputs)
    try:
        if options.http is None:
            _require_streams()
            asyncio.run(_over_stdio(server))
        else:
            _over_http(server, *options.http)
    except KeyboardInterrupt:
        note("nano-vm: stopped")
    return OK


def _check(vm: ExecutionVM, loaded: Loaded) -> None:
    """Print what is wrong with a program; raises if no call of it could run."""
    found = vm.check(loaded.program)
    for line in diagnostic_lines([*loaded.warnings(), *loaded.placed(found)]):
        note(line)
    if any(d.severity == "error" for d in found):
        raise Failure("refused: nothing is served")


def _named(files: tuple[str, ...], loaded: list[Loaded]) -> dict[str, Program]:
    """Each program by the name of its tool.

    Raises:
        UsageFault: If two have one name, or a name is none that a tool can have.
    """
    from ...mcp.server import NAME

    named: dict[str, Program] = {}
    for file, one in zip(files, loaded, strict=True):
        own = "name" in one.program.model_fields_set
        name = one.program.name if own else PurePath(file).stem
        if NAME.fullmatch(name) is None:
            raise UsageFault(
                f"{safe(file)}: {safe(repr(name))} is no name of a tool; give the program a name of "
                f"letters, digits, '_', '-' and '.'"
            )
        if name in named:
            raise UsageFault(f"{safe(file)}: two programs are called {name!r}")
        named[name] = one.program
    return named


def _require_streams() -> None:
    """Raises where a client cannot be at the other end of standard input and output."""
    try:
        for stream in (sys.stdin, sys.stdout):
            stream.fileno()
    except (AttributeError, OSError, ValueError):
        raise UsageFault(
            "standard input and output are not open, over which a client would speak; start this "
            "from a client, or serve over --http PORT"
        ) from None


async def _over_stdio(server: Any) -> None:
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (receiving, sending):
        await server.run(receiving, sending, server.create_initialization_options())


def _over_http(server: Any, host: str, port: int) -> None:
    import socket

    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named because asyncio sends at once (TCP_NODELAY) only where it is: without,
    # each answer waits 40 ms for an acknowledgement
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # who reads the line below may come before the server is up
    except OSError as error:
        listening.close()
        raise UsageFault(
            f"--http: cannot listen on {host}:{port}: {error.strerror or error}; choose another "
            f"port"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    note(f"nano-vm: serving at http://{shown}:{listening.getsockname()[1]}/mcp")
    app = server.streamable_http_app(host=host)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    with listening:
        uvicorn.Server(config).run(sockets=[listening])
