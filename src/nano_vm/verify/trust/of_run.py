"""Whether a labelled value arrived in one run where it must not: labels carried along the records of
an ended machine. `Arrivals` says so of untrusted text and protected arguments.

What `proof` says of all runs at once and of all writes to a name together, this says of one run,
write by write. It answers yes only where the records show it: what a run does without a record (the
output that a block gives to its container) counts as clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...diagnostics import Loc
from ...errors import ExprError
from ...language.expr import Ref, value_references
from ...language.flow import Flow, Names, Node
from ...language.program import Step, blocks
from ...language.rules import Rules
from ...language.semantics import (
    Approval,
    Calls,
    External,
    Forks,
    Last,
    Literals,
    ObjectOf,
    ToolCall,
    Use,
    Value,
    Values,
    output,
    partial_output,
)
from ...language.semantics import last as left_by
from ...machine.machine import Machine
from ...records.record import BRIEF
from ...records.status import StepStatus
from ...tools.contract import ToolContract
from ..order.statement import Form, form, shown
from .labels import known_names, restricted, returns_of, roles, shape, spells


@dataclass(frozen=True, slots=True)
class Label:
    """Of a value in a slot: whether it is labelled, the schema that it surely fits, which write
    put it there, and its parts by key.
    """

    on: bool = False
    schema: dict[str, Any] | None = None
    write: int = 0
    parts: Mapping[str, bool] | None = None


CLEAN = Label()
Env = dict[int, Label]


class Lattice(Protocol):
    """What is labelled, and what to look for: each answers for the moment at which *run* is."""

    @property
    def flow(self) -> Flow:
        """The graph of the program."""

    def text(self, names: Names) -> bool:
        """Whether the text of the program with these names is labelled itself."""

    def returned(self, run: LabelledRun, call: ToolCall, env: Env, names: Names) -> bool:
        """Whether what *call* returned is."""

    def outside(self, run: LabelledRun, node: Node, env: Env) -> bool:
        """Whether what a person or an event gave is, or the time that came."""

    def failed(self, run: LabelledRun, node: Node, env: Env) -> bool:
        """Whether what went wrong is."""

    def given(self, run: LabelledRun, node: Node, use: Use, env: Env) -> bool:
        """Whether what the step at *node* gives away as *use*, or by failing, must not be given."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What to look for: argument ``name`` of a call of ``tool``, by the step at ``loc``, as
    ``use``.
    """

    flow: Flow
    contracts: Mapping[str, ToolContract]
    rules: Mapping[str, Rules]
    untrusted: frozenset[str]
    literals: Mapping[int, bool]  # by Names: whether its program's own text is untrusted
    loc: Loc
    use: Use
    tool: str
    name: str

    def __call__(self, machine: Machine) -> bool:
        """Whether in the run of this ended root machine an untrusted value was given to it, without
        right.
        """
        run = LabelledRun(self)
        names = self.flow.frames[0].names
        env = {
            slot: Label(True)
            for name, slot in names.keys.items()
            if name in self.untrusted and names.takes(name)
        }
        run.frame(machine.records, env, names)
        return run.broken

    def text(self, names: Names) -> bool:
        """Nobody vouches for it."""
        return self.literals[id(names)]

    def returned(self, run: LabelledRun, call: ToolCall, env: Env, names: Names) -> bool:
        """By its contract: of a pure function, as its arguments are."""
        returns = returns_of(call.tool, self.contracts, self.rules)
        if returns == "args":
            return self.made_up(call.args, names) or any(
                run.carries(value, env, names) for value in call.args.values()
            )
        return returns is None

    def outside(self, run: LabelledRun, node: Node, env: Env) -> bool:
        """A stranger may have written it."""
        return True

    def failed(self, run: LabelledRun, node: Node, env: Env) -> bool:
        """Likewise."""
        return True

    def made_up(self, args: Iterable[str], names: Names) -> bool:
        """Whether a program of untrusted text names an argument as the host does not."""
        return self.literals[id(names)] and not known_names(self.contracts, self.rules).issuperset(
            args
        )

    def given(self, run: LabelledRun, node: Node, use: Use, env: Env) -> bool:
        """Whether a call that is made now is the one, and is given what it must not be."""
        names = node.frame.names
        if node.loc != self.loc or use != self.use:
            return False
        args = node.call(use).args
        if self.name not in args:
            return True  # left to the tool's default
        value = args[self.name]
        rules = self.rules[self.tool]
        untrusted = self.made_up([self.name], names) or run.carries(value, env, names)
        return any(
            rule.check is None
            and (untrusted or not rule.trusted)
            and not run.approved(set(roles(rule)), value, env, names)
            for rule in rules.argument(self.name)
        )


@dataclass(slots=True)
class LabelledRun:
    """One run, followed record by record; ``broken`` once something was given that must not be."""

    asked: Lattice
    broken: bool = False
    writes: int = 0
    # whether errors of the frame that was followed last quote what is labelled, and those of the
    # frames of the step that is looked at
    quoted: bool = False
    inside: bool = False
    undos: dict[str, bool] = field(
        default_factory=dict
    )  # by path: whether the remembered call is given what it must not be
    approvals: list[tuple[str, int, frozenset[Form], dict[int, int]]] = field(default_factory=list)

    def frame(self, records: list[Any], env: Env, names: Names, *, part: bool = False) -> bool:
        """The records of one frame, from the names that it begins with; whether its output is
        labelled. A *part* of another is null where its last step was skipped.
        """
        last = block = quoted = False
        instead: bool | None = None  # what a reconcile gave in place of the call
        for record in records:
            if len(record) == BRIEF:
                node, path, status, extra, made = (
                    self.asked.flow.nodes[record[0]],
                    "",
                    StepStatus.SUCCESS,
                    None,
                    True,
                )
                error = None
            else:
                op, path, status, output, error, request, *_, extra = record
                made = type(request) is tuple
                if op.index < 0:
                    instead = self.beside(op, path, status, output, env, names)
                    continue
                node = self.asked.flow.nodes[op.index]
            results = self.children(node, extra, env)
            step = node.step
            fields = extra if type(extra) is dict else {}
            # of a call that failed no record tells whether it was made
            if made if node.calls and status is StepStatus.SUCCESS else not node.calls:
                self.look(node, "step", env)
            if status is StepStatus.SUCCESS:
                value = self.output(node, fields, env, results, block, instead)
                self.names(step, env, names)
                self.write(node, env, value)
                if node.approval is not None:
                    self.approve(node.approval, fields, env, names)
                if any(call.use == "undo" for call in node.calls):
                    self.undos[f"{path}/undo"] = self.asked.given(self, node, "undo", env)
                match left_by(step):
                    case "own":
                        last = block = value.on
                    case "blocks":
                        block = False
            elif status is StepStatus.SKIPPED or "caught" in fields:
                value = Label(bool(fields.get("default")) and self.asked.text(names))
                if status is not StepStatus.SKIPPED and partial_output(step):
                    value = self.output(node, fields, env, results, block, instead)
                self.write(node, env, value, failed=error is not None)
                if status is StepStatus.SKIPPED:
                    block = value.on
                    last = value.on if part or fields.get("default") else last
            quoted |= error is not None and (self.inside or self.asked.failed(self, node, env))
            instead = None
        self.quoted = quoted
        return last

    def children(self, node: Node, extra: Any, env: Env) -> list[bool]:
        """What the frames of a fork give."""
        results = []
        names = node.frame.names
        inside = False
        for number, records in enumerate(extra.get("children", ()) if type(extra) is dict else ()):
            graph = node.child(number)
            inner = dict(env)
            match node.control:
                case Forks(item=str(), over=over):
                    assert graph.item is not None
                    self.writes += 1
                    inner[graph.item] = Label(self.carries(over, env, names), None, self.writes)
                case Calls(arguments=arguments):
                    keys = graph.names.keys
                    inner = {
                        keys[name]: Label(self.carries(value, env, names))
                        for name, value in arguments.items()
                        if name in keys
                    }
            result = self.frame(records, inner, graph.names, part=not graph.own_names)
            inside |= self.quoted
            if graph.own_names and graph.names.program.output is not None:
                result = self.carries(graph.names.program.output, inner, graph.names)
                inside |= result and _ended(records)  # if the step failed, it was its output
            results.append(result)
        self.inside = inside
        branches = [frame.name for frame in node.frames]
        for name in extra.get("failed", ()) if results else ():  # null stands there
            results[name if type(name) is int else branches.index(name)] = False
        return results

    def beside(
        self, op: Any, path: str, status: StepStatus, output: Any, env: Env, names: Names
    ) -> bool | None:
        """An undo or reconcile call; of a reconcile that says the call was done, whether what it
        gives is untrusted.
        """
        step_id, _, use = op.step_id.rpartition("/")
        if status is not StepStatus.SUCCESS:
            return None
        if use == "undo":
            self.broken |= self.undos.pop(path, False)
            return None
        nodes = self.asked.flow.nodes
        node = next(
            n for n in nodes if n.kind == "step" and n.step.id == step_id and n.frame.names is names
        )
        self.look(node, "reconcile", env)
        if type(output) is dict and output.get("done") is True:
            return self.asked.returned(self, node.call("reconcile"), env, names)
        return None

    def output(
        self,
        node: Node,
        fields: dict[str, Any],
        env: Env,
        results: list[bool],
        block: bool,
        instead: bool | None,
    ) -> Label:
        step, names = node.step, node.frame.names
        own = self.asked.text(names)
        match output(step)[0]:
            case External("tool"):
                found = self.asked.returned(self, node.call("step"), env, names)
                return Label(found if instead is None else instead)
            case External("model", schema, allowed):
                if own or fields.get("on_invalid") or allowed is not None:
                    return Label(own)
                if schema is not None and restricted(schema, ()) is not None:
                    return CLEAN
                reads = (ref for ref, _ in names.reads[step.id])
                return Label(any(self.reads(ref, env, names) for ref in reads), schema)
            case External():
                return Label(self.asked.outside(self, node, env), shape(output(step)))
            case Literals():
                return Label(own)
            case Last():
                return Label(block)
            case Values(templates):
                parts = {name: self.carries(value, env, names) for name, value in templates.items()}
                return Label(any(parts.values()), None, 0, parts)
            case ObjectOf(branches):
                return Label(any(results), None, 0, dict(zip(branches, results, strict=False)))
        return Label(any(results))

    def names(self, step: Step, env: Env, names: Names) -> None:
        """The names that *step* writes templates to, each of what was there before the step."""
        written = {
            slot: self.carries(write.template, env, names)
            for slot, write in names.writes(step)
            if isinstance(write, Value)
        }
        for slot, on in written.items():
            self.writes += 1
            env[slot] = Label(on, None, self.writes)

    def write(self, node: Node, env: Env, value: Label, *, failed: bool = False) -> None:
        step, names = node.step, node.frame.names
        if left_by(step) == "blocks" and any(True for _ in blocks(step)):
            value = CLEAN  # the end of its block writes again, and no record tells when
        self.writes += 1
        value = Label(value.on, value.schema, self.writes, value.parts)
        env[names.outputs[step.id]] = value
        if step.output_key is not None:
            env[names.keys[step.output_key]] = value
        for word, told in (("error", failed), ("errors", not failed)):
            if (step.id, word) in names.errors:
                on = told and (self.inside or self.asked.failed(self, node, env))
                env[names.errors[step.id, word]] = Label(on, None, self.writes)

    def reads(self, ref: Ref, env: Env, names: Names) -> bool:
        try:
            slot, path = names.load(ref)
        except ExprError:
            return False
        label = env.get(slot, CLEAN)
        if path and label.schema is not None and restricted(label.schema, path) is not None:
            return False
        if label.parts is not None and path and path[0] in label.parts:
            return label.parts[str(path[0])]
        return label.on

    def carries(self, value: Any, env: Env, names: Names) -> bool:
        """Whether a literal with templates gives a labelled value."""
        if self.asked.text(names) and spells(value):
            return True
        return any(self.reads(ref, env, names) for ref in value_references(value))

    # --- approvals, and the verdict ---

    def approve(self, asked: Approval, fields: dict[str, Any], env: Env, names: Names) -> None:
        if fields.get("branch", "then") == "then":
            seen = {slot: label.write for slot, label in env.items()}
            self.approvals.append(
                (asked.role, id(names), frozenset(shown(asked.show, names)), seen)
            )

    def look(self, node: Node, use: Use, env: Env) -> None:
        self.broken = self.broken or self.asked.given(self, node, use, env)

    def approved(self, accepted: Set[str], value: Any, env: Env, names: Names) -> bool:
        """Whether one of these roles was shown *value*, unchanged since, and approved."""
        key = form(value, names)
        slots = [names.load(ref)[0] for ref in value_references(value)]
        return any(
            role in accepted
            and space == id(names)
            and key in forms
            and all(env.get(slot, CLEAN).write == seen.get(slot, 0) for slot in slots)
            for role, space, forms, seen in self.approvals
        )


def _ended(records: list[Any]) -> bool:
    """Whether the frame of these records came to its end, where its output is computed."""
    last: Any = records[-1] if records else ()
    if len(last) <= BRIEF:
        return True
    _, _, status, *_, extra = last
    return status is not StepStatus.FAILED or (type(extra) is dict and "caught" in extra)
