"""A batch between two files: what the inputs have and the results have not is run.

Started again with the same files it goes on where it stopped. With a store, what was under way when
the process was killed is joined and not repeated: the ids of runs begin with a mark that stands
beside the results until they are complete.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ...errors import VMError
from ...language.program import Program
from ...records.trace import Trace
from ..options import SharedOptions
from .inputs import BatchFault, Input, Inputs, digest_of, read_line
from .results import Results, result_of
from .runs import run_many

if TYPE_CHECKING:
    from ..vm import ExecutionVM


class FileBatch:
    """A program over a file of inputs, and what became of it so far.

    ``taken`` are the inputs under way; ``fault`` is what ended the batch early, and ``misused``
    whether that is a file that is not the one that the batch began with.

    Raises:
        BatchFault: If a file is not what it was, or cannot be written.
    """

    def __init__(
        self,
        vm: ExecutionVM,
        program: Program,
        inputs: Inputs,
        results: Results,
        *,
        fresh: bool,
        retry_failed: bool,
    ) -> None:
        self.vm, self.program = vm, program
        self.inputs, self.results = inputs, results
        self.retry_failed = retry_failed
        self.total = inputs.look_ahead(results)
        self.before = results.counts.total
        results.repeat(self._is_repeated)
        self.prefix = _batch_id(results.path, fresh=fresh) if vm.store is not None else None
        self.taken: dict[int, Input] = {}  # by their number in this start
        self.count = 0
        self.fault: str | None = None
        self.misused = False
        self._exhausted = False

    @property
    def complete(self) -> bool:
        """Whether every input has a result."""
        faulty = self.fault is not None or self.results.fault is not None
        return self._exhausted and not self.taken and not faulty

    async def work(
        self,
        ended: Callable[[Input, dict[str, Any], Trace], None],
        *,
        concurrency: int,
        **options: Unpack[SharedOptions],
    ) -> None:
        """Run what has no result yet, and tell of each result when it is written."""
        runs = run_many(
            self.vm,
            self.program,
            self._given(),
            concurrency=concurrency,
            ordered=self.results.ordered,
            run_id=self._run_id if self.prefix is not None else None,
            resume=True,
            **options,
        )
        try:
            async with aclosing(runs) as results:
                async for number, _, trace in results:
                    given = self.taken.pop(number)
                    result = result_of(given, self.results.program, trace)
                    self.results.write(result)
                    if self.results.fault is not None:
                        self.inputs.stop()
                    ended(given, result, trace)
        except OSError as error:
            self.fault = f"cannot read {self.inputs.name}: {error.strerror}"
        except BatchFault as error:  # a changed input that came by a pipe
            self.fault, self.misused = str(error), True
        except VMError as error:
            self.fault = str(error)

    def finish(self) -> None:
        """Take the mark away, where every input has a result."""
        if self.complete and self.prefix is not None:
            _marker(self.results.path).unlink(missing_ok=True)

    def _is_repeated(self, result: dict[str, Any]) -> bool:
        """Whether the run of a result is looked at again: it waited, and its store may know more by
        now; or it did not succeed, and is to be tried again.
        """
        if result["status"] == "suspended":
            return self.vm.store is not None and self.vm.store.has(result.get("run_id", ""))
        return self.retry_failed and result["status"] in ("failed", "cancelled")

    async def _given(self) -> AsyncIterator[Any]:
        """The inputs that have no result yet; a line that is none goes on as it is, and is
        refused.
        """
        async for line, raw in self.inputs:
            if self.results.compare(line, digest_of(line, raw)) and line not in self.results.again:
                continue
            found = read_line(line, raw)
            self.taken[self.count] = found
            self.count += 1
            yield found.value if found.fault is None else found
        self._exhausted = not self.inputs.stopped

    def _run_id(self, number: int) -> str:
        """The id of a run: the same when the batch is started again. One that waits has its own,
        one that is tried again the next.
        """
        line = self.taken[number].line
        before = self.results.again.get(line, {})
        known = before.get("run_id") or f"{self.prefix}-{line}"
        return _next_id(known) if before.get("status") in ("failed", "cancelled") else known


def _next_id(run_id: str) -> str:
    """The id of a run that is tried again."""
    name, dot, number = run_id.rpartition(".")
    return f"{name}.{int(number) + 1}" if dot and number.isdecimal() else f"{run_id}.2"


_BATCH_ID = re.compile(rb"batch-[0-9a-f]{16}")


def _marker(output: str) -> Path:
    return Path(f"{output}.batch")


def _batch_id(output: str, *, fresh: bool) -> str:
    """What the ids of this batch's runs begin with. It stands beside the results until they are
    complete, so that a start after a crash joins the runs that had begun.
    """
    marker = _marker(output)
    try:
        if not fresh and marker.exists():
            known = marker.read_bytes().strip()
            if not _BATCH_ID.fullmatch(known):
                raise BatchFault(
                    f"{marker} is no mark of a batch; remove it, or name another file of results"
                )
            return known.decode()
        made = f"batch-{os.urandom(8).hex()}"
        temporary = Path(f"{marker}.new")
        with open(temporary, "w", encoding="ascii") as file:
            file.write(made + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, marker)
    except OSError as error:
        raise BatchFault(f"cannot write {marker}: {error.strerror}") from None
    return made
