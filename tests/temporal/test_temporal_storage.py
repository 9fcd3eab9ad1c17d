"""Large values and secret ones: payloads by reference, each distinct value once; histories in which
nothing can be read.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
from build import mapped, program, step
from patience import HANGS_SECONDS
from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from nano_vm import ExecutionVM, Program, VMError, tool
from nano_vm.errors import StoreError
from nano_vm.store.protocol import open_payloads
from nano_vm.temporal import (
    Encryption,
    TemporalRuns,
    connect,
    data_converter,
    worker,
    workflow,
)
from nano_vm.temporal.conversion import NanoPayloadConverter
from nano_vm.temporal.encryption import key_of, named
from temporal.cluster import Server

MARK = "the-secret-of-the-customer"
KEYS = {"k1": bytes(range(32))}


@tool(effect="read")
async def grown(seed: str, size: int) -> str:
    return seed * size


@tool(effect="read")
async def same(x: Any) -> Any:
    return x


@tool(effect="read")
async def length(x: Any) -> int:
    return len(x)


TOOLS = {"grown": grown, "same": same, "length": length}


def passing(size: int) -> Program:
    """A value of *size* bytes that is made once, and handed on four times."""
    return program(
        step("a", tool="grown", args={"seed": "x", "size": size}),
        step("b", tool="same", args={"x": "$a.output"}),
        step("c", tool="same", args={"x": "$b.output"}),
        step("d", tool="length", args={"x": "$c.output"}),
        step("e", tool="length", args={"x": "$c.output"}),
        output="$e.output",
    )


async def history_bytes(client: Client, run_id: str) -> list[bytes]:
    """The events of all executions of a run."""
    found = []
    async for one in client.list_workflows(f"WorkflowId = '{run_id}'"):
        handle = client.get_workflow_handle(run_id, run_id=one.run_id)
        history = await handle.fetch_history()
        found += [event.SerializeToString() for event in history.events]
    return found


async def test_a_large_value_is_kept_once_and_histories_are_small(
    temporal_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "MAX_CALLS", 3)
    size, url = 3_000_000, f"sqlite:///{tmp_path}/payloads.db"
    client = await connect(temporal_server.address, payloads=url)
    vm = ExecutionVM(None, TOOLS)
    made = passing(size)
    async with worker(client, vm, "large"):
        runs = TemporalRuns(client, "large", vm=vm)
        trace = await runs.run(made, run_id="large")
    local = await vm.run(made, run_id="large")
    assert trace.final_output == size
    assert trace.digest == local.digest
    assert sum(map(len, await history_bytes(client, "large"))) < 60_000
    payloads = open_payloads(url)
    (value,) = payloads.get([hashlib.sha256(b'"' + b"x" * size + b'"').hexdigest()])
    assert len(value) == size + 2
    count, total = payloads.count()
    payloads.close()
    # the value itself, and the trace of the whole run, in which it stands in each place
    assert count == 2
    assert total < 9 * size


async def test_without_storage_a_value_that_is_too_large_fails_its_step(
    temporal_server: Server,
) -> None:
    client = await connect(temporal_server.address)
    vm = ExecutionVM(None, TOOLS)
    async with worker(client, vm, "too-large"):
        runs = TemporalRuns(client, "too-large", vm=vm)
        trace = await runs.run(passing(3_000_000), run_id="too-large")
    assert "PayloadsTooLarge" in (trace.error or "")
    assert [one.path for one in trace.steps] == ["a"]


async def test_without_storage_a_call_that_is_given_too_much_fails_its_step(
    temporal_server: Server,
) -> None:
    """Each value passes by itself."""
    client = await temporal_server.client()
    vm = ExecutionVM(None, TOOLS)
    made = program(
        step("a", tool="grown", args={"seed": "x", "size": 1_200_000}),
        step("b", tool="length", args={"x": {"expr": "[$a.output, $a.output]"}}),
    )
    async with worker(client, vm, "given"):
        trace = await TemporalRuns(client, "given").run(made, run_id="given")
    fault = trace.steps[1].error or ""
    assert "PayloadsTooLarge: what the call is given has 2,400,0" in fault
    assert "give all clients and workers a database for large ones: --payloads" in fault


async def test_without_storage_a_value_of_a_local_call_fails_its_step(
    temporal_server: Server,
) -> None:
    @tool(effect="read", inline=True)
    def near(size: int) -> str:
        return "x" * size

    client = await temporal_server.client()
    made = program(step("a", tool="near", args={"size": 3_000_000}))
    async with worker(client, ExecutionVM(None, {"near": near}), "near"):
        trace = await TemporalRuns(client, "near").run(made, run_id="near")
    fault = trace.steps[0].error or ""
    assert "PayloadsTooLarge: the value of the tool has 3,000,002 bytes" in fault


async def test_without_storage_a_program_that_calls_too_large_ones_ends_with_an_error(
    temporal_server: Server,
) -> None:
    """Which its worker knows; the client sends none of them."""
    client = await temporal_server.client()
    large = program({"id": "s", "type": "set", "values": {"x": "y" * 3_000_000}}, name="large")
    made = program({"id": "c", "type": "call", "program": "large"})
    async with worker(client, ExecutionVM(programs={"large": large}), "calls"):
        runs = TemporalRuns(client, "calls")
        run_id = await runs.submit(made)
        with pytest.raises(
            VMError, match="PayloadsTooLarge: the program, with those that it calls, has 3,000"
        ):
            await runs.result(run_id)


@pytest.mark.parametrize(
    ("calls", "what"),
    [(200, "the trace of the run"), (90, "what the run was given so far")],
    ids=["at its end", "on its way"],
)
async def test_without_storage_a_run_that_is_too_large_ends_with_an_error(
    temporal_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calls: int, what: str
) -> None:
    """Its calls are small, and there are a hundred of them."""
    monkeypatch.setattr(workflow, "MAX_CALLS", calls)
    client = await temporal_server.client()
    vm = ExecutionVM(None, TOOLS, store=f"sqlite:///{tmp_path}/runs.db")
    call = step("a", tool="grown", args={"seed": "x", "size": 25_000})
    made = program(mapped(call, over="$items"))
    name = f"large-{calls}"
    async with worker(client, vm, name):
        runs = TemporalRuns(client, name, search_attributes=True)
        await runs.submit(made, {"items": list(range(100))}, run_id=name)
        with pytest.raises(
            VMError, match=rf"end by itself: PayloadsTooLarge: {what} has [\d,]+ bytes, and"
        ):
            await runs.result(name)
    vm.close()


async def test_without_storage_a_run_that_ended_too_large_says_so_where_it_is_shown(
    temporal_server: Server,
) -> None:
    client = await temporal_server.client()
    call = {"tool": "grown", "args": {"seed": "x", "size": 1_200_000}}
    async with worker(client, ExecutionVM(None, TOOLS), "large-ended"):
        runs = TemporalRuns(client, "large-ended")
        run_id = await runs.submit(program(step("a", **call), step("b", **call)))
        with pytest.raises(VMError, match="the trace of the run has"):
            await runs.result(run_id)
        with pytest.raises(VMError, match=rf"run '{run_id}': its trace has [\d,]+ bytes, and"):
            await runs.trace(run_id)


async def test_without_storage_a_run_that_is_too_large_says_so_where_it_waits(
    temporal_server: Server,
) -> None:
    client = await temporal_server.client()
    call = {"tool": "grown", "args": {"seed": "x", "size": 1_200_000}}
    made = program(step("a", **call), step("b", **call), {"id": "w", "type": "wait", "event": "go"})
    async with worker(client, ExecutionVM(None, TOOLS), "large-waits"):
        runs = TemporalRuns(client, "large-waits")
        with pytest.raises(
            VMError, match=r"run 'large-waits': its trace so far has [\d,]+ bytes, and"
        ):
            await asyncio.wait_for(runs.run(made, run_id="large-waits"), HANGS_SECONDS)
        (entry,) = await runs.waiting("large-waits")
    assert entry["event"] == "go"


async def test_without_storage_what_a_client_sends_is_refused_where_it_is_too_large(
    temporal_server: Server,
) -> None:
    """The server would refuse the first, and the worker try the task of the second for ever."""
    large, name = "x" * 2_000_000, "sent"
    client = await temporal_server.client()
    async with worker(client, ExecutionVM(), name):
        runs = TemporalRuns(client, name)
        made = program({"id": "w", "type": "wait", "event": "go"})
        with pytest.raises(VMError, match=r"what it is begun with has 2,000,\d+ bytes"):
            await runs.submit(made, {"x": large})
        await runs.run(made, run_id=name)
        with pytest.raises(VMError, match=r"the event has 2,000,\d+ bytes"):
            await runs.send_event(name, "go", large)
        await runs.send_event(name, "go", "x")
        assert (await runs.result(name)).ok


async def test_nothing_can_be_read_in_an_encrypted_history(temporal_server: Server) -> None:
    client = await connect(temporal_server.address, encryption=Encryption(KEYS))
    vm = ExecutionVM(None, TOOLS)
    made = program(
        step("a", tool="same", args={"x": "$who"}),
        {"id": "ok", "type": "approval", "role": "boss", "show": {"who": "$a.output"}},
        {"id": "w", "type": "wait", "event": "go"},
        step("b", tool="same", args={"x": {"who": "$a.output"}}),
    )
    async with worker(client, vm, "secret"):
        runs = TemporalRuns(client, "secret", vm=vm)
        await runs.run(made, {"who": MARK}, run_id="secret")
        (entry,) = await runs.waiting("secret")
        await runs.approve("secret", "ok", shown=entry["shown"], by="ann", reason=MARK)
        await runs.send_event("secret", "go", {"x": MARK})
        trace = await runs.result("secret")
    assert trace.final_output == {"who": MARK}
    events = await history_bytes(client, "secret")
    assert len(events) > 20
    assert not any(MARK.encode() in event for event in events)
    assert not any(b"approved" in event for event in events)

    other = await connect(temporal_server.address, encryption=Encryption({"k2": bytes(32)}))
    with pytest.raises(Exception, match="this process lacks"):
        await TemporalRuns(other, "secret").result("secret")


# --- without a server -----------------------------------------------------------------------------


async def test_equal_payloads_have_equal_ciphertexts_and_keys_rotate() -> None:
    old = Encryption(KEYS)
    new = Encryption({"k2": bytes(32), **KEYS})
    payload = Payload(metadata={"encoding": b"json/plain"}, data=MARK.encode())
    (first,), (second,) = await old.encode([payload]), await old.encode([payload])
    assert first == second
    assert MARK.encode() not in first.data
    assert (await new.encode([payload]))[0].data != first.data
    assert await new.decode([first]) == [payload]
    assert await old.decode([payload]) == [payload]
    first.data = first.data[:-1] + bytes([first.data[-1] ^ 1])
    with pytest.raises(VMError, match="was changed"):
        await data_converter(old).decode([first])


@pytest.mark.parametrize("keys", [{}, {"k": b"short"}])
def test_a_key_that_is_none_is_refused(keys: dict[str, bytes]) -> None:
    with pytest.raises(VMError, match="key"):
        Encryption(keys)


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 31])
def test_a_key_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(VMError, match="64 hexadecimal digits"):
        key_of(text)
    assert next(iter(named([key_of("00" * 32)]))) != "00" * 8


def test_a_payload_that_was_lost_or_changed_is_an_error(tmp_path: Path) -> None:
    payloads = open_payloads(f"sqlite:///{tmp_path}/payloads.db")
    first, again = payloads.put([b"a", b"a"])
    assert first == again
    assert payloads.count() == (1, 1)
    with pytest.raises(StoreError, match="has no payload"):
        payloads.get([first, hashlib.sha256(b"b").hexdigest()])
    payloads.close()


def test_keys_of_objects_keep_their_order() -> None:
    converter = NanoPayloadConverter()
    value = {"b": 1, "a": {"z": [1.5, None, True], "é\ud800": "x"}}
    (payload,) = converter.to_payloads([value])
    (back,) = converter.from_payloads([payload])
    assert back == value
    assert (list(back), list(back["a"])) == (["b", "a"], ["z", "é\ud800"])
