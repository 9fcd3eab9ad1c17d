"""What is kept of one run: a `Recording`, filled by machine, driver, journal and replay; users see
it as a `Trace`. What its readers compute of it is kept until it changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from ..diagnostics import Diagnostic
from ..errors import TraceError
from .digest import Chain
from .record import Record, flattened, full
from .result import StepResult, result_of
from .status import RUNNING, TraceStatus


class Recording:
    """The records of one run, what it was begun with, and how it stands.

    *salt* and *about* may be functions, asked at the first look.
    """

    # What every run sets is a slot; what few runs set has its default here, as in `Machine`.
    _SET = (
        "_about",
        "_digest",
        "_inputs",
        "_names",
        "_results",
        "_salt",
        "base_ns",
        "finished_ns",
        "given_seed",
        "ops",
        "output",
        "program",
        "program_name",
        "records",
        "run_id",
        "sign",
        "started_ns",
        "status",
    )
    __slots__ = ("__dict__", "__weakref__", *_SET)
    error: str | None = None
    error_kind: str | None = None
    waiting: Sequence[dict[str, Any]] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    erased = False  # whether its values were erased from the store that it comes from
    given_signature: str | None = None
    # of a copy that hides something: what it is a copy of
    whole: Recording | None = None
    # of one that was read as somebody was shown it: digest and seal of what it is a copy of
    said: tuple[str, str] | None = None
    # what made the run fail, if that was an exception of a call in this process
    raised: BaseException | None = None

    def __init__(
        self,
        program_name: str,
        program: Any,
        run_id: str,
        seed: int | None,
        started_ns: int,
        base_ns: int = 0,
        salt: str | Callable[[], str] = "",
        about: dict[str, Any] | Callable[[], dict[str, Any]] | None = None,
        sign: Callable[[str], str] | None = None,
        records: Sequence[Any] = (),
        ops: Sequence[Any] = (),
        inputs: dict[str, Any] | tuple[Any, ...] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        self.program_name = program_name
        self.program = program  # or its digest
        self.run_id = run_id
        self.given_seed = seed
        self.started_ns = started_ns
        # added to a record's monotonic time it gives nanoseconds since the epoch
        self.base_ns = base_ns
        self.records = records
        self.ops = ops  # of the plan: short records name theirs by index
        self.sign = sign  # signs the seal, where the process has a key
        self._salt = salt
        self._about = about
        self.status: TraceStatus = RUNNING
        self.finished_ns = 0
        self.output: Any = None
        self._inputs = inputs  # or their values, by these names, until somebody looks
        self._names = names
        self._results: list[StepResult] | None = None
        self._digest: str | None = None

    # --- what it was begun with ---

    @property
    def program_digest(self) -> str:
        """The digest of the program that ran."""
        program = self.program
        return program if type(program) is str else program.digest

    @property
    def seed(self) -> int:
        """What the waits between attempts are drawn from: as given, or by the run's id."""
        return seed_of(self.run_id) if self.given_seed is None else self.given_seed

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run was given, of what the program can read."""
        inputs = self._inputs
        if isinstance(inputs, tuple):
            inputs = self._inputs = dict(zip(self._names, inputs, strict=True))
        return inputs or {}

    @inputs.setter
    def inputs(self, inputs: dict[str, Any]) -> None:
        self._inputs = inputs

    @property
    def about(self) -> dict[str, Any]:
        """As `Trace.about`."""
        about = self._about
        if callable(about):
            about = self._about = about()
        return about or {}

    @about.setter
    def about(self, about: dict[str, Any]) -> None:
        self._about = about

    @property
    def salt(self) -> str:
        """The run's own random bytes, in hex."""
        if not isinstance(self._salt, str):
            self._salt = self._salt()
        return self._salt

    # --- what is computed of it ---

    def full(self) -> list[Record]:
        """The records of the run's own frame, each as a `Record`."""
        ops = self.ops
        if not ops:  # it was read, and no machine made short ones
            return list(self.records)
        return [full(record, ops) for record in self.records]

    def result(self, record: Any) -> StepResult:
        """One of its records as users see it."""
        return result_of(full(record, self.ops), self.base_ns)

    def results(self) -> list[StepResult]:
        """All records as users see them, those of child frames before the record that joined
        them.
        """
        if self._results is None:
            base = self.base_ns
            self._results = [result_of(record, base) for record in flattened(self.full())]
        return self._results

    def digest(self) -> str:
        """As `Trace.digest`."""
        if self.erased:
            raise TraceError(
                f"the values of run {self.run_id!r} were erased, so its digest can no longer be "
                f"computed"
            )
        if self.whole is not None:
            return self.whole.digest()
        if self.said is not None:
            return self.said[0]
        if self._digest is None:
            chain = Chain.of_run(self.program_digest, self.inputs)
            for record in self.full():
                chain.add(record)
            self._digest = chain.ended(self.status, self.output, self.error, self.waiting)
        return self._digest

    def changed(self) -> None:
        """Forget what was computed of it: the run went on since."""
        self._results = self._digest = None

    def become(self, other: Recording) -> None:
        """Say what *other* does, to whoever holds this one already: another owner drove the run."""
        for name in self._SET:
            setattr(self, name, getattr(other, name))
        own = vars(self)
        own.clear()
        own.update(vars(other))


def seed_of(run_id: str) -> int:
    """The seed of a run that was given none: 63 bits of its id's hash, so that it has the same
    whoever resumes it.
    """
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big") >> 1
