"""What must hold of the tests themselves, which a run of one file does not show."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent


def test_no_two_modules_have_one_name() -> None:
    """Pytest imports a module by its bare name, where its folder is no package, and refuses the
    whole suite where two have the same.
    """
    names = Counter(
        path.name for path in TESTS.rglob("*.py") if not (path.parent / "__init__.py").exists()
    )
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []
