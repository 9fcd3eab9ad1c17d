"""The pause of the cycle collector: as it was before, whoever paused it and in whichever order."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import pytest
from patience import HANGS_SECONDS

from nano_vm import ExecutionVM, Program
from nano_vm.collector import PYTHONS_OWN, THRESHOLDS, collector_eased, collector_paused


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
            ended.wait(HANGS_SECONDS)
            assert not gc.isenabled()

    thread = threading.Thread(target=second)
    with collector_paused():
        thread.start()
        assert inside.wait(HANGS_SECONDS)
    assert not gc.isenabled()
    ended.set()
    thread.join(HANGS_SECONDS)
    assert gc.isenabled()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_does_not_wait_for_a_pause_of_its_parent() -> None:
    inside, ended = threading.Event(), threading.Event()

    def pause() -> None:
        with collector_paused():
            inside.set()
            ended.wait(HANGS_SECONDS)

    thread = threading.Thread(target=pause)
    thread.start()
    assert inside.wait(HANGS_SECONDS)
    child = os.fork()
    if child == 0:
        on = gc.isenabled()
        with collector_paused():
            off = not gc.isenabled()
        os._exit(0 if on and off and gc.isenabled() else 1)
    ended.set()
    thread.join(HANGS_SECONDS)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gc.isenabled()


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*PYTHONS_OWN)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
def test_it_looks_less_often_while_anybody_wants_that() -> None:
    with collector_eased():
        with collector_eased():
            assert gc.get_threshold() == THRESHOLDS
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == PYTHONS_OWN


@pytest.mark.usefixtures("thresholds")
def test_thresholds_that_somebody_chose_stay() -> None:
    gc.set_threshold(5_000, 5, 5)
    with collector_eased():
        assert gc.get_threshold() == (5_000, 5, 5)
    assert gc.get_threshold() == (5_000, 5, 5)
    gc.set_threshold(*PYTHONS_OWN)
    with collector_eased():
        gc.set_threshold(5_000, 5, 5)
    assert gc.get_threshold() == (5_000, 5, 5)


@pytest.mark.usefixtures("thresholds")
async def test_only_a_batch_sets_them_and_only_while_it_runs() -> None:
    seen = []
    vm = ExecutionVM(tools={"t": lambda: seen.append(gc.get_threshold())})
    one = Program.from_dict({"steps": [{"id": "a", "type": "tool", "tool": "t"}]})
    await vm.run(one)
    assert [result.trace.ok async for result in vm.run_many(one, [{}, {}])] == [True, True]
    assert seen == [PYTHONS_OWN, THRESHOLDS, THRESHOLDS]
    assert gc.get_threshold() == PYTHONS_OWN
