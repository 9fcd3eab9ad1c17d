"""What a statement of a policy means, judged over one run: by the definitions, from happens-before,
by brute force.

A statement and a `History` come in; the text of what breaks it goes out, or None. Where a
definition leaves room, the reading is the one under which fewer runs break a statement: what is
called broken here is broken.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .history import (
    Approved,
    At,
    Call,
    Document,
    History,
    Scope,
    Steps,
    Taken,
    before,
    last_write,
    names_in,
    reads_of,
)


@dataclass(frozen=True)
class Statement:
    """One demand on the calls of a tool: kind is guard, approval, after, before or max_calls."""

    kind: str
    tool: str
    names: tuple[str, ...] = ()  # edges, steps or tools
    role: str = ""
    protected: tuple[str, ...] = ()  # arguments that are protected; empty is all
    most: int = 0

    def policy(self) -> dict[str, Any]:
        """The statement as the rule of a policy."""
        match self.kind:
            case "guard":
                return {"guarded_by": list(self.names)}
            case "approval":
                return {"approval": self.role}
            case "max_calls":
                return {"max_calls": self.most}
        return {self.kind: list(self.names)}


def broken(statement: Statement, run: History) -> str | None:
    """Why the run breaks the statement; None if it keeps it."""
    match statement.kind:
        case "guard":
            return _unguarded(statement, run)
        case "approval":
            return _unapproved(statement, run)
        case "after":
            return _not_after(
                run, [c for c in run.calls if c.tool == statement.tool], statement.names
            )
        case "before":
            return _not_before(statement, run)
        case "max_calls":
            count = run.tried.get(statement.tool, 0)
            return f"{count} calls of {statement.tool}" if count > statement.most else None
    raise AssertionError(statement)


# --- guards ---------------------------------------------------------------------------------------


def edge_of(text: str) -> tuple[Scope, str, str]:
    """Scope, step and label of an edge as a policy writes it: ``call/step.then``."""
    step, _, label = text.rpartition(".")
    *scope, step_id = step.split("/")
    return tuple(scope), step_id, label


def _unguarded(statement: Statement, run: History) -> str | None:
    edges = {edge_of(name) for name in statement.names}
    return _stale(
        run,
        statement.tool,
        [t for t in run.taken if (t.scope, t.step, t.label) in edges],
        _both_read,
    )


def _unapproved(statement: Statement, run: History) -> str | None:
    given = []
    for taken in run.taken:
        step = run.steps.by_id[taken.scope, taken.step]
        if step["type"] == "approval" and step["role"] == statement.role and taken.label == "then":
            given.append(taken)

    def shared(steps: Steps, guard: Taken, call: Call) -> frozenset[str] | None:
        shown = _parts(steps.by_id[guard.scope, guard.step].get("show"))
        args = _protected(call, statement.protected)
        if guard.scope != call.scope and names_in(args):
            return None  # names of another program
        if not all(value in shown for value in args):
            return None
        return names_in(args)

    return _stale(run, statement.tool, given, shared)


def _protected(call: Call, names: tuple[str, ...]) -> list[Any]:
    return [_one(value) for name, value in call.args.items() if not names or name in names]


_REFERENCE = re.compile(r"\$(?:\{([\w.\[\]]+)\}|(\w+(?:\.output(?:\.\w+)*)?(?:\.\w+)*))")


def _one(value: Any) -> Any:
    """*value*, a lone reference spelled one way."""
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return f"${found[1] or found[2]}" if found else value


def _parts(value: Any) -> list[Any]:
    """*value* and everything in it; what stands within a string is no value of its own."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [_one(value), *(part for item in inner for part in _parts(item))]


def _both_read(steps: Steps, guard: Taken, call: Call) -> frozenset[str] | None:
    """The names whose writes between guard and call make the guard stale; None if it is no guard of
    the call.
    """
    if guard.scope != call.scope:
        return frozenset()
    return reads_of(steps.by_id[guard.scope, guard.step], guard.label) & names_in(call.args)


def _stale(run: History, tool: str, guards: list[Taken], watched: Any) -> str | None:
    calls = [call for call in run.calls if call.tool == tool]
    for call in calls:
        why = "no guard before it"
        for guard in guards:
            if not before(guard.at, _read_at(call)):
                continue
            names = watched(run.steps, guard, call)
            if names is None:
                why = f"{guard.step}.{guard.label} does not cover it"
                continue
            other = next(
                (
                    o
                    for o in calls
                    if o is not call and before(guard.at, o.at) and not before(call.at, o.at)
                ),
                None,
            )
            if other is not None:
                why = f"{guard.step}.{guard.label} is used up by {other.path} ({other.kind})"
                continue
            changed = [
                name
                for name in sorted(names)
                if last_write(run.writes, name, guard.read, guard.instance)
                != last_write(run.writes, name, _read_at(call), call.instance)
            ]
            if changed:
                why = f"{changed} is written after {guard.step}.{guard.label}"
                continue
            break
        else:
            return f"{call.path} calls {tool} ({call.kind}): {why}"
    return None


def _read_at(call: Call) -> At:
    """Where the call's arguments were read: those of an undo when its step had ended."""
    return call.fixed


# --- order ----------------------------------------------------------------------------------------


def _ends(run: History, name: str, tools: frozenset[str]) -> list[At]:
    """Where what a policy calls *name* was done: a tool, a step, or an edge."""
    if name in tools:
        return [d.at for d in run.done if d.tool == name]
    if "." in name:
        edge = edge_of(name)
        return [t.at for t in run.taken if (t.scope, t.step, t.label) == edge]
    *scope, step_id = name.split("/")
    return [d.at for d in run.done if (d.scope, d.step) == (tuple(scope), step_id)]


def tools_of(steps: Steps) -> frozenset[str]:
    """The tools that a program calls."""
    found = set()
    for step in steps.by_id.values():
        found |= {
            call["tool"]
            for call in (step, step.get("undo"), step.get("reconcile"))
            if call and "tool" in call
        }
    return frozenset(found)


def _not_after(run: History, calls: list[Call], names: tuple[str, ...]) -> str | None:
    tools = tools_of(run.steps)
    for name in names:
        ends = _ends(run, name, tools)
        for call in calls:
            if not any(before(end, call.at) for end in ends):
                return (
                    f"{call.path} calls {call.tool} ({call.kind}), and {name} was not done before"
                )
    return None


def _not_before(statement: Statement, run: History) -> str | None:
    """Each execution of what is named comes after a good end of a step of the tool."""
    tools = tools_of(run.steps)
    ends = [d.at for d in run.done if d.tool == statement.tool]
    for name in statement.names:
        if name in tools:
            calls = [(c.at, c.path) for c in run.calls if c.tool == name]
        elif "." in name:
            calls = [
                (t.at, t.step) for t in run.taken if (t.scope, t.step, t.label) == edge_of(name)
            ]
        else:
            *scope, step_id = name.split("/")
            calls = [
                (c.at, c.path)
                for c in run.calls
                if c.kind == "step" and (c.scope, c.step) == (tuple(scope), step_id)
            ]
            calls += [
                (d.at, d.step)
                for d in (*run.began, *run.done)
                if (d.scope, d.step) == (tuple(scope), step_id)
            ]
        for at, path in calls:
            if not any(before(end, at) for end in ends):
                return f"{path} ({name}) runs, and {statement.tool} was not done before"
    return None


def protected_of(document: Document, tool: str) -> list[Document]:
    """The steps of a program, and of those it calls inline, that call *tool*."""
    return [step for step in Steps(document).by_id.values() if step.get("tool") == tool]


# --- trust ----------------------------------------------------------------------------------------


def distrusted(
    run: History,
    call: Call,
    rule: Any,
    roles: tuple[str, ...],
    value: Any,
    *,
    marked: bool,
    known: list[Any],
    written: Any = None,
) -> bool:
    """Whether an argument's *value*, which carries text from outside where it is *marked*, is
    against its *rule*.

    *roles* are those whose approval the tool needs anyway: what they approve is enough where trust
    is. With *written*, the argument as it stands in the program, an approval must have shown just
    that, and no name in it been written since; without, an equal value is enough.
    """
    fields = rule if isinstance(rule, dict) else {}
    text = rule if isinstance(rule, str) else fields.get("check", "")
    trusted = fields.get("trusted", True) if fields else text.startswith("trusted")
    if trusted and not marked:
        return False
    if "$value in $known" in text and any(_same(value, one) for one in known):
        return False
    enough = {fields["approval"]} if "approval" in fields else set()
    if trusted:
        enough.update(roles)
    for approved in run.shown:
        if approved.role not in enough or not before(approved.at, call.fixed):
            continue
        if any(_same(value, part) for part in all_parts(approved.values)):
            if written is None or _shown_unchanged(run, approved, call, written):
                return False
    return True


def _shown_unchanged(run: History, approved: Approved, call: Call, written: Any) -> bool:
    return _one(written) in _parts(approved.written) and all(
        last_write(run.writes, name, approved.read, approved.instance)
        == last_write(run.writes, name, call.fixed, call.instance)
        for name in names_in(written)
    )


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


def all_parts(value: Any) -> list[Any]:
    """*value* and everything in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(part for item in inner for part in all_parts(item))]
