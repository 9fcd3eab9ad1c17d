"""`run_many`: one program over many inputs. Inputs come in one by one, the trace of each goes out
as it ends.

What is held at a time is bounded whatever the number of inputs. A run that fails is a result like
any other; what is wrong with the host (its store) ends the batch, after what is under way has
ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

from ...collector import collector_eased
from ...errors import StoreError, VMError
from ...given import positive_integer
from ...records.status import TraceStatus
from ...records.trace import Trace
from ...values import kind_name, short
from ..options import SharedOptions

if TYPE_CHECKING:
    from ...language.program import Program
    from ..vm import ExecutionVM

logger = logging.getLogger("nano_vm")

WINDOW = 2
"""Inputs that are taken and whose results are not given out yet, for each run that may be under
way: who ends finds a place.
"""

ORDERED_WINDOW = 16
"""The same where results go out in the order of inputs, and a slow run holds up those behind it."""


class BatchResult(NamedTuple):
    """A run of a batch: ``number`` counts inputs from 0."""

    number: int
    inputs: Any
    trace: Trace


async def run_many(
    vm: ExecutionVM,
    program: Program,
    inputs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
    *,
    concurrency: int = 16,
    ordered: bool = False,
    run_id: Callable[[int], str] | None = None,
    resume: bool = False,
    **options: Unpack[SharedOptions],
) -> AsyncGenerator[BatchResult, None]:
    """Run *program* on each of *inputs*, at most *concurrency* at a time, and give each trace as
    its run ends.

    With *ordered* they come in the order of inputs. The next input is taken when there is room for
    its result, so memory stays bounded; ending *inputs* early ends the batch when what is under way
    has ended. Leaving the iteration cancels what is under way, and undoes it. *run_id* gives the id
    of run number n: with a store, a batch that is started again with the same ids joins the runs
    that it had begun; those that were cancelled begin anew, and with *resume* those that wait are
    resumed, in case that what they wait for has come. *options* are those of `ExecutionVM.run`, for
    each run.

    Raises:
        VMError: If *concurrency* is none, *inputs* cannot be iterated, or the store fails.
    """
    positive_integer(concurrency, "concurrency")
    if run_id is not None and not callable(run_id):
        raise VMError(
            f"run_id is a function that gives the id of each number, not {short(run_id)}; write "
            f"run_id=lambda number: f'batch-{{number}}'"
        )
    source = _Source(inputs)
    if not isinstance(untrusted := options.get("untrusted", ()), str):
        options["untrusted"] = tuple(untrusted)  # it is read once for each run
    room = asyncio.Semaphore(concurrency * (ORDERED_WINDOW if ordered else WINDOW))
    ended: asyncio.Queue[BatchResult | None] = asyncio.Queue()  # None: a worker has left
    faults: list[Exception] = []

    async def work() -> None:
        try:
            while True:
                await room.acquire()
                taken = None if faults else await source.take()
                if taken is None:
                    return
                number, given = taken
                name = run_id(number) if run_id is not None else None
                trace = await _run(vm, program, given, name, options, resume=resume)
                ended.put_nowait(BatchResult(number, given, trace))
        except Exception as error:  # noqa: BLE001 - raised again, once what is under way has ended
            faults.append(error)
        finally:
            # for the next one that waits: it sees that there is no more, or the fault
            room.release()
            ended.put_nowait(None)

    with collector_eased():
        workers = [asyncio.create_task(work()) for _ in range(concurrency)]
        held: dict[int, BatchResult] = {}
        following = 0
        working = concurrency
        try:
            while working:
                result = await ended.get()
                if result is None:
                    working -= 1
                    continue
                if not ordered:
                    yield result
                    room.release()
                    continue
                held[result.number] = result
                while following in held:
                    yield held.pop(following)
                    following += 1
                    room.release()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    if faults:
        raise faults[0]


class _Source:
    """Inputs, one at a time to whoever asks, with their number."""

    def __init__(self, inputs: Any) -> None:
        self.count = 0
        self.plain: Iterator[Any] | None = None
        self.other: AsyncIterator[Any] | None = None
        self.turn = asyncio.Lock()
        self.finished = False
        if isinstance(inputs, AsyncIterable):
            self.other = aiter(inputs)
        elif isinstance(inputs, Iterable) and not isinstance(inputs, (str, bytes, Mapping)):
            self.plain = iter(inputs)
        else:
            raise VMError(f"inputs are an iterable of dicts, not {kind_name(inputs)}")

    async def take(self) -> tuple[int, Any] | None:
        """The next one, or None after the last."""
        if self.plain is not None:
            return self.numbered(next(self.plain, _NO_MORE)) if not self.finished else None
        assert self.other is not None
        async with self.turn:  # an async generator serves one at a time
            return self.numbered(await anext(self.other, _NO_MORE)) if not self.finished else None

    def numbered(self, given: Any) -> tuple[int, Any] | None:
        if given is _NO_MORE:
            self.finished = True
            return None
        self.count += 1
        return self.count - 1, given


_NO_MORE: Any = object()


async def _run(
    vm: ExecutionVM,
    program: Program,
    given: Any,
    name: str | None,
    options: SharedOptions,
    *,
    resume: bool,
) -> Trace:
    """One run; by its id it may be one that was begun before."""
    if name is None:
        return await vm.run(program, given, **options)
    asked = vm.clock.time_ns()
    attempt = 1
    while True:
        known = name if attempt == 1 else f"{name}.{attempt}"
        trace = await vm.run(program, given, run_id=known, **options)
        base = trace.recording.base_ns
        if trace.status is TraceStatus.CANCELLED and trace.finished_ns + base < asked:
            attempt += 1  # an earlier start was interrupted and has undone it
            continue
        if resume and trace.status is TraceStatus.SUSPENDED and trace.started_ns + base < asked:
            return await _resumed(vm, trace)
        return trace


async def _resumed(vm: ExecutionVM, trace: Trace) -> Trace:
    """What became of a run of before that waits: it is resumed, unless another process has it or it
    cannot be resumed here.
    """
    try:
        return await vm.resume(trace.run_id)
    except StoreError:
        raise
    except VMError as error:
        logger.warning("run %s is not resumed: %s", trace.run_id, error)
        return trace
