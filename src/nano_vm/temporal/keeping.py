"""Runs that have ended on a cluster, in a store: computed again from their tapes, and taken in as a
file of another store would be, all or nothing and once.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from ..records.trace import Trace
from ..records.usage import LLMUsage
from ..run.durable.rows import Rows
from ..run.durable.stored import parted
from ..store.protocol import Archive
from ..store.records import RUNNING, StoredRun
from ..store.seals import RunSeal
from ..store.transfer import export
from .computed import Computed
from .plans import PLANS
from .snapshot import snapshot
from .terms import HEARTBEAT_SECONDS, Admission, Start

ENGINE = "temporal"
"""What a kept run says drove it."""

PLAN_SECONDS = 200 * HEARTBEAT_SECONDS


def keep(store: Archive, run_id: str, start: Mapping[str, Any], tape: Sequence[Any]) -> str:
    """Keep the run that was begun with *start* and ended with *tape*, as it was sent; its digest.

    Raises:
        StoreError: If it cannot be kept, or another run of this id is there.
    """
    begun = Start.of(start)
    assert begun.admission is not None
    admission = Admission.of(begun.admission)
    planned = PLANS.of(begun.program, admission.programs, admission.contracts, PLAN_SECONDS)
    computed = Computed(run_id, begun, admission, planned)
    machine = computed.machine()
    now = snapshot(machine, begun.tape(tape))
    trace = Trace(computed.recording(machine, now))
    run = _stored(computed, trace)
    rows = Rows(run, planned.plan.ops, computed.base_ns, ENGINE)
    new = rows.new(machine, ended=True)
    seal = RunSeal(run, store.signer)
    asks = any(op.type == "llm" for op in planned.plan.ops)
    usage = trace.usage() if asks else LLMUsage(cost_usd=Decimal(0))
    seal.after(
        new,
        {
            "status": trace.status.value,
            "steps": rows.count,
            "tokens": usage.total_tokens,
            "cost_usd": str(usage.cost_usd) if usage.cost_usd is not None else None,
            "error": trace.error,
            "error_kind": trace.error_kind,
            "output": trace.output,
            "finished_ns": trace.finished_ns + computed.base_ns,
        },
    )
    run.rows.extend(new)
    lines = io.StringIO()
    export([run], lines)
    store.import_(io.StringIO(lines.getvalue()))
    return trace.digest


def _stored(computed: Computed, trace: Trace) -> StoredRun:
    """The header of the run, as it was begun."""
    flow = computed.planned.flow
    about, said = parted(trace.about)
    run = StoredRun(
        trace.run_id,
        flow.program.name,
        trace.program_digest,
        computed.start.began_ns,
        {
            "program": flow.program.to_dict(),
            "programs": {name: one.to_dict() for name, one in flow.called.items()},
        },
        trace.inputs,
        about,
        trace.recording.given_seed,
        bytes.fromhex(trace.salt),
        **said,
    )
    run.started_ns, run.status = computed.start.began_ns, RUNNING
    return run
