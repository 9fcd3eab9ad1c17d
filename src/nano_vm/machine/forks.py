"""The children of a fork: what each of them is given, which may begin, and what they gave together.

A `Fork` is made when the machine of a frame reaches a `ForkOp`. Its children are machines, which
that machine makes, or light ones where a child is one tool call. What an outcome of the fork does
is decided by the machine; here nothing is recorded but the one call of a light child, and no frame
but those of light children is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from ..errors import StepFault, VMError
from ..records.record import MAX_LISTED, StepError
from ..records.status import SUCCEEDED, TraceStatus
from ..values import CONTAINERS, SMALL_TEXT, admit, is_small
from .ledger import Ledger, Shares
from .plan import FOREVER, ForkOp, FramePlan, ToolOp


class Child(Protocol):
    """What a fork reads of a child that is a machine."""

    frame: list[Any]  # empty once it is adopted
    frame_name: str
    ledger: Ledger
    records: list[Any]
    status: TraceStatus
    error: StepError | None
    end_failed: bool
    skipped: bool

    @property
    def gave(self) -> Any:
        """What it gives at the join; null where it failed."""


M = TypeVar("M", bound=Child)


class Light:
    """A child of a fork that is one tool call and ended well: what the join reads of a machine."""

    __slots__ = ("given", "now", "op", "output", "records", "request", "size")
    op: ToolOp
    given: tuple[Any, ...]
    now: int
    output: Any
    records: list[Any]
    request: tuple[Any, ...]
    size: int

    deadline = FOREVER
    status = SUCCEEDED
    error: StepError | None = None
    raised: BaseException | None = None
    waiting: Sequence[dict[str, Any]] = ()
    skipped = False
    failed_step = ""
    frame_name = ""
    end_failed = False

    @property
    def gave(self) -> Any:
        """What it gives at the join."""
        return self.output


class Fork(Generic[M]):
    """The children of the requested fork *op* at *path*. *given* are the items of a map, or the
    inputs of a call.
    """

    __slots__ = (
        "_granted",
        "_light_frame",
        "_limit",
        "_room",
        "children",
        "given",
        "op",
        "path",
        "shares",
        "size",
    )

    def __init__(self, op: ForkOp, path: str, given: Any, ledger: Ledger) -> None:
        self.op, self.path, self.given = op, path, given
        self.size = count = len(given) if op.kind == "map" else len(op.frames)
        frames = op.frames * count if op.kind == "map" else op.frames
        self.shares = Shares(ledger, [frame.ceiling for frame in frames], op.at_once(count))
        self.children: list[M | Light | None] = [None] * count
        self._granted: list[Ledger | None] = [None] * count
        self._light_frame: list[Any] | None = None
        self._room = self._limit = 0

    # --- what a driver asks ---

    @property
    def lanes(self) -> int:
        """How many children may run at a time without a share in common; number n is in lane
        n % lanes.
        """
        return self.shares.lanes

    def ready(self, number: int) -> bool:
        """Whether child *number* may begin: the one before it in its lane has ended."""
        before = number - self.shares.lanes
        if before < 0:
            return True
        child = self.children[before]
        return child is not None and (
            child.status is SUCCEEDED or child.status is TraceStatus.FAILED
        )

    def light(self, number: int) -> Light | None:
        """Child *number* as one call, with what its tool receives; None where it takes a machine,
        or its arguments are at fault.
        """
        frame, op = self._light_frame, self.op
        if frame is None:
            return None
        entry = op.frames[0 if op.kind == "map" else number].light
        if entry is None:
            return None
        if op.kind == "map":
            frame[op.item] = self.given[number]
        try:
            request, given = entry.take(frame)
        except StepFault:
            return None
        child = Light()
        child.op, child.request, child.given = entry, request, given
        return child

    def lit(self, number: int, child: Light, started: int, value: Any) -> bool:
        """Take what the tool of a light child returned, at its ``now``; whether that is all."""
        size = 0
        if not (type(value) is str and len(value) < SMALL_TEXT and value.isascii()) and not (
            is_small(value)
        ):
            if type(value) not in CONTAINERS:
                return False
            try:
                value, size = admit(value, self._limit)
            except VMError:
                return False
            if size > self._room:
                return False
        op = child.op
        at = f"[{number}]" if self.op.kind == "map" else ""
        path = f"{self.path}{at}/{op.path}"
        child.output, child.size = value, size
        child.records = [(op.index, value, child.request, started, child.now, path)]
        self.children[number] = child
        return True

    # --- what the machine does with its children ---

    def allow_light(self, frame: list[Any], limit: int, room: int) -> None:
        """Children that are one call read *frame*, and need no machine: nothing bounds them but
        *limit*, of a value's bytes, and *room*, of all.
        """
        self._light_frame, self._limit, self._room = frame.copy(), limit, room

    def plan_of(self, number: int) -> FramePlan:
        """What child *number* executes."""
        return self.op.frames[0 if self.op.kind == "map" else number]

    def share(self, number: int, bound: Ledger | None) -> Ledger:
        """What child *number*, which is `ready`, may use, at most *bound*."""
        before = number - self.shares.lanes
        earlier = self.children[before] if before >= 0 else None
        # light ones have no ledger, and are there only where no share is in common
        left = None if earlier is None or isinstance(earlier, Light) else earlier.ledger
        granted = self.shares.granted(number, left)
        if bound is not None:
            granted = granted.copy()
            granted.tighten(bound)
        self._granted[number] = granted
        return granted.copy()

    def adopt(self, ledger: Ledger) -> list[M]:
        """Charge *ledger* with what children used that were not adopted before; those of them that
        are machines.
        """
        fresh: list[M] = []
        for granted, child in zip(self._granted, self.children, strict=True):
            if child is None:
                continue
            if isinstance(child, Light):
                if child.size >= 0:
                    ledger.steps -= 1
                    ledger.state -= child.size
                    child.size = -1  # adopted once
            elif child.frame and granted is not None:
                ledger.settle(granted, child.ledger)
                fresh.append(child)
        return fresh

    @property
    def begun(self) -> list[M | Light]:
        """The children that have begun, in order."""
        return [child for child in self.children if child is not None]

    @property
    def held_up(self) -> bool:
        """Whether a child has not begun that could have."""
        return any(
            child is None and self.ready(number) for number, child in enumerate(self.children)
        )

    def recorded(self) -> dict[str, Any]:
        """What is recorded beside the step: the children's own records, and how they ended where no
        record of theirs tells.
        """
        records = [child.records if child is not None else [] for child in self.children]
        extra: dict[str, Any] = {"forked": True, "children": records}
        ends = {
            child.frame_name: child.error.to_dict()
            for child in self.children
            if child is not None and child.end_failed and child.error is not None
        }
        return {**extra, "ends": ends} if ends else extra

    # --- what they gave, where all have ended ---

    def name(self, number: int) -> Any:
        """What a branch or item is called in lists of them."""
        return number if self.op.kind == "map" else self.op.frames[number].name

    def title(self, number: int) -> str:
        """What it is called in a message."""
        if self.op.kind == "map":
            return f"item [{number}]"
        word = "branch" if self.op.kind == "parallel" else "program"
        return f"{word} {self.op.frames[number].name!r}"

    def gathered(self) -> Any:
        """What they gave together."""
        gave = [child.gave for child in self.children if child is not None]
        return gave[0] if self.op.kind == "call" else together(self.op, gave)

    def skipped(self) -> list[Any]:
        """The names of those that were skipped."""
        return [
            self.name(number)
            for number, child in enumerate(self.children)
            if child is not None and child.skipped
        ]

    def lost(self) -> list[int]:
        """The numbers of those that failed."""
        return [
            number
            for number, child in enumerate(self.children)
            if child is not None and child.status is not SUCCEEDED
        ]

    def errors(self, lost: list[int]) -> list[dict[str, Any]]:
        """What `$step.errors` lists: name and error of each of those that were *lost*."""
        word = "item" if self.op.kind == "map" else "branch"
        listed = []
        for number in lost:
            child = self.children[number]
            error = child.error if child is not None else None
            assert error is not None
            listed.append({word: self.name(number), **error.told(MAX_LISTED)})
        return listed


def together(op: ForkOp, outputs: list[Any]) -> Any:
    """The output of a `map` or `parallel` whose children gave *outputs*."""
    if op.kind == "map":
        return outputs
    return dict(zip([frame.name for frame in op.frames], outputs, strict=True))
