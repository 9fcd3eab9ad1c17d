"""The ordered list of rooms, and what follows from it: who may import whom, and what a pure room may not touch.

A room is a module or a folder directly in the package. It imports itself and rooms above it, and an import
counts wherever it stands: under ``TYPE_CHECKING``, in a function, relative or absolute, or as text
given to ``import_module``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "nano_vm"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

ROOMS = (
    "errors",
    "values",
    "visible",
    "spelling",
    "answers",
    "messages",
    "schema_cost",
    "schemas",
    "literals",
    "reader",
    "operators",
    "correlation",
    "functions",
    "expr",
    "fields",
    "policy",
    "program",
    "prices",
    "flow",
    "bounds",
    "trace",
    "graph",
    "protocols",
    "tools",
    "demands",
    "plan",
    "compile",
    "ledger",
    "outcomes",
    "machine",
    "simulate",
    "recorded",
    "explore",
    "verify",
    "forking",
    "signing",
    "store",
    "adapters",
    "drive",
    "lease",
    "outbox",
    "inbox",
    "listener",
    "durable",
    "batch",
    "vm",
    "replay",
    "migrate",
    "planner",
    "telemetry",
    "mcp",
    "temporal",
    "testing",
    "server",
    "cli",
    "models",
    "__init__",
    "__main__",
)

# Each can be left out of an installation, so none may need another.
APART = frozenset({"planner", "telemetry", "mcp", "temporal", "testing"})

# These answer from their arguments alone, so that every driver, replay and proof gets the same answer.
PURE = ROOMS[: ROOMS.index("verify") + 1]

# Where time, chance, files, sockets, processes and threads come from.
IMPURE_MODULES = frozenset(
    "asyncio builtins concurrent fcntl ftplib glob http io linecache logging mmap multiprocessing os pathlib random "
    "sched secrets select selectors shutil signal smtplib socket socketserver sqlite3 ssl subprocess tempfile "
    "threading time urllib uuid aiohttp anyio httpx litellm openai requests rich trio cryptography".split()
)
IMPURE_CALLS = frozenset("__import__ breakpoint compile eval exec input open print".split())
CLOCK_METHODS = frozenset("now today utcnow".split())

ALLOWED = {
    ("schema_cost", "urllib"): "unquote, which only reads text",
    ("policy", "pathlib"): "as Program.from_file: the one file that its caller names",
    ("program", "pathlib"): "Program.from_file reads the one file that its caller names; what is in it is the reader's",
}


def room_of(file: Path, source: Path) -> str:
    """The room that *file* stands in."""
    return file.relative_to(source).with_suffix("").parts[0]


def imported(tree: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """The line and the full dotted name of everything imported in *tree*, a module of the package *inside*."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                start = inside[: len(inside) - level + 1] if level else ()
                stem = ".".join((*start, *([module] if module else [])))
                yield from ((node.lineno, f"{stem}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                level = len(name) - len(name.lstrip("."))
                start = inside[: len(inside) - level + 1] if level else ()
                yield node.lineno, ".".join((*start, name.lstrip(".")))


def room_imported(name: str) -> str | None:
    """The room that the dotted *name* leads to: ``__init__`` for the package itself, None for what is not ours."""
    match name.split("."):
        case [package, room, *_] if package == PACKAGE:
            return room if room in ROOMS else "__init__"  # `from nano_vm import Program` goes through the front door
        case [package] if package == PACKAGE:
            return "__init__"
        case _:
            return None


def declares(function: ast.AsyncFunctionDef) -> bool:
    """Whether *function* has no body but a docstring and dots: it says what others implement, and runs nothing."""
    return all(isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in function.body)


def impurities(tree: ast.AST, room: str) -> Iterator[tuple[int, str]]:
    """What in a module of a pure *room* reaches for the world."""
    for line, name in imported(tree, (PACKAGE,)):
        root = name.partition(".")[0]
        if root in IMPURE_MODULES and (room, root) not in ALLOWED:
            yield line, f"imports {root}"
    for node in ast.walk(tree):
        match node:
            case ast.AsyncFunctionDef(name=name) if not declares(node):
                yield node.lineno, f"has the coroutine {name}()"
            case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "awaits"
            case ast.comprehension(is_async=1, target=target):
                yield target.lineno, "awaits"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                yield node.lineno, f"calls {name}()"
            case ast.Attribute(value=ast.Name(id="date" | "datetime") | ast.Attribute(attr="date" | "datetime")) if (
                node.attr in CLOCK_METHODS
            ):
                yield node.lineno, f"asks for the time with {node.attr}"


def faults(source: Path) -> list[str]:
    """Every breach in the package at *source*: file, line and what it does."""
    found = []
    for file in sorted(source.rglob("*.py")):
        room, place = room_of(file, source), file.relative_to(source.parent)
        if room not in ROOMS:
            found.append(f"{place}: {room!r} is in no list; say in ROOMS which modules it may import")
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        for line, name in imported(tree, file.relative_to(source.parent).parent.parts):
            other = room_imported(name)
            if other is None or other == room:
                continue
            if ROOMS.index(other) > ROOMS.index(room):
                found.append(f"{place}:{line}: {room} imports {name}, which stands below it")
            elif room in APART and other in APART:
                found.append(f"{place}:{line}: {room} imports {name}, and they stand apart")
        if room in PURE:
            found.extend(f"{place}:{line}: {room} is pure and {what}" for line, what in impurities(tree, room))
    return found


def test_every_room_keeps_to_its_place() -> None:
    assert list(SOURCE.glob("*.py")), f"nothing to check in {SOURCE}"
    assert not faults(SOURCE)


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            "flow.py",
            "from .machine import Machine",
            "flow.py:1: flow imports nano_vm.machine.Machine, which stands",
        ),
        ("flow.py", "from . import machine", "which stands below"),
        ("flow.py", "import nano_vm.machine as m", "which stands below"),
        ("flow.py", "from nano_vm.machine import Machine", "which stands below"),
        ("flow.py", "from nano_vm import Machine", "which stands below"),
        ("flow.py", "import nano_vm", "which stands below"),
        ("flow.py", "def f():\n    from .vm import ExecutionVM", "flow.py:2: flow imports nano_vm.vm.ExecutionVM"),
        ("vm.py", "if TYPE_CHECKING:\n    from .replay import diff", "vm.py:2: vm imports nano_vm.replay.diff"),
        ("vm.py", "import_module('nano_vm.cli')", "which stands below"),
        ("vm.py", "importlib.import_module('.cli', __package__)", "which stands below"),
        ("verify/paths.py", "from ..vm import ExecutionVM", "verify imports nano_vm.vm.ExecutionVM"),
        ("verify/deep/paths.py", "from ...vm import ExecutionVM", "verify imports nano_vm.vm.ExecutionVM"),
        ("temporal/worker.py", "from ..mcp import serve", "stand apart"),
        ("testing.py", "from . import planner", "stand apart"),
        ("helpers.py", "", "in no list"),
        ("helpers/text.py", "", "in no list"),
        ("machine.py", "import asyncio", "pure and imports asyncio"),
        ("machine.py", "from os import path", "pure and imports os"),
        ("machine.py", "def f():\n    import time", "machine.py:2: machine is pure and imports time"),
        ("verify/paths.py", "from random import Random", "pure and imports random"),
        ("reader.py", "from pathlib import Path", "pure and imports pathlib"),
        ("reader.py", "open('a')", "pure and calls open()"),
        ("machine.py", "async def f(x):\n    return await x", "has the coroutine f()"),
        ("machine.py", "async def f(x):\n    return await x", "machine.py:2: machine is pure and awaits"),
        ("machine.py", "async def f(x):\n    return [y async for y in x]", "machine.py:2: machine is pure and awaits"),
        ("trace.py", "from datetime import datetime\nx = datetime.now", "asks for the time with now"),
        ("trace.py", "import datetime\nx = datetime.datetime.now()", "asks for the time with now"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert fault in "\n".join(faults(tmp_path / PACKAGE))


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("machine.py", "from .plan import Plan\nfrom nano_vm.errors import VMError\nimport nano_vm.values"),
        (
            "verify/paths.py",
            "from . import names\nfrom .names import check\nfrom ..flow import Flow\nimport timeit_",
        ),
        ("program.py", "from pathlib import Path"),
        ("protocols.py", "class LLMAdapter:\n    async def complete(self):\n        'Its answer.'\n        ..."),
        ("trace.py", "from datetime import datetime, time"),
        ("vm.py", "import asyncio, time\nasync def f(x):\n    await x"),
        ("cli/main.py", "from ..adapters import local\nfrom .. import planner"),
        ("__init__.py", "from .vm import ExecutionVM"),
    ],
)
def test_what_is_allowed_is_no_breach(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert not faults(tmp_path / PACKAGE)
