"""A process that is forked after a VM was used: the child works, and takes nothing from its
parent.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
import warnings
from pathlib import Path

import pytest
from postgres import url_of

from nano_vm import ExecutionVM, Program, tool
from nano_vm.adapters import LocalAdapter
from nano_vm.errors import StoreError
from nano_vm.store.protocol import open_store
from nano_vm.store.sql.database import Turns

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

PATIENCE = 60  # seconds, for a machine with much else to do; a child that hangs is killed then


@tool(effect="read")
def double(n: int) -> int:
    return 2 * n


@tool(effect="read")
def sleep(n: int) -> int:
    time.sleep(PATIENCE)
    return n


def one_step(name: str, **fields) -> Program:
    return Program.from_dict(
        {"steps": [{"id": "s", "type": "tool", "tool": name, "args": {"n": 2}, **fields}]}
    )


DOUBLE = one_step("double")
WAITS = Program.from_dict(
    {
        "steps": [
            {"id": "w", "type": "wait", "event": "paid"},
            {"id": "s", "type": "tool", "tool": "double", "args": {"n": 3}},
        ]
    }
)


def forked(function) -> str:
    """What *function* gives in a child that is forked here, as text."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # from 3.12 on, of a fork beside threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE)  # its default action ends the process
            os.write(write, str(function()).encode())
        except BaseException:  # noqa: BLE001 - told by the parent
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, f"the child hung or died: {status} {text}"
    return text


def output(vm, program=DOUBLE, **options):
    return vm.run_sync(program, **options).final_output


@pytest.fixture
def vm():
    vm = ExecutionVM(tools={"double": double, "sleep": sleep}, threads=2)
    assert output(vm) == 4
    return vm


# --- without a store ------------------------------------------------------------------------------


@pytest.mark.slow
def test_sync_tools_run_in_the_child_and_in_the_parent(vm):
    assert forked(lambda: output(vm)) == "4"
    assert output(vm) == 4


@pytest.mark.slow
def test_children_of_children(vm):
    assert forked(lambda: forked(lambda: output(vm)) + str(output(vm))) == "44"


@pytest.mark.slow
def test_a_deadline_fires_in_the_child(vm):
    slow = one_step("sleep", timeout_seconds=0.05)
    assert "no outcome within" in forked(lambda: vm.run_sync(slow).error)


@pytest.mark.slow
def test_threads_that_are_busy_in_the_parent_are_none_in_the_child(vm):
    release = threading.Event()

    @tool(effect="read")
    def hold(n: int) -> int:
        release.wait(PATIENCE)
        return n

    vm.register_tool("hold", hold)
    thread = threading.Thread(target=output, args=(vm, one_step("hold")))
    others = [thread, threading.Thread(target=output, args=(vm, one_step("hold")))]
    for other in others:
        other.start()
    while vm.preparer.threads.idle or vm.preparer.threads.count < 2:
        time.sleep(0.01)
    try:
        assert forked(lambda: output(vm)) == "4"
    finally:
        release.set()
        for other in others:
            other.join()


@pytest.mark.slow
def test_a_lock_that_another_thread_holds_is_free_in_the_child(vm):
    with vm.preparer.threads.lock:
        assert forked(lambda: output(vm)) == "4"


@pytest.mark.slow
def test_a_run_of_the_parent_is_not_joined_in_the_child(vm):
    async def main():
        run = vm.start(
            one_step("sleep", timeout_seconds=0.5, on_error="skip", default=7), run_id="r"
        )
        await asyncio.sleep(0.05)
        text = await asyncio.to_thread(forked, lambda: output(vm, run_id="r"))
        trace = await run
        return text, trace.final_output

    assert asyncio.run(main()) == ("4", 7)


@pytest.mark.slow
def test_multiprocessing(vm):
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with context.Pool(2) as pool:
            assert pool.map_async(_squared, range(4)).get(PATIENCE) == [0, 2, 4, 6]
    gc.collect()


_shared = ExecutionVM(tools={"double": double})


def _squared(n):
    return _shared.run_sync(
        Program.from_dict(
            {"steps": [{"id": "s", "type": "tool", "tool": "double", "args": {"n": n}}]}
        )
    ).final_output


# --- with a store ---------------------------------------------------------------------------------


@pytest.mark.real_llm
def test_a_local_model_is_loaded_again_in_the_child():
    vm = ExecutionVM(llm=LocalAdapter())
    asks = Program.from_dict(
        {"steps": [{"id": "a", "type": "llm", "prompt": "2 + 2 =", "max_tokens": 8}]}
    )
    answer = output(vm, asks)
    assert forked(lambda: output(vm, asks)) == answer
    assert output(vm, asks) == answer


def opened(url):
    vm = ExecutionVM(tools={"double": double}, store=url)
    assert output(vm, run_id="parent") == 4
    yield vm
    vm.close()


@pytest.fixture
def in_file(tmp_path):
    yield from opened(f"sqlite:///{tmp_path}/runs.db")


@pytest.fixture(params=["file", "postgres"])
def stored(request, tmp_path):
    yield from opened(url_of(request, tmp_path))


@pytest.mark.slow
def test_parent_and_child_write_to_one_file(stored):
    def child():
        result = output(stored, run_id="child")
        stored.close()
        return result

    assert forked(child) == "4"
    assert output(stored, run_id="parent-2") == 4
    for run_id in ("parent", "child", "parent-2"):
        assert stored.load(run_id).final_output == 4


@pytest.mark.slow
def test_a_child_is_another_owner_and_gives_its_runs_back_as_such(stored):
    mine = stored._durable.lease.owner
    child = forked(lambda: (output(stored, run_id="child"), stored._durable.lease.owner)[1])
    assert child != mine
    assert Path(f"/proc/{os.getpid()}").name in mine
    assert child.rpartition("/")[0] != mine.rpartition("/")[0]


@pytest.mark.slow
def test_a_child_leaves_the_runs_of_its_parent_alone(stored):
    """The parent drives a run while the child works: it is not taken up there."""
    release = threading.Event()
    calls = []

    @tool(effect="write")
    def pay(n: int) -> int:
        calls.append(os.getpid())
        release.wait(PATIENCE)
        return n

    stored.register_tool("pay", pay)
    thread = threading.Thread(target=output, args=(stored, one_step("pay")), kwargs={"run_id": "p"})
    thread.start()
    while not calls:
        time.sleep(0.01)

    def child():
        asyncio.run(stored.work(until_idle=True))
        return calls

    try:
        assert forked(child) == str([os.getpid()])
    finally:
        release.set()
        thread.join()
    assert stored.load("p").final_output == 2


@pytest.mark.slow
def test_a_child_goes_on_with_what_waits(stored):
    stored.run_sync(WAITS, run_id="w")
    stored.send_event("w", "paid")

    def child():
        asyncio.run(stored.work(until_idle=True))
        return stored.load("w").final_output

    assert forked(child) == "6"
    assert stored.load("w").final_output == 6


@pytest.mark.slow
def test_a_fork_waits_for_a_transaction_and_the_log_is_still_there(in_file):
    began = threading.Event()

    def write():
        with in_file.store.database.writing() as connection:
            connection.run("UPDATE nano_runs SET status = status")
            began.set()
            time.sleep(0.2)

    thread = threading.Thread(target=write)
    thread.start()
    began.wait(PATIENCE)
    assert forked(lambda: output(in_file, run_id="child")) == "4"
    thread.join()
    again = open_store(f"sqlite:///{in_file.store.database.dialect.place}")
    assert again.load("child", rows=False).status == "success"
    again.close()


@pytest.mark.slow
def test_connections_of_sqlite_are_not_in_the_child(in_file):
    place = in_file.store.database.dialect.place

    def open_files():
        names = [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")
        ]
        return [name for name in names if name.startswith(place)]

    assert open_files()
    assert forked(open_files) == "[]"
    assert output(in_file, run_id="after") == 4


@pytest.mark.slow
def test_what_is_in_use_for_too_long_is_not_used_in_the_child(in_file, monkeypatch):
    monkeypatch.setattr("nano_vm.store.sql.database.REST_SECONDS", 0.05)
    place = in_file.store.database.dialect.place

    def child():
        found = []
        for attempt in (lambda: in_file.load("parent"), lambda: open_store(f"sqlite:///{place}")):
            try:
                attempt()
            except StoreError as error:
                found.append("was in use when this process was forked" in str(error))
        return found

    with in_file.store.database.reading():
        assert forked(child) == "[True, True]"
    assert in_file.load("parent").final_output == 4


@pytest.mark.slow
def test_a_store_in_memory_is_copied():
    vm = ExecutionVM(tools={"double": double}, store="sqlite://")
    assert output(vm, run_id="a") == 4
    assert forked(lambda: (vm.load("a").final_output, output(vm, run_id="b"))) == "(4, 4)"
    with pytest.raises(StoreError):
        vm.load("b")
    vm.close()


@pytest.mark.slow
def test_many_forks_beside_runs(in_file):
    stop = threading.Event()
    done = []

    def runs():
        while not stop.is_set():
            done.append(output(in_file))

    thread = threading.Thread(target=runs)
    thread.start()
    try:
        found = [forked(lambda: output(in_file)) for _ in range(8)]
    finally:
        stop.set()
        thread.join()
    assert set(found) == {"4"}
    assert set(done) == {4}
    with in_file.store.database.reading() as connection:
        assert connection.one("PRAGMA integrity_check") == ("ok",)


def test_turns_are_taken_again_by_who_has_one():
    turns = Turns(one_by_one=True)
    with turns, turns:
        pass
    assert turns.rest()
    turns.go_on()
    with turns:
        assert not turns.rest()
        turns.go_on()
