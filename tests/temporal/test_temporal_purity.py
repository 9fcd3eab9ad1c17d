"""What runs in workflow code touches nothing of the world, since it is not in the SDK's sandbox."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from test_layers import IMPURE_MODULES, imported

SOURCE = Path(__file__).parents[2] / "src" / "nano_vm" / "temporal"

WORKFLOW = ("workflow", "computed", "driver", "snapshot", "tape", "words", "terms", "failures")
"""The modules that workflow code runs; `plans` makes plans in a thread, whose result is the same."""

CORE = {"errors", "values", "language", "machine", "records", "collector", "tools", "temporal"}
"""Packages that they may import."""


@pytest.mark.parametrize("name", [*WORKFLOW, "plans"])
def test_workflow_code_imports_the_core_only(name: str) -> None:
    tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
    for line, module in imported(tree, ("nano_vm", "temporal")):
        root, *rest = module.split(".")
        if root == "nano_vm":
            assert rest[0] in CORE, f"{name}.py:{line} imports {module}"
        elif name != "plans":
            assert root == "asyncio" or root not in IMPURE_MODULES, f"{name}.py:{line}: {module}"


@pytest.mark.parametrize("name", WORKFLOW)
def test_workflow_code_waits_in_an_order_that_repeats(name: str) -> None:
    """`asyncio.wait` gives sets, whose order is another in each process."""
    tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used.isdisjoint({"wait", "as_completed", "sleep", "to_thread", "run_in_executor"})


@pytest.mark.slow
def test_the_workflow_loads_nothing_of_a_host() -> None:
    code = (
        "import sys, types, pathlib\n"
        "package = types.ModuleType('nano_vm.temporal')\n"
        f"package.__path__ = [{str(SOURCE)!r}]\n"
        "import nano_vm\n"
        "sys.modules['nano_vm.temporal'] = package\n"
        "import nano_vm.temporal.workflow\n"
        "print(sorted(name for name in sys.modules if name.startswith((\n"
        "    'nano_vm.run', 'nano_vm.store', 'nano_vm.adapters', 'nano_vm.verify', 'sqlite3'))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
