"""How the processes of pytest-xdist share their work: each begins with modules of its own, and what
takes longest is begun first.

All read every module, in one order, and pytest compiles what it has not compiled yet, with its
asserts rewritten. Who is behind catches up by what the others have written, so that in a fresh
clone all would compile the same modules at the same time, four times the work.

A process takes over tests of another's, but neither the one that runs nor the next. Campaigns that
wait for processes to start and to die take a third of a minute each, and at the end of a run all
other processes would wait for them. One process that began with all of them would run them one
after another, so each begins with its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest

LONGEST = {"soak", "test_kills.py", "test_wheel.py"}
"""Folders and modules whose tests wait most."""


def modules(config: pytest.Config) -> list[Path]:
    """Those that all processes read, the largest first."""
    folders = [config.rootpath / folder for folder in config.getini("testpaths")]
    found = [file for folder in folders for file in folder.rglob("test_*.py")]
    return sorted(found, key=lambda file: (-file.stat().st_size, file))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    config = session.config
    worker: dict[str, object] | None = getattr(config, "workerinput", None)
    if worker is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    number = int(str(worker["workerid"]).removeprefix("gw"))
    for file in modules(config)[number :: int(str(worker["workercount"]))]:
        # what cannot be imported is told when its tests are collected
        with suppress(Exception, pytest.skip.Exception):
            pytest.Module.from_parent(session, path=file).obj


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Last, since the parts are those of what is run: `-m` and `-k` leave some out."""
    worker: dict[str, object] | None = getattr(config, "workerinput", None)
    if worker is not None:
        items[:] = shared(items, int(str(worker["workercount"])))


def shared(items: Sequence[pytest.Item], count: int) -> list[pytest.Item]:
    """All in an order in which each of *count* equal parts begins with its share of what takes
    longest: ``--dist worksteal`` gives each process one such part.
    """
    longest = [item for item in items if not LONGEST.isdisjoint(item.path.parts)]
    others = iter([item for item in items if LONGEST.isdisjoint(item.path.parts)])
    found: list[pytest.Item] = []
    for number in range(count):
        size = (len(items) - len(found)) // (count - number)  # as xdist has it
        own = longest[number::count]
        found += own
        found += islice(others, max(0, size - len(own)))
    return found
