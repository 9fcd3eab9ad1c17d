"""Payloads that a process cannot decode: one clear error, no call is made of what was not read, and a
client that has a wrong key stops no run.
"""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from build import llm, program, step
from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from nano_vm import ExecutionVM, TraceStatus
from nano_vm.errors import VMError
from nano_vm.temporal import Encryption, TemporalRuns, connect, data_converter, worker
from nano_vm.temporal.conversion import decoding
from nano_vm.temporal.encryption import ENCODING, NONCE_BYTES
from nano_vm.testing import ScriptedLLM
from temporal.cluster import Server

NUMBERS = count(1)
KEY, OTHER_KEY = {"k1": bytes(32)}, {"k2": bytes(32)}
WAIT = {"id": "w", "type": "wait", "event": "go"}
LACKS = "a payload is encrypted with key 'k1', which this process lacks"
NO_KEY = "Unknown payload encoding binary/encrypted"
REMEDY = "clients and workers of a cluster all need the same key and database of payloads"


async def client_of(server: Server, keys: dict[str, bytes] | None) -> Client:
    return await connect(server.address, encryption=None if keys is None else Encryption(keys))


@pytest.fixture(params=[None, OTHER_KEY], ids=["no key", "another key"])
def wrong(request: pytest.FixtureRequest) -> dict[str, bytes] | None:
    return request.param  # type: ignore[no-any-return]


async def test_a_client_that_cannot_decode_says_what_it_lacks(
    temporal_server: Server, wrong: dict[str, bytes] | None
) -> None:
    end, why = next(NUMBERS), NO_KEY if wrong is None else LACKS
    client, without = await client_of(temporal_server, KEY), await client_of(temporal_server, wrong)
    queue, schedule = f"decoding-{end}", f"decoding-{end}"
    runs, blind = TemporalRuns(client, queue), TemporalRuns(without, queue)
    made = program(WAIT)
    async with worker(client, ExecutionVM(), queue):
        run_id = (await runs.run(made)).run_id
        for ask in (
            blind.trace(run_id),
            blind.waiting(run_id),
            blind.settled(run_id),
            blind.submit(made, run_id=run_id),
        ):
            with pytest.raises(
                VMError, match=f"'{run_id}'.* cannot be decoded here: {why}; {REMEDY}"
            ):
                await ask
        await runs.send_event(run_id, "go")
        assert (await runs.result(run_id)).ok
    with pytest.raises(VMError, match=f"the trace of run '{run_id}' cannot be decoded here: {why}"):
        await blind.result(run_id)
    await runs.schedule(schedule, made, cron="0 8 * * *")
    with pytest.raises(VMError, match=f"schedule '{schedule}' cannot be decoded here: {why}"):
        await blind.schedules.find(schedule)
    await runs.schedules.remove(schedule)


async def test_a_client_with_another_key_stops_no_run(temporal_server: Server) -> None:
    """What it says is refused; the task that brought it went on with what others said."""
    client = await client_of(temporal_server, KEY)
    queue = f"decoding-{next(NUMBERS)}"
    runs = TemporalRuns(client, queue)
    stranger = TemporalRuns(await client_of(temporal_server, OTHER_KEY), queue)
    async with worker(client, ExecutionVM(), queue):
        run_id = (await runs.run(program(WAIT))).run_id
        told = "run .* has not taken it, since its worker cannot decode what was sent: .* key 'k2'"
        with pytest.raises(VMError, match=f"{told}.*; {REMEDY}"):
            await stranger.send_event(run_id, "go", {"x": 1})
        assert await runs.send_event(run_id, "go", {"x": 2})
        assert (await runs.result(run_id)).final_output == {"x": 2}
        history = await client.get_workflow_handle(run_id).fetch_history()
    failed = [
        one for one in history.events if one.HasField("workflow_task_failed_event_attributes")
    ]
    assert failed == []


async def test_a_worker_that_cannot_decode_a_call_has_not_made_it(
    temporal_server: Server, wrong: dict[str, bytes] | None
) -> None:
    called: list[int] = []

    async def pay(x: int) -> int:
        called.append(x)
        return x

    end, why = next(NUMBERS), NO_KEY if wrong is None else LACKS
    client, without = await client_of(temporal_server, KEY), await client_of(temporal_server, wrong)
    near, bank = f"decoding-{end}", f"decoding-bank-{end}"
    vm = ExecutionVM(ScriptedLLM({"": "yes"}), {"pay": pay})
    runs = TemporalRuns(client, near)
    async with (
        worker(client, vm, near, queues={"pay": bank, "": bank}),
        worker(without, vm, bank),
    ):
        paid = await runs.run(program(step(tool="pay", args={"x": 1})))
        asked = await runs.run(program(llm("q")))
    for trace in (paid, asked):
        assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "refused")
        told = "Undecodable: the worker that took the call cannot decode its arguments"
        assert f"{told}: VMError: {why}; {REMEDY}" in (trace.error or "")
    assert called == []


async def test_a_run_that_no_worker_can_decode_stands_still_and_says_why(
    temporal_server: Server,
) -> None:
    client, without = await client_of(temporal_server, KEY), await client_of(temporal_server, None)
    queue = f"decoding-{next(NUMBERS)}"
    runs = TemporalRuns(client, queue)
    run_id = await runs.submit(program(WAIT))
    assert await runs.fault(run_id) is None  # no worker has tried
    ended = await runs.submit(program(WAIT))
    async with worker(without, ExecutionVM(), queue):
        fault = None
        for _ in range(200):
            fault = await runs.fault(run_id)
            if fault is not None:
                break
            await asyncio.sleep(0.05)
        assert fault == f"Failed decoding arguments: {NO_KEY}"
        for _ in range(200):
            if await runs.fault(ended) is not None:
                break
            await asyncio.sleep(0.05)
        assert await runs.fault(ended) == fault
    await client.get_workflow_handle(ended).terminate()
    assert await runs.fault(ended) is None  # it stands no longer
    async with worker(client, ExecutionVM(), queue):
        assert (await runs.settled(run_id)).status is TraceStatus.SUSPENDED
        assert await runs.fault(run_id) is None


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (Payload(metadata={"encoding": b"json/plain"}, data=b"{cut sho"), "could not be converted"),
        (Payload(metadata={"encoding": b"zip/9"}, data=b""), "Unknown payload encoding zip/9"),
        (Payload(data=b"1"), "Unknown payload encoding <unknown>"),
    ],
    ids=["cut short", "of another encoding", "of none"],
)
async def test_a_payload_that_is_none_is_an_error(payload: Payload, says: str) -> None:
    with pytest.raises(VMError, match=f"it cannot be decoded here: .*{says}"), decoding("it"):
        await data_converter().decode([payload])


@pytest.mark.parametrize("size", [0, 1, NONCE_BYTES - 1, NONCE_BYTES, NONCE_BYTES + 1])
async def test_what_is_no_ciphertext_is_an_error_for_who_needs_its_value(size: int) -> None:
    """And for nobody else: what the codec raises would fail the whole task of a run."""
    short = Payload(metadata={"encoding": ENCODING, "key": b"k1"}, data=bytes(size))
    (decoded,) = await Encryption(KEY).decode([short])
    told = "a payload was changed, or key 'k1' is another one"
    with pytest.raises(VMError, match=told):
        data_converter().payload_converter.from_payloads([decoded])


@pytest.mark.parametrize("name", [b"\xff", b"k1\xff", b"\xed\xa0\x80"])
async def test_a_key_whose_name_is_no_utf8_is_one_that_this_process_lacks(name: bytes) -> None:
    named = Payload(metadata={"encoding": ENCODING, "key": name}, data=bytes(40))
    (decoded,) = await Encryption(KEY).decode([named])
    with pytest.raises(
        VMError, match=r"is encrypted with key '.*\ufffd', which this process lacks"
    ):
        data_converter().payload_converter.from_payloads([decoded])
