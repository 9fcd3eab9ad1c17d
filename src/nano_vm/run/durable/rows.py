"""What the machines of a run record, as the rows that its store keeps.

Each frame has its rows in the order of its records; only what is not stored yet is made a row of.
Nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from ...language.semantics import CALLS, OUTSIDE
from ...machine.machine import Machine
from ...machine.plan import FOREVER, Op
from ...records.record import Record, full, request_json
from ...records.status import StepStatus
from ...store.records import INTENT, PAUSED, STEP, Row, StoredRun
from ...values import UNSET
from .stored import Unfinished, begun_calls, paused_rows, reconciles, timeless


class Rows:
    """The rows of one run while *owner* drives it: those that it has, and those that follow."""

    def __init__(self, run: StoredRun, ops: Sequence[Op], base_ns: int, owner: str) -> None:
        self.run, self.ops, self.base_ns, self.owner = run, ops, base_ns, owner
        self.first: dict[str, int] = {}  # when each frame began, as far as its rows tell
        self.kept: dict[str, int] = {}  # rows of each frame that are stored
        self.begun: dict[str, list[int]] = {}  # calls without outcome: when each was begun
        self.count = self._look(run.rows)  # rows of steps
        self.stored = dict(self.kept)  # the same, before anything was appended here
        self.calls = begun_calls(run.rows)
        self.named = False  # whether a row says which process drives the run now
        self.arguments: dict[str, tuple[Sequence[str], Any]] = {}
        self.taken: set[str] = set()  # steps whose outcome a fork takes from its origin
        self.resolved: dict[str, str] = {}  # by path: who said what became of a call in doubt
        self.deadlines: dict[str, int] = {}  # of what is waited for, since the epoch
        self.repeatable = True  # whether what was recorded last had no effect and no cost

    def _look(self, rows: Iterable[Row]) -> int:
        """Take what the stored *rows* say of frames, steps and calls; how many are of steps."""
        first, begun = self.first, self.begun
        steps: list[Row] = []
        for row in rows:
            kind, started = row.kind, row.started_ns
            if started < first.get(row.frame, FOREVER):
                first[row.frame] = started
            if kind == STEP:
                steps.append(row)
            elif kind == INTENT:
                begun.setdefault(row.path, []).append(started)
        for row in steps if begun else ():
            begun.pop(row.path, None)
        self.kept.update(Counter(map(attrgetter("frame"), steps)))
        return len(steps)

    def new(self, machine: Machine, *, ended: bool = False) -> list[Row]:
        """What the machine recorded since; that it waits is not kept unless the run has *ended*
        so.
        """
        self.repeatable = True
        return self._after(machine.frame_name, machine.records, ended=ended)

    def _after(self, frame: str, records: Sequence[Any], *, ended: bool) -> list[Row]:
        """The rows of a frame that follow those that are kept. A fork that is over is preceded by
        what its children lack: what was in doubt in one when it was cancelled waits no more.
        """
        kept = self.kept.get(frame, 0)
        rows, below = [], []
        for record in records[kept:]:
            whole = full(record, self.ops)
            if whole.status in _WAITING and not ended:
                break
            if whole.extra is not None:
                for number, child in enumerate(whole.children or ()):
                    below += self._after(f"{whole.path}:{number}", child, ended=True)
            op = whole.step
            if op.type in OUTSIDE and (op.type != "tool" or getattr(op, "effect", None) != "read"):
                self.repeatable = False
            rows.append(self.row(frame, whole))
        while (
            rows and not ended and reconciles(rows[-1])
        ):  # it counts with its step: what was said before a crash may be untrue
            rows.pop()
        self.kept[frame] = kept + len(rows)
        self.count += len(rows)
        return [*below, *rows] if below else rows

    def row(self, frame: str, record: Record) -> Row:
        """A record as it is stored."""
        op, path, status, output, _, request, started, finished, _, usage, _ = record
        self.calls.pop(path, None)
        self.arguments.pop(path, None)
        base = self.base_ns
        rest = self.rest(record)
        if usage is not None and (parts := usage.parts()):
            rest["tokens"], usage = parts, usage.whole()
        return Row(
            STEP,
            frame,
            path,
            op.type,
            status,
            started + base,
            finished + base,
            UNSET if request is None else request_json(op, request),
            UNSET if output is None else output,
            rest or None,
            self.model_of(record) if op.type == "llm" else None,
            usage,
        )

    def rest(self, record: Record) -> dict[str, Any]:
        """What a record says beside what a row has fields for."""
        path, extra = record.path, record.extra
        rest = record.failures(self.base_ns)
        if path in self.begun and record.step.type in CALLS:
            rest["lost"] = self.begun[path]
        if extra is not None:
            told = record.beside
            rest |= {name: told.pop(name) for name in ("lost", "settled") if name in told}
            if told:
                rest["extra"] = told
            if record.children is not None:
                rest["size"] = len(record.children)
        if path in self.resolved:
            rest["extra"] = {**rest.get("extra", {}), "by": self.resolved[path]}
        return rest

    def model_of(self, record: Record) -> str | None:
        """The model that a model step called in this run, as it named itself or as it was asked
        for; empty where it has no name, None where none was called.
        """
        op, extra = record.step, record.extra
        if record.path in self.taken or not record.called:
            return None
        answered = extra.get("model") if type(extra) is dict else None
        return str(answered or op.model or self.run.about.get("default_model") or "")

    def intent(self, machine: Machine, op: Op, path: str, began_ns: int) -> Row:
        """That a call or a pause begins; the first also says in which process, for those after
        it.
        """
        row = Row(INTENT, machine.frame_name, path, op.type, None, began_ns)
        if not self.named:
            self.named, row.rest = True, {"owner": self.owner}
        self.calls[path] = Unfinished(op.type, began_ns, self.owner)
        return row

    def paused(self, machine: Machine) -> list[Row]:
        """What the trace shows of the steps at which the run waits, children before their fork;
        nothing where that stands there already.
        """
        rows = list(self.standing(machine.records, machine.frame_name))
        if not rows:
            return []
        rows[-1].rest = {**(rows[-1].rest or {}), "paused": len(rows)}
        return (
            rows
            if [timeless(row) for row in rows] != [timeless(row) for row in paused_rows(self.run)]
            else []
        )

    def standing(self, records: Sequence[Any], frame: str) -> Iterator[Row]:
        """A row for each of *records* that is not stored."""
        for record in records[self.kept.get(frame, 0) :]:
            whole = full(record, self.ops)
            for number, child in enumerate(whole.children or ()):
                yield from self.standing(child, f"{whole.path}:{number}")
            row = self.row(frame, whole)
            row.kind, row.model = PAUSED, None
            yield row

    def entries(self, waiting: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the run waits for, with what a person needs to decide it and the machine does not
        know: deadlines, and of a call in doubt when it was begun, and by which process.
        """
        return [{**entry, **self.beside(entry)} for entry in waiting]

    def beside(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        path = entry["path"]
        if path in self.deadlines:
            return {"deadline_ns": self.deadlines[path]}
        if entry["kind"] != "in_doubt" or path not in self.calls:
            return {}
        call, (names, values) = self.calls[path], self.arguments.get(path, ((), ()))
        arguments = dict(zip(names, values, strict=False))
        return {
            "arguments": arguments,
            "began_ns": call.began_ns,
            **({"owner": call.owner} if call.owner else {}),
        }


_WAITING = frozenset({StepStatus.SUSPENDED, StepStatus.IN_DOUBT})
