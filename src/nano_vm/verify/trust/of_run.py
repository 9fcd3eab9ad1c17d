"""Whether untrusted text reached a protected argument in one run: labels carried along the records
of an ended machine.

What `proof` says of all runs at once and of all writes to a name together, this says of one run,
write by write. It answers yes only where the records show it: what a run does without a record (the
output that a block gives to its container) counts as clean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...diagnostics import Loc
from ...errors import ExprError
from ...language.expr import Ref, value_references
from ...language.flow import Flow, Names, Node
from ...language.policy import ArgRule, Rules
from ...language.program import Step, blocks
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
class _Label:
    """Of a value in a slot: whether it is untrusted, the schema that it surely fits, which write
    put it there, and its parts by key.
    """

    untrusted: bool = False
    schema: dict[str, Any] | None = None
    write: int = 0
    parts: Mapping[str, bool] | None = None


CLEAN = _Label()
Env = dict[int, _Label]


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
        run = _Run(self)
        names = self.flow.frames[0].names
        env = {
            slot: _Label(True)
            for name, slot in names.keys.items()
            if name in self.untrusted and names.takes(name)
        }
        run.frame(machine.records, env, names)
        return run.broken


@dataclass(slots=True)
class _Run:
    asked: Arrivals
    broken: bool = False
    writes: int = 0
    undos: dict[str, bool] = field(
        default_factory=dict
    )  # by path: whether the remembered call is given what it must not be
    approvals: list[tuple[str, int, frozenset[Form], dict[int, int]]] = field(default_factory=list)

    def frame(self, records: list[Any], env: Env, names: Names) -> bool:
        """The records of one frame, from the names that it begins with; whether its output is
        untrusted.
        """
        last = block = False
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
            if status is StepStatus.SUCCESS:
                if node.calls and made:
                    self.look(node, "step", env)
                value = self.output(node, fields, env, results, block, instead)
                self.names(step, env, names)
                self.write(step, env, names, value)
                if node.approval is not None:
                    self.approve(node.approval, fields, env, names)
                if any(call.use == "undo" for call in node.calls):
                    self.undos[f"{path}/undo"] = self.given(node, "undo", env)
                match left_by(step):
                    case "own":
                        last = block = value.untrusted
                    case "blocks":
                        block = False
            elif status is StepStatus.SKIPPED or "caught" in fields:
                value = _Label(bool(fields.get("default")) and self.asked.literals[id(names)])
                if status is not StepStatus.SKIPPED and partial_output(step):
                    value = self.output(node, fields, env, results, block, instead)
                self.write(step, env, names, value, failed=error is not None)
                if status is StepStatus.SKIPPED:
                    last = block = value.untrusted
            instead = None
        return last

    def children(self, node: Node, extra: Any, env: Env) -> list[bool]:
        """What the frames of a fork give."""
        results = []
        names = node.frame.names
        for number, records in enumerate(extra.get("children", ()) if type(extra) is dict else ()):
            graph = node.child(number)
            inner = dict(env)
            match node.control:
                case Forks(item=str(), over=over):
                    assert graph.item is not None
                    self.writes += 1
                    inner[graph.item] = _Label(self.dirty(over, env, names), None, self.writes)
                case Calls(arguments=arguments):
                    keys = graph.names.keys
                    inner = {
                        keys[name]: _Label(self.dirty(value, env, names))
                        for name, value in arguments.items()
                        if name in keys
                    }
            result = self.frame(records, inner, graph.names)
            if graph.own_names and graph.names.program.output is not None:
                result = self.dirty(graph.names.program.output, inner, graph.names)
            results.append(result)
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
            return self.returned(node.call("reconcile"), env, names)
        return None

    def output(
        self,
        node: Node,
        fields: dict[str, Any],
        env: Env,
        results: list[bool],
        block: bool,
        instead: bool | None,
    ) -> _Label:
        step, names = node.step, node.frame.names
        own = self.asked.literals[id(names)]
        match output(step)[0]:
            case External("tool"):
                found = self.returned(node.call("step"), env, names)
                return _Label(found if instead is None else instead)
            case External("model", schema, allowed):
                if own or fields.get("on_invalid") or allowed is not None:
                    return _Label(own)
                if schema is not None and restricted(schema, ()) is not None:
                    return CLEAN
                reads = (ref for ref, _ in names.reads[step.id])
                return _Label(any(self.reads(ref, env, names) for ref in reads), schema)
            case External():
                return _Label(True, shape(step))
            case Literals():
                return _Label(own)
            case Last():
                return _Label(block)
            case Values(templates):
                parts = {name: self.dirty(value, env, names) for name, value in templates.items()}
                return _Label(any(parts.values()), None, 0, parts)
            case ObjectOf(branches):
                return _Label(any(results), None, 0, dict(zip(branches, results, strict=False)))
        return _Label(any(results))

    def names(self, step: Step, env: Env, names: Names) -> None:
        """The names that *step* writes templates to, each of what was there before the step."""
        written = {
            slot: self.dirty(write.template, env, names)
            for slot, write in names.writes(step)
            if isinstance(write, Value)
        }
        for slot, untrusted in written.items():
            self.writes += 1
            env[slot] = _Label(untrusted, None, self.writes)

    def write(
        self, step: Step, env: Env, names: Names, value: _Label, *, failed: bool = False
    ) -> None:
        if left_by(step) == "blocks" and any(True for _ in blocks(step)):
            value = CLEAN  # the end of its block writes again, and no record tells when
        self.writes += 1
        value = _Label(value.untrusted, value.schema, self.writes, value.parts)
        env[names.outputs[step.id]] = value
        if step.output_key is not None:
            env[names.keys[step.output_key]] = value
        for word, told in (("error", failed), ("errors", not failed)):
            if (step.id, word) in names.errors:
                env[names.errors[step.id, word]] = _Label(told, None, self.writes)

    def returned(self, call: ToolCall, env: Env, names: Names) -> bool:
        returns = returns_of(call.tool, self.asked.contracts, self.asked.rules)
        if returns == "args":
            return self.made_up(call.args, names) or any(
                self.dirty(value, env, names) for value in call.args.values()
            )
        return returns is None

    def made_up(self, args: Iterable[str], names: Names) -> bool:
        """Whether a program of untrusted text names an argument as the host does not."""
        asked = self.asked
        return asked.literals[id(names)] and not known_names(
            asked.contracts, asked.rules
        ).issuperset(args)

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
        return label.untrusted

    def dirty(self, value: Any, env: Env, names: Names) -> bool:
        """Whether a literal with templates gives an untrusted value."""
        if self.asked.literals[id(names)] and spells(value):
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
        self.broken = self.broken or self.given(node, use, env)

    def given(self, node: Node, use: Use, env: Env) -> bool:
        """Whether a call that is made now is the one, and is given what it must not be."""
        asked, names = self.asked, node.frame.names
        if node.loc != asked.loc or use != asked.use:
            return False
        args = node.call(use).args
        if asked.name not in args:
            return True  # left to the tool's default
        value = args[asked.name]
        rules = asked.rules[asked.tool]
        untrusted = self.made_up([asked.name], names) or self.dirty(value, env, names)
        return any(
            rule.check is None
            and (untrusted or not rule.trusted)
            and not self.approved(rule, value, env, names)
            for rule in rules.argument(asked.name)
        )

    def approved(self, rule: ArgRule, value: Any, env: Env, names: Names) -> bool:
        accepted = set(roles(rule))
        key = form(value, names)
        slots = [names.load(ref)[0] for ref in value_references(value)]
        return any(
            role in accepted
            and space == id(names)
            and key in forms
            and all(env.get(slot, CLEAN).write == seen.get(slot, 0) for slot in slots)
            for role, space, forms, seen in self.approvals
        )
