"""How much of a processor each test takes, its processes included; and what keeps that little.

A test that takes `SLOW_SECONDS` is marked `slow`, so that `make test-quick` stays quick. Which of
those that ran have no such mark is said at the end of each run; ``--times=FILE`` writes what each
of them took.
"""

from __future__ import annotations

import csv
import faulthandler
import gc
import os
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from in_memory import folder_in_memory
from processes import family_seconds

from nano_vm.collector import THRESHOLDS

SLOW_SECONDS = 0.05
LISTED = 20
"""How many of the tests without a mark are named."""

_EXEMPT = ("slow", "campaign", "real_llm")
_UNMARKED = "processor seconds without a mark"
_TIMES = "seconds, processor seconds and marks"

_STANDS_SECONDS = 300.0
_ARMED_FOR_SECONDS = 30.0
"""Arming starts and ends a thread, which costs a busy machine more than most tests take."""


def _processor_seconds() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _has_processes() -> bool:
    with suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def _family_seconds() -> float:
    """The same with processes that still run, as servers of a module do; it takes milliseconds."""
    return family_seconds(os.getpid()) if _has_processes() else _processor_seconds()


def _put_folders_into_memory() -> None:
    folder = folder_in_memory()
    if folder is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))


class _Watch:
    """Prints where every thread stands where a test hangs; it never ends a test."""

    def __init__(self) -> None:
        self.output = os.dup(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2)
        self.armed = float("-inf")

    def renew(self) -> None:
        now = time.monotonic()
        if now >= self.armed + _ARMED_FOR_SECONDS:
            faulthandler.dump_traceback_later(_STANDS_SECONDS, file=self.output)
            self.armed = now

    def end(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self.output)


_watch = pytest.StashKey[_Watch]()
_before = pytest.StashKey[float]()


class _Times:
    """Takes the time of each phase of each test; where the reports come together, writes it."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.before = time.monotonic(), _family_seconds()
        if file is not None:
            file.write_text("test,phase,seconds,of a processor,marks\n")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        now = time.monotonic(), _family_seconds()
        report = yield
        taken = [after - before for before, after in zip(self.before, now, strict=True)]
        marks = " ".join(sorted({mark.name for mark in item.iter_markers()}))
        report.user_properties = [*report.user_properties, (_TIMES, [*taken, marks])]
        self.before = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # a report of xdist's own, of a worker that crashed, has no time
        known = dict(report.user_properties).get(_TIMES)
        if self.file is not None and known is not None:
            *taken, marks = known
            figures = [f"{seconds:.4f}" for seconds in taken]
            with self.file.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow([report.nodeid, report.when, *figures, marks])


def pytest_addoption(parser: pytest.Parser) -> None:
    # with a space before FILE, pytest takes FILE for where the tests are, before it knows the option
    parser.addoption(
        "--times", metavar="FILE", help="--times=FILE writes what each test took, as CSV"
    )


def pytest_configure(config: pytest.Config) -> None:
    _put_folders_into_memory()
    gc.set_threshold(*THRESHOLDS)  # a tenth of the suite is the collector otherwise
    config.stash[_watch] = _Watch()
    if (path := config.getoption("times")) is not None:
        is_worker = hasattr(config, "workerinput")  # of pytest-xdist
        config.pluginmanager.register(_Times(None if is_worker else Path(path)))


def pytest_unconfigure(config: pytest.Config) -> None:
    if _watch in config.stash:
        config.stash[_watch].end()


def pytest_collection() -> None:
    gc.disable()  # nearly all that is made now stays


def pytest_collection_finish() -> None:
    gc.enable()
    gc.collect()
    gc.freeze()  # the tests themselves, nearly a million objects, which stay to the end


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.config.stash[_watch].renew()
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    item.stash[_before] = _processor_seconds()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield
    taken = _processor_seconds() - item.stash[_before]
    if taken >= SLOW_SECONDS and not any(item.get_closest_marker(mark) for mark in _EXEMPT):
        item.user_properties.append((_UNMARKED, taken))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found = [
        (taken, report.nodeid)
        for report in terminalreporter.getreports("passed")
        for name, taken in report.user_properties
        if name == _UNMARKED and report.when == "call"
    ]
    if not found:
        return
    terminalreporter.section(f"not marked slow, and took {SLOW_SECONDS} s of a processor or more")
    for taken, name in sorted(found, reverse=True)[:LISTED]:
        terminalreporter.write_line(f"{taken:6.2f} s  {name}")
    if len(found) > LISTED:
        terminalreporter.write_line(f"and {len(found) - LISTED} more")
