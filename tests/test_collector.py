"""The pause of the cycle collector: as it was before, whoever paused it and in whichever order."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import pytest

from nano_vm.collector import collector_paused


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_it_is_paused_inside_and_on_again_after() -> None:
    with collector_paused(), collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_stays_off_where_it_was_off() -> None:
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_it_is_on_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="no"), collector_paused():
        raise ValueError("no")
    assert gc.isenabled()


def test_pauses_that_overlap_do_not_leave_it_off() -> None:
    """The first begins while it is on and ends first; the second saw it off."""
    inside, ended = threading.Event(), threading.Event()

    def second() -> None:
        with collector_paused():
            inside.set()
            ended.wait(10)
            assert not gc.isenabled()

    thread = threading.Thread(target=second)
    with collector_paused():
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled()
    ended.set()
    thread.join(10)
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_does_not_wait_for_a_pause_of_its_parent() -> None:
    inside, ended = threading.Event(), threading.Event()

    def pause() -> None:
        with collector_paused():
            inside.set()
            ended.wait(10)

    thread = threading.Thread(target=pause)
    thread.start()
    assert inside.wait(10)
    child = os.fork()
    if child == 0:
        on = gc.isenabled()
        with collector_paused():
            off = not gc.isenabled()
        os._exit(0 if on and off and gc.isenabled() else 1)
    ended.set()
    thread.join(10)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gc.isenabled()
