"""What workers of a cluster share by their store: budgets and the limits of pools; and the pools that
programs make of a worker's models.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from build import llm, program
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from nano_vm import ExecutionVM, Program, TraceStatus
from nano_vm.adapters import Member, Pool
from nano_vm.errors import StoreError, VMError
from nano_vm.machine.outcome import Answer, Failed
from nano_vm.records.usage import LLMUsage
from nano_vm.run.counting import Counting
from nano_vm.temporal import TemporalRuns, worker
from nano_vm.temporal.activities import Activities
from nano_vm.temporal.terms import UNKNOWN_PROGRAM, Admission, ModelCall, Start
from temporal.cluster import Server

DAILY = {"daily": {"per": "day", "max_llm_calls": 2, "max_tokens": 5000}}
ASKED = ModelCall(
    [{"role": "user", "content": "?"}], "q", "q", options={"max_tokens": 10}, program_name="p"
)


class Model:
    """Answers with what it used, and tells how many of it are asked at the same time."""

    model = "own"
    under_way = most = 0

    async def complete(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        kind = type(self)
        kind.under_way += 1
        kind.most = max(kind.most, kind.under_way)
        await asyncio.sleep(0.05)
        kind.under_way -= 1
        return "yes", LLMUsage(prompt_tokens=3, completion_tokens=1, total_tokens=4)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shared.db'}"


@pytest.fixture
def vms(url: str) -> Iterator[list[ExecutionVM]]:
    """Two workers' hosts over one store."""
    Model.under_way = Model.most = 0
    hosts = [ExecutionVM(Model(), store=url, budgets=DAILY) for _ in range(2)]
    yield hosts
    for vm in hosts:
        vm.close()


async def asked(vm: ExecutionVM, call: ModelCall = ASKED) -> Any:
    return await ActivityEnvironment().run(Activities(vm).call_model, call.to_dict())


def spent(vm: ExecutionVM) -> list[tuple[int, int, int]]:
    """Calls and tokens of the account, and the calls that are reserved."""
    return [(s.spent.calls, s.spent.tokens, s.reserved.calls) for _, s in vm.accounts()]


def test_a_worker_whose_budgets_nobody_keeps_for_all_is_refused() -> None:
    with pytest.raises(VMError, match=r"budgets that runs share \('daily'\) are kept in a store"):
        Activities(ExecutionVM(Model(), budgets=DAILY))


async def test_a_call_that_no_store_counts_is_not_made_and_says_why(
    vms: list[ExecutionVM], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*given: Any) -> None:
        raise StoreError("the store is locked", passing=True)

    monkeypatch.setattr(Counting, "begin", away)
    with pytest.raises(ApplicationError, match="the store is locked, so the call was not made"):
        await asked(vms[0])
    assert Model.most == 0


async def test_a_budget_is_that_of_all_workers(vms: list[ExecutionVM]) -> None:
    for vm in vms:
        assert isinstance(await asked(vm), Answer)
    assert spent(vms[0]) == [(2, 8, 0)]
    refused = await asked(vms[0])
    assert isinstance(refused, Failed)
    assert refused.error.kind == "budget"
    assert refused.extra is not None
    assert refused.extra["budget"]["limit"] == "max_llm_calls"
    assert spent(vms[1]) == [(2, 8, 0)]


async def test_a_call_of_which_nobody_knows_what_it_used_is_charged_with_all_that_it_might(
    vms: list[ExecutionVM],
) -> None:
    class Fails(Model):
        async def complete(self, messages: list[dict[str, Any]], **options: Any) -> Any:
            raise ConnectionError("lost")

    vms[0].preparer.adapters[None].complete = Fails().complete
    assert isinstance(await asked(vms[0]), Failed)
    ((calls, tokens, reserved),) = spent(vms[0])
    assert (calls, reserved) == (1, 0)
    assert tokens > 10


async def test_what_a_dead_worker_had_reserved_is_charged_when_the_run_is_kept(
    vms: list[ExecutionVM], temporal_server: Server
) -> None:
    """A call that is cut off with its worker, in a run whose id is that of the reservation."""
    vm = vms[0]
    begun = asyncio.Event()

    async def endless(messages: list[dict[str, Any]], **options: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    vm.preparer.adapters[None].complete = endless
    call = asyncio.ensure_future(asked(vm))
    await begun.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert spent(vm) == [(0, 0, 1)]
    client = await temporal_server.client()
    made = program({"id": "s", "type": "set", "values": {"x": 1}})
    async with worker(client, vm, "kept-budgets"):
        runs = TemporalRuns(client, "kept-budgets")
        await runs.run(made, run_id=ActivityEnvironment().info.workflow_id)
    ((calls, tokens, reserved),) = spent(vm)
    assert (calls, reserved) == (1, 0)
    assert tokens > 10


async def test_a_run_that_a_budget_stops_has_the_digest_that_it_has_elsewhere(
    vms: list[ExecutionVM], temporal_server: Server
) -> None:
    made = program(llm("a"), llm("b"), llm("c"))
    client = await temporal_server.client()
    async with worker(client, vms[0], "budgets"):
        trace = await TemporalRuns(client, "budgets").run(made, run_id="stopped-by-budget")
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "budget")
    here = await ExecutionVM(Model(), budgets=DAILY).run(made, run_id="stopped-by-budget")
    assert (here.error, here.digest) == (trace.error, trace.digest)


async def test_the_limit_of_a_member_is_that_of_all_workers(url: str) -> None:
    Model.under_way = Model.most = 0

    def host() -> ExecutionVM:
        return ExecutionVM(Pool([Member(Model(), concurrency=1)], name="judges"), store=url)

    with closing(host()) as one, closing(host()) as other:
        answers = await asyncio.gather(*(asked(vm) for vm in (one, other, one, other)))
    assert all(isinstance(answer, Answer) for answer in answers)
    assert Model.most == 1


POOLED = Program.from_dict(
    {
        "name": "pooled",
        "models": {"judge": {"pool": ["a", "b"]}},
        "steps": [llm("q", model="judge")],
    }
)


class Broken(Model):
    model = "a"

    async def complete(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        raise ConnectionError("lost")


def pooling() -> ExecutionVM:
    return ExecutionVM({"a": Broken(), "b": Model()})


async def test_a_pool_of_the_programs_own_is_asked(temporal_server: Server) -> None:
    client = await temporal_server.client()
    async with worker(client, pooling(), "pools"):
        trace = await TemporalRuns(client, "pools").run(POOLED, run_id="pooled")
    here = await pooling().run(POOLED, run_id="pooled")
    assert here.status is TraceStatus.SUCCESS
    assert (trace.error, trace.digest) == (here.error, here.digest)
    (step,) = trace.steps
    assert step.extra is not None
    assert [one["member"] for one in step.extra["route"]["attempts"]] == ["a", "b"]


async def test_a_worker_that_does_not_know_the_program_is_told_it() -> None:
    digest = Admission.of(Activities(pooling()).verdict(Start(POOLED.to_dict(), {}).to_dict(), "r"))
    call = ModelCall(ASKED.messages, "q", "q", model="judge", program=digest.digest)
    assert await asked(pooling(), call) == UNKNOWN_PROGRAM
    document = {"program": POOLED.to_dict(), "programs": {}}
    call = ModelCall(
        ASKED.messages, "q", "q", model="judge", program=digest.digest, document=document
    )
    assert isinstance(await asked(pooling(), call), Answer)
