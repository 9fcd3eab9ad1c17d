"""What must hold of the tests themselves, which a run of one file does not show."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def test_no_two_modules_have_one_name() -> None:
    """Pytest imports a module by its bare name, where its folder is no package, and refuses the
    whole suite where two have the same.
    """
    names = Counter(
        path.name for path in TESTS.rglob("*.py") if not (path.parent / "__init__.py").exists()
    )
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []


SESSION_FIXTURE = re.compile(r'fixture\([^)]*scope="session"[^)]*\)\s+(?:async )?def (\w+)')
IMPORTED = re.compile(r"^from \S+ import (\([^)]*\)|.*)", re.MULTILINE)


def copies(sources: dict[str, str]) -> list[str]:
    """Which of the *sources* import a fixture that all tests of a process are to share."""
    shared = {name for source in sources.values() for name in SESSION_FIXTURE.findall(source)}
    return [
        f"{path} imports {name}"
        for path, source in sources.items()
        for imported in IMPORTED.findall(source)
        for name in re.findall(r"\w+", imported)
        if name in shared
    ]


def test_no_module_has_its_own_copy_of_what_all_share() -> None:
    """Where a module imports a fixture, pytest makes another one of it, for that module: of a
    server that each process was to start once, nineteen were started.
    """
    sources = {str(path.relative_to(TESTS)): path.read_text() for path in TESTS.rglob("*.py")}
    assert copies(sources) == []


@pytest.mark.parametrize(
    ("scope", "found"), [("session", ["b.py imports server"]), ("function", [])]
)
def test_a_copy_is_found(scope: str, found: list[str]) -> None:
    fixture = f'@pytest.fixture(scope="{scope}")\ndef server(): ...'
    assert copies({"a.py": fixture, "b.py": "from a import server, other"}) == found
