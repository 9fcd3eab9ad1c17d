"""Modules with one thing wrong, for tests that must notice it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType


def mutated(names: Sequence[str], old: str, new: str) -> dict[str, ModuleType]:
    """The modules *names*, each importing those before it, with *new* in place of *old*, which
    stands in them once; by name.
    """
    whole = {name: import_module(name) for name in names}
    sources = {name: Path(str(module.__file__)).read_text() for name, module in whole.items()}
    times = sum(source.count(old) for source in sources.values())
    assert times == 1, f"{old!r} stands {times} times in the source"
    made: dict[str, ModuleType] = {}
    try:
        for name, source in sources.items():
            module = made[name] = ModuleType(name)
            module.__package__ = name.rpartition(".")[0]
            sys.modules[name] = module  # for those after it to import
            exec(compile(source.replace(old, new), str(whole[name].__file__), "exec"), vars(module))
    finally:
        sys.modules.update(whole)
    return made
