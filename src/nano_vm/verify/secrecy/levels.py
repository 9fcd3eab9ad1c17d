"""The labels of each field that a run leaves: of its inputs, of what its steps gave, asked and said
of failures, of its output; and who accepts which. JSON, to be kept with the run.

What labels reach comes in. A field that only a choice among the program's own values depends on is
public, as it is to receivers in the program. Steps of called programs are known by their id alone:
one that stands in two programs has the labels of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...language.expr import Ref, value_references
from ...language.flow import Names, Node
from ...language.secrecy import RECEIVERS
from ..trust.graph import STRONG, Reach
from .receivers import Receivers
from .sources import Labelled, around, reads_of_outputs


def levels(
    labelled: Labelled, reaches: Mapping[int, Reach], receivers: Receivers
) -> dict[str, Any]:
    """As `records.secrecy.Levels` reads it: each step, since one that is unknown is hidden."""
    secrets = labelled.secrets
    fields = _Fields(labelled, reaches)
    for node in labelled.graph.flow.nodes:
        if node.kind == "step":
            fields.step(node)
    output = 0
    for receiver in receivers.output():
        output |= fields.read(receiver.names, receiver.refs)
        output |= fields.written(receiver.outputs)
    names = labelled.graph.flow.frames[0].names
    quoted = fields.quoted(names, value_references(names.program.output))
    inputs = {name: secrets.input(name) for name in names.keys}
    return {
        "inputs": {name: secrets.listed(mask) for name, mask in inputs.items() if mask},
        "steps": {
            step_id: {name: secrets.listed(mask) for name, mask in found.items() if mask}
            for step_id, found in fields.steps.items()
        },
        "output": secrets.listed(output),
        "output_error": secrets.listed(quoted),
        "accepts": {name: secrets.listed(secrets.receiver(name)) for name in RECEIVERS},
    }


class _Fields:
    """Labels of the fields of steps, by their id."""

    def __init__(self, labelled: Labelled, reaches: Mapping[int, Reach]) -> None:
        self.labelled = labelled
        self.reaches = reaches
        self.steps: dict[str, dict[str, int]] = {}

    def step(self, node: Node) -> None:
        """Add what is known of *node*."""
        names, step_id = node.frame.names, node.step.id
        refs = [ref for ref, _ in names.all_reads(node.step)]
        request = self.read(names, refs)
        error = self.quoted(names, refs) | self.labelled.known(node)
        for call in node.calls:
            if call.use != "step":
                returned, _, _ = self.labelled.of_tool(call.tool)
                beside = list(value_references(list(call.args.values())))
                given, quoted = self.read(names, beside), self.quoted(names, beside)
                self.add(f"{step_id}/{call.use}", output=given | returned, request=given)
                self.add(f"{step_id}/{call.use}", error=quoted | returned)
        for inner, ref in reads_of_outputs(node):
            error |= self.quoted(inner, [ref])
        self.add(step_id, output=self.written((node,)), request=request)
        for other in around(node):
            self.add(other.step.id, error=error)

    def add(self, step_id: str, **masks: int) -> None:
        """More labels of fields of a step."""
        found = self.steps.setdefault(step_id, {})
        for name, mask in masks.items():
            found[name] = found.get(name, 0) | mask

    def read(self, names: Names, refs: Iterable[Ref]) -> int:
        """The labels of what *refs* read."""
        refs = list(refs)
        mask = 0
        for bit, reach in self.reaches.items():
            if reach.reached(names, refs).level == STRONG:
                mask |= bit
        return mask

    def quoted(self, names: Names, refs: Iterable[Ref]) -> int:
        """The labels of what an error may quote of what *refs* read: whatever of it is restricted."""
        graph = self.labelled.graph
        vertices = {graph.read(names, ref)[0] for ref in refs} - {-1}
        mask = 0
        for bit, reach in self.reaches.items():
            if any(reach.level[vertex] == STRONG for vertex in vertices):
                mask |= bit
        return mask

    def written(self, nodes: Iterable[Node]) -> int:
        """The labels of what *nodes* gave."""
        mask = 0
        for node in nodes:
            vertex = self.labelled.graph.out(node)
            for bit, reach in self.reaches.items():
                mask |= bit if reach.level[vertex] == STRONG else 0
        return mask
