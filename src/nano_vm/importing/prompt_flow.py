"""A DAG of Prompt flow in, a program out: its nodes become steps, in an order in which each reads
what is there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

from ..diagnostics import Loc
from ..spelling import nearest
from .documents import Given as GivenValue
from .documents import Reference, Value, expression, literal, template, text
from .identifiers import Identifiers, identifier
from .json_path import path_of
from .report import Findings, NoCounterpart, not_imported

Sources = Callable[[str], "str | None"]
"""The text of a file beside the flow, None where it cannot be read."""

_REFERENCE = re.compile(r"\$\{(?P<name>[^.}]+)\.(?P<rest>[^}]+)\}")
_REFERRING = re.compile(r"\$\{[^}]*\}")
_VARIABLE = re.compile(r"\{\{-?\s*(\w+)\s*-?\}\}")
_ROLE = re.compile(r"^\s*#?\s*(system|user|assistant)\s*:\s*$", re.IGNORECASE | re.MULTILINE)
_TYPES = {"string": "string", "int": "integer", "double": "number", "bool": "boolean"} | {
    "list": "array",
    "object": "object",
}
_MODEL_FIELDS = ("temperature", "max_tokens", "top_p", "stop", "seed")
_FLOW_FIELDS = ("inputs", "outputs", "nodes", "$schema", "environment", "id")
_NODE_FIELDS = ("name", "type", "source", "inputs", "activate", "api", "connection", "provider")


def program_of(
    flow: dict[str, Any], findings: Findings, name: str, sources: Sources
) -> dict[str, Any] | None:
    """The document of the program that means what *flow* means; None where it has faults."""
    nodes = flow.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        findings.add("fault", (), "has no nodes", "write them as a list")
        return None
    names: set[str] = set()
    for i, node in enumerate(nodes):
        if not isinstance(node, dict) or not isinstance(node.get("name"), str):
            findings.add("fault", ("nodes", i), "is no node with a name", "write name and type")
        elif node["name"] in names:
            message = f"two nodes are named {node['name']!r}"
            findings.add("fault", ("nodes", i), message, "rename one of them")
        else:
            names.add(node["name"])
    if findings.faulty:
        return None
    return _Flow(flow, findings, sources).program(name)


class _Flow:
    def __init__(self, flow: dict[str, Any], findings: Findings, sources: Sources) -> None:
        self.flow = flow
        self.findings = findings
        self.sources = sources
        self.nodes: dict[str, tuple[int, dict[str, Any]]] = {
            node["name"]: (i, node) for i, node in enumerate(flow["nodes"])
        }
        inputs = flow.get("inputs")
        self.inputs: dict[str, Any] = inputs if isinstance(inputs, dict) else {}
        outputs = flow.get("outputs")
        self.outputs: dict[str, Any] = outputs if isinstance(outputs, dict) else {}
        self.names = Identifiers(self.nodes)
        self.input_names = {one: self.names.another(identifier(one)) for one in self.inputs}

    def program(self, name: str) -> dict[str, Any] | None:
        order = self._order()
        if order is None:
            return None
        steps = [self._step(*self.nodes[one]) for one in order]
        outputs = {key: self._output(key, one) for key, one in self.outputs.items()}
        for key in (one for one in self.flow if one not in _FLOW_FIELDS):
            self.findings.gap(
                (key,), NoCounterpart(f"the flow has {key}", "write by hand what it does")
            )
        properties = {
            self.input_names[key]: {"type": _TYPES[str(one.get("type"))]}
            if isinstance(one, dict) and str(one.get("type")) in _TYPES
            else {}
            for key, one in self.inputs.items()
        }
        for key, one in self.inputs.items():
            if isinstance(one, dict) and "default" in one:
                self.findings.add(
                    "difference",
                    ("inputs", key),
                    f"input {key!r} has a default, which is left out",
                    "give the input at each run",
                )
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        return {"name": name, "inputs": schema, "steps": steps, "output": outputs}

    def _output(self, key: str, given: Any) -> Any:
        loc = ("outputs", key)
        try:
            if not isinstance(given, dict) or "reference" not in given:
                raise NoCounterpart(f"output {key!r} has no reference", "name a node's output")
            return template(self._value(given["reference"]))
        except NoCounterpart as gap:
            self.findings.gap(loc, gap)
            return None

    def _order(self) -> list[str] | None:
        """The nodes in an order in which each reads what is there; None where there is none."""
        reads: dict[str, list[str]] = {}
        for name, (i, node) in self.nodes.items():
            given = [*_inputs(node).values(), *_activation(node)]
            reads[name] = self._reads(given, ("nodes", i))
        for key, one in self.outputs.items():
            if isinstance(one, dict):
                self._reads([one.get("reference")], ("outputs", key))
        try:
            order = list(TopologicalSorter(reads).static_order())
        except CycleError as error:
            way = " -> ".join(error.args[1])
            self.findings.add("fault", ("nodes",), f"nodes read each other: {way}", "cut the cycle")
        return None if self.findings.faulty else order

    def _reads(self, given: list[Any], loc: Loc) -> list[str]:
        """The nodes that *given* values read; what is not there is noted."""
        found: list[str] = []
        for name, path in filter(None, map(_reference, given)):
            if name == "inputs":
                with suppress(NoCounterpart):  # it is reported where the value is converted
                    self._known(str(path_of(path)[0]), "input", list(self.inputs), loc)
            else:
                self._known(name, "node", list(self.nodes), loc)
                found += [name] if name in self.nodes else []
        return found

    def _known(self, wanted: str, what: str, known: list[str], loc: Loc) -> None:
        """Note a reference to what is not there."""
        if wanted not in known:
            near = nearest(wanted, known)
            self.findings.add(
                "fault",
                loc,
                f"reads {wanted!r}, which is no {what}",
                f"did you mean {near!r}?" if near else "name one that there is",
            )

    def _value(self, written: Any) -> Value:
        """What a reference names; anything else stands for itself."""
        reference = _reference(written)
        if reference is None:
            if isinstance(written, str) and _REFERRING.fullmatch(written.strip()):
                remedy = "write '${node.output}' or '${inputs.name}'"
                raise NoCounterpart(f"has the reference {written!r}", remedy)
            return GivenValue(written)
        name, path = reference[0], path_of(reference[1])
        if name == "inputs":
            return Reference(self.input_names[str(path[0])], path[1:])
        return Reference(self.names.of(name), path)

    def _step(self, i: int, node: dict[str, Any]) -> dict[str, Any]:
        name, loc = node["name"], ("nodes", i)
        try:
            if more := [key for key in node if key not in _NODE_FIELDS]:
                raise NoCounterpart(f"has {', '.join(more)}", "write by hand what it does")
            kind = node.get("type")
            if kind not in ("llm", "python"):
                raise NoCounterpart(
                    f"has the type {kind!r}",
                    "write its text in the prompt that reads it, or call a tool",
                )
            step = self._model(node) if kind == "llm" else self._tool(node)
            return {"id": self.names.of(name), **step, **self._activate(node)}
        except NoCounterpart as gap:
            message = f"node {name!r} {gap}"
            self.findings.gap(loc, NoCounterpart(message, gap.remedy))
            return not_imported(self.names.of(name), message, node)

    def _activate(self, node: dict[str, Any]) -> dict[str, Any]:
        """The condition of a node; one that is not active gives null."""
        activation = [expression(self._value(one)) for one in _activation(node)]
        return {"when": " == ".join(activation), "default": None} if activation else {}

    def _source(self, node: dict[str, Any]) -> str:
        source = node.get("source")
        path = source.get("path") if isinstance(source, dict) else None
        if not isinstance(path, str):
            raise NoCounterpart("has no file as its source", "write what it does by hand")
        return path

    def _tool(self, node: dict[str, Any]) -> dict[str, Any]:
        given = {key: template(self._value(one)) for key, one in _inputs(node).items()}
        return {
            "type": "tool",
            "tool": identifier(PurePosixPath(self._source(node)).stem),
            "args": given,
        }

    def _model(self, node: dict[str, Any]) -> dict[str, Any]:
        inputs = dict(_inputs(node))
        step: dict[str, Any] = {"type": "llm"}
        model = inputs.pop("deployment_name", None) or inputs.pop("model", None)
        settings = {"model": str(model)} if model else {}
        for key in _MODEL_FIELDS:
            if inputs.get(key) not in (None, ""):
                settings[key] = inputs.pop(key)
        for key, given in settings.items():
            if _reference(given) is not None:
                raise NoCounterpart(f"reads its {key} from {given}", "write the value itself")
        step |= settings
        path = self._source(node)
        written = self.sources(path)
        if written is None:
            raise NoCounterpart(f"has the prompt {path}, which cannot be read", "put it there")
        variables = set(_VARIABLE.findall(written))
        unread = [key for key, one in inputs.items() if key not in variables and one]
        if unread:
            raise NoCounterpart(f"gives the model {', '.join(unread)}", "write it as 'options'")
        values = {key: self._value(one) for key, one in inputs.items()}
        return step | _prompt(written, values)


def _reference(written: Any) -> tuple[str, str] | None:
    """The node, or ``inputs``, that *written* names, with the path in it; None for other values."""
    found = _REFERENCE.fullmatch(written.strip()) if isinstance(written, str) else None
    return (found["name"], f"$.{found['rest']}") if found is not None else None


def _activation(node: dict[str, Any]) -> list[Any]:
    """The two values that are equal where a node is active; nothing where it always is."""
    activate = node.get("activate")
    return [activate.get("when"), activate.get("is")] if isinstance(activate, dict) else []


def _inputs(node: dict[str, Any]) -> dict[str, Any]:
    inputs = node.get("inputs")
    return inputs if isinstance(inputs, dict) else {}


def _prompt(written: str, values: dict[str, Value]) -> dict[str, Any]:
    """A Jinja template as ``prompt``, or as ``messages`` where it has roles."""
    parts = _ROLE.split(written)
    if len(parts) == 1:
        return {"prompt": _filled(written, values)}
    if parts[0].strip():
        raise NoCounterpart("has text before its first role", "give it a role")
    return {
        "messages": [
            {"role": role.lower(), "content": _filled(content, values)}
            for role, content in zip(parts[1::2], parts[2::2], strict=True)
        ]
    }


def _filled(written: str, values: dict[str, Value]) -> str:
    pieces = _VARIABLE.split(written.strip())
    if any("{{" in piece or "{%" in piece or "{#" in piece for piece in pieces[::2]):
        raise NoCounterpart("has a prompt with statements or filters of Jinja", "write it plainly")
    made = str(literal(pieces[0]))
    for variable, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if variable not in values:
            raise NoCounterpart(f"has a prompt that reads {variable!r}", "give it as an input")
        made += text(values[variable]) + str(literal(piece))
    return made
