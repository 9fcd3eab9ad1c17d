"""The ordered list of packages: who may import whom, and what a pure package may not touch.

A package here is a folder or a module directly in ``nano_vm``. It imports itself and packages above
it, and an import counts wherever it stands: under ``TYPE_CHECKING``, in a function, relative or
absolute, or as text given to ``import_module``. No package imports or
uses another's private names.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "nano_vm"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

PACKAGES = (
    "diagnostics",
    "errors",
    "values",
    "visible",
    "spelling",
    "given",
    "collector",
    "pictures",
    "language",
    "tools",
    "records",
    "prices",
    "machine",
    "explore",
    "verify",
    "forking",
    "newest",
    "store",
    "adapters",
    "run",
    "replay",
    "importing",
    "planner",
    "draw",
    "telemetry",
    "mcp",
    "temporal",
    "simulation",
    "testing",
    "program_tests",
    "vm",
    "models",
    "__init__",
    "client",
    "ui",
    "server",
    "lsp",
    "cli",
    "pytest_plugin",
    "__main__",
)

# Each can be left out of an installation, so none may need another.
APART = frozenset({"planner", "draw", "telemetry", "mcp", "temporal", "testing"})

# These answer from their arguments alone, so that every driver, replay and proof gets the same
# answer.
PURE = PACKAGES[: PACKAGES.index("verify") + 1]

# Where time, chance, files, sockets, processes and threads come from.
IMPURE_MODULES = frozenset(
    "asyncio builtins concurrent fcntl ftplib glob http io linecache logging mmap multiprocessing "
    "os pathlib random "
    "sched secrets select selectors shutil signal smtplib socket socketserver sqlite3 ssl "
    "subprocess tempfile "
    "threading time urllib uuid aiohttp anthropic anyio httpx litellm openai requests rich sqlalchemy "
    "trio".split()
)
IMPURE_CALLS = frozenset("__import__ breakpoint compile eval exec input open print".split())
CLOCK_METHODS = frozenset("now today utcnow".split())

ALLOWED = {
    ("collector.py", "os"): "a pause of the collector is begun anew in the child of a fork",
    ("collector.py", "threading"): "a lock around the count of those who want it paused",
    ("given.py", "pathlib"): "a path, which is opened by others",
    ("language/policy.py", "pathlib"): "as Program.from_file: the one file that its caller names",
    (
        "language/program.py",
        "pathlib",
    ): "Program.from_file reads the one file that its caller names",
    ("language/schema_cost.py", "urllib"): "unquote, which only reads text",
    ("machine/arguments.py", "exec()"): "of a source that holds no value: its words are its own",
}


@functools.cache  # several tests look at every module
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@functools.cache
def walked(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of *tree*, which takes longer than to look at them."""
    return tuple(ast.walk(tree))


def package_of(file: Path, source: Path) -> str:
    """The package, or the module at the top, that *file* belongs to."""
    return file.relative_to(source).with_suffix("").parts[0]


def imported(tree: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """The line and the full dotted name of everything imported in *tree*, a module of the package
    *inside*.
    """
    for node in walked(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                start = inside[: len(inside) - level + 1] if level else ()
                stem = ".".join((*start, *([module] if module else [])))
                yield from ((node.lineno, f"{stem}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                level = len(name) - len(name.lstrip("."))
                start = inside[: len(inside) - level + 1] if level else ()
                yield node.lineno, ".".join((*start, name.lstrip(".")))


def package_imported(name: str) -> str | None:
    """The package that the dotted *name* leads to: ``__init__`` for the whole, None for what is not
    ours.
    """
    match name.split("."):
        case [whole, package, *_] if whole == PACKAGE:
            # `from nano_vm import Program`: the front door
            return package if package in PACKAGES else "__init__"
        case [whole] if whole == PACKAGE:
            return "__init__"
        case _:
            return None


def declares(function: ast.AsyncFunctionDef) -> bool:
    """Whether *function* has no body but a docstring and dots: it says what others implement, and
    runs nothing.
    """
    return all(
        isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
        for line in function.body
    )


def impurities(tree: ast.AST, place: str) -> Iterator[tuple[int, str]]:
    """What in the module at *place*, which is pure, reaches for the world."""
    for line, name in imported(tree, (PACKAGE,)):
        root = name.partition(".")[0]
        if root in IMPURE_MODULES and (place, root) not in ALLOWED:
            yield line, f"imports {root}"
    for node in walked(tree):
        match node:
            case ast.AsyncFunctionDef(name=name) if not declares(node):
                yield node.lineno, f"has the coroutine {name}()"
            case ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield node.lineno, "awaits"
            case ast.comprehension(is_async=1, target=target):
                yield target.lineno, "awaits"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                if (place, f"{name}()") not in ALLOWED:
                    yield node.lineno, f"calls {name}()"
            case ast.Attribute(
                value=ast.Name(id="date" | "datetime") | ast.Attribute(attr="date" | "datetime")
            ) if node.attr in CLOCK_METHODS:
                yield node.lineno, f"asks for the time with {node.attr}"


def faults(source: Path) -> list[str]:
    """Every breach in the package at *source*: file, line and what it does."""
    found = []
    for file in sorted(source.rglob("*.py")):
        package, place = package_of(file, source), file.relative_to(source.parent)
        if package not in PACKAGES:
            found.append(
                f"{place}: {package!r} is in no list; say in PACKAGES which packages it may import"
            )
            continue
        tree = parsed(file)
        for line, name in imported(tree, file.relative_to(source.parent).parent.parts):
            other = package_imported(name)
            if other is None or other == package:
                continue
            if package in APART and other in APART:
                found.append(f"{place}:{line}: {package} imports {name}, and they stand apart")
            elif PACKAGES.index(other) > PACKAGES.index(package):
                found.append(f"{place}:{line}: {package} imports {name}, which stands below it")
            if name.rpartition(".")[2].startswith("_") and not name.endswith("__"):
                found.append(
                    f"{place}:{line}: {package} imports {name}, which is private to {other}"
                )
        if package in PURE:
            impure = impurities(tree, file.relative_to(source).as_posix())
            found.extend(f"{place}:{line}: {package} is pure and {what}" for line, what in impure)
    return found


@pytest.mark.slow
def test_every_package_keeps_to_its_place() -> None:
    assert list(SOURCE.glob("*.py")), f"nothing to check in {SOURCE}"
    assert not faults(SOURCE)


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            "language/flow.py",
            "from ..machine.machine import Machine",
            "language/flow.py:1: language imports nano_vm.machine.machine.Machine, which stands "
            "below",
        ),
        ("language/flow.py", "from .. import machine", "which stands below"),
        ("language/flow.py", "import nano_vm.machine as m", "which stands below"),
        ("language/flow.py", "from nano_vm.machine.machine import Machine", "which stands below"),
        ("language/flow.py", "from nano_vm import Machine", "which stands below"),
        ("language/flow.py", "import nano_vm", "which stands below"),
        (
            "errors.py",
            "def f():\n    from .run.vm import ExecutionVM",
            "errors.py:2: errors imports nano_vm.run.vm",
        ),
        (
            "run/vm.py",
            "if TYPE_CHECKING:\n    from ..replay import diff",
            "vm.py:2: run imports nano_vm.replay.diff",
        ),
        ("run/vm.py", "import_module('nano_vm.cli')", "which stands below"),
        ("run/vm.py", "importlib.import_module('..cli', __package__)", "which stands below"),
        (
            "verify/order/paths.py",
            "from ...run.vm import ExecutionVM",
            "verify imports nano_vm.run.vm.ExecutionVM",
        ),
        ("verify/shape.py", "from ..language.flow import _Walk", "which is private to language"),
        ("cli/run.py", "from ..run import _helper", "which is private to run"),
        ("draw/graph.py", "from ..planner import Planner", "stand apart"),
        ("testing.py", "from . import planner", "stand apart"),
        ("helpers.py", "", "in no list"),
        ("helpers/text.py", "", "in no list"),
        ("machine/machine.py", "import asyncio", "pure and imports asyncio"),
        ("machine/machine.py", "from os import path", "pure and imports os"),
        (
            "machine/machine.py",
            "def f():\n    import time",
            "machine.py:2: machine is pure and imports time",
        ),
        ("verify/order/paths.py", "from random import Random", "pure and imports random"),
        ("language/reader.py", "from pathlib import Path", "pure and imports pathlib"),
        ("language/reader.py", "open('a')", "pure and calls open()"),
        ("machine/machine.py", "async def f(x):\n    return await x", "has the coroutine f()"),
        (
            "machine/machine.py",
            "async def f(x):\n    return await x",
            "machine.py:2: machine is pure and awaits",
        ),
        (
            "machine/plan.py",
            "async def f(x):\n    return [y async for y in x]",
            "plan.py:2: machine is pure and awaits",
        ),
        (
            "records/trace.py",
            "from datetime import datetime\nx = datetime.now",
            "asks for the time with now",
        ),
        (
            "records/trace.py",
            "import datetime\nx = datetime.datetime.now()",
            "asks for the time with now",
        ),
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
        (
            "machine/machine.py",
            "from .plan import _op\nfrom ..errors import VMError\nimport nano_vm.values",
        ),
        (
            "verify/order/paths.py",
            "from . import proof\nfrom ...language.flow import Flow\nimport timeit_",
        ),
        ("language/program.py", "from pathlib import Path"),
        (
            "adapters/protocol.py",
            "class LLMAdapter:\n    async def complete(self):\n        'Its answer.'\n        ...",
        ),
        ("records/trace.py", "from datetime import datetime, time"),
        ("run/vm.py", "import asyncio, time\nasync def f(x):\n    await x"),
        ("cli/main.py", "from ..adapters import local\nfrom .. import planner"),
        ("__init__.py", "from .run.vm import ExecutionVM"),
    ],
)
def test_what_is_allowed_is_no_breach(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert not faults(tmp_path / PACKAGE)


# --- the map in ARCHITECTURE.md -------------------------------------------------------------------

MAP = Path(__file__).parents[1] / "ARCHITECTURE.md"


def sql(source: Path) -> Iterator[str]:
    """What outside of ``store/sql`` knows that runs are kept in tables."""
    for file in sorted(source.rglob("*.py")):
        place = file.relative_to(source).as_posix()
        if place.startswith("store/sql/"):
            continue
        text = file.read_text(encoding="utf-8")
        for line, name in imported(parsed(file), file.relative_to(source.parent).parent.parts):
            if name.startswith(f"{PACKAGE}.store.sql") and place != OPENS_STORES:
                yield f"{place}:{line}: imports {name}"
        for table in re.findall(
            r"\bnano_(?:runs|rows|inbox|labels|events|receipts|owners)\b", text
        ):
            yield f"{place}: names the table {table}"


OPENS_STORES = "store/protocol.py"


@pytest.mark.slow
def test_only_a_store_speaks_sql() -> None:
    assert not list(sql(SOURCE))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("from ..store.sql.store import SqlStore", "imports nano_vm.store.sql.store.SqlStore"),
        ("def f():\n    import nano_vm.store.sql.read", "x.py:2: imports nano_vm.store.sql.read"),
        ("q = 'SELECT run_id FROM nano_runs'", "names the table nano_runs"),
    ],
)
def test_sql_elsewhere_is_found(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / PACKAGE / "cli" / "x.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert fault in "\n".join(sql(tmp_path / PACKAGE))


TABLE = re.compile(r"^\| (module|pass) \|.*\n\|---.*\n((?:\|.*\n)+)", re.MULTILINE)


def mapped(text: str) -> set[str]:
    """The modules that the map names: in tables of modules, and of `verify/` in that of the passes."""
    return {
        name if kind == "module" else f"verify/{name}"
        for kind, table in TABLE.findall(text)
        for row in table.splitlines()
        for name in re.findall(r"`([a-z_/]+)`", row.split("|")[1])
    }


LISTED_ELSEWHERE = ("cli/", "diagnostics/codes/", "store/sql/migrations/versions/")


def test_the_map_shows_what_is_there() -> None:
    there = set()
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).with_suffix("").as_posix()
        private = any(part.startswith("_") for part in name.split("/"))
        if not private and not name.startswith(LISTED_ELSEWHERE):
            there.add(name)
    assert there == mapped(MAP.read_text(encoding="utf-8"))


# --- private attributes ---------------------------------------------------------------------------


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(tree: ast.AST) -> Iterator[str]:
    """The private names that a module gives to something of its own: functions, classes, variables,
    fields, slots, and attributes of ``self``.
    """
    for node in walked(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                yield from (
                    part.value
                    for part in ast.walk(value)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                )


def reaching(source: Path) -> list[str]:
    """Where a package uses ``x._y`` and only other packages have a ``_y``."""
    trees = {file: parsed(file) for file in sorted(source.rglob("*.py"))}
    owners: dict[str, set[str]] = {}
    for file, tree in trees.items():
        for name in filter(private, defined(tree)):
            owners.setdefault(name, set()).add(package_of(file, source))
    found = []
    for file, tree in trees.items():
        package = package_of(file, source)
        for node in walked(tree):
            if not isinstance(node, ast.Attribute) or not private(node.attr):
                continue
            others = owners.get(node.attr, set())
            if others and package not in others:
                place = f"{file.relative_to(source.parent)}:{node.lineno}"
                found.append(f"{place}: {package} uses {node.attr} of {', '.join(sorted(others))}")
    return found


@pytest.mark.slow
def test_no_package_reaches_into_another() -> None:
    assert reaching(SOURCE) == []


def test_a_reach_is_found(tmp_path: Path) -> None:
    for place, text in {
        "run/vm.py": "class VM:\n    __slots__ = ('_slot',)\n    _field: int\n"
        "    def __init__(self):\n        self._own = 1\n    def _method(self): ...\n"
        "def f(vm):\n    return vm._own",
        "replay/fork.py": "def g(vm):\n    return vm._own, vm._method(), vm._slot, vm._field\n"
        "def h(vm, pair):\n    vm._own = 2\n    return pair._replace(x=1), vm.__class__",
    }.items():
        path = tmp_path / PACKAGE / place
        path.parent.mkdir(parents=True)
        path.write_text(text)
    found = reaching(tmp_path / PACKAGE)
    assert [line.partition(": ")[2] for line in sorted(found)] == [
        "replay uses _field of run",
        "replay uses _method of run",
        "replay uses _own of run",
        "replay uses _slot of run",
        "replay uses _own of run",
    ]


def test_only_the_application_of_the_server_knows_its_routes() -> None:
    found = {
        file.name
        for file in (SOURCE / "server").glob("*.py")
        for node in walked(parsed(file))
        if isinstance(node, ast.ImportFrom)
        and (node.level, (node.module or "").partition(".")[0]) == (1, "routes")
    }
    assert found == {"app.py"}


# --- functions ------------------------------------------------------------------------------------

MAX_FUNCTION_LINES = 100
LONG = {"machine/machine.py: _steps"}
"""The loop that every step passes: split up, it pays for a call a step."""


@pytest.mark.slow
def test_no_function_is_longer_than_two_screens() -> None:
    found = {
        f"{path.relative_to(SOURCE).as_posix()}: {node.name}"
        for path in SOURCE.rglob("*.py")
        for node in walked(parsed(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    }
    assert found == LONG
