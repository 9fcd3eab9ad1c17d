"""``nano-vm work``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..faults import FAILED, OK
from ..grammar import Options, command, flag, option
from ..output import json_line, note, only_ours
from ..parameters import (
    STORED,
    takes_cluster,
    takes_concurrency,
    takes_store,
    takes_telemetry,
    takes_worker,
)
from ..text import safe, safe_lines, shown

if TYPE_CHECKING:
    from ...records.trace import Trace
    from ...run.vm import ExecutionVM

EXAMPLES = """\
nano-vm work --tools refund.py:tools --model local --store sqlite:///runs.db
nano-vm work --tools refund.py:tools --until-idle   (from cron)
nano-vm work --tools refund.py:tools --engine temporal --address temporal.example:7233
"""


@command(examples=EXAMPLES, footer=STORED)
@flag("--until-idle", help="end when there is nothing to run")
@takes_concurrency()
@option(
    "--name",
    metavar="NAME",
    help="what a server shows this worker as; default: the machine's name",
)
@takes_store
@takes_worker
@takes_telemetry
@takes_cluster
def work(options: Options) -> int:
    """
    Run what nobody runs in a store: runs that were submitted, abandoned by a process that is gone,
    due, or answered.

    It goes on for ever; several may share one store, on one machine or many. It prints a line for
    each run when it ends or waits. Ctrl-C lets calls that are under way end, and leaves the runs to
    others.
    """
    import asyncio

    from ..driving import stored_host

    if options.engine is not None:
        return _on_cluster(options)
    with only_ours(options.json) as line, stored_host(options) as (vm, _):
        return asyncio.run(_working(vm, options, line))


def _on_cluster(options: Options) -> int:
    """Work for a Temporal cluster; a store, where one is named, keeps the runs that have ended."""
    import asyncio
    from contextlib import ExitStack

    from .. import cluster, connection, host, rules, stores

    connection.refuse(options, but=("store", "signing_key", "trust"))
    policy = rules.load_policy(options.policy)
    store = stores.store_if_named(options)
    with ExitStack() as stack:
        vm = host.vm_of(options, policy=policy, store=store)
        stack.callback(vm.close)
        return asyncio.run(cluster.working(vm, options, connection.telemetry_of(options, stack)))


async def _working(vm: ExecutionVM, options: Options, say_line: Callable[[str], None]) -> int:
    import asyncio
    import platform

    from ...records.secrecy import shown_to
    from ..signals import stopped_by_signals

    counts: dict[str, int] = {}
    gone = False

    def ended(trace: Trace) -> None:
        nonlocal gone
        counts[trace.status.value] = counts.get(trace.status.value, 0) + 1
        try:
            if not gone:
                trace = shown_to("show", trace)
                say_line(json_line(trace.summary()) if options.json else _line(trace))
        except OSError:  # nobody reads any more: no reason to stop
            gone = True

    def stop() -> None:
        note("stopping: calls under way have ten seconds to end; Ctrl-C again stops at once")
        task.cancel()

    working = vm.work(
        until_idle=options.until_idle,
        concurrency=options.concurrency,
        ended=ended,
        name=options.name or platform.node() or "worker",
    )
    farewell = "calls that were under way are in doubt"
    with _warnings() as warnings, stopped_by_signals(stop, farewell=farewell) as received:
        task = asyncio.ensure_future(working)
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    if options.until_idle and not options.json:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        if warnings:
            told += f"{', ' * bool(told)}{len(warnings)} could not go on here"
        note(told or "there was nothing to do")
    if received:
        return OK if not options.until_idle else 128 + received[0]
    return FAILED if counts.get("failed") or warnings else OK


def _line(trace: Trace) -> str:
    if trace.status.value == "suspended":
        what = "waits for " + ", ".join(
            f"{entry['kind']} at {entry['path']}" for entry in trace.waiting
        )
    elif trace.error is not None:
        what = trace.error
    else:
        what = f"output {shown(trace.final_output, 200)}"
    return f"{trace.run_id}  {safe(trace.program_name or '-')}  {trace.status.value}  {safe(what)}"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Show what the VM warns of; a list of it."""
    told: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            note(f"nano-vm: {safe_lines(told[-1])}")

    logger, handler = logging.getLogger("nano_vm"), Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
