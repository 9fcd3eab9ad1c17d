"""What holds for every test: in CI a skipped test is a failed one.

A test that skips tells nothing, and a suite in which half the tests skip is still green. So with
``CI`` or ``NANO_VM_NO_SKIPS`` set, a skip becomes a failure that gives the reason of the skip. A
test that needs what no common machine has is marked ``elsewhere("what it needs")`` and may skip
everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

_NO_SKIPS = any(
    os.environ.get(name, "").lower() not in ("", "0", "false")
    for name in ("CI", "NANO_VM_NO_SKIPS")
)


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
    if _NO_SKIPS and item.get_closest_marker("elsewhere") is None:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if _NO_SKIPS:
        _fail_if_skipped(report)
    return report
