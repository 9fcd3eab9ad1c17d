"""What verification says: faults, proofs, the worst case, where outside text flows. Data only;
nothing is proved here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from .. import pictures
from ..diagnostics import Diagnostic, Loc, format_loc
from ..values import canonical, short

if TYPE_CHECKING:
    from .cost.ceiling import Ceiling
    from .witness import Witness

SHOWN_MOVES = 100
"""Moves that are shown of the begin of a path, and of its end; ``Proof.path`` has all of them."""

ProofStatus = Literal["proved", "refuted", "unproved"]


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a path through the `Flow`: the node and the label of the edge that is taken from
    it; the last has none.
    """

    node: int
    step_id: str
    label: str = ""

    def __str__(self) -> str:
        return f"{self.step_id}.{self.label}" if self.label not in ("", "next") else self.step_id


@dataclass(frozen=True, slots=True)
class Proof:
    """One statement about every run of the program, and what is known of it.

    ``kind`` is ``guard``, ``approval``, ``after``, ``before``, ``max_calls``, ``flow``, ``secrecy``
    or ``allow``; ``tool`` is the tool that it is about, and of ``secrecy`` who receives. ``proved``:
    no run breaks it, if tools are what their contracts say. ``refuted``:
    ``run`` breaks it; it was found and executed. ``unproved``: the graph has the path ``path`` that
    would break it, and no run along it was found; ``reason`` says why. ``note`` says what makes the
    statement an empty one: a guard that every run crosses.
    """

    kind: str
    tool: str
    statement: str
    status: ProofStatus
    loc: Loc = ()
    path: tuple[Move, ...] = ()
    run: Witness | None = None
    reason: str | None = None
    note: str | None = None

    @property
    def way(self) -> str:
        """The path in one line, with the values that each of its branches was decided by in the run
        that was found.
        """
        values: dict[tuple[str, str], str] = {}
        for branch in self.run.branches if self.run is not None else ():
            step_id = branch.path.rpartition("/")[2].partition("#")[0].partition("[")[0]
            said = ", ".join(
                f"{name} = {short(value)}" for name, value in branch.references.items()
            )
            values.setdefault((step_id, branch.branch), f" ({said})" if said else "")
        moves = list(self.path)
        left = len(moves) - 2 * SHOWN_MOVES
        shown = [
            f"{move}{values.get((move.step_id, move.label), '')}"
            for move in (moves if left <= 1 else [*moves[:SHOWN_MOVES], *moves[-SHOWN_MOVES:]])
        ]
        if left > 1:
            shown.insert(SHOWN_MOVES, f"... {left} more ...")
        return " -> ".join(shown)

    @property
    def of_values(self) -> bool:
        """Whether it says which values reach one place, rather than what is done in which order."""
        return self.kind in ("flow", "secrecy")

    def about(self, flow: Influence) -> bool:
        """Whether *flow* is what breaks it."""
        if not self.of_values or flow.loc != self.loc:
            return False
        return bool(flow.label) == (self.kind == "secrecy")

    def __str__(self) -> str:
        text = f"{self.status}: {self.statement}"
        if self.status == "proved":
            return f"{text}\n  but {self.note}" if self.note else text
        lines = [text]
        if self.loc:
            lines[0] += f" (at {format_loc(self.loc)})"
        if self.path:
            lines.append(f"  path: {self.way}")
        if self.run is not None:
            lines += [f"  {line}" for line in self.run.text().splitlines()]
        if self.reason:
            lines.append(f"  {self.reason}")
        return "\n".join(lines)

    def fault(self, flows: Iterable[Influence] = ()) -> Diagnostic | None:
        """What a host says that refuses the program for it, with what *flows* say of its place;
        None where it is proved.
        """
        if self.status == "proved":
            return None
        found = [str(flow) for flow in flows if self.about(flow)]
        found = found or ([f"on the path {self.way}"] if self.path else [])
        found += [self.reason] if self.reason else []
        return Diagnostic(
            "V052", self.loc, f"{self.status}: {self.statement}", ": ".join(found) or None
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        fields: dict[str, Any] = {
            "kind": self.kind,
            "tool": self.tool,
            "statement": self.statement,
            "status": self.status,
            "place": format_loc(self.loc) if self.loc else None,
            "path": [{"step": move.step_id, "edge": move.label} for move in self.path] or None,
            "run": self.run.to_dict() if self.run is not None else None,
            "reason": self.reason,
            "note": self.note,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Marks:
    """Where values begin that a statement is about, at ``nodes`` of the flow and in ``inputs``; and
    what in an explored run the receiver was ``given``, which ``what`` calls by name.
    """

    nodes: frozenset[int]
    inputs: frozenset[str]
    what: str
    given: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a static pass says of one statement: it holds, or the shortest path through the graph
    that breaks it.

    ``moves`` are what a search for a run prefers to take, (node, label); ``breaks`` says of an
    ended root machine whether its run breaks the statement. ``reason`` says why there is neither a
    proof nor a path. ``marks`` are what the run that is found is shown with, where that is of values
    from somewhere.
    """

    kind: str
    tool: str
    statement: str
    holds: bool
    loc: Loc = ()
    path: tuple[Move, ...] = ()
    breaks: Any = None
    reason: str | None = None
    marks: Marks | None = None


@dataclass(frozen=True, slots=True)
class Influence:
    """Untrusted text, or a value with the ``label`` of a secret, that reaches an argument or another
    receiver, or decides a branch: ``source`` says whose it is, ``way`` the steps between.

    ``allowed`` says what declassified it, or that it is only a branch (``kind`` is ``branch``).
    """

    kind: Literal["argument", "branch"]
    step_id: str
    target: str  # `tool.argument`, or the step whose branch it decides
    source: str
    way: tuple[str, ...] = ()
    allowed: str | None = None
    loc: Loc = ()
    label: str = ""

    def __str__(self) -> str:
        way = f" by way of {' -> '.join(self.way)}" if self.way else ""
        right = f" ({self.allowed})" if self.allowed else ""
        verb = "reaches" if self.kind == "argument" else "decides"
        label = f"{self.label}: " if self.label else ""
        return f"{label}{self.source} {verb} {self.target}{way}{right}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        fields: dict[str, Any] = {
            "kind": self.kind,
            "step": self.step_id,
            "target": self.target,
            "label": self.label or None,
            "source": self.source,
            "way": list(self.way),
            "allowed": self.allowed,
            "place": format_loc(self.loc),
        }
        return {name: value for name, value in fields.items() if value is not None}


def rounded_up(bits: float) -> float:
    """*bits* with one digit: never less, since they are a bound."""
    return ceil(bits * 10) / 10


@dataclass(frozen=True, slots=True)
class Released:
    """How many bits of what has a label a run gives away at most, by ``answers`` that are a choice
    among what the program lists and by ``branches``.
    """

    label: str
    answers: float
    branches: float

    def __str__(self) -> str:
        answers, branches = rounded_up(self.answers), rounded_up(self.branches)
        return f"{self.label}: at most {answers:g} bits a run by answers, {branches:g} by branches"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"label": self.label, "answers": self.answers, "branches": self.branches}


_BY_WEIGHT: tuple[ProofStatus, ...] = ("proved", "unproved", "refuted")


def _worst(proofs: Iterable[Proof]) -> tuple[Proof, ...]:
    """Each statement once, with the worst that is known of it. Those of values are about a place."""
    found: dict[tuple[str, str, str, Loc], Proof] = {}
    for proof in proofs:
        key = (proof.kind, proof.tool, proof.statement, proof.loc if proof.of_values else ())
        known = found.setdefault(key, proof)
        if _BY_WEIGHT.index(proof.status) > _BY_WEIGHT.index(known.status):
            found[key] = proof
    return tuple(found.values())


def _most(released: Iterable[Released]) -> tuple[Released, ...]:
    """Each label once, with the larger bounds."""
    found: dict[str, Released] = {}
    for one in released:
        known = found.get(one.label, one)
        answers, branches = max(known.answers, one.answers), max(known.branches, one.branches)
        found[one.label] = Released(one.label, answers, branches)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Report:
    """All that `verify` found; ``ok`` says whether the program may run."""

    program: str
    digest: str
    diagnostics: tuple[Diagnostic, ...] = ()
    proofs: tuple[Proof, ...] = ()
    ceiling: Ceiling | None = None
    flows: tuple[Influence, ...] = ()
    released: tuple[Released, ...] = ()
    _proofs_digest: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against running it: no error, and every statement is proved."""
        return all(d.severity != "error" for d in self.diagnostics) and all(
            p.status == "proved" for p in self.proofs
        )

    @property
    def faults(self) -> tuple[Diagnostic, ...]:
        """All that a host tells: the diagnostics, and what is not proved."""
        flows: dict[Loc, list[Influence]] = {}
        for flow in self.flows:
            flows.setdefault(flow.loc, []).append(flow)
        found = (proof.fault(flows.get(proof.loc, ())) for proof in self.proofs)
        return *self.diagnostics, *(fault for fault in found if fault is not None)

    @property
    def proofs_digest(self) -> str:
        """SHA-256, in hex, of the statements and what is known of each."""
        if not self._proofs_digest:
            said = [[proof.statement, proof.status] for proof in self.proofs]
            self._proofs_digest.append(hashlib.sha256(canonical(said)).hexdigest())
        return self._proofs_digest[0]

    def beside(self, other: Report) -> Report:
        """This report with what *other* has more, of the same program under another policy. Of a
        statement that both make the worse holds, and of a label the larger bound.
        """
        known = {str(found) for found in self.diagnostics}
        flows = {str(flow) for flow in self.flows}
        return Report(
            self.program,
            self.digest,
            (*self.diagnostics, *(d for d in other.diagnostics if str(d) not in known)),
            _worst((*self.proofs, *other.proofs)),
            self.ceiling,
            (*self.flows, *(flow for flow in other.flows if str(flow) not in flows)),
            _most((*self.released, *other.released)),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "ok": self.ok,
            "program": self.program,
            "digest": self.digest,
            "proofs_digest": self.proofs_digest,
            "diagnostics": [d.to_dict() for d in self.diagnostics],
            "proofs": [p.to_dict() for p in self.proofs],
            "ceiling": self.ceiling.to_dict() if self.ceiling is not None else None,
            "flows": [f.to_dict() for f in self.flows],
            "released": [one.to_dict() for one in self.released],
        }

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return pictures.html(self)

    def lines(self) -> Iterator[str]:
        """What `str` joins, a line each."""
        for diagnostic in self.diagnostics:
            yield (
                f"{diagnostic.severity}: {diagnostic}"
                if diagnostic.severity != "error"
                else str(diagnostic)
            )
        for proof in self.proofs:
            yield from str(proof).splitlines()
        for flow in self.flows:
            yield f"flow: {flow}"
        for released in self.released:
            yield f"released: {released}"
        if self.ceiling is not None:
            yield from str(self.ceiling).splitlines()

    def __str__(self) -> str:
        return "\n".join(self.lines())
