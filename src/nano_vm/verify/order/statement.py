"""What a rule says, and what it names: steps, edges, approvals. Rules and a `Flow` come in; nothing
is proved here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import ExprError
from ...language.expr import (
    Arith,
    Bool,
    Call,
    Compare,
    Const,
    Node,
    Ref,
    Template,
    children,
    computed,
    entries,
    parse_template,
)
from ...language.flow import Flow, Names
from ...language.program import Step
from ...language.rules import Rules
from ...language.semantics import Chooses, edge_words


@dataclass(frozen=True, slots=True)
class Statement:
    """One thing that a rule says of every execution of ``tool``.

    ``names`` are edges, of which one must be crossed (``guard``); a role (``approval``); one step,
    tool or edge (``after``, ``before``). ``protected`` are the arguments that an approval must
    show; none stands for all.
    """

    kind: Literal["guard", "approval", "after", "before"]
    tool: str
    names: tuple[str, ...]
    protected: tuple[str, ...] = ()

    def __str__(self) -> str:
        name = self.names[0]
        match self.kind:
            case "guard":
                return f"every call of {self.tool!r} is guarded by {' or '.join(self.names)}"
            case "approval":
                named = [argument for argument in self.protected if argument != "*"]
                what = (
                    ", ".join(map(repr, named))
                    if len(named) == len(self.protected) > 0
                    else "its arguments"
                )
                return f"every call of {self.tool!r} is approved by {name!r}, who was shown {what}"
            case "after":
                return f"every call of {self.tool!r} comes after {name!r}"
        return f"{self.tool!r} comes before every run of {name!r}"

    def protects(self, argument: str) -> bool:
        """Whether an approval must show *argument*."""
        return not self.protected or argument in self.protected or "*" in self.protected


def statements(rules: Rules) -> Iterator[Statement]:
    """What *rules* say of the order of things: one statement for each demand."""
    tool = rules.tool
    for edges in rules.guards:
        yield Statement("guard", tool, edges)
    protected = tuple(dict.fromkeys(name for name, _ in rules.args))
    for role in rules.approvals:
        yield Statement("approval", tool, (role,), protected)
    for name in rules.after:
        yield Statement("after", tool, (name,))
    for name in rules.before:
        yield Statement("before", tool, (name,))


# --- steps and edges by name ----------------------------------------------------------------------


class Places:
    """The steps of each program in a flow, by id, and the programs that their calls run."""

    def __init__(self, flow: Flow) -> None:
        self.own = flow.frames[0].names
        self.programs: dict[int, Names] = {id(self.own): self.own}
        self.called: dict[tuple[int, str], list[Names]] = {}
        for frame in flow.frames:
            if frame.kind == "call":
                assert frame.owner is not None
                self.programs[id(frame.names)] = frame.names
                key = id(frame.owner.frame.names), frame.owner.step.id
                self.called.setdefault(key, []).append(frame.names)
        self._edges: dict[str, list[tuple[Names, Step, str]]] = {}

    def named_steps(self, name: str) -> list[tuple[Names, Step]]:
        """The step ``s`` of the run's own program, or ``call/s`` of the program that the step
        ``call`` runs.

        A call that is reached in two ways runs two programs of the same steps, so it is a list.
        """
        return [
            (names, names.by_id[rest]) for names, rest in self._within(name) if rest in names.by_id
        ]

    def named_edges(self, name: str) -> list[tuple[Names, Step, str]]:
        """The edge ``s.then``, with its label in the flow; none where the name can be read in two
        ways.
        """
        found = self._edges.get(name)
        if found is None:
            found = [
                (names, step, label)
                for names, rest in self._within(name)
                for at, character in enumerate(rest)
                if character == "." and (step := names.by_id.get(rest[:at])) is not None
                if (label := edge_words(step).get(rest[at + 1 :])) is not None
            ]
            if len({(step.id, label) for _, step, label in found}) > 1:
                found = []
            self._edges[name] = found
        return found

    def late(self, name: str) -> str | None:
        """Why *name* is no edge, where it is ``otherwise`` of an approval that has a deadline."""
        step_id, _, word = name.rpartition(".")
        if any(_late(names, step, word) for names, step in self.named_steps(step_id)):
            return (
                f"{step_id!r} takes it also where nobody decides in time; without "
                f"'timeout_seconds' it is a rejection"
            )
        return None

    def _within(self, name: str) -> Iterator[tuple[Names, str]]:
        """Each program that a prefix of *name* leads to, and the rest of the name."""
        work = [(self.own, name)]
        while work:
            names, rest = work.pop()
            yield names, rest
            call, slash, inner = rest.partition("/")
            if slash:
                work += [(called, inner) for called in self.called.get((id(names), call), ())]

    def known_edges(self) -> Iterator[str]:
        """Every name of an edge of the run's own program, for hints."""
        for step, _ in self.own.steps:
            yield from (f"{step.id}.{word}" for word in edge_words(step))


def _late(names: Names, step: Step, word: str) -> bool:
    """Whether *word* is a way of an approval that is taken also where nobody decides in time."""
    chooses = names.controls[step.id]
    way = chooses.way(word) if isinstance(chooses, Chooses) else None
    return way is not None and way.word is None


# --- arguments ------------------------------------------------------------------------------------

Form = tuple[Any, ...]


def form(value: Any, names: Names) -> Form:
    """What *value* says, spelled one way: equal forms give equal values."""
    if type(value) is str:
        template = parse_template(value)
        parts: list[Any] = []
        for part in template.parts:
            if isinstance(part, Ref):
                parts.append(("ref", *names.load(part)))
            elif parts and type(parts[-1]) is str:
                parts[-1] += part
            else:
                parts.append(part)
        return ("value", parts[0]) if template.typed else ("text", *parts)
    if type(value) is list:
        return "list", *(form(item, names) for item in value)
    if type(value) is dict:
        node = computed(value)
        if node is not None:
            return _computed_form(node, names)
        return "dict", *sorted((key, form(item, names)) for key, item in entries(value))
    return "const", type(value).__name__, value


def _computed_form(node: Node, names: Names) -> Form:
    """An expression, by what it reads and does: equal forms compute the same of the same values."""
    match node:
        case Ref():
            return "value", ("ref", *names.load(node))
        case Const(value):
            return "const", type(value).__name__, repr(value) if type(value) is list else value
        case Template(parts):
            said: tuple[Any, ...] = tuple(
                part if isinstance(part, str) else ("ref", *names.load(part)) for part in parts
            )
        case Compare(_, rest):
            said = tuple(op for op, _ in rest)
        case Bool(op) | Arith(op):
            said = (op,)
        case Call(name, method=method):
            said = name, method
        case _:
            said = ()
    return (
        "expr",
        type(node).__name__,
        said,
        *(_computed_form(inner, names) for inner in children(node)),
    )


def shown(value: Any, names: Names) -> Iterator[Form]:
    """Each value that a person sees for what it is, who is shown *value*: the whole and its parts.
    What stands inside a string is not among them: ``$a$b`` is the same text for 1 and 23 as for 12
    and 3.
    """
    try:
        whole = form(value, names)
    except ExprError:
        return
    yield whole
    parts = (
        value
        if type(value) is list
        else value.values()
        if type(value) is dict and computed(value) is None
        else ()
    )
    for item in parts:
        yield from shown(item, names)


def has_references(value: Form) -> bool:
    """Whether what it says depends on names, which are those of one program."""
    return any(
        type(part) is tuple and (part[:1] == ("ref",) or has_references(part)) for part in value
    )
