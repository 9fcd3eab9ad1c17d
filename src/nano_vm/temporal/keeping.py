"""Runs that have ended on a cluster, in a store: computed again from their tapes, and taken in as a
file of another store would be, all or nothing and once.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from ..records.trace import Trace
from ..run.durable.rows import Rows
from ..run.durable.stored import columns_of, new_run
from ..store.protocol import Archive
from ..store.records import RUNNING
from ..store.seals import RunSeal
from ..store.transfer import export
from .computed import Computed
from .plans import PLANS
from .snapshot import snapshot
from .terms import ADMIT_SECONDS, Admission, Start

ENGINE = "temporal"
"""What a kept run says drove it."""


def keep(store: Archive, run_id: str, start: Mapping[str, Any], tape: Sequence[Any]) -> str:
    """Keep the run that was begun with *start* and ended with *tape*, as it was sent; its digest.

    Raises:
        StoreError: If it cannot be kept, or another run of this id is there.
    """
    begun = Start.of(start)
    assert begun.admission is not None
    admission = Admission.of(begun.admission)
    planned = PLANS.of(begun.program, admission.programs, admission.contracts, ADMIT_SECONDS)
    computed = Computed(run_id, begun, admission, planned)
    machine = computed.machine()
    now = snapshot(machine, begun.tape(tape))
    trace = Trace(computed.recording(machine, now))
    run = new_run(trace, planned.flow.document(), begun.began_ns)
    run.started_ns, run.status = begun.began_ns, RUNNING
    rows = Rows(run, planned.plan.ops, computed.base_ns, ENGINE)
    new = rows.new(machine, ended=True)
    RunSeal(run, store.signer).after(new, columns_of(trace, planned.plan.ops, rows.count))
    run.rows.extend(new)
    file = io.StringIO()
    export([run], file)
    file.seek(0)
    store.import_(file)
    return trace.digest
