"""Records held against records: two frames come in, the first difference goes out. Times are no
part of what happened.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from ..records.digest import UNDIGESTED
from ..records.record import BRIEF, Record, beside_json, full, request_json
from ..records.status import StepStatus
from ..records.trace import Trace
from ..values import as_text

SHOWN_CHARS = 300
"""Of a value that is reported in a message; `to_dict` has all of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where what is recorded is not what the machine computes.

    ``kind`` is ``program`` (another program), ``inputs``, ``changed`` (``field`` of the record at
    ``path``), ``missing`` (a step that is not recorded), ``extra`` (a record of a step that the run
    does not have), ``order``, ``unfit`` (a record that no call can have), or ``end`` (status,
    output or error of the run). ``index`` counts the records before it.
    """

    kind: str
    path: str = ""
    field: str = ""
    recorded: Any = None
    computed: Any = None
    index: int = 0
    why: str = ""

    def __str__(self) -> str:
        where = f"step {self.path!r}" if self.path else "the run"
        sides = f"recorded {shown(self.recorded)}, computed {shown(self.computed)}"
        match self.kind:
            case "program":
                return f"the trace is of another program: {sides}"
            case "inputs":
                return f"the recorded inputs are none that the program takes: {self.why}"
            case "missing":
                return f"{where} is not recorded, and the run reaches it here"
            case "extra":
                return f"{where} is recorded, and the run does not reach it"
            case "order":
                return f"{where} is recorded here, and the run reaches {self.computed!r} first"
            case "unfit":
                return f"{where}: {self.why}"
            case "end":
                return f"the {self.field} of the run: {sides}"
        return f"{where}: {self.field}: {sides}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; both sides are whole."""
        told = {
            "kind": self.kind,
            "path": self.path,
            "field": self.field,
            "index": self.index,
            "why": self.why,
        }
        result: dict[str, Any] = {
            key: value for key, value in told.items() if value or key in ("kind", "index")
        }
        if self.kind in ("changed", "end", "program", "order"):
            result |= {"recorded": self.recorded, "computed": self.computed}
        return {**result, "text": str(self)}


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values have the same canonical form: 1 is not 1.0, 0.0 not -0.0, and keys
    have an order.
    """
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return False
    if kind is str or kind is int or kind is bool:
        return bool(a == b)
    # a form that says the type of each number and keeps the order, in C; of its versions the last
    # that does not tell how often a value is referred to
    return marshal.dumps(a, 2) == marshal.dumps(b, 2)


def compare(
    recorded: Sequence[Record], computed: Sequence[Any], ops: Sequence[Any]
) -> tuple[int, Difference | None]:
    """How many records agree and the first difference of two frames, children before the record
    that joined them.

    *computed* are a machine's own records, the short ones by the index of their op.
    """
    alike = _Alike(ops)
    if alike.frames(recorded, computed):
        return alike.count, None
    return _compare(recorded, [full(record, ops) for record in computed], 0)


class _Alike:
    """Whether frames certainly agree in all. Nearly always they do, and then it costs a third of
    the search for a difference: values are held against each other many at once, in C.
    """

    __slots__ = ("computed", "count", "ops", "recorded")

    def __init__(self, ops: Sequence[Any]) -> None:
        self.ops = ops
        self.count = 0  # of records that agree
        # values in pairs that are to be the same, and are not the same object
        self.recorded: list[Any] = []
        self.computed: list[Any] = []

    def frames(self, recorded: Sequence[Record], computed: Sequence[Any]) -> bool:
        """Whether two frames agree, and all frames below them: those of one level are one row."""
        while recorded or computed:
            if len(recorded) != len(computed):
                return False
            below: tuple[list[Record], list[Any]] = [], []
            if not self.rows(recorded, computed, below):
                return False
            self.count += len(recorded)
            recorded, computed = below
        return self.values()

    def values(self) -> bool:
        """Whether the values of all pairs are the same; the pairs are done with."""
        agree = same(self.recorded, self.computed)
        self.recorded.clear()
        self.computed.clear()
        return agree

    def rows(
        self,
        recorded: Sequence[Record],
        computed: Sequence[Any],
        below: tuple[list[Record], list[Any]],
    ) -> bool:
        """Whether as many records agree, but for the values of the pairs that this leaves, and for
        the records of the children of forks, which are appended to *below*.
        """
        ops, success = self.ops, StepStatus.SUCCESS
        mine, its = self.recorded, self.computed
        for old, new in zip(recorded, computed, strict=True):
            step, path, status, output, error, request, _, _, attempts, usage, extra = old
            if len(new) == BRIEF:
                index, value, asked, _, _, where = new
                op = ops[index]
                beside = None
                if (
                    path != (op.path if where is None else where)
                    or status is not success
                    or error is not None
                    or attempts is not None
                    or usage is not None
                ):
                    return False
            else:
                op, where, ended, value, fault, asked, _, _, tries, used, beside = new
                if (
                    path != where
                    or status is not ended
                    or (error is not fault and error != fault)
                    or (attempts is not tries and attempts != tries)
                    or (usage is not used and usage != used)
                ):
                    return False
            if step is not op and (step.step_id != op.step_id or step.type != op.type):
                return False
            if output is not value:
                mine.append(output)
                its.append(value)
            if request is not asked:
                if type(asked) is not tuple:
                    mine.append(request_json(step, request))
                    its.append(asked)
                elif type(request) is dict and tuple(request) == op.names:
                    mine += request.values()
                    its += asked
                else:
                    mine.append(request_json(step, request))
                    its.append(request_json(op, asked))
            if extra is not beside:
                if type(beside) is tuple:
                    mine.append(extra if type(extra) is dict else beside_json(step, extra))
                    its.append(beside_json(op, beside))
                elif type(extra) is not dict or type(beside) is not dict:
                    return False
                elif "children" not in extra and "children" not in beside:
                    mine.append(extra)
                    its.append(beside)
                elif not self.forked(extra, beside, below):
                    return False
            if len(mine) > PAIRS and not self.values():
                return False
        return True

    def forked(
        self,
        recorded: dict[str, Any],
        computed: dict[str, Any],
        below: tuple[list[Record], list[Any]],
    ) -> bool:
        """The same of what two records of a fork say beside."""
        told = dict(recorded), dict(computed)
        children = [beside.pop("children", ()) for beside in told]
        if [*map(len, children[0])] != [*map(len, children[1])]:
            return False
        for records, frames in zip(below, children, strict=True):
            records += chain.from_iterable(frames)
        self.recorded.append(told[0])
        self.computed.append(told[1])
        return True


PAIRS = 250
"""Values that are held against each other at once: a call of `marshal` is paid for by a few dozen,
and their bytes are twice in memory meanwhile.
"""


def _compare(
    recorded: Sequence[Record], computed: Sequence[Record], done: int
) -> tuple[int, Difference | None]:
    """As `compare`, record by record; *done* counts those before."""
    for number, (old, new) in enumerate(zip(recorded, computed, strict=False)):
        if old.path != new.path:
            return done, _order(recorded[number:], computed[number:], done)
        children = new.children
        if children is not None:
            before = old.children or ()
            for a, b in zip(before, children, strict=False):
                done, found = _compare(a, b, done)
                if found is not None:
                    return done, found
            rest = children[len(before) :]
            if (
                len(before) > len(children)
                or any(rest)
                or (rest and old.status is not StepStatus.CANCELLED)
            ):
                return done, Difference(
                    "changed", old.path, "children", len(before), len(children), done
                )
        differs = difference_of(old, new)
        if differs is not None:
            return done, replace(differs, index=done)
        done += 1
    if len(recorded) > len(computed):
        return done, Difference("extra", recorded[len(computed)].path, index=done)
    if len(computed) > len(recorded):
        return done, Difference("missing", computed[len(recorded)].path, index=done)
    return done, None


def _order(recorded: Sequence[Record], computed: Sequence[Record], done: int) -> Difference:
    """Two frames whose next records are of different steps."""
    old, new = recorded[0].path, computed[0].path
    later = any(record.path == old for record in computed)
    if any(record.path == new for record in recorded):
        return (
            Difference("order", old, recorded=old, computed=new, index=done)
            if later
            else Difference("extra", old, index=done)
        )
    return Difference("missing", new, index=done)


def difference_of(old: Record, new: Record) -> Difference | None:
    """What differs between two records of a step; children are not looked at."""
    field = _field(old, new)
    return Difference("changed", old.path, *field) if field is not None else None


def _field(old: Record, new: Record) -> tuple[str, Any, Any] | None:
    """The first field in which two records of a step differ, with both sides; times are no part of
    what happened.
    """
    a, _, stood, gave, failed, request, _, _, tries, used, extra = old
    b, _, stands, gives, fails, requests, _, _, retries, uses, extras = new
    if a.type != b.type:
        return "type", a.type, b.type
    if a.step_id != b.step_id:
        return "step", a.step_id, b.step_id
    if stood is not stands:
        return "status", stood.value, stands.value
    if gave is not gives and not same(gave, gives):
        return "output", gave, gives
    if failed is not fails and failed != fails:
        return "error", _told(failed), _told(fails)
    if request is not requests:
        was, asks = request_json(a, request), request_json(b, requests)
        if not same(was, asks):
            return "request", was, asks
    if tries is not retries and tries != retries:
        tried = [[attempt.outcome() for attempt in each or ()] for each in (tries, retries)]
        if not same(*tried):
            return "attempts", tried[0], tried[1]
    if used is not uses and used != uses:
        return "usage", _told(used), _told(uses)
    if extra is not extras and not _same_extra(b, extra, extras):
        known, found = _shown_extra(a, extra), _shown_extra(b, extras)
        if not same(known, found):
            key = next(
                (k for k in [*known, *found] if not same(known.get(k), found.get(k))), "extra"
            )
            return key, known.get(key), found.get(key)
    return None


def _same_extra(step: Any, known: Any, found: Any) -> bool:
    """Whether two records certainly say the same beside; False where it takes a closer look. *found*
    is of *step*.
    """
    if type(known) is not dict:
        return False
    if type(found) is tuple:  # of a condition
        branch, values = found
        return (
            tuple(known) == ("branch", "references")
            and known["branch"] == branch
            and same(known["references"], step.show(values))
        )
    return type(found) is dict and "children" not in found and same(known, found)


def _shown_extra(step: Any, extra: Any) -> dict[str, Any]:
    """What a record says beside, but for attempts that were lost in a crash and who decided, which
    are no part of what happened.
    """
    shown = beside_json(step, extra)
    return {key: value for key, value in shown.items() if key not in ("lost", "settled", "by")}


def _told(part: Any) -> Any:
    return part.to_dict() if part is not None else None


def compare_ends(
    recorded: Trace, computed: Trace, done: int, *, reworded: bool = False
) -> Difference | None:
    """How two runs differ in their ends; where messages were *reworded* since, not in the text of
    an error.
    """
    for name in ("status", "error", "error_kind", "output", "waiting"):
        a, b = getattr(recorded.recording, name), getattr(computed.recording, name)
        if name == "status":
            a, b = a.value, b.value
        elif name == "error" and reworded and a is not None and b is not None:
            continue
        elif name == "waiting":
            a, b = (
                [
                    {k: v for k, v in e.items() if k not in UNDIGESTED or k == "effect_key"}
                    for e in w
                ]
                for w in (a, b)
            )
        if not same(a, b):
            return Difference("end", "", name, a, b, done)
    return None


def shown(value: Any) -> str:
    text = as_text(value) if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
