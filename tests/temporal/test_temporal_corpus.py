"""The corpus of the language on Temporal: the same programs, inputs and outcomes as on asyncio give
the same digests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from campaigns import is_whole
from test_corpus import HostScripts, Ran, cases, execute, load, merged, resolved

from nano_vm import ExecutionVM, Limits, Program
from nano_vm.temporal import TemporalRuns
from temporal.cluster import Hosts, Server, serving

AT_ONCE = 12
SHARE = 6
"""`make test` tries one case of so many: here a case is cheap, and the server is what costs."""

LONGEST_SECONDS = 0.4
"""Virtual time of the cases that `make test` runs; here it is real."""

LIMIT_SECONDS = 180.0

NOT_HERE = {
    # a payload of more than 2 MB goes to a storage of its own, see test_temporal_storage
    "steps-llm-answer-of-10-mb",
    # seconds apart in virtual time, where a busy machine takes some of them itself
    "steps-parallel-branches-run-at-the-same-time",
}


def chosen() -> Iterator[tuple[str, dict[str, Any], Ran]]:
    """The cases to be tried, and their traces on asyncio; a part of them in `make test`."""
    whole = is_whole()
    for number, one in enumerate(cases()):
        name, case = str(one.id), one.values[0]
        if "load" in case or name in NOT_HERE or (number % SHARE and not whole):
            continue
        case = merged(case, {"run": {"run_id": f"corpus-{number}", "seed": 7}})
        ran = execute(case)
        if whole or (ran.trace.duration_ms or 0) <= LONGEST_SECONDS * 1000:
            yield name, case, ran


async def on_temporal(client: Any, hosts: Hosts, case: dict[str, Any]) -> Ran:
    host, run_id = HostScripts(case), case["run"]["run_id"]
    options = dict(case.get("vm", {}))
    if "limits" in options:
        options["limits"] = Limits(**options["limits"])
    programs = {name: Program.from_dict(one) for name, one in options.pop("programs", {}).items()}
    vm = ExecutionVM(host.llm, host.tools, programs=programs, **options)
    hosts.host(run_id, vm)
    runs = TemporalRuns(client, "corpus", vm=vm)
    tasks = []

    class Run:
        """What a case cancels that cancels its own run."""

        class task:
            @staticmethod
            def cancel() -> None:
                tasks.append(asyncio.ensure_future(runs.cancel(run_id)))

    host.run = Run
    inputs = {name: resolved(value) for name, value in case.get("inputs", {}).items()}
    trace = await asyncio.wait_for(
        runs.run(load(case), inputs, programs=programs or None, **case["run"]), LIMIT_SECONDS
    )
    await asyncio.gather(*tasks)
    return Ran(trace, host)


def used(ran: Ran) -> list[int]:
    """How often each tool and model was called."""
    return [script.used for script in ran.host.scripts]


async def differing(server: Server, todo: list[tuple[str, dict[str, Any], Ran]]) -> list[str]:
    """The cases whose digest is another on Temporal."""
    client = await server.client()
    free = asyncio.Semaphore(AT_ONCE)

    async with serving(client, "corpus") as hosts:

        async def fault(name: str, case: dict[str, Any], expected: Ran) -> str | None:
            async with free:
                found = await on_temporal(client, hosts, case)
            if found.trace.digest != expected.trace.digest:
                told = f"{found.trace.status}: {found.trace.error}"
                return f"{name}: {expected.trace.status}, here {told}"
            return None if used(found) == used(expected) else f"{name}: other calls"

        found = await asyncio.gather(*(fault(*one) for one in todo))
    return [one for one in found if one is not None]


@pytest.mark.campaign
def test_digests_are_those_of_asyncio(temporal_server: Server) -> None:
    todo = list(chosen())
    assert len(todo) > 60
    assert asyncio.run(differing(temporal_server, todo)) == []
