"""Random programs whose secrets are marked, and runs of them that tell where marks arrive.

As `trust_campaign`, whose programs and outcomes these are, the other way round: what is secret
carries a mark with the letter of its label (`«c7»` of a customer, `«p3»` of the payroll), and
models, pure tools, people who were shown something and errors repeat all marks that they saw.
Nothing of the pass or the graph is used to say where a mark arrived.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from trust_campaign import CONTRACTS, SCHEMAS, Feed, Writer, at

from nano_vm import Program
from nano_vm.diagnostics import Loc
from nano_vm.errors import ProgramError
from nano_vm.language.flow import Flow
from nano_vm.language.policy import Policy
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Arrived, Decided, Failed, Value
from nano_vm.machine.plan import MODEL, PAUSE, Op
from nano_vm.machine.simulate import simulate
from nano_vm.records.record import StepError
from nano_vm.records.status import TraceStatus
from nano_vm.verify.examine import check, examine
from nano_vm.verify.secrecy.labels import Secrets
from nano_vm.verify.secrecy.proof import Secrecy
from nano_vm.verify.trust.proof import graph_of

LETTERS = {"customer": "c", "payroll": "p"}
MARK = re.compile("«([cp])[0-9]+»")
POLICY: dict[str, Any] = {
    "secret": list(LETTERS),
    "inputs": {"mail": ["customer"], "boss": ["payroll"], "*": "public"},
    "tools": {
        "fetch": {"returns": ["customer"], "args": {"*": "any"}},
        "lookup": {"args": {"*": "any"}},
        "join": {"args": {"*": "any"}},
        "note": {"args": {"*": "any"}, "declassifies": ["customer"], "reason": "names are cut"},
        "ask": {"returns": ["payroll"], "args": {"*": "any"}},
        "ask_ledger": {"args": {"*": ["payroll"]}},
        "send": {"args": {"*": "public"}},
        "pay": {"args": {"*": ["customer"]}},
        "wire": {"args": {"to": "public", "*": "any"}},
        "list_pay": {"args": {"*": ["payroll"]}},
    },
    "models": {"*": {"accepts": ["payroll"]}, "local": {"accepts": "any"}},
    "roles": {
        "treasurer": {"accepts": "any", "releases": ["customer"]},
        "intern": {"accepts": ["payroll"]},
    },
    "events": {"*": {"returns": ["customer"]}},
    "accepts": {"output": ["payroll"], "errors": ["customer"]},
}
Analyse = Callable[..., Secrecy]


def marks(value: Any) -> list[str]:
    """Every mark in *value*."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return [match[0] for match in MARK.finditer(text)]


class SecretWriter(Writer):
    """Programs that also read what went wrong, ask two models, and wait for events by values."""

    def block(self, scope: list[str], size: int, depth: int) -> list[dict[str, Any]]:
        steps = super().block(scope, size, depth)
        for step in list(steps):
            refuses = step["type"] == "wait" and "output_schema" in step
            computes = step["type"] == "call" and "output" in step["program"]
            if (refuses or computes) and "catch" not in step and self.chance(0.7):
                step["on_error"] = "skip"
            if step.get("on_error") == "skip" or "catch" in step:
                told = {"expr": f"default(${step['id']}.error.message, 'none')"}
                more = {"id": self.fresh(), "type": "tool", "tool": "send", "args": {"to": told}}
                steps.append(more)
        return steps

    def _llm(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        super()._llm(step, scope, depth)
        step["model"] = self.random.choice(["local", "hosted"])

    def _wait(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        step["event"] = "reply"
        if self.chance(0.5):
            step["match"] = {"order": self.value(scope)}
        if self.chance(0.5):
            step["output_schema"] = deepcopy(self.random.choice(SCHEMAS))

    def _call(self, step: dict[str, Any], scope: list[str], depth: int) -> None:
        super()._call(step, scope, depth)
        if self.chance(0.3):  # an output that fails, and quotes what it was computed of
            inner = [other["id"] for other in step["program"]["steps"]]
            ref = f"${self.random.choice(inner)}.output"
            step["program"]["output"] = {"sum": {"expr": f"default({ref}, 'x') + 1"}}


class SecretFeed(Feed):
    """Outcomes in which secrets are marked; ``given`` notes who was given what, by place."""

    def __init__(self, random: Random, failing: float) -> None:
        super().__init__(random, failing)
        self.given: list[tuple[str, str, Any]] = []

    def mark(self, letter: str = "c") -> str:
        self.marks += 1
        return f"«{letter}{self.marks}»"

    def secret(self, letter: str) -> Any:
        one = self.mark(letter)
        shapes = [
            one,
            [one, self.mark(letter)],
            {"a": one, "kind": self.mark(letter), "text": [one]},
        ]
        return self.random.choice(shapes)

    def __call__(self, machine: Machine, op: Op) -> Op:
        if op.code == MODEL:
            return self.model(machine, op)
        if op.code == PAUSE:
            return self.pause_at(machine, op)
        name: str = op.tool  # type: ignore[attr-defined]
        keywords = dict(machine.keywords)
        self.given += [(op.step_id, argument, value) for argument, value in keywords.items()]
        if self.random.random() < self.failing:
            own = {"fetch": [self.mark()], "ask": [self.mark("p")]}.get(name, [])
            text = f"no {''.join([*marks(keywords), *own])}"
            return machine.resume(Failed(StepError("tool", "ToolError", text)), machine.now)
        return machine.resume(Value(self.returned(name, keywords)), machine.now)

    def pause_at(self, machine: Machine, op: Op) -> Op:
        request = machine.request
        if request["kind"] == "wait":
            matched = request.get("match")
            self.given.append((op.step_id, "match", matched))
            return machine.resume(Arrived(self.brought(op, matched)), machine.now)
        self.given.append((op.step_id, "show", request["show"]))
        granted = self.random.random() < 0.8
        if granted and request["role"] == "treasurer":
            self.shown.append(request["show"])
        said = f"seen {''.join(marks(request['show']))}"
        return machine.resume(Decided(granted, said, None), machine.now)

    def brought(self, op: Any, matched: Any) -> Any:
        """What an event brings: anything, or what its step takes."""
        said = "".join([self.mark(), *marks(matched)])
        kinds = [self.secret("c"), {"order": marks(matched)}]
        if op.validate is not None:
            fitting = (self.fitting(schema, said) for schema in SCHEMAS)
            kinds += [value for value in fitting if op.validate(value) is None]
        brought = self.random.choice(kinds)
        more = self.random.random() < 0.7 and type(brought) is dict and type(matched) is dict
        return {**brought, **matched} if more else brought

    def returned(self, name: str, keywords: Mapping[str, Any]) -> Any:
        if name == "fetch":
            return self.random.choice([self.secret("c"), [self.secret("c"), *marks(keywords)]])
        if name in ("ask", "ask_ledger", "pay"):
            own = self.secret("p") if name == "ask" else "L"
            done = {"done": True, "output": [own, *marks(keywords)]}
            return self.random.choice([done, done, {"done": False}]) if name != "pay" else done
        seen = marks(keywords)
        if name == "note":
            seen = [mark for mark in seen if mark[1] != "c"]
        return self.random.choice([seen, "".join(seen), {"a": seen, "kind": "K"}])

    def model(self, machine: Machine, op: Any) -> Op:
        messages = [message["content"] for message in machine.messages]
        self.given.append((op.step_id, "asked", messages))
        said = "".join(marks(messages)) or "plain"
        if self.random.random() < self.failing:
            error = StepError("model", "ModelError", f"no {said}")
            return machine.resume(Failed(error), machine.now)
        answer = said
        if self.random.random() < 0.1:
            pass  # where the answer is constrained: an invalid one
        elif op.allowed is not None:
            answer = self.random.choice(op.allowed)
        elif op.schema is not None:
            answer = json.dumps(self.fitting(op.schema, said), ensure_ascii=False)
        return machine.resume(Answer(answer), machine.now)


@dataclass
class Figures:
    """What a campaign counted."""

    programs: int = 0
    runs: int = 0
    statements: int = 0
    holds: int = 0
    by_right: int = 0  # of those that hold, that something secret reaches by a right
    confirmed: int = 0  # of those that do not hold, that a run was seen to break
    judged: int = 0  # likewise, by the labels of the run
    contradictions: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        share = 100 * self.holds / max(self.statements, 1)
        return (
            f"{self.programs:,} programs, {self.runs:,} runs, {self.statements:,} statements: "
            f"{share:.0f} % hold ({self.by_right:,} by a right), {100 - share:.0f} % do not "
            f"({self.confirmed:,} seen broken, {self.judged:,} by labels), "
            f"{len(self.contradictions)} contradictions"
        )


Place = tuple[str, str]


def place_of(document: Any, loc: Loc) -> Place:
    """The step or call, and the argument or field, that stand at *loc*."""
    if "args" in loc:
        return at(document, loc)
    if loc == ("output",):
        return "run", "output"
    for part in loc:
        document = document[part]
        if isinstance(document, dict) and "id" in document and "type" in document:
            step_id = str(document["id"])
    if isinstance(document, dict) and document.get("id") == step_id:
        return "run", "output"  # what the last step leaves
    if loc[-1] == "message":
        return "run", "error"
    field = "asked" if loc[-1] in ("prompt", "system", "messages") else str(loc[-1])
    return step_id, field


def forbidden(statement: str) -> str:
    """The letters of the labels that a statement says do not arrive."""
    said = statement.removeprefix("no ").partition(" value ")[0].split(" or ")
    return "".join(LETTERS[label] for label in said)


def campaign(
    analyse: Analyse,
    seeds: range,
    runs: int = 5,
    *,
    secrets: Callable[..., Secrets] = Secrets,
    stop: bool = False,
) -> Figures:
    """Analyse a program for each of *seeds*, and run it *runs* times."""
    figures = Figures()
    for seed in seeds:
        _one(analyse, secrets, seed, runs, figures)
        if stop and figures.contradictions:
            break
    return figures


def statuses(seeds: range) -> str:
    """How many statements of the programs are proved, refuted by a run, and neither."""
    found: Counter[str] = Counter()
    policy = Policy.from_dict(POLICY)
    for seed in seeds:
        document = SecretWriter(Random(seed)).program(["mail", "boss", "people"])
        try:
            flow = Flow(Program.from_dict(document))
        except ProgramError:
            continue
        proofs = examine(flow, CONTRACTS, policy=policy).report.proofs
        found.update(proof.status for proof in proofs if proof.kind == "secrecy")
    total = max(sum(found.values()), 1)
    shares = ", ".join(f"{status} {100 * n / total:.0f} %" for status, n in sorted(found.items()))
    return f"{total:,} statements: {shares}"


def _one(
    analyse: Analyse, joined: Callable[..., Secrets], seed: int, runs: int, figures: Figures
) -> None:
    document = SecretWriter(Random(seed)).program(["mail", "boss", "people"])
    try:
        flow = Flow(Program.from_dict(document))
    except ProgramError:
        return
    if any(d.severity == "error" for d in check(flow, CONTRACTS)):
        return
    secrets = joined((Policy.from_dict(POLICY),), CONTRACTS, flow.tools, {})
    given = frozenset(name for name in flow.frames[0].names.keys if secrets.input(name))
    secrecy = analyse(graph_of(flow, given, frozenset()), secrets)
    figures.programs += 1
    figures.statements += len(secrecy.findings)
    figures.holds += sum(finding.holds for finding in secrecy.findings)
    rights = {
        flow.loc for flow in secrecy.flows if not (flow.allowed or "accepted").startswith("ac")
    }
    figures.by_right += sum(f.holds and f.loc in rights for f in secrecy.findings)
    released = {
        place_of(document, flow.loc)
        for flow in secrecy.flows
        if (flow.allowed or "").startswith("released")
    }
    broken, judged = set(), set()
    plan = compile_flow(flow, CONTRACTS)
    for number in range(runs):
        random = Random(seed * 1000 + number)
        feed = SecretFeed(random, random.choice([0.0, 0.0, 0.1, 0.3]))
        inputs = {"boss": feed.secret("p"), "people": ["P", "Q"], "mail": feed.secret("c")}
        machine = machine_of(plan, inputs, run_id="r", seed=1)
        simulate(
            machine,
            feed,
            lambda m, op, random=random: random.sample(range(m.fork.size), m.fork.size),
        )  # type: ignore[misc]
        figures.runs += 1
        if machine.status is TraceStatus.SUCCESS:
            feed.given.append(("run", "output", machine.output))
        elif machine.error is not None and machine.error.kind == "assertion":
            feed.given.append(("run", "error", machine.error.message))
        seen = list(_arrived(feed, released))
        for finding in secrecy.findings:
            where = place_of(document, finding.loc)
            letters = forbidden(finding.statement)
            found = [value for place, letter, value in seen if place == where and letter in letters]
            told = f"seed {seed}, run {number}: {finding.statement}"
            if found and finding.holds and _alone(where, secrecy, document):
                figures.contradictions.append(
                    f"{told}: {found[0]!r}\n{json.dumps(document, ensure_ascii=False)}"
                )
            if found and not finding.holds:
                broken.add(finding.loc)
            if finding.breaks is not None and finding.breaks(machine):
                judged.add(finding.loc)
    figures.confirmed += len(broken)
    figures.judged += len(judged)


def _arrived(feed: SecretFeed, released: set[Place]) -> Iterator[tuple[Place, str, Any]]:
    """Each mark that somebody was given: the place, the letter of its label, the whole value."""
    for step_id, name, value in feed.given:
        for mark in marks(value):
            place = (step_id, name)
            if mark[1] == "c" and place in released and feed.approved(value):
                continue
            yield place, mark[1], value


def _alone(where: Place, secrecy: Secrecy, document: Any) -> bool:
    """Whether all statements about a place hold: a prompt and a system text arrive together, and of
    the output and the error one of several steps.
    """
    return all(
        finding.holds for finding in secrecy.findings if place_of(document, finding.loc) == where
    )
