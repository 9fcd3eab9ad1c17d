"""Secrecy: programs that carry a secret out, each refused or listed; what lets a label pass; rules
that contradict each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nano_vm import Program, tool
from nano_vm.diagnostics import format_loc
from nano_vm.language.flow import Flow
from nano_vm.language.reader import read_text
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Arrived, Decided, Failed, Value
from nano_vm.machine.plan import MODEL, PAUSE, Op
from nano_vm.machine.simulate import simulate
from nano_vm.records.record import StepError
from nano_vm.tools.contract import contract
from nano_vm.verify import Report, verify

FILE = Path(__file__).parent.parent / "corpus_secrecy/exfiltration.yaml"
HOSTILE = read_text(FILE.read_text(encoding="utf-8"), file=str(FILE), format="yaml")
MARK = "«secret»"


@tool(effect="read")
def record(of: Any) -> Any: ...


@tool(effect="read")
def catalog(of: Any) -> Any: ...


@tool(effect="read")
def upper(text: Any) -> Any: ...


@tool(effect="write")
def post(text: Any) -> Any: ...


@tool(effect="write")
def vault(text: Any) -> Any: ...


TOOLS = {f.__name__: f for f in (record, catalog, upper, post, vault)}
CONTRACTS = {name: contract(name, function) for name, function in TOOLS.items()}
POLICY: dict[str, Any] = {
    "inputs": {"iban": "secret", "n": "secret", "*": "public"},
    "tools": {
        "record": {"returns": "secret", "args": {"of": "any"}},
        "catalog": {"args": {"of": "public"}},
        "upper": {"args": {"text": "any"}},
        "post": {"args": {"*": "public"}},
        "vault": {"args": {"*": "secret"}},
    },
    "models": {"*": {"accepts": "public"}, "local": {"accepts": "secret"}},
    "roles": {"officer": {"accepts": "secret"}},
}


def verified(document: Mapping[str, Any], policy: Mapping[str, Any] = POLICY) -> Report:
    known = Program.from_dict({"name": "p", **document})
    return verify(known, tools=TOOLS, policy=dict(policy))


def refused(report: Report) -> dict[str, str]:
    """By place, how it is refused."""
    return {
        format_loc(proof.loc): proof.status
        for proof in report.proofs
        if proof.kind == "secrecy" and proof.status != "proved"
    }


def branches(report: Report) -> dict[str, str]:
    return {
        format_loc(flow.loc): flow.allowed or ""
        for flow in report.flows
        if flow.kind == "branch" and flow.label
    }


class Outside:
    """Gives outcomes that are the same for the same requests, and keeps what goes to the public."""

    def __init__(self, secret: str, number: int, failing: str | None) -> None:
        self.secret, self.number, self.failing = secret, number, failing
        self.public: list[Any] = []

    def __call__(self, machine: Machine, op: Op) -> Op:
        if op.code == MODEL:
            return machine.resume(Answer(self.answer(machine, op)), machine.now)
        if op.code == PAUSE:
            return self.pause(machine)
        args = dict(machine.keywords)
        name: str = op.tool  # type: ignore[attr-defined]
        if name in ("post", "catalog"):
            self.public.append([name, args])
        if name == self.failing and self.secret == MARK:
            error = StepError("tool", "ToolError", f"cannot take {args['text']}")
            return machine.resume(Failed(error), machine.now)
        rows = [self.secret] * self.number
        found = {
            "record": {"name": self.secret, "rows": rows, self.secret: 1},
            "catalog": {MARK: "found"},
            "upper": str(args.get("text")).upper(),
        }
        return machine.resume(Value(found.get(name, "done")), machine.now)

    def answer(self, machine: Machine, op: Any) -> str:
        asked = json.dumps(machine.messages, ensure_ascii=False)
        if op.model != "local":
            self.public.append(["model", asked])
        second = MARK in asked
        if op.allowed is not None:
            return str(op.allowed[second]) if op.has_on_invalid else asked
        if op.schema is not None:
            kind = op.schema["properties"]["kind"]["enum"][second]
            return json.dumps({"kind": kind, "ok": second, "text": asked}, ensure_ascii=False)
        return asked

    def pause(self, machine: Machine) -> Op:
        request = machine.request
        if request["kind"] == "wait":
            self.public.append(["event", request["event"], request.get("match")])
            return machine.resume(Arrived({"paid": True}), machine.now)
        if request["role"] != "officer":
            self.public.append(["shown", request["show"]])
        said = f"I saw {json.dumps(request['show'], ensure_ascii=False)}"
        return machine.resume(Decided(True, said, "p"), machine.now)


def public(document: Mapping[str, Any], secret: str, number: int, failing: str | None) -> str:
    """All that the public sees of one run."""
    flow = Flow(Program.from_dict({"name": "p", **document}))
    machine = machine_of(
        compile_flow(flow, CONTRACTS),
        {"iban": secret, "n": number, "ask": "what"},
        run_id="r",
        seed=1,
    )
    outside = Outside(secret, number, failing)
    simulate(machine, outside)
    error = machine.error
    told = [outside.public, machine.output, error and [error.type, error.message]]
    return json.dumps(told, ensure_ascii=False, default=str)


@pytest.mark.parametrize("hostile", HOSTILE, ids=[one["name"] for one in HOSTILE])
def test_a_program_that_carries_a_secret_out(hostile: dict[str, Any]) -> None:
    document = {"steps": hostile["steps"]}
    if not hostile.get("last"):
        document["output"] = hostile.get("output", "done")
    report = verified(document)
    assert not [d for d in report.diagnostics if d.severity == "error"], report.diagnostics
    assert sorted(refused(report)) == sorted(hostile.get("refused", []))
    if not hostile.get("unseen"):
        assert set(refused(report).values()) <= {"refuted"}
    listed = {
        place: f"only a branch, at most {bits} bit{'s' * (bits != 1)} a run"
        for place, bits in hostile.get("listed", {}).items()
    }
    assert branches(report) == listed
    chosen = [one.answers for one in report.released]
    assert [-(-bits * 10 // 1) / 10 for bits in chosen if bits] == (
        [hostile["chosen"]] if "chosen" in hostile else []
    )
    if not hostile.get("unseen"):  # it is hostile in truth: strangers see which secret it was
        failing = hostile.get("failing")
        one, other = (
            public(document, secret, number, failing) for secret, number in ((MARK, 3), ("DE1", 2))
        )
        assert one != other
