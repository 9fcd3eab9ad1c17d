"""Who receives values from a program: tools, models, people, those who send events, its caller.

The graph and the joined labels come in; each place out of which a value goes to somebody, with what
it reads there and the labels that are accepted, goes out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...diagnostics import Diagnostic, Loc
from ...language.expr import Ref, value_references
from ...language.flow import Flow, Names, Node
from ...language.program import LLMStep, written
from ...language.semantics import (
    Chooses,
    External,
    Forks,
    Repeats,
    Stops,
    ToolCall,
    Use,
    last,
    output,
)
from .labels import Secrets


@dataclass(slots=True)
class Receiver:
    """One place: ``name`` is whose, ``what`` the place in words, ``value`` what an approval can have
    shown, ``outputs`` the steps whose output it is, where no reference reads it.
    """

    name: str
    what: str
    loc: Loc
    accepts: int
    node: Node
    refs: Sequence[Ref] = ()
    use: Use | None = None
    argument: str | None = None
    value: Any = None
    outputs: tuple[Node, ...] = ()

    @property
    def names(self) -> Names:
        """Those that its references are read by."""
        return self.node.frame.names


class Receivers:
    """All of one program, and after they were walked the models of which no rule says what they
    accept.
    """

    def __init__(self, flow: Flow, secrets: Secrets) -> None:
        self.flow = flow
        self.secrets = secrets
        self.accepted: dict[tuple[str, str], int] = {}
        self.unruled: dict[str | None, Loc] = {}
        self.last: list[Node] | None = None
        # tools and their arguments of which no more is to be said
        self.settled: set[tuple[str, str | None]] = set()

    def __iter__(self) -> Iterator[Receiver]:
        for node in self.flow.nodes:
            if node.kind == "step":
                yield from self._of_step(node)
            if self.secrets.refuses_implicit:
                yield from self._failed(node)
        yield from self.output()

    def _of_step(self, node: Node) -> Iterator[Receiver]:
        if node.calls:
            yield from self._arguments(node)
        elif isinstance(node.step, LLMStep):
            yield from self._asked(node, node.step)
        elif node.approval is not None:
            yield self._shown(node, node.approval.role, node.approval.show)
        elif node.frame.names.reads[node.step.id] or self.secrets.refuses_implicit:
            yield from self._others(node)

    def _arguments(self, node: Node) -> Iterator[Receiver]:
        for call in node.calls:
            tool = call.tool
            if not call.args and self.secrets.refuses_implicit:
                accepts = self.secrets.argument(tool, "*")
                at: Loc = (*node.loc, *call.at, "args")
                yield Receiver(tool, f"tool {tool!r} ({_where(node, call)})", at, accepts, node)
            for name, value in call.args.items():
                key = tool, name
                if key in self.settled:
                    continue
                refs = tuple(value_references(value))
                if not (refs or self.secrets.refuses_implicit):
                    continue  # nothing reaches what the program spells
                if key not in self.accepted:
                    self.accepted[key] = self.secrets.argument(*key)
                yield Receiver(
                    tool,
                    f"argument {name!r} of tool {tool!r} ({_where(node, call)})",
                    (*node.loc, *call.at, "args", name),
                    self.accepted[key],
                    node,
                    refs,
                    call.use,
                    name,
                    value,
                )

    def look(self) -> None:
        """Only see of which models no rule says what they accept."""
        for node in self.flow.nodes:
            if node.kind == "step" and isinstance(node.step, LLMStep):
                self._rule(node, node.step)

    def _rule(self, node: Node, step: LLMStep) -> tuple[str | None, int]:
        """The model that *step* asks, and what it accepts: nothing where no rule says so."""
        program = node.frame.names.program
        model = program.model_named(step.model or program.defaults.model)
        accepts = self.secrets.model(model)
        if accepts is None:
            self.unruled.setdefault(model, (*node.loc, "model"))
        return model, accepts or 0

    def _asked(self, node: Node, step: LLMStep) -> Iterator[Receiver]:
        model, accepts = self._rule(node, step)
        who = "the default model" if model is None else f"model {model!r}"
        for field, refs in self._fields(node, ("prompt", "system", "messages")):
            what = f"{field!r} for {who} (step {step.id!r})"
            yield Receiver(model or "", what, (*node.loc, field), accepts, node, refs)

    def _shown(self, node: Node, role: str, show: Any) -> Receiver:
        what = f"what {role!r} is shown (step {node.step.id!r})"
        accepts = self.secrets.role(role)
        return Receiver(
            role, what, (*node.loc, "show"), accepts, node, tuple(value_references(show))
        )

    def _others(self, node: Node) -> Iterator[Receiver]:
        step_id = node.step.id
        by = [term.by for term in output(node.step) if isinstance(term, External)]
        if "event" in by:
            event = str(written(node.step, "event"))
            for field, refs in self._fields(node, ("event", "match")):
                what = f"{field!r} of event {event!r} (step {step_id!r})"
                accepts = self.secrets.event(event)
                yield Receiver(event, what, (*node.loc, field), accepts, node, refs)
        fields = _by_field(node)
        for field in _texts(node):
            if field in fields:
                yield self._error(node, field, fields[field])

    @cached_property
    def _ending(self) -> set[int]:
        """The frames that may end the run where they fail."""
        found: set[int] = set()
        for frame in self.flow.frames:  # those inside come after those around them
            owner = frame.owner
            if owner is None or (owner.frame.index in found and not _goes_on(owner)):
                found.add(frame.index)
        return found

    def _error(self, node: Node, field: str, refs: Sequence[Ref]) -> Receiver:
        what = f"the error that the caller gets ({field!r} of step {node.step.id!r})"
        accepts = self.secrets.receiver("errors")
        return Receiver("errors", what, (*node.loc, field), accepts, node, refs)

    def _failed(self, node: Node) -> Iterator[Receiver]:
        """Where the program fails by itself: that the caller gets an error tells how it was decided,
        whatever that says.
        """
        decides, leads = decides_to_fail(node), _leads_to_fail(node)
        if not (decides or leads):
            return
        for field in _texts(node):
            if getattr(node.step, field, None) is not None:
                yield self._error(node, field, ())
                return
        handled = decides and not leads and _goes_on(node)
        if node.frame.index in self._ending and not handled:
            what = f"the error that the caller gets (step {node.step.id!r})"
            yield Receiver("errors", what, node.loc, self.secrets.receiver("errors"), node)

    def _fields(self, node: Node, names: Sequence[str]) -> Iterator[tuple[str, list[Ref]]]:
        """The fields *names* of a step that read something, and what. Where branches are refused, the
        first that has anything too: that it is given tells how it was decided.
        """
        fields = _by_field(node)
        spelt = [name for name in names if getattr(node.step, name, None) is not None]
        first = spelt[:1] if self.secrets.refuses_implicit else ()
        for name in names:
            if name in fields or name in first:
                yield name, fields.get(name, [])

    def output(self) -> Iterator[Receiver]:
        """What the caller of the run gets."""
        run = self.flow.frames[0]
        declared = run.names.program.output
        accepts = self.secrets.receiver("output")
        end = self.flow.nodes[run.end]
        what = "the output of the run"
        if declared is not None:
            yield Receiver(
                "output", what, ("output",), accepts, end, tuple(value_references(declared))
            )
            return
        if self.last is None:
            self.last = last_outputs(self.flow, run.end)
        for node in self.last:
            text = f"{what} (step {node.step.id!r})"
            yield Receiver("output", text, node.loc, accepts, node, outputs=(node,))

    def without_rule(self) -> Iterator[Diagnostic]:
        """A fault for each model of which nobody says what it accepts."""
        for model, loc in self.unruled.items():
            who = "the default model" if model is None else f"model {model!r}"
            message = f"the policy has labels, and does not say what {who} accepts"
            name = "*" if model is None else model
            hint = f"write models: {{{name!r}: {{accepts: public}}}}, or the labels that it may see"
            yield Diagnostic("V067", loc, message, hint)


def decides_to_fail(node: Node) -> bool:
    """Whether the program itself says that it fails here: always, or where no way is taken."""
    match node.kind, node.control:
        case "step", Stops():
            return True
        case "step", Chooses(by="condition", ways=ways):
            return len(ways) < 2
        case "step", Chooses(by="value", ways=ways):
            return all(way.case is not None for way in ways)
        case "test", Repeats(goes_on=goes_on):
            return not goes_on
    return False


def _leads_to_fail(node: Node) -> bool:
    """Whether a way from here, but for that of a failed call, is `$fail`, or one that is missing."""
    fail = node.frame.fail
    return any(
        edge.target == fail and edge.label not in ("error", "catch", "skip") for edge in node.edges
    )


def _goes_on(node: Node) -> bool:
    """Whether the program goes on after every failure of *node* or inside it."""
    if isinstance(node.control, Forks) and node.control.goes_on:
        return True
    handlers = [edge for edge in node.edges if edge.label in ("skip", "catch")]
    every = any(edge.label == "skip" or "*" in edge.errors for edge in handlers)
    return every and all(edge.target != node.frame.fail for edge in handlers)


def _texts(node: Node) -> tuple[str, ...]:
    """The fields of a step that stand in the error with which it fails."""
    return ("error", "message") if isinstance(node.control, Stops) else ("message",)


def _where(node: Node, call: ToolCall) -> str:
    step = f"step {node.step.id!r}"
    return step if call.use == "step" else f"{call.use} of {step}"


def _by_field(node: Node) -> dict[str, list[Ref]]:
    """What a step reads, by its field."""
    found: dict[str, list[Ref]] = {}
    for ref, at in node.frame.names.reads[node.step.id]:
        found.setdefault(str(at[0]), []).append(ref)
    return found


def last_outputs(flow: Flow, end: int) -> list[Node]:
    """The steps whose output may be that of the frame which ends at the node *end*: of a decision it
    is that of its blocks, and where these leave nothing, what the steps before it left.
    """
    before: defaultdict[int, list[Node]] = defaultdict(list)
    frame = flow.nodes[end].frame
    for node in flow.nodes:
        if node.frame is frame:
            for edge in node.edges:
                if edge.label != "fork":
                    before[edge.target].append(node)
    found: dict[int, Node] = {}
    ends, queue = {end}, [end]
    for index in queue:  # grows as it is walked
        for node in before[index]:
            step = node.of if node.kind != "step" and node.of is not None else node
            found.setdefault(step.index, step)
            fails = any(edge.label in ("skip", "catch") for edge in node.edges)
            if node.index not in ends and (
                node.kind != "step" or last(node.step) != "own" or fails
            ):
                ends.add(node.index)
                queue.append(node.index)
    return [found[index] for index in sorted(found)]
