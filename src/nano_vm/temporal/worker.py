"""What a Temporal worker needs to run programs: the workflow, the activities, and how it is set up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.plugin import SimplePlugin
from temporalio.worker import Worker, WorkerConfig

from ..run.vm import ExecutionVM
from .activities import Activities
from .conversion import data_converter
from .terms import QUEUE_SECONDS
from .workflow import NanoProgram

TASK_QUEUE = "nano-vm"
"""Where workers look for runs, unless another queue is named."""

STICKY_SECONDS = 2.0
"""How long a run waits for the worker that has it in memory before another takes it: with the SDK's
ten seconds a killed worker is replaced after twelve, with two after five, with one after four. Less
than two takes tasks from a worker that is only busy. Of 1,260 tasks of 60 runs at once on two cores,
in turns: with one 110 and 184, with two 38 and 0 (load 30); with one and a half 44 and 33, with two
none (load 18), and a quarter to a third fewer runs a second.
"""

SDK_STICKY = timedelta(seconds=10)
"""What the SDK takes where a host says nothing."""

STOP_SECONDS = 10.0
"""How long calls under way have when a worker is stopped."""

MAX_CACHED_RUNS = 1_000
"""Runs that a worker keeps in memory; one that waits takes some 60 kB."""


STANDS_SECONDS = 60
"""How long a task of a workflow may take before the SDK takes it for a deadlock. Its own two seconds
are too few for the trace of 16 MB values, or for the outcomes of 10,000 steps on a busy processor;
and what it does then it does while the task still runs, of which a run never recovers on its worker.
The server gives a task up after ten seconds, so that another worker has it long before.
"""


class NanoPlugin(SimplePlugin):
    """All that a host's own client and its workers need to run programs, in one argument of the
    client: ``plugins=[NanoPlugin(vm)]``; or of a worker, whose client has `data_converter`.
    """

    def __init__(
        self,
        vm: ExecutionVM,
        *,
        queues: Mapping[str, str] | None = None,
        queue_seconds: float = QUEUE_SECONDS,
    ) -> None:
        super().__init__(
            "nano-vm",
            data_converter=lambda known: data_converter(beside=known),
            workflows=[NanoProgram],
            activities=Activities(vm, queues or {}, queue_seconds).all(),
        )

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """See base class; how soon a dead worker is replaced is set where the host does not."""
        config = super().configure_worker(config)
        if config.get("sticky_queue_schedule_to_start_timeout") == SDK_STICKY:
            config["sticky_queue_schedule_to_start_timeout"] = timedelta(seconds=STICKY_SECONDS)
        if not config.get("graceful_shutdown_timeout"):
            config["graceful_shutdown_timeout"] = timedelta(seconds=STOP_SECONDS)
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """See base class."""
        await super().run_worker(patient(worker), next)


def patient(made: Worker) -> Worker:
    """The worker whose tasks may take `STANDS_SECONDS`; the SDK has no setting for it but one that
    runs tasks in the event loop.
    """
    inner = made._workflow_worker
    if inner is not None and inner._deadlock_timeout_seconds is not None:  # not when debugging
        inner._deadlock_timeout_seconds = STANDS_SECONDS
    return made


def worker(
    client: Client,
    vm: ExecutionVM,
    task_queue: str = TASK_QUEUE,
    *,
    queues: Mapping[str, str] | None = None,
    queue_seconds: float = QUEUE_SECONDS,
    **options: Any,
) -> Worker:
    """A worker that runs programs with the tools, models and policy of *vm*; *queues* names the task
    queues of tools and models that other workers have, where a call waits at most *queue_seconds*
    for one. *options* are those of the SDK's `Worker`.
    """
    settings: dict[str, Any] = {
        "sticky_queue_schedule_to_start_timeout": timedelta(seconds=STICKY_SECONDS),
        "graceful_shutdown_timeout": timedelta(seconds=STOP_SECONDS),
        "max_cached_workflows": MAX_CACHED_RUNS,
        **options,
    }
    return patient(
        Worker(
            client,
            task_queue=task_queue,
            workflows=[NanoProgram],
            activities=Activities(vm, queues or {}, queue_seconds).all(),
            **settings,
        )
    )
