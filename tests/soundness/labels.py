"""What text from outside can have reached in one run: labels, followed along its trace.

The events of a run and the program's document come in; for each call of a tool, by path, the labels
of its arguments go out. A label says for a value, or for each of its fields, whether text from
outside is in it: by the rules of the language for what each step type passes on, along the one path
that the run took. Marks in texts see what really came through; labels also see numbers and
booleans, which carry no mark.
"""

from __future__ import annotations

import re
from typing import Any

from .history import Document, Event, Scope, Steps, read_events

Label = Any  # True or False, or labels by field
Names = dict[str, Label]

_REFERENCE = re.compile(r"\$(?:\{([^}]*)\}|(\w+(?:\.\w+)*))")


def whole(label: Label) -> bool:
    """Whether anything of the value comes from outside."""
    return any(map(whole, label.values())) if isinstance(label, dict) else bool(label)


def _branch(step: Document, number: int) -> str:
    """The name of a branch."""
    if step["type"] != "parallel":
        return ""
    branch = step["parallel_steps"][number]
    return str((branch[0] if isinstance(branch, list) else branch)["id"])


class Labels:
    """Follows one run; ``args`` holds the labels of the arguments of each call, by path."""

    def __init__(
        self,
        steps: Steps,
        lines: list[dict[str, Any]],
        returns: dict[str, str],
        untrusted: tuple[str, ...],
    ) -> None:
        self.steps, self.returns = steps, returns
        self.args: dict[str, dict[str, bool]] = {}
        names: Names = {name: name in untrusted for name in lines[0]["inputs"]}
        self.frame(read_events(lines), (), names)

    # --- values ---

    def of(self, value: Any, names: Names) -> Label:
        """The label of a literal with templates and expressions inside."""
        if isinstance(value, dict) and "expr" in value:
            return any(
                whole(self.read(match[1] or match[2], names))
                for match in _REFERENCE.finditer(value["expr"])
            )
        if isinstance(value, dict):
            return {key: self.of(inner, names) for key, inner in value.items()}
        if isinstance(value, list):
            return any(whole(self.of(item, names)) for item in value)
        if not isinstance(value, str):
            return False
        found = list(_REFERENCE.finditer(value))
        if len(found) == 1 and found[0][0] == value:
            return self.read(found[0][1] or found[0][2], names)
        return any(whole(self.read(match[1] or match[2], names)) for match in found)

    def read(self, reference: str, names: Names) -> Label:
        head, *path = reference.split(".")
        if path and path[0] in ("output", "error", "errors"):
            head, path = f"{head}.{path[0]}", path[1:]
        label = names.get(head, False)
        for part in path:
            if not isinstance(label, dict):
                return label
            label = label.get(part, whole(label))
        return label

    def returned(self, tool: str, args: dict[str, bool]) -> bool:
        returns = self.returns.get(tool)
        return any(args.values()) if returns == "args" else returns != "trusted"

    # --- the run ---

    def frame(
        self, events: list[Event], scope: Scope, names: Names, *, part: bool = False
    ) -> Label:
        """Follow one frame, a *part* of another or one of its own; the label of its output where
        nothing is declared.

        That is of the last step that gave something: a decision gives its frame nothing, nor does a
        skipped step without a default, but for a branch or item, which is null where its last step
        was skipped.
        """
        last: Label = False
        asked: list[Event] = []
        inside: dict[str, bool] = {}  # by container: what its blocks gave so far
        for event in events:
            step_id = event.line["step"]
            if step_id.endswith("/undo"):
                continue  # its arguments were fixed at its step's end
            if step_id.endswith("/reconcile"):
                asked.append(event)
                continue
            step = self.steps.by_id[scope, step_id]
            label = self.step(event, step, asked, scope, names, inside)
            asked = []
            if event.line["status"] == "skipped":
                gives = part or "default" in step
            else:
                gives = step["type"] not in ("condition", "switch", "approval", "assert")
            if label is not None:
                last = label if gives else last
                for container in self.steps.around(scope, step_id):
                    inside[container] = inside.get(container, False) or whole(label)
                    outer = self.steps.by_id[scope, container]
                    # its block may end here
                    if outer["type"] in ("condition", "switch", "approval"):
                        self.write(
                            outer,
                            inside[container] or names.get(f"{container}.output", False),
                            names,
                        )
        return last

    def step(
        self,
        event: Event,
        step: Document,
        asked: list[Event],
        scope: Scope,
        names: Names,
        inside: dict[str, bool],
    ) -> Label | None:
        line, kind = event.line, step["type"]
        args: dict[str, bool] = {}
        if kind == "tool":
            args = self.call(line["path"], step.get("args", {}), names)
            for each in asked:
                reference = step["reconcile"]
                self.call(each.line["path"], reference.get("args", step.get("args", {})), names)
        children = self.children(event, step, scope, names)
        caught = "caught" in line.get("extra", {})
        if line["status"] in ("skipped", "success") or caught:
            names[f"{step['id']}.error"], names[f"{step['id']}.errors"] = (
                "error" in line,
                "error" not in line,
            )
        if line["status"] == "skipped":
            for name in (f"{step['id']}.output", step.get("output_key")):
                names.pop(name or "", None)
            if "default" in step:
                self.write(step, False, names)
            return False
        if caught and kind in ("parallel", "map"):
            self.write(step, self.result(step, line, args, asked, children, names, inside), names)
        if line["status"] != "success":
            return None
        label = self.result(step, line, args, asked, children, names, inside)
        if kind == "set":
            names.update(label)
        self.write(step, label, names)
        if "undo" in step:
            self.call(f"{line['path']}/undo", step["undo"].get("args", {}), names)
        return label

    def write(self, step: Document, label: Label, names: Names) -> None:
        names[f"{step['id']}.output"] = label
        if "output_key" in step:
            names[step["output_key"]] = label

    def call(self, path: str, args: Document, names: Names) -> dict[str, bool]:
        found = self.args[path] = {
            name: whole(self.of(value, names)) for name, value in args.items()
        }
        return found

    def children(self, event: Event, step: Document, scope: Scope, names: Names) -> list[Label]:
        found: list[Label] = []
        lost = event.line.get("extra", {}).get("failed", ())  # null stands there
        for number, child in enumerate(event.children):
            if step["type"] == "call":
                program = step["program"]
                inner: Names = {
                    name: self.of(value, names) for name, value in step.get("with", {}).items()
                }
                label = self.frame(child, (*scope, step["id"]), inner)
                found.append(self.of(program["output"], inner) if "output" in program else label)
            else:
                copy = dict(names)
                if step["type"] == "map":
                    copy[step.get("as", "item")] = whole(self.of(step["over"], names))
                label = self.frame(child, scope, copy, part=True)
                found.append(
                    label if number not in lost and _branch(step, number) not in lost else False
                )
        return found

    def result(
        self,
        step: Document,
        line: dict[str, Any],
        args: dict[str, bool],
        asked: list[Event],
        children: list[Label],
        names: Names,
        inside: dict[str, bool],
    ) -> Label:
        match step["type"]:
            case "tool":
                label = self.returned(step["tool"], args)
                for _ in asked:
                    reference = step["reconcile"]
                    given = reference.get("args", step.get("args", {}))
                    label = label or self.returned(
                        reference["tool"], {k: whole(self.of(v, names)) for k, v in given.items()}
                    )
                return label
            case "llm":
                if "allowed_outputs" in step or line.get("extra", {}).get("on_invalid"):
                    return False
                text = any(
                    whole(self.of(step[name], names))
                    for name in ("prompt", "system")
                    if name in step
                )
                if "output_schema" in step:
                    fields = step["output_schema"]["properties"]
                    return {
                        n: text and "enum" not in part and part["type"] != "boolean"
                        for n, part in fields.items()
                    }
                return text
            case "set":
                return {name: self.of(value, names) for name, value in step["values"].items()}
            case "parallel":
                ids = [
                    (branch[0] if isinstance(branch, list) else branch)["id"]
                    for branch in step["parallel_steps"]
                ]
                return dict(zip(ids, children, strict=False))
            case "map":
                return any(map(whole, children))
            case "call":
                return children[0] if children else False
            case "loop":
                return inside.pop(step["id"], False)
            case "approval":
                return {"approved": False, "reason": True}
            case "wait":
                return True
        return False  # the label of a branch
