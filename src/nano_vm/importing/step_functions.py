"""A state machine in Amazon's States Language in, a program out.

Each state becomes a step, or a few, that say where they go on. The document that goes from state
to state is followed from name to name (`documents`); a state whose meaning cannot be kept becomes
a step that fails, with the state in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..diagnostics import Loc
from ..language.program import END
from .choices import condition
from .documents import (
    Computed,
    Fields,
    Given,
    Items,
    Path,
    Reference,
    Unknown,
    Value,
    in_parts,
    literal,
    merged,
    names_in,
    part_of,
    template,
    with_part,
)
from .identifiers import Identifiers, error_name, identifier
from .json_path import path_of, payload, value
from .machine_faults import check_machine, inner_machines, transitions
from .report import Findings, NoCounterpart, not_imported
from .retries import caught, retry_of
from .tasks import call_of

INPUT = "input"
"""The program's input: what the machine is started with."""

JSON_PATH = "JSONPath"

Steps = list[dict[str, Any]]


def program_of(machine: dict[str, Any], findings: Findings, name: str) -> dict[str, Any] | None:
    """The document of the program that means what *machine* means; None where it has faults."""
    check_machine(machine, (), findings)
    if findings.faulty:
        return None
    for one_name in (False, True):
        names = Identifiers(_state_names(machine), (INPUT,))
        whole = _Whole(Findings(findings.marks), names, one_name)
        program = whole.program(machine, name)
        if not whole.rejoined:  # else ways with documents of several names meet: give them one
            break
    findings.found.update(whole.findings.found)
    return program


def _state_names(machine: dict[str, Any]) -> Iterator[str]:
    for name, state in machine["States"].items():
        yield name
        for inner, _ in inner_machines(state, ()):
            yield from _state_names(inner)


@dataclass(slots=True)
class _Whole:
    """One conversion of a machine with all that is inside it."""

    findings: Findings
    names: Identifiers
    one_name: bool
    rejoined: bool = False
    language: str = JSON_PATH

    def program(self, machine: dict[str, Any], name: str) -> dict[str, Any]:
        self.language = machine.get("QueryLanguage", JSON_PATH)
        top = _Frame(self, machine, (), Reference(INPUT), outermost=True)
        steps = top.steps()
        program: dict[str, Any] = {"name": name}
        if machine.get("Comment"):
            program["description"] = str(machine["Comment"])
        if "TimeoutSeconds" in machine:
            program["timeout_seconds"] = machine["TimeoutSeconds"]
        program["inputs"] = {
            "type": "object",
            "properties": {INPUT: {"type": "object"}},
            "required": [INPUT],
        }
        program["steps"] = steps
        if top.output is not None:
            program["output"] = top.output
        return program


def _jsonata(what: str) -> NoCounterpart:
    return NoCounterpart(
        f"{what} is written with JSONata", "write its values as references and {expr: ...}"
    )


@dataclass(slots=True)
class _Frame:
    """The states of one machine: the outermost, a branch, or what runs for each item."""

    whole: _Whole
    machine: dict[str, Any]
    loc: Loc
    start: Value
    outermost: bool = False
    item: str | None = None
    output: Any = None
    written: dict[Path, str] = field(default_factory=dict)
    reached: dict[str, Value] = field(default_factory=dict)
    ends: list[tuple[dict[str, Any], Value, Loc]] = field(default_factory=list)
    again: dict[str, dict[str, Any]] = field(default_factory=dict)

    # The order of the states

    def steps(self) -> Steps:
        """The steps of all states that are reached, in an order in which nothing goes back."""
        order = self._order()
        beginning, document = self._settled("start", self.start, self.machine["StartAt"])
        self.reached[self.machine["StartAt"]] = document
        made = [beginning]
        for name in order:
            at = (*self.loc, "States", name)
            made.append(self._converted(name, self.machine["States"][name], at))
        for name in self.machine["States"]:
            if name not in order:
                self.whole.findings.add(
                    "difference",
                    (*self.loc, "States", name),
                    f"no state leads to {name!r}, so it is left out",
                    "nothing is to be done",
                )
        ending = self._finish()
        return [*(step for some in made for step in some), *ending, *self.again.values()]

    def _order(self) -> list[str]:
        """The states in topological order; a transition back becomes a step that fails."""
        states = self.machine["States"]
        done: list[str] = []
        open_: list[tuple[str, Iterator[str]]] = []
        seen = {self.machine["StartAt"]}
        open_.append((self.machine["StartAt"], iter(_successors(states[self.machine["StartAt"]]))))
        while open_:
            name, successors = open_[-1]
            following = next(successors, None)
            if following is None:
                done.append(name)
                open_.pop()
            elif following not in seen:
                seen.add(following)
                open_.append((following, iter(_successors(states[following]))))
            elif any(following == one for one, _ in open_):
                self._cycle(name, following)
        return done[::-1]

    def _cycle(self, source: str, target: str) -> None:
        step_id = self.whole.names.another(f"{identifier(target)}_again")
        message = f"state {source!r} goes back to {target!r}"
        step = not_imported(step_id, message, {"Next": target})
        self.again[f"{source}\0{target}"] = {**step, "next": END}
        self.whole.findings.gap(
            (*self.loc, "States", source),
            NoCounterpart(message, "write the states of the cycle as a 'loop' with max_iterations"),
        )

    def _to(self, source: str, target: str, document: Value) -> str:
        """The id of the step with which *target* begins, reached with *document*."""
        if back := self.again.get(f"{source}\0{target}"):
            return str(back["id"])
        known = self.reached.get(target)
        both = document if known is None else merged(known, document)
        if isinstance(both, Unknown) and not isinstance(known, Unknown):
            self.whole.rejoined = True
        self.reached[target] = both
        return self.whole.names.of(target)

    # One state

    def _converted(self, name: str, state: dict[str, Any], loc: Loc) -> Steps:
        document = self.reached[name]
        try:
            if state.get("QueryLanguage", self.whole.language) != JSON_PATH:
                raise _jsonata(f"state {name!r}")
            steps: Steps = getattr(self, f"_{state['Type'].lower()}")(name, state, loc, document)
        except NoCounterpart as gap:
            steps = self._placeholder(name, state, loc, document, gap)
        if state.get("Comment"):
            steps[0]["description"] = str(state["Comment"])
        return steps

    def _placeholder(
        self, name: str, state: dict[str, Any], loc: Loc, document: Value, gap: NoCounterpart
    ) -> Steps:
        """A step that fails, between the same neighbours; later states read what it would write."""
        message = str(gap)
        message = message if repr(name) in message else f"state {name!r} {message}"
        self.whole.findings.gap(loc, NoCounterpart(message, gap.remedy))
        step = not_imported(self.whole.names.of(name), message, state)
        into = state.get("ResultPath", "$")
        if into is not None and state["Type"] in ("Task", "Parallel", "Map", "Pass"):
            with suppress(NoCounterpart):
                path = path_of(into)
                step["output_key"] = self._name(path, document)
                document = with_part(document, path, Reference(step["output_key"]))
        targets = [self._to(name, one, document) for one in _successors(state)]
        if not targets:
            return [{**step, "next": END}]
        ways = self._ways(step["id"], targets)
        return [{**step, "next": ways[0]["id"] if ways else targets[0]}, *ways]

    def _ways(self, step_id: str, targets: list[str]) -> Steps:
        """Conditions that lead to each of *targets*: a program has to show every state."""
        ways: Steps = []
        otherwise = targets[0]
        for target in targets[1:]:
            way = {"id": self.whole.names.another(step_id), "type": "condition"}
            ways.insert(0, {**way, "condition": "false", "then": target, "otherwise": otherwise})
            otherwise = way["id"]
        return ways

    def _task(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        call = call_of(state, self._effective(state, document))
        self._differs(name, loc, call.differences)
        step: dict[str, Any] = {
            "id": self.whole.names.of(name),
            "type": "tool",
            "tool": call.tool,
            "args": self._arguments(name, call.arguments, loc),
        }
        if "TimeoutSeconds" in state:
            step["timeout_seconds"] = state["TimeoutSeconds"]
        self._unread(
            name, state, loc, ("HeartbeatSeconds", "HeartbeatSecondsPath", "TimeoutSecondsPath")
        )
        return self._with_result(name, state, loc, document, step, call.shape)

    def _arguments(self, name: str, given: Value, loc: Loc) -> dict[str, Any]:
        """Arguments by name: an object's fields, or the whole document as ``event``."""
        if in_parts(given):
            self._difference_in_parts(name, loc)
        written = template(given)
        if isinstance(written, dict) and all(one.isidentifier() for one in written):
            return written if not isinstance(given, Computed) else {"event": written}
        return {"event": written}

    def _difference_in_parts(self, name: str, loc: Loc) -> None:
        difference = (
            "gives its whole document, which several names hold here",
            "it is written as one argument or field for each of these names; take what is needed",
        )
        self._differs(name, loc, [difference])

    def _differs(self, name: str, loc: Loc, differences: Iterable[tuple[str, str]]) -> None:
        """Note what is different about a state here: what it does, and the remedy."""
        for message, remedy in differences:
            self.whole.findings.add("difference", loc, f"state {name!r} {message}", remedy)

    def _with_result(
        self,
        name: str,
        state: dict[str, Any],
        loc: Loc,
        document: Value,
        step: dict[str, Any],
        shape: Any,
    ) -> Steps:
        """*step* and what follows it: its result in the document, retries, catches, the next."""
        retry, differences = retry_of(state.get("Retry", []), calls=step["type"] == "tool")
        step.update(retry)
        self._differs(name, (*loc, "Retry"), differences)
        catches = self._catches(name, state, loc, document, step)
        into = state.get("ResultPath", "$")
        after = document
        if into is not None:
            path = path_of(into)
            key = self._name(path, document)
            step["output_key"] = key
            result: Value = shape(Reference(key))
            if "ResultSelector" in state:
                raw = result
                result = payload(state["ResultSelector"], lambda one: self._read(one, raw))
            after = with_part(document, path, result)
        after = self._outgoing(state, after)
        return [*self._onward(name, state, loc, [step], after), *catches]

    def _onward(
        self, name: str, state: dict[str, Any], loc: Loc, steps: Steps, document: Value
    ) -> Steps:
        """*steps*, and where they go."""
        settling, document = self._settled(f"{identifier(name)}_document", document, None)
        if settling:
            steps[-1]["next"] = settling[0]["id"]
            steps = [*steps, *settling]
        if state.get("End"):
            self.ends.append((steps[-1], document, loc))
        else:
            steps[-1]["next"] = self._to(name, state["Next"], document)
        return steps

    def _settled(self, step_id: str, document: Value, following: str | None) -> tuple[Steps, Value]:
        """A step that gives the document the name that it has on every way, where one is needed."""
        root = document.base if isinstance(document, Fields) else document
        if not self.whole.one_name or root == Reference(self._document_name()):
            return [], document
        try:
            if in_parts(document):
                return [], document
            written = template(document)
        except NoCounterpart:
            return [], document
        step: dict[str, Any] = {
            "id": self.whole.names.another(step_id),
            "type": "set",
            "values": {self._document_name(): written},
        }
        if following is not None:
            step["next"] = self.whole.names.of(following)
        return [step], Reference(self._document_name())

    def _catches(
        self, name: str, state: dict[str, Any], loc: Loc, document: Value, step: dict[str, Any]
    ) -> Steps:
        """The ``catch`` of *step*, and for each handler a step that writes what it reads."""
        made: Steps = []
        catches = []
        for i, rule in enumerate(state.get("Catch", [])):
            errors, differences = caught(rule.get("ErrorEquals", []))
            self._differs(name, (*loc, "Catch", i), differences)
            into = rule.get("ResultPath", "$")
            if into is None:
                catches.append({"errors": errors, "next": self._to(name, rule["Next"], document)})
                continue
            path = path_of(into)
            key = self._name(path, document)
            error = f"${step['id']}.error"
            values = {key: {"Error": f"{error}.type", "Cause": f"{error}.message"}}
            handler = self.whole.names.another(f"{step['id']}_caught")
            after = with_part(document, path, Reference(key))
            target = self._to(name, rule["Next"], after)
            made.append({"id": handler, "type": "set", "values": values, "next": target})
            catches.append({"errors": errors, "next": handler})
        if catches:
            step["catch"] = catches
        return made

    def _pass(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        result = Given(state["Result"]) if "Result" in state else self._effective(state, document)
        into = state.get("ResultPath", "$")
        path = path_of(into) if into is not None else None
        if path == () and result == document:
            path = None  # the document stays as it is
        step: dict[str, Any] = {"id": self.whole.names.of(name), **NOTHING}
        after = document
        if path is not None:
            key = self._name(path, document)
            after = with_part(document, path, Reference(key))
            if in_parts(result):
                self._difference_in_parts(name, loc)
            step = {"id": step["id"], "type": "set", "values": {key: template(result)}}
        return self._onward(name, state, loc, [step], self._outgoing(state, after))

    def _wait(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        step: dict[str, Any] = {"id": self.whole.names.of(name), "type": "wait"}
        read = self._reader(state, document)
        if "Seconds" in state:
            step["seconds"] = state["Seconds"]
        elif "SecondsPath" in state:
            step["seconds"] = template(read(state["SecondsPath"]))
        elif "Timestamp" in state:
            step["until"] = state["Timestamp"]
        elif "TimestampPath" in state:
            step["until"] = template(read(state["TimestampPath"]))
        else:
            raise NoCounterpart("waits for nothing", "write Seconds or Timestamp")
        return self._onward(name, state, loc, [step], self._passed(state, document))

    def _succeed(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        step = {"id": self.whole.names.of(name), **NOTHING}
        self.ends.append((step, self._passed(state, document), loc))
        return [step]

    def _fail(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        read = self._reader(state, document)
        written = {}
        for field_, default in (("Error", "Failed"), ("Cause", f"state {name} was reached")):
            if f"{field_}Path" in state:
                written[field_] = template(value(state[f"{field_}Path"], read))
            else:
                written[field_] = str(literal(str(state.get(field_) or default)))
        error = written["Error"]
        if "ErrorPath" not in state and error_name(error) != error:
            error = error_name(error)
            difference = (
                f"fails with {state['Error']!r}, which is {error!r} here",
                "names of errors are letters, digits and '_', with a capital first",
            )
            self._differs(name, (*loc, "Error"), [difference])
        step = {"id": self.whole.names.of(name), "type": "fail", "error": error}
        return [{**step, "message": written["Cause"]}]

    def _choice(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        read = self._reader(state, document)
        after = self._passed(state, document)
        rules = state.get("Choices")
        if not isinstance(rules, list) or not rules:
            raise NoCounterpart("has no Choices", "write a 'condition' by hand")
        conditions = [condition(rule, read) for rule in rules]
        steps: Steps = []
        for i, (rule, written) in enumerate(zip(rules, conditions, strict=True)):
            step_id = self.whole.names.of(name)
            if i:
                step_id = self.whole.names.another(f"{step_id}_{i + 1}")
                steps[-1]["otherwise"] = step_id
            steps.append(
                {
                    "id": step_id,
                    "type": "condition",
                    "condition": written,
                    "then": self._to(name, rule["Next"], after),
                }
            )
        if "Default" in state:
            steps[-1]["otherwise"] = self._to(name, state["Default"], after)
        return steps

    def _parallel(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        given = self._effective(state, document)
        branches = [
            _Frame(self.whole, machine, at, given, item=self.item).steps()
            for machine, at in inner_machines(state, loc)
        ]
        step = {"id": self.whole.names.of(name), "type": "parallel", "parallel_steps": branches}

        def shape(result: Reference) -> Value:
            return Items(tuple(Reference(result.name, (one[0]["id"],)) for one in branches))

        return self._with_result(name, state, loc, document, step, shape)

    def _map(self, name: str, state: dict[str, Any], loc: Loc, document: Value) -> Steps:
        ((machine, at),) = inner_machines(state, loc)
        for part in ("ItemReader", "ItemBatcher", "ResultWriter"):
            if part in state:
                raise NoCounterpart(
                    f"has {part}", "read and write the items in tools, or use 'nano-vm batch'"
                )
        if any(one.startswith("ToleratedFailure") and state[one] for one in state):
            raise NoCounterpart(
                "tolerates failed items", "write on_item_error: continue, and count $map.errors"
            )
        before = self._incoming(state, document)
        over = self._read(state.get("ItemsPath", "$"), before)
        item = self.whole.names.another("item")
        start: Value = Reference(item)
        inner = _Frame(self.whole, machine, at, start, item=item)
        selector = state.get("ItemSelector", state.get("Parameters"))
        if selector is not None:
            inner.start = payload(selector, lambda one: inner._read(one, before))
        step: dict[str, Any] = {
            "id": self.whole.names.of(name),
            "type": "map",
            "over": template(over),
            "as": item,
            "steps": inner.steps(),
        }
        if state.get("MaxConcurrency"):
            step["max_concurrency"] = state["MaxConcurrency"]
        rest = {key: one for key, one in state.items() if key != "Parameters"}
        return self._with_result(name, rest, loc, document, step, lambda result: result)

    # The document

    def _read(self, path: str, document: Value) -> Value:
        """What *path* names, in *document* or in the context object."""
        if not path.startswith("$$"):
            return part_of(document, path_of(path))
        keys = path_of(path[1:])
        if keys[:3] == ("Map", "Item", "Value") and self.item is not None:
            return part_of(Reference(self.item), keys[3:])
        if keys[:2] == ("Execution", "Input"):
            return part_of(Reference(INPUT), keys[2:])
        raise NoCounterpart(
            f"reads {path!r} of the context object", "give the value as an input of the program"
        )

    def _reader(self, state: dict[str, Any], document: Value) -> Any:
        seen = self._incoming(state, document)
        return lambda path: self._read(path, seen)

    def _incoming(self, state: dict[str, Any], document: Value) -> Value:
        """After InputPath."""
        path = state.get("InputPath", "$")
        return Given({}) if path is None else self._read(path, document)

    def _effective(self, state: dict[str, Any], document: Value) -> Value:
        """After InputPath and Parameters."""
        seen = self._incoming(state, document)
        if "Parameters" not in state:
            return seen
        return payload(state["Parameters"], lambda one: self._read(one, seen))

    def _outgoing(self, state: dict[str, Any], document: Value) -> Value:
        """After OutputPath."""
        path = state.get("OutputPath", "$")
        return Given({}) if path is None else self._read(path, document)

    def _passed(self, state: dict[str, Any], document: Value) -> Value:
        """After InputPath and OutputPath, of a state that adds nothing."""
        return self._outgoing(state, self._incoming(state, document))

    def _document_name(self) -> str:
        return self._kept_name(())

    def _kept_name(self, path: Path) -> str:
        if path not in self.written:
            wanted = "_".join(identifier(str(part)) for part in path) or "state"
            self.written[path] = self.whole.names.another(wanted)
        return self.written[path]

    def _name(self, path: Path, document: Value) -> str:
        """The name of what is written to *path*: the same on every way, unless another part of the
        document is still read by it.
        """
        name = self._kept_name(path)
        rest = with_part(document, path, Given(None))
        return self.whole.names.another(name) if name in names_in(rest) else name

    def _unread(self, name: str, state: dict[str, Any], loc: Loc, fields: tuple[str, ...]) -> None:
        remedy = "write timeout_seconds: the longest that one attempt may take"
        for one in fields:
            if one in state:
                self._differs(name, (*loc, one), [(f"has {one}, which is left out", remedy)])

    # The end

    def _finish(self) -> Steps:
        """The steps behind the last states, which make the frame's output what the machine's is."""
        if self.outermost:
            return self._finish_program()
        made: Steps = []
        for step, document, loc in self.ends:
            step["next"] = END
            if not _gives(step, document):
                last = {"id": self.whole.names.another(f"{step['id']}_output"), "type": "call"}
                step["next"] = last["id"]
                given = {"value": self._output(document, loc)}
                made.append({**last, "with": given, "program": SAME, "next": END})
        return made

    def _finish_program(self) -> Steps:
        written = [self._output(document, loc) for _, document, loc in self.ends]
        for step, _, _ in self.ends:
            step["next"] = END
        if all(one == written[0] for one in written):
            self.output = written[0] if written else None
            return []
        key = self.whole.names.another("result")
        self.output = f"${key}"
        made: Steps = []
        for (step, _, _), one in zip(self.ends, written, strict=True):
            step["next"] = self.whole.names.another(f"{step['id']}_result")
            made.append({"id": step["next"], "type": "set", "values": {key: one}, "next": END})
        return made

    def _output(self, document: Value, loc: Loc) -> Any:
        try:
            if in_parts(document):
                self._difference_in_parts(str(loc[-1]), loc)
            return template(document)
        except NoCounterpart as gap:
            self.whole.findings.gap(loc, gap)
            return None


NOTHING = {"type": "assert", "condition": "true"}
"""A step that changes nothing, and keeps the name of a state that does not either."""

SAME = {
    "name": "same",
    "steps": [{"id": "unchanged", "type": "set", "values": {"given": "$value"}}],
    "output": "$value",
}
"""A program that gives the value that it is given: by it a branch ends with any value."""


def _gives(step: dict[str, Any], document: Value) -> bool:
    """Whether the output of *step* is *document*."""
    return (
        step["type"] != "set"
        and isinstance(document, Reference)
        and not document.path
        and step.get("output_key") == document.name
    )


def _successors(state: dict[str, Any]) -> list[str]:
    """The states that *state* can lead to, each once."""
    return list(dict.fromkeys(holder[field_] for field_, holder, _ in transitions(state, ())))
