"""Whether a labelled value was given in one run to a receiver that does not accept it: what a
counterexample is judged by.

The records of an ended machine come in; yes or no goes out. It applies the definitions of `proof`
by the walk of `trust.of_run`, along the one path that the run took.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...explore.tree import ExploredRun
from ...language.expr import Ref
from ...language.flow import Flow, Names, Node
from ...language.semantics import ToolCall, Use
from ...machine.machine import Machine
from ...records.status import TraceStatus
from ..trust.of_run import Env, Label, LabelledRun
from .labels import Secrets
from .receivers import Receiver
from .sources import brought


@dataclass(slots=True)
class SecretArrivals:
    """What to look for: a value with the label ``bit`` at ``receiver``."""

    flow: Flow
    secrets: Secrets
    receiver: Receiver
    bit: int
    _returns: dict[str, bool] = field(default_factory=dict)

    def __call__(self, machine: Machine) -> bool:
        """Whether in the run of this ended root machine such a value was given there."""
        run = LabelledRun(self)
        names = self.flow.frames[0].names
        env = {
            slot: Label(True)
            for name, slot in names.keys.items()
            if self.secrets.input(name) & self.bit and names.takes(name)
        }
        last = run.frame(machine.records, env, names)
        if self.receiver.loc == ("output",):
            ended = machine.status is TraceStatus.SUCCESS
            return ended and any(run.reads(ref, env, names) for ref in self.receiver.refs)
        if self.receiver.outputs:
            return machine.status is TraceStatus.SUCCESS and last
        return run.broken

    def arrived(self, run: ExploredRun) -> Any:
        """What the receiver was given in a run that was searched for."""
        receiver = self.receiver
        if receiver.loc == ("output",) or receiver.outputs:
            return run.machine.output
        if receiver.name == "errors":
            return run.machine.error_summary()
        wanted = receiver.node.step.id
        if receiver.use is not None and receiver.use != "step":
            wanted = f"{wanted}/{receiver.use}"
        found = (record.asked() for record in run.records if record.step.step_id == wanted)
        return next(found, None)

    def text(self, names: Names) -> bool:
        """What a program spells is no secret."""
        return False

    def returned(self, run: LabelledRun, call: ToolCall, env: Env, names: Names) -> bool:
        """What the tool is said to return, and what it was given unless it takes the label away."""
        if call.tool not in self._returns:
            self._returns[call.tool] = bool(self.secrets.returns(call.tool) & self.bit)
        if self._returns[call.tool]:
            return True
        if self.secrets.declassified(call.tool)[0] & self.bit:
            return False
        return any(run.carries(value, env, names) for value in call.args.values())

    def outside(self, run: LabelledRun, node: Node, env: Env) -> bool:
        """What was shown, or what the event was waited for with; or what the event carries."""
        if brought(self.secrets, node) & self.bit:
            return True
        return self._any_read(run, node, env, node.frame.names.reads[node.step.id])

    def failed(self, run: LabelledRun, node: Node, env: Env) -> bool:
        """All that the step read, what its tools return and the event brings; of what is inside it
        nothing is known here.
        """
        names = node.frame.names
        return (
            bool(brought(self.secrets, node) & self.bit)
            or any(self.secrets.returns(call.tool) & self.bit for call in node.calls)
            or self._any_read(run, node, env, names.all_reads(node.step))
        )

    def given(self, run: LabelledRun, node: Node, use: Use, env: Env) -> bool:
        """Whether this is the receiver, and it is given a value with the label."""
        receiver, names = self.receiver, node.frame.names
        if node.loc != receiver.node.loc or (receiver.use or "step") != use:
            return False
        if not any(run.reads(ref, env, names) for ref in receiver.refs):
            return False
        roles = {role for role in self._roles() if self.secrets.released(role) & self.bit}
        return receiver.argument is None or not run.approved(roles, receiver.value, env, names)

    def _roles(self) -> Iterator[str]:
        for node in self.flow.nodes:
            if node.approval is not None:
                yield node.approval.role

    def _any_read(
        self, run: LabelledRun, node: Node, env: Env, reads: list[tuple[Ref, Any]]
    ) -> bool:
        return any(run.reads(ref, env, node.frame.names) for ref, _ in reads)
