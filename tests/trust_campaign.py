"""Random programs whose untrusted values are marked, and runs of them that tell where marks arrive.

Whatever comes from an untrusted source carries a mark of its own (`«7»`); models repeat every mark
that they are shown, and so does a tool that is pure. The programs are documents, made and walked as
such: nothing of the pass or the graph is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from nano_vm import Program
from nano_vm.diagnostics import Loc
from nano_vm.errors import ProgramError
from nano_vm.language.flow import Flow
from nano_vm.language.policy import Policy
from nano_vm.language.rules import rules_of
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Arrived, Decided, Failed, Value
from nano_vm.machine.plan import MODEL, PAUSE, Op
from nano_vm.machine.simulate import simulate
from nano_vm.records.record import StepError
from nano_vm.tools.contract import ToolContract, contract, tool
from nano_vm.verify.examine import check
from nano_vm.verify.trust.of_run import Arrivals
from nano_vm.verify.trust.proof import Trust

Analyse = Callable[..., Trust]
MARK = re.compile("«[^»]*»")


def open_tool(name: str, **options: Any) -> ToolContract:
    @tool(name=name, **options)
    async def function(q: Any = None, **arguments: Any) -> None: ...

    return contract(name, function)


CONTRACTS = {
    "fetch": open_tool("fetch"),
    "event": open_tool("event"),
    "lookup": open_tool("lookup", returns="trusted"),
    "join": open_tool("join", returns="args"),
    "ask": open_tool("ask", effect="read"),
    "ask_ledger": open_tool("ask_ledger", effect="read", returns="trusted"),
    "send": open_tool("send"),
    "pay": open_tool("pay"),
    "wire": open_tool("wire", returns="trusted"),
    "note": open_tool("note", trusted=["text"], returns="args"),
    "list_pay": open_tool("list_pay"),
}
POLICY: dict[str, Any] = {
    "inputs": {"mail": "untrusted"},
    "values": {"payees": ["A", "B"]},
    "tools": {
        "send": {"args": {"to": "trusted"}},
        "pay": {"args": {"*": "trusted"}},
        "wire": {"args": {"to": "trusted"}, "approval": "treasurer"},
        "list_pay": {"args": {"to": "trusted or $value in $payees"}},
    },
}
RULES = {
    name: rules_of(name, [Policy.from_dict(POLICY)], known.options.trusted, known.options.returns)
    for name, known in CONTRACTS.items()
}
PROTECTED = ("send", "pay", "wire", "list_pay")
SCHEMAS: tuple[dict[str, Any], ...] = (
    {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "ok": {"type": "boolean"},
            "text": {"type": "string"},
            "tags": {"type": "array", "items": {"enum": ["x", "y"]}},
            "loose": {"items": {"enum": ["x", "y"]}},
            "more": {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}},
        },
        "required": ["kind", "ok", "text", "tags", "loose", "more"],
    },
    {"enum": ["a", "b"]},
    {"type": "array", "items": {"anyOf": [{"enum": ["a"]}, {"type": "object"}]}},
)
FIELDS = (
    ".kind",
    ".ok",
    ".text",
    ".tags[0]",
    ".loose[0]",
    ".more.kind",
    ".more.free",
    ".more",
    ".extra",
)


@dataclass
class Writer:
    """Writes one program; with *marked* its own strings are marked too."""

    random: Random
    marked: bool = False
    count: int = 0
    marks: int = 0
    apart: int = 0  # inside of branches, which may not write the same names

    def fresh(self, prefix: str = "s") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def text(self, otherwise: str = "x") -> str:
        if not self.marked:
            return otherwise
        self.marks += 1
        return f"«own {self.marks}»"

    def program(self, inputs: list[str], depth: int = 0) -> dict[str, Any]:
        scope = [f"${name}" for name in inputs]
        steps = self.block(scope, self.random.randint(2, 6 if depth else 9), depth)
        document: dict[str, Any] = {"name": "p", "steps": steps}
        document["inputs"] = {
            "type": "object",
            "properties": {name: {} for name in inputs},
            "required": inputs,
        }
        if self.chance(0.3):
            document["output"] = self.value(scope)
        return document

    def block(self, scope: list[str], size: int, depth: int) -> list[dict[str, Any]]:
        steps = [self.step(scope, depth) for _ in range(size)]
        for i, step in enumerate(steps):
            later = [other["id"] for other in steps[i + 1 :]]
            if self.chance(0.06):
                step["next"] = self.random.choice([*later, "$end"])
            if later and self.chance(0.12):
                step["catch"] = [{"errors": ["*"], "next": self.random.choice(later)}]
            elif self.chance(0.12):
                step["on_error"] = "skip"
                if step["type"] != "switch" and self.chance(0.5):
                    step["default"] = self.text("fallback")
            if (
                later
                and step["type"] in ("condition", "approval")
                and isinstance(step.get("then"), str)
            ):
                if self.chance(0.5):
                    step["then"] = self.random.choice(later)
        return steps

    def step(self, scope: list[str], depth: int) -> dict[str, Any]:
        kinds = (
            ["tool"] * 5
            + ["protected"] * 6
            + ["llm"] * 4
            + ["set"] * 2
            + ["condition", "approval", "wait", "assert"]
        )
        if depth < 3:
            kinds += ["condition", "switch", "parallel", "map", "loop", "call"]
        kind = self.random.choice(kinds)
        step_id = self.fresh()
        step: dict[str, Any] = {"id": step_id, "type": kind}
        getattr(self, f"_{kind}")(step, scope, depth)
        if self.chance(0.5):
            # sometimes a name that was written before, or an input
            names = [ref[1:] for ref in scope if re.fullmatch(r"\$\w+", ref)]
            again = names and not self.apart and self.chance(0.35)
            step["output_key"] = self.random.choice(names) if again else self.fresh("k")
            scope.append(f"${step['output_key']}")
            if step["type"] == "approval":
                scope += [f"${step['output_key']}.{name}" for name in ("approved", "reason")]
            if step.get("output_schema"):
                scope += [f"${step['output_key']}{name}" for name in FIELDS]
        scope.append(f"${step_id}.output")
        if step.get("output_schema"):
            scope += [f"${step_id}.output{name}" for name in FIELDS]
        return step

    def value(self, scope: list[str]) -> Any:
        kind = self.random.random()
        recent = self.random.choice(scope[-12:]) if self.chance(0.6) else self.random.choice(scope)
        if kind < 0.5:
            return recent
        if kind < 0.6:
            return {"expr": self.expression(recent, self.random.choice(scope))}
        if kind < 0.72:
            return f"{self.text('see')} {recent}"
        if kind < 0.86:
            return self.text("A")
        if kind < 0.93:
            return {"a": self.value(scope), "b": [self.value(scope)]}
        return [self.value(scope), self.value(scope)]

    def expression(self, ref: str, other: str) -> str:
        """What is computed of two references, so that a mark in them stays whole."""
        text = f"'{self.text('x')}'"
        return self.random.choice(
            [
                f"default({ref}, {text})",
                f"default({ref}.nick, {other})",
                f"get({ref}, 'kind', {other})",
                f"append([{other}], {ref})",
                f"concat([{ref}], [{text}])",
                f"join([{ref}, {other}], ' ')",
                f"split('{ref}', ' ')",
                f"sorted(['{ref}', {text}])",
                f"json(str([{ref}]))",
                f"str({ref})",
            ]
        )

    def test(self, scope: list[str]) -> str:
        ref = self.random.choice(scope)
        return self.random.choice(
            [
                "true",
                "true",
                "false",
                f"{ref} == {ref}",
                f"{ref} != null",
                f"'a' in '{ref}'",
                f"'x' in '{ref}'",
            ]
        )

    def _tool(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["tool"] = self.random.choice(["fetch", "lookup", "lookup", "join", "join", "note"])
        name = "text" if step["tool"] == "note" else "q"
        if step["tool"] == "join" and self.chance(0.4):
            name = self.text("word")
        step["args"] = (
            {name: self.value(scope)} if self.chance(0.8) or step["tool"] == "join" else {}
        )
        self.beside(step, scope)

    def _assert(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step |= {"condition": self.test(scope), "message": f"not {self.random.choice(scope)}"}
        if self.chance(0.5):
            step["condition"] = "true"

    def _protected(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step |= {"type": "tool", "tool": self.random.choice(PROTECTED)}
        step["args"] = {"to": self.value(scope)}
        if self.chance(0.3):
            step["args"]["sum"] = self.value(scope)
        self.beside(step, scope)

    def beside(self, step: dict[str, Any], scope: list[str]) -> None:
        seen = [*scope, f"${step['id']}.output"]
        if self.chance(0.15):
            step["undo"] = {"tool": self.random.choice(PROTECTED), "args": {"to": self.value(seen)}}
        if self.chance(0.15):
            step["reconcile"] = {"tool": self.random.choice(["ask", "ask_ledger", "pay"])}
            if self.chance(0.5):
                step["reconcile"]["args"] = {"to": self.value(scope)}
        if self.chance(0.2):
            step |= {"max_retries": 2, "retry": {"delay_seconds": 0}}

    def _llm(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        asked = self.value(scope)
        text = asked if type(asked) is str else json.dumps(asked)
        if self.chance(0.2):
            step["messages"] = [{"role": "user", "content": text}]
        else:
            step["prompt"] = text
            if self.chance(0.2):
                step["system"] = self.random.choice(scope)
        kind = self.random.random()
        if kind < 0.25:
            step["allowed_outputs"] = (
                ["yes", "no"] if not self.marked else [self.text(), self.text()]
            )
        elif kind < 0.55:
            step["output_schema"] = deepcopy(self.random.choice([SCHEMAS[0], SCHEMAS[0], *SCHEMAS]))
            if self.marked and "properties" in step["output_schema"]:
                step["output_schema"]["properties"]["kind"] = {"enum": [self.text()]}
        if kind < 0.55 and self.chance(0.3):
            step["on_invalid"] = self.text("none")

    def _set(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        values = {}
        for _ in range(self.random.randint(1, 2)):
            ref = self.random.choice(scope)
            name = self.fresh("v")
            values[name] = {"expr": ref} if self.chance(0.2) else self.value(scope)
        step["values"] = values
        scope += [f"${name}" for name in values]

    def _condition(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["type"] = "condition"
        step["condition"] = self.test(scope)
        step["then"] = (
            self.block(scope, self.random.randint(1, 3), depth + 1) if depth < 3 else "$next"
        )
        if self.chance(0.4):
            step["otherwise"] = (
                self.block(scope, self.random.randint(1, 2), depth + 1) if depth < 3 else "$next"
            )

    def _switch(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["on"] = self.random.choice(scope)
        step["cases"] = {"yes": self.block(scope, 1, depth + 1), "a": "$next"}
        step["default"] = self.block(scope, self.random.randint(1, 2), depth + 1)

    def _parallel(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        sizes = [self.random.randint(1, 3) for _ in range(self.random.randint(1, 3))]
        self.apart += 1
        step["parallel_steps"] = [self.block(list(scope), size, depth + 1) for size in sizes]
        self.apart -= 1

    def _map(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["over"] = (
            [self.value(scope), self.value(scope)]
            if self.chance(0.6)
            else self.random.choice(scope)
        )
        step["as"] = self.random.choice(["item", self.fresh("i")])
        inner = [*scope, *[f"${step['as']}"] * 3]
        step["steps"] = self.block(inner, self.random.randint(1, 3), depth + 1)

    def _loop(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["steps"] = self.block(scope, self.random.randint(1, 3), depth + 1)
        step |= {"max_iterations": 2, "on_exhausted": "continue"}
        if self.chance(0.3):
            step["until"] = self.test(scope)

    def _call(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        names = ["x", "y"][: self.random.randint(1, 2)]
        step["program"] = self.program(names, depth + 1)
        step["with"] = {name: self.value(scope) for name in names}
        if self.marked and self.chance(0.3):
            step["program"]["inputs"]["properties"]["z"] = {"default": self.text()}
            step["program"]["steps"].append(
                {"id": self.fresh(), "type": "tool", "tool": "send", "args": {"to": "$z"}}
            )

    def _approval(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["role"] = "treasurer" if self.chance(0.8) else "intern"
        shown = [self.random.choice(scope[-12:]) for _ in range(2)]
        step["show"] = (
            {"to": shown[0], "more": [shown[1]]} if self.chance(0.7) else f"{shown[0]}, {shown[1]}"
        )
        if self.chance(0.6) and depth < 3:
            paid = {
                "id": self.fresh(),
                "type": "tool",
                "tool": "wire",
                "args": {"to": self.random.choice(shown)},
            }
            step["then"] = [*self.block(scope, self.random.randint(0, 1), depth + 1), paid]
        else:
            step["then"] = "$next"
        if self.chance(0.3):
            step["otherwise"] = "$next"

    def _wait(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["event"] = "reply"


def at(document: Any, loc: Loc) -> tuple[str, str]:
    """The step and call (``s1``, ``s1/undo``), and the name of the argument, that stand at
    *loc*.
    """
    *way, last, name = loc
    assert last == "args"
    for part in way:
        document = document[part]
        if "id" in document and "type" in document:
            step_id = document["id"]
    kind = f"/{way[-1]}" if way[-1] in ("undo", "reconcile") else ""
    return f"{step_id}{kind}", str(name)


def parts(value: Any) -> Iterator[Any]:
    """*value* and each value in it."""
    yield value
    for item in value if type(value) is list else value.values() if type(value) is dict else ():
        yield from parts(item)


@dataclass
class Feed:
    """Gives outcomes, and notes what arrives where."""

    random: Random
    failing: float
    marks: int = 0
    arrived: list[tuple[str, str, Any]] = field(default_factory=list)  # call, argument, value
    shown: list[Any] = field(default_factory=list)  # what a treasurer approved

    def mark(self) -> str:
        self.marks += 1
        return f"«{self.marks}»"

    def outside(self) -> Any:
        text = self.mark()
        shapes = [text, text, [text, self.mark()], {"a": text, "kind": self.mark(), "text": [text]}]
        return self.random.choice(shapes)

    def __call__(self, machine: Machine, op: Op) -> Op:
        if op.code == MODEL:
            return self.model(machine, op)
        if op.code == PAUSE:
            return self.pause(machine)
        for name, value in machine.keywords.items():
            self.arrived.append((op.step_id, name, value))
        if self.random.random() < self.failing:
            kind = self.random.choice(["tool", "tool", "timeout"])
            return machine.resume(
                Failed(StepError(kind, "ToolError" if kind == "tool" else "TimeoutError", "no")),
                machine.now,
            )
        return machine.resume(Value(self.returned(op.tool, machine.keywords)), machine.now)  # type: ignore[attr-defined]

    def pause(self, machine: Machine) -> Op:
        request = machine.request
        if request["kind"] == "wait":
            return machine.resume(Arrived(self.outside()), machine.now)
        granted = self.random.random() < 0.8
        if granted and request["role"] == "treasurer":
            self.shown.append(request["show"])
        return machine.resume(Decided(granted, self.mark(), None), machine.now)

    def approved(self, value: Any) -> bool:
        """Whether a treasurer has seen *value*, by itself or in a string, and agreed."""
        text = (
            value
            if type(value) is str
            else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        )
        return any(
            value == part or (type(part) is str and text in part) for part in parts(self.shown)
        )

    def returned(self, name: str, keywords: Mapping[str, Any]) -> Any:
        if name in ("lookup", "wire"):
            return self.random.choice(["L", ["L", "M"], {"a": "L", "kind": "K"}])
        if name in ("join", "note"):
            values = list(keywords.values())
            texts = [json.dumps(values, ensure_ascii=False), dict(keywords)]
            return self.random.choice([values, values[0] if values else "J", *texts])
        if name in ("ask", "ask_ledger", "pay"):
            done = {"done": True, "output": "L" if name == "ask_ledger" else self.outside()}
            return self.random.choice([done, done, {"done": False}]) if name != "pay" else done
        return self.outside()

    def model(self, machine: Machine, op: Any) -> Op:
        if self.random.random() < self.failing:
            return machine.resume(Failed(StepError("model", "ModelError", "no")), machine.now)
        said = "".join(MARK.findall(json.dumps(machine.messages, ensure_ascii=False))) or "plain"
        answer = said
        if self.random.random() < 0.1:
            pass  # where the answer is constrained: an invalid one
        elif op.allowed is not None:
            answer = self.random.choice(op.allowed)
        elif op.schema is not None:
            answer = json.dumps(self.fitting(op.schema, said), ensure_ascii=False)
        return machine.resume(Answer(answer), machine.now)

    def fitting(self, schema: dict[str, Any], said: str) -> Any:
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        if schema.get("type") == "array":
            return ["a", {"free": said}]
        kind = self.random.choice(schema["properties"]["kind"]["enum"])
        return {
            "kind": kind,
            "ok": self.random.choice([True, False]),
            "text": said,
            "tags": ["x", "y"],
            "loose": said,
            "more": {"kind": "a", "free": said},
            "extra": said,
        }


@dataclass
class Figures:
    """What a campaign counted."""

    programs: int = 0
    runs: int = 0
    statements: int = 0
    holds: int = 0
    # of those that hold, that something untrusted reaches by a declassifier or an approval
    by_right: int = 0
    confirmed: int = 0  # of those that do not hold, that a run was seen to break
    judged: int = 0  # likewise, by the labels of the run
    missed: int = 0  # of the confirmed, those that the labels did not show
    contradictions: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        share = 100 * self.holds / max(self.statements, 1)
        return (
            f"{self.programs} programs, {self.runs} runs, {self.statements} statements: "
            f"{share:.0f} % hold "
            f"({self.by_right} by a right), {100 - share:.0f} % do not ({self.confirmed} seen "
            f"broken, "
            f"{self.judged} by labels, which missed {self.missed}), "
            f"{len(self.contradictions)} contradictions"
        )


def campaign(
    analyse: Analyse, seeds: range, runs: int = 5, *, marked: bool = False, stop: bool = False
) -> Figures:
    """Analyse a program for each of *seeds* and run it *runs* times; *marked*: its own text is
    untrusted.
    """
    figures = Figures()
    for seed in seeds:
        _one(analyse, seed, runs, marked, figures)
        if stop and figures.contradictions:
            break
    return figures


def _one(analyse: Analyse, seed: int, runs: int, marked: bool, figures: Figures) -> None:
    document = Writer(Random(seed), marked).program(["mail", "boss", "people"])
    try:
        flow = Flow(Program.from_dict(document))
    except ProgramError:
        return
    if any(d.severity == "error" for d in check(flow, CONTRACTS)):
        return
    untrusted = frozenset(() if marked else ("mail",))
    trust = analyse(flow, CONTRACTS, RULES, untrusted=untrusted, untrusted_literals=marked)
    figures.programs += 1
    claims: dict[tuple[str, str], bool] = {}
    judges = {}
    shown: set[tuple[str, str]] = set()
    for finding in trust.findings:
        place = at(document, finding.loc)
        if finding.loc in trust.checks:
            continue  # kept at run time
        claims[place] = finding.holds
        *loc, _, name = finding.loc
        use = str(loc.pop()) if loc[-1] in ("undo", "reconcile") else ""
        own = {id(frame.names): marked for frame in flow.frames}
        judges[place] = finding.breaks or Arrivals(
            flow, CONTRACTS, RULES, untrusted, own, tuple(loc), use, finding.tool, str(name)
        )
    for influence in trust.flows:
        if influence.kind == "argument" and influence.allowed is not None:
            place = at(document, influence.loc)
            figures.by_right += place in claims
            if "approved by" in influence.allowed:
                shown.add(place)
    figures.statements += len(claims)
    figures.holds += sum(claims.values())
    broken: set[tuple[str, str]] = set()
    judged: set[tuple[str, str]] = set()
    plan = compile_flow(flow, CONTRACTS)
    for number in range(runs):
        random = Random(seed * 1000 + number)
        feed = Feed(random, random.choice([0.0, 0.0, 0.05, 0.2]))
        inputs = {"boss": "BOSS", "people": ["P", "Q"], "mail": "M" if marked else feed.outside()}
        machine = machine_of(plan, inputs, run_id="r", seed=1)
        simulate(
            machine,
            feed,
            lambda m, op, random=random: random.sample(range(m.fork.size), m.fork.size),
        )  # type: ignore[misc]
        figures.runs += 1
        for place, breaks in judges.items():
            if breaks(machine):
                judged.add(place)
                if claims[place]:
                    told = f"seed {seed}, run {number}: the labels of the run speak against {place}"
                    figures.contradictions.append(
                        f"{told}\n{json.dumps(document, ensure_ascii=False)}"
                    )
        for call, name, value in feed.arrived:
            place = call, name
            if place not in claims or not MARK.search(json.dumps(value, ensure_ascii=False)):
                continue
            if not claims[place]:
                broken.add(place)
            elif place not in shown or not feed.approved(value):
                figures.contradictions.append(
                    f"seed {seed}, run {number}: {name!r} of {call!r} is "
                    f"{value!r}\n{json.dumps(document, ensure_ascii=False)}"
                )
    figures.confirmed += len(broken)
    figures.judged += len(judged)
    figures.missed += len(broken - judged)
