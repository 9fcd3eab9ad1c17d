"""What happened in a run, from its trace alone: atoms in frames, and what came before what.

The lines of a `Trace` and the program's document come in. Out come the calls, edges taken, writes
and ends of the run, each at a place from which happens-before is read: within a frame what stands
before; what stands before a fork before all in its children; all in a child before what stands
after the join; children of one fork are concurrent. No graph, no node, no plan is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
# the ids of the calls around, outermost first: whose program a step id belongs to
Scope = tuple[str, ...]
At = tuple[int, ...]  # index in the root frame, number of a child, index in it, ...

MADE = ("success", "failed", "skipped", "cancelled", "in_doubt")


@dataclass(slots=True)
class Event:
    """A line of a step, with the frames that it joined."""

    line: dict[str, Any]
    children: list[list[Event]] = field(default_factory=list)


@dataclass(slots=True)
class Call:
    """A tool was called, by a step, or to undo or reconcile it; all attempts of a step are one."""

    at: At
    tool: str
    kind: str  # step, undo, reconcile
    scope: Scope
    step: str
    args: dict[str, Any]
    path: str
    instance: int
    fixed: At  # where its arguments were fixed


@dataclass(slots=True)
class Done:
    """A step ended well."""

    at: At
    scope: Scope
    step: str
    tool: str | None


@dataclass(slots=True)
class Taken:
    """An edge of a step was taken, and not because of an error."""

    at: At
    scope: Scope
    step: str
    label: str
    instance: int
    read: At  # where what decided it was read


@dataclass(slots=True)
class Approved:
    """Values that somebody approved, also as the program writes them."""

    at: At
    role: str
    values: Any
    written: Any
    read: At  # where they were read
    instance: int


@dataclass(slots=True)
class Write:
    """Names got a value, or lost it."""

    at: At
    frame: At  # the place of the frame that they belong to
    instance: int
    names: frozenset[str]


def read_events(lines: list[dict[str, Any]]) -> list[Event]:
    """The root frame of the run that *lines* tell."""
    frames: dict[int, list[Event]] = {0: []}
    joined: dict[int, list[list[Event]]] = {}
    for line in lines:
        if line.get("record", "run") in ("run", "end"):
            continue
        level = line.get("level", 0)
        if line["record"] == "joined":
            joined.setdefault(level, []).append(frames.pop(level, []))
            continue
        children = joined.pop(level + 1, []) if line.get("extra", {}).get("forked") else []
        frames.setdefault(level, []).append(Event(line, children))
    return frames[0]


_NAME = re.compile(r"\$\{?([A-Za-z_]\w*)(\.output\b|\.errors?\b)?")


def names_in(value: Any) -> frozenset[str]:
    """The names that templates or expressions in *value* read: ``k``, or ``s.output``, ``s.error``,
    ``s.errors`` of a step.
    """
    if isinstance(value, str):
        return frozenset(name + output for name, output in _NAME.findall(value))
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return frozenset().union(*map(names_in, value)) if value else frozenset()
    return frozenset()


_READ = {
    "condition": ("condition",),
    "assert": ("condition",),
    "switch": ("on",),
    "loop": ("until",),
    "approval": ("show",),
    "llm": ("prompt", "system", "messages"),
    "tool": ("args",),
    "map": ("over",),
    "call": ("with",),
    "set": ("values",),
}


def reads_of(step: Document, label: str = "") -> frozenset[str]:
    """The names that the step itself reads, or what decides before it whether it runs, where
    *label* is an edge of that.
    """
    if label in ("when", "unless"):
        return names_in(step["when"])
    return names_in([step[name] for name in _READ.get(step["type"], ()) if name in step])


class Steps:
    """The steps of a document by scope and id, as written."""

    def __init__(self, document: Document, programs: dict[str, Document] | None = None) -> None:
        self.by_id: dict[tuple[Scope, str], Document] = {}
        self.parent: dict[tuple[Scope, str], str | None] = {}
        self.last: set[tuple[Scope, str]] = set()  # the last of their blocks
        self.programs = programs or {}
        self.inputs: dict[Scope, frozenset[str]] = {}
        self._program(document, ())

    def _program(self, program: Document, scope: Scope) -> None:
        self._block(program["steps"], scope, None)

    def _block(self, steps: list[Document], scope: Scope, parent: str | None) -> None:
        for i, step in enumerate(steps):
            key = scope, step["id"]
            self.by_id[key], self.parent[key] = step, parent
            if i == len(steps) - 1:
                self.last.add(key)
            for block in blocks_of(step):
                self._block(block, scope, step["id"])
            if step["type"] == "call":
                program = step["program"]
                self._program(
                    self.programs[program] if isinstance(program, str) else program,
                    (*scope, step["id"]),
                )

    def around(self, scope: Scope, step: str) -> list[str]:
        """The steps in whose blocks *step* stands, innermost first; those that it is in another
        frame than are among them.
        """
        found = []
        at = self.parent.get((scope, step))
        while at is not None:
            found.append(at)
            at = self.parent[scope, at]
        return found

    def inside(self, scope: Scope, step: str, container: str) -> bool:
        """Whether *step* stands in a block of *container*."""
        return container in self.around(scope, step)


def blocks_of(step: Document) -> Iterator[list[Document]]:
    """Each block of the step, as written."""
    for name in ("then", "otherwise", "steps"):
        if isinstance(step.get(name), list):
            yield step[name]
    if isinstance(step.get("default"), list) and step["type"] == "switch":
        yield step["default"]
    for target in step.get("cases", {}).values():
        if isinstance(target, list):
            yield target
    for branch in step.get("parallel_steps", ()):
        yield branch if isinstance(branch, list) else [branch]


class History:
    """The atoms of one run. ``before(a, b)`` is happens-before of two places."""

    def __init__(
        self, steps: Steps, lines: list[dict[str, Any]], uncalled: frozenset[str] = frozenset()
    ) -> None:
        """*uncalled* are paths of calls that were cancelled before they were made: a trace does not
        tell.
        """
        self.steps = steps
        self.uncalled = uncalled
        self.calls: list[Call] = []
        self.done: list[Done] = []
        self.began: list[Done] = []  # composite steps: what stands in them comes after
        self.taken: list[Taken] = []
        self.writes: list[Write] = []
        self.shown: list[Approved] = []
        self.ran: set[tuple[Scope, str]] = set()
        self.errors: list[tuple[Scope, str, str]] = []
        self.tried: dict[str, int] = {}  # attempts at calls of each tool
        self.asked: dict[str, int] = {}  # attempts at model calls, by model
        self.counted = 0  # steps
        self.status = lines[-1]["status"]
        self._instances = 0
        self._fixed: dict[str, At] = {}  # path of a step with undo: where it ended
        self._origin: dict[str, tuple[Scope, int]] = {}
        self._frame(read_events(lines), (), (), 0)

    def _frame(
        self,
        events: list[Event],
        at: At,
        scope: Scope,
        instance: int,
        bound: frozenset[str] = frozenset(),
    ) -> None:
        """*at* is the place of the frame: that of the fork and the number of the child, empty for
        the root.
        """
        position = 0

        def here() -> At:
            nonlocal position
            position += 1
            return (*at, position)

        if bound:
            self.writes.append(Write(here(), at, instance, bound))
        waiting: list[Event] = []
        opened: set[str] = set()  # loops that have begun: their record comes at their end
        held: set[str] = set()  # the same by path, of those whose `when` was true
        for number, event in enumerate(events):
            line = event.line
            step_id = line["step"]
            if step_id.endswith("/reconcile"):
                waiting.append(event)
                continue
            if step_id.endswith("/undo"):
                self._undo(event, here())
                continue
            for container, path in self._loops(scope, line):
                if "when" in self.steps.by_id[scope, container] and path not in held:
                    held.add(path)
                    place = here()
                    self.taken.append(Taken(place, scope, container, "when", instance, place))
            if "when" in line.get("extra", {}) and line["path"] not in held:
                place = here()
                self.taken.append(Taken(place, scope, step_id, "when", instance, place))
            for container in self.steps.around(scope, step_id):
                if self.steps.by_id[scope, container]["type"] == "loop" and container not in opened:
                    opened.add(container)
                    self.began.append(Done(here(), scope, container, None))
            opened.discard(step_id)
            self._event(event, waiting, here, at, scope, instance)
            waiting = []
            following = events[number + 1].line["step"] if number + 1 < len(events) else None
            if following is not None and "/" not in following:
                self._closed(line, following, here, at, scope, instance)

    def _loops(self, scope: Scope, line: dict[str, Any]) -> list[tuple[str, str]]:
        """The loops around a step within its frame, outermost first, each with the path of its
        run.
        """
        found, inside = [], line["path"]
        for container in self.steps.around(scope, line["step"]):
            inside = inside.rpartition("/")[0]
            kind = self.steps.by_id[scope, container]["type"]
            if kind in ("parallel", "map"):
                break
            if kind == "loop":
                found.append((container, inside.rpartition("#")[0]))
        return found[::-1]

    def _event(
        self, event: Event, asked: list[Event], here: Any, at: At, scope: Scope, instance: int
    ) -> None:
        line = event.line
        step_id, status, extra = line["step"], line["status"], line.get("extra", {})
        step = self.steps.by_id[scope, step_id]
        self.ran.add((scope, step_id))
        # a step for which nothing was left has a record and did not run
        self.counted += (
            line.get("error", {}).get("message") != "the run has used all its steps (max_steps)"
        )
        kind = step["type"]
        began = here()
        if "error" in line:
            self.errors.append((scope, step_id, line["error"]["message"]))
        uncalled = status == "cancelled" and line["path"] in self.uncalled
        attempts = len(line.get("attempts", ())) + (0 if uncalled else 1)
        made = line.get("request") is not None and attempts > 0
        if kind == "tool" and made:
            place = here()
            self.calls.append(
                Call(
                    place,
                    step["tool"],
                    "step",
                    scope,
                    step_id,
                    step.get("args", {}),
                    line["path"],
                    instance,
                    place,
                )
            )
            self.tried[step["tool"]] = self.tried.get(step["tool"], 0) + attempts
            for each in asked:
                reference = step["reconcile"]
                place = here()
                args = reference.get("args", step.get("args", {}))
                self.tried[reference["tool"]] = self.tried.get(reference["tool"], 0) + 1
                self.calls.append(
                    Call(
                        place,
                        reference["tool"],
                        "reconcile",
                        scope,
                        step_id,
                        args,
                        each.line["path"],
                        instance,
                        place,
                    )
                )
        if kind == "llm" and made:
            model = step.get("model", "default")
            self.asked[model] = self.asked.get(model, 0) + attempts
        if event.children:
            place = here()
            self.began.append(Done(place, scope, step_id, None))
            place = here()
            for number, child in enumerate(event.children):
                if kind == "call":
                    self._instances += 1
                    program = step["program"]
                    inner = self.steps.programs[program] if isinstance(program, str) else program
                    bound = frozenset(inner.get("inputs", {}).get("properties", ())) | frozenset(
                        step.get("with", ())
                    )
                    self._frame(child, (*place, number), (*scope, step_id), self._instances, bound)
                else:
                    bound = frozenset({step.get("as", "item")}) if kind == "map" else frozenset()
                    self._frame(child, (*place, number), scope, instance, bound)
        if status in ("success", "skipped") or (status == "failed" and "caught" in extra):
            written = {f"{step_id}.output", f"{step_id}.error", f"{step_id}.errors"}
            if "output_key" in step:
                written.add(step["output_key"])
            if kind == "set":
                written.update(step["values"])
            self.writes.append(Write(here(), at, instance, frozenset(written)))
        if status == "skipped" and "error" not in line:  # its `when` was false
            self.taken.append(Taken(here(), scope, step_id, "unless", instance, began))
        if status == "success":
            place = here()
            self.done.append(Done(place, scope, step_id, step.get("tool")))
            self._fixed[line["path"]] = place
            self._origin[line["path"]] = scope, instance
            label = extra.get("branch")
            if kind == "loop":
                label = "exhausted" if extra["exhausted"] else "until"
            if kind == "approval" and label == "then":
                show = line["request"]["show"]
                self.shown.append(
                    Approved(here(), step["role"], show, step.get("show"), began, instance)
                )
            late = kind == "approval" and label == "otherwise" and "timeout_seconds" in step
            # taken also where nobody decides, it is no edge that a policy can name
            if label is not None and not late:
                self.taken.append(Taken(here(), scope, step_id, label, instance, began))

    def _undo(self, event: Event, place: At) -> None:
        path = event.line["path"]
        of = path.removesuffix("/undo")
        step_id = event.line["step"].removesuffix("/undo")
        scope, instance = self._origin.get(of, ((), 0))
        if event.line.get("request") is None:
            return
        reference = self.steps.by_id[scope, step_id]["undo"]
        if event.line.get("request") == {} and reference.get("args"):
            return  # its arguments could not be made, so it was not called
        fixed = self._fixed.get(of, place)
        self.tried[reference["tool"]] = self.tried.get(reference["tool"], 0) + 1
        self.calls.append(
            Call(
                place,
                reference["tool"],
                "undo",
                scope,
                step_id,
                reference.get("args", {}),
                path,
                instance,
                fixed,
            )
        )

    def _closed(
        self, line: dict[str, Any], following: str, here: Any, at: At, scope: Scope, instance: int
    ) -> None:
        """Blocks that ended between two events of a frame: their containers' outputs were written
        once more.

        Counted only where it is sure: the block's last step ended in order, and what follows stands
        outside.
        """
        step_id = line["step"]
        key = scope, step_id
        step = self.steps.by_id[key]
        if (
            "next" in step
            or "caught" in line.get("extra", {})
            or line["status"] not in ("success", "skipped")
        ):
            return
        if step["type"] in ("condition", "switch", "approval"):
            return  # it may have jumped
        while key in self.steps.last and self.steps.parent[key] is not None:
            container = self.steps.parent[key]
            assert container is not None
            outer = self.steps.by_id[scope, container]
            if following == container or self.steps.inside(scope, following, container):
                return
            if outer["type"] not in ("condition", "switch", "approval"):
                return
            written = {f"{container}.output"}
            if "output_key" in outer:
                written.add(outer["output_key"])
            self.writes.append(Write(here(), at, instance, frozenset(written)))
            if "next" in outer:
                return
            key = scope, container


def before(a: At, b: At) -> bool:
    """Whether what is at *a* happens before what is at *b*."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i % 2 == 0 and x < y
    return len(a) < len(b)


def last_write(writes: list[Write], name: str, at: At, instance: int) -> At | None:
    """Where what is read at *at* under *name* was written, in its frame or one around it; None for
    an input.
    """
    found: At | None = None
    for write in writes:
        if (
            name in write.names
            and write.instance == instance
            and at[: len(write.frame)] == write.frame
        ):
            if before(write.at, at) and (found is None or before(found, write.at)):
                found = write.at
    return found
