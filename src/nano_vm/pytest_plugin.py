"""pytest collects files NAME.test.yaml: each test in them is one of pytest's.

pytest loads this module by its entry point, in projects that use none of it too: so nothing of the
package is imported before such a file is met.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .program_tests.suite import Suite, Test

ENDINGS = (".test.yaml", ".test.yml", ".test.json")
"""As `program_tests.document.ENDINGS`, which a test holds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--nano-vm-update``."""
    group = parser.getgroup("nano-vm", "tests of programs (NAME.test.yaml)")
    group.addoption("--nano-vm-update", action="store_true", help="write golden files that differ")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A test file, by its name and by something in it that only they have."""
    if not file_path.name.endswith(ENDINGS) or not _is_ours(file_path):
        return None
    return ProgramTests.from_parent(parent, path=file_path)


def _is_ours(path: Path) -> bool:
    """Whether the file has one of our sections: other tools call files so, too."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return False
    return any(word in text for word in ("tests:", "properties:", '"tests"', '"properties"'))


class Differs(Exception):
    """A test whose run is not as expected; the lines say how."""


class ProgramTests(pytest.File):
    """A test file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Its tests."""
        from .cli.faults import UsageFault
        from .cli.program_tests import suite_of
        from .errors import MissingExtra, ProgramError

        try:
            suite = suite_of(self.path)
        except ProgramError as error:
            lines = "\n".join(map(str, error.diagnostics))
            raise self.CollectError(lines) from None
        except (UsageFault, MissingExtra) as error:
            raise self.CollectError(str(error)) from None
        for one in suite.tests:
            yield ProgramTest.from_parent(self, name=one.name, suite=suite, test=one)


class ProgramTest(pytest.Item):
    """One test of a file."""

    def __init__(self, *, suite: Suite, test: Test, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.suite = suite
        self.test = test

    def runtest(self) -> None:
        """Run it."""
        verdict = self.suite.run(self.test, update=self.config.getoption("--nano-vm-update"))
        if not verdict.passed:
            raise Differs("\n".join(verdict.faults))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The lines alone: a traceback through this package says nothing of a program."""
        if isinstance(excinfo.value, Differs):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands."""
        return self.path, self.test.line - 1, self.test.name
