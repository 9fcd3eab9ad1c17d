"""Driving stored runs from the command line: with the tools, models and rules of this host."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from ..records.secrecy import shown_to
from ..records.status import TraceStatus
from ..records.trace import Trace
from ..store.records import ENDED
from ..visible import safe_json
from . import rules
from .decide import waiting_lines
from .faults import OK, Failure
from .grammar import Options
from .host import vm_of
from .output import note, only_ours, say
from .signals import stopped_by_signals
from .stores import given_url, named, opened, run_id_of
from .summary import exit_code, print_steps, summary_lines
from .telemetry import observers_of
from .text import safe

if TYPE_CHECKING:
    from ..run.vm import ExecutionVM
    from ..store.protocol import Archive


def driven(options: Options, drive: Any, what: str) -> int:
    with only_ours(options.json) as line, stored_host(options) as (vm, store):
        run_id = run_id_of(store, options.run)
        before = store.load(run_id, rows=False)
        if before.status in ENDED:
            ended = f"run {run_id!r} has ended ({before.status}); there is nothing to {what}"
            if what != "resume":
                raise Failure(ended)
            note(ended)  # what it came to is told as if it had just ended, to who asks twice
        trace, signalled = asyncio.run(_signalled(drive(vm, run_id)))
        code = exit_code(trace, signalled)
        if what == "cancel" and trace.status is TraceStatus.CANCELLED:
            code = OK
        if options.json:
            line(safe_json(trace.to_json(indent=2)))
        else:
            wake = store.load(run_id, rows=False).wake_ns
            _print_driven(trace, options, wake)
    return code


def _print_driven(whole: Trace, options: Options, wake_ns: int | None) -> None:
    trace = shown_to("show", whole)
    print_steps(trace)
    if trace.error is not None:
        note(f"error: {safe(trace.error)}")
    for line in waiting_lines(trace.run_id, trace.waiting, given_url(options), wake_ns):
        say(line)
    for line in summary_lines(trace):
        say(line)


async def _signalled(work: Coroutine[Any, Any, Trace]) -> tuple[Trace, int | None]:
    """The trace of a run that is driven here; a signal cancels it, a second one stops at once."""
    task = asyncio.ensure_future(work)
    farewell = "nano-vm resume goes on with what is recorded"
    with stopped_by_signals(task.cancel, farewell=farewell) as received:
        await asyncio.wait([task])
    if task.cancelled():
        raise KeyboardInterrupt
    return task.result(), received[0] if received else None


@contextmanager
def stored_host(options: Options) -> Iterator[tuple[ExecutionVM, Archive]]:
    """A VM with tools, models and rules, and the store that is there."""
    url = named(options.store)
    policy = rules.load_policy(options.policy)
    store = opened(url, there=True)
    with closing(store), ExitStack() as stack:
        observers = observers_of(options, store, stack)
        vm = vm_of(options, policy=policy, store=store, observers=observers)
        with closing(vm):
            yield vm, store
