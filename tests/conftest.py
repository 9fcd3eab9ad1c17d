"""What holds for every test: in CI a skipped test is a failed one, and one that needs a server or a
browser is slow.

A test that skips tells nothing, and a suite in which half the tests skip is still green. So with
``CI`` or ``NANO_VM_NO_SKIPS`` set, a skip becomes a failure that gives the reason of the skip. A
test that needs what no common machine has is marked ``elsewhere("what it needs")`` and may skip
everywhere.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["browsing", "postgres", "processor_time", "sharing"]

_NO_SKIPS = any(
    os.environ.get(name, "").lower() not in ("", "0", "false")
    for name in ("CI", "NANO_VM_NO_SKIPS")
)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what runs behind it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests start is interrupted

# a case may wait for a processor that others keep busy: what is slow, other tests measure
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_HEAVY_FIXTURES = {"postgres", "browser", "temporal_server"}
_HEAVY_CASES = {"postgres", "litellm"}
"""Parameters of a test, or of its fixtures: a server is started, or seconds of imports come first.
"""


_HEAVY_FOLDERS = {Path(__file__).with_name(name) for name in ("server", "temporal")}
"""Their tests share servers, which the first of each module has made."""


@cache
def _is_in_heavy_folder(path: Path) -> bool:
    return not _HEAVY_FOLDERS.isdisjoint(path.parents)


def _is_heavy(item: pytest.Item) -> bool:
    """Whether the test, or this case of it, needs what takes seconds to start."""
    if _is_in_heavy_folder(item.path):
        return True
    case = getattr(item, "callspec", None)
    values = case.params.values() if case is not None else ()
    return not _HEAVY_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) or any(
        isinstance(value, str) and value in _HEAVY_CASES for value in values
    )


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_heavy(item):
            item.add_marker(pytest.mark.slow)


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid or 'a module'} must run here, and did not: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # what a test prints or logs may be no text that can be sent to the process that reports it
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    if _NO_SKIPS and item.get_closest_marker("elsewhere") is None:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if _NO_SKIPS:
        _fail_if_skipped(report)
    return report
