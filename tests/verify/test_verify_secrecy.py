"""Secrecy: programs that carry a secret out, each refused or listed; what lets a label pass; rules
that contradict each other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from campaigns import cases
from mutated import mutated
from secrecy_campaign import campaign

from nano_vm import Policy, Program, tool
from nano_vm.diagnostics import format_loc
from nano_vm.errors import ProgramError
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
from nano_vm.verify import examine as examining
from nano_vm.verify.examine import examine
from nano_vm.verify.report import Proof, ProofStatus, Released
from nano_vm.verify.secrecy.proof import analyse
from nano_vm.verify.witness import MARK as SHOWN

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


@tool(effect="write")
def ping() -> Any: ...


TOOLS = {f.__name__: f for f in (record, catalog, upper, post, vault, ping)}
CONTRACTS = {name: contract(name, function) for name, function in TOOLS.items()}
POLICY: dict[str, Any] = {
    "inputs": {"iban": "secret", "n": "secret", "*": "public"},
    "tools": {
        "record": {"returns": "secret", "args": {"of": "any"}},
        "catalog": {"args": {"of": "public"}},
        "upper": {"args": {"text": "any"}},
        "post": {"args": {"*": "public"}},
        "vault": {"args": {"*": "secret"}},
        "ping": {"args": {"*": "public"}},
        "*": {"args": {"*": "any"}},
    },
    "models": {"*": {"accepts": "public"}, "local": {"accepts": "secret"}},
    "roles": {"officer": {"accepts": "secret"}},
    "events": {"told": {"returns": "secret"}},
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
            error = StepError("tool", "ToolError", f"cannot take {args}: {self.secret}")
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
            if not (second or op.schema.get("required")):
                return "{}"  # what may be left out is
            part = op.schema["properties"]["kind"]
            kind = part["const"] if "const" in part else part["enum"][second]
            return json.dumps({"kind": kind, "ok": second, "text": asked}, ensure_ascii=False)
        return asked

    def pause(self, machine: Machine) -> Op:
        request = machine.request
        if request["kind"] == "wait":
            self.public.append(["event", request["event"], request.get("match")])
            brought = {"name": self.secret} if request["event"] == "told" else {"paid": True}
            return machine.resume(Arrived(brought), machine.now)
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


CHANGED_ON_THE_WAY = 16
"""Hostile programs whose refutation shows no mark: what arrives is made of it, by an expression, a
tool, a model, a person, or as the text of an error.
"""


@pytest.mark.slow
def test_a_counterexample_shows_the_secret_arriving() -> None:
    shown, others = [], []
    for hostile in HOSTILE:
        document = {"steps": hostile["steps"]}
        if not hostile.get("last"):
            document["output"] = hostile.get("output", "done")
        for proof in verified(document).proofs:
            if proof.kind == "secrecy" and proof.run is not None:
                run = proof.run
                (shown if run.arrival else others).append(hostile["name"])
                ended = run.replay()
                assert ended.status is run.run.machine.status
                assert ended.output == run.run.machine.output
                if run.arrival:
                    assert SHOWN in run.arrival
                    assert SHOWN in run.text().removesuffix(run.arrival), "where it begins"
    assert len(others) <= CHANGED_ON_THE_WAY, others
    assert len(shown) >= 29


def test_only_values_of_the_label_are_marked_in_a_counterexample() -> None:
    steps = [tool_step("out", "post", text="$iban, $n and $ask")]
    inputs = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("iban", "n", "ask")},
        "required": ["iban", "n", "ask"],
    }
    report = verified({"steps": steps, "output": "done", "inputs": inputs}, NAMED)
    (proof,) = [proof for proof in report.proofs if proof.status == "refuted"]
    assert proof.run is not None
    assert proof.run.inputs == {"iban": SHOWN, "n": "text", "ask": "text"}
    assert proof.run.to_dict()["arrival"] == proof.run.arrival
    assert proof.run.arrival == (
        "argument 'text' of tool 'post' (step 'out') is given: "
        f"{{'text': '{SHOWN}, text and text'}}"
    )


# --- what lets a label pass -----------------------------------------------------------------------

NAMED: dict[str, Any] = {
    "secret": ["customer", "payroll"],
    "inputs": {"iban": ["customer"], "n": ["payroll"], "*": "public"},
    "tools": {
        "record": {"returns": ["customer", "payroll"], "args": {"of": "any"}},
        "catalog": {"args": {"of": "public"}},
        "upper": {
            "args": {"text": "any"},
            "declassifies": ["customer"],
            "reason": "names are cut",
        },
        "post": {"args": {"*": "public"}},
        "vault": {"args": {"*": ["customer"]}},
    },
    "models": {"*": {"accepts": "public"}, "tag:eu": {"accepts": ["customer"]}},
    "roles": {
        "officer": {"accepts": ["customer"], "releases": ["customer"]},
        "clerk": {"accepts": "any"},
    },
}


def tool_step(id: str, tool: str, **args: Any) -> dict[str, Any]:
    return {"id": id, "type": "tool", "tool": tool, "args": args}


def approval(role: str, show: Any) -> dict[str, Any]:
    return {"id": "may", "type": "approval", "role": role, "show": show, "otherwise": "$end"}


RIGHTS: dict[str, tuple[list[dict[str, Any]], dict[str, str]]] = {
    "a receiver accepts one label and not the other": (
        [tool_step("a", "vault", text="$iban"), tool_step("b", "vault", text="$n")],
        {"steps[1].args.text": "no payroll value reaches argument 'text' of tool 'vault'"},
    ),
    "a value with both labels goes where both are accepted": (
        [tool_step("a", "record", of="x"), tool_step("b", "vault", text="$a.output")],
        {"steps[1].args.text": "no payroll value"},
    ),
    "a declassifier takes its own label": (
        [tool_step("a", "upper", text="$iban"), tool_step("b", "post", text="$a.output")],
        {},
    ),
    "a declassifier leaves the other label": (
        [tool_step("a", "upper", text="$iban $n"), tool_step("b", "post", text="$a.output")],
        {"steps[1].args.text": "no customer or payroll value"},
    ),
    "an approval releases what it showed": (
        [approval("officer", {"text": "$iban"}), tool_step("b", "post", text="$iban")],
        {},
    ),
    "an approval releases nothing that it did not show": (
        [approval("officer", {"text": "see $iban"}), tool_step("b", "post", text="$iban")],
        {"steps[1].args.text": "no customer value"},
    ),
    "an approval releases nothing that was written since": (
        [
            {"id": "s", "type": "set", "values": {"x": "$iban"}},
            approval("officer", "$x"),
            {"id": "t", "type": "set", "values": {"x": "again $iban"}},
            tool_step("b", "post", text="$x"),
        ],
        {"steps[3].args.text": "no customer value"},
    ),
    "an approval by a role that releases nothing": (
        [approval("clerk", "$iban"), tool_step("b", "post", text="$iban")],
        {"steps[1].args.text": "no customer value"},
    ),
    "nobody releases a label that they do not": (
        [approval("officer", "$n"), tool_step("b", "post", text="$n")],
        {"steps[0].show": "no payroll value", "steps[1].args.text": "no payroll value"},
    ),
}


@pytest.mark.parametrize("name", RIGHTS)
def test_what_lets_a_label_pass(name: str) -> None:
    steps, expected = RIGHTS[name]
    report = verified({"steps": steps, "output": "done"}, NAMED)
    assert not [d for d in report.diagnostics if d.severity == "error"], report.diagnostics
    found = {
        format_loc(proof.loc): proof.statement
        for proof in report.proofs
        if proof.kind == "secrecy" and proof.status != "proved"
    }
    assert found.keys() == expected.keys()
    for place, statement in expected.items():
        assert found[place].startswith(statement)


def test_each_use_of_a_right_is_listed_with_it() -> None:
    steps = [
        tool_step("a", "upper", text="$iban"),
        tool_step("b", "post", text="$a.output"),
        approval("officer", "$iban"),
        tool_step("c", "post", text="$iban"),
    ]
    report = verified({"steps": steps, "output": "done"}, NAMED)
    assert report.ok, str(report)
    assert sorted(str(flow.allowed) for flow in report.flows if flow.label) == [
        "accepted: customer",
        "accepted: customer",
        "declassified by 'upper': names are cut",
        "released by officer at step may",
    ]


@pytest.mark.parametrize(("tags", "ok"), [((), False), (("eu",), True), (("us",), False)])
def test_a_model_accepts_what_a_rule_for_its_tags_says(tags: tuple[str, ...], ok: bool) -> None:
    document = {"steps": [{"id": "m", "type": "llm", "prompt": "$iban"}], "output": "done"}
    program = Program.from_dict({"name": "p", **document})
    policy = Policy.from_dict(NAMED)
    found = examine(Flow(program), CONTRACTS, policy=policy, tags={None: frozenset(tags)})
    assert found.report.ok is ok


def test_a_models_own_name_decides_before_its_tags() -> None:
    policy = Policy.from_dict({**NAMED, "models": {**NAMED["models"], "m": {"accepts": "public"}}})
    step = {"id": "m", "type": "llm", "model": "m", "prompt": "$iban"}
    program = Program.from_dict({"name": "p", "steps": [step], "output": "done"})
    found = examine(Flow(program), CONTRACTS, policy=policy, tags={"m": frozenset({"eu"})})
    assert next(p.status for p in found.report.proofs if p.kind == "secrecy") == "refuted"


def test_tools_say_of_themselves_what_they_return_and_accept() -> None:
    @tool(effect="read", returns_secret=True)
    def salary(of: str) -> int:
        return 1

    @tool(effect="write", accepts=())
    def shout(text: Any) -> None: ...

    @tool(effect="write", accepts=["secret"])
    def keep(text: Any) -> None: ...

    steps = [
        tool_step("a", "salary", of="x"),
        tool_step("b", "shout", text="$a.output"),
        tool_step("c", "keep", text="$a.output"),
    ]
    program = Program.from_dict({"name": "p", "steps": steps, "output": "done"})
    report = verify(program, tools={"salary": salary, "shout": shout, "keep": keep})
    assert refused(report) == {"steps[1].args.text": "refuted"}


# --- implicit flows -------------------------------------------------------------------------------

REFUSING = {**POLICY, "implicit": "refuse"}


def condition(then: Any, otherwise: Any = None, on: str = "$n == 3") -> dict[str, Any]:
    made = {"id": "gate", "type": "condition", "condition": on, "then": then}
    return made if otherwise is None else {**made, "otherwise": otherwise}


def map_of(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "each", "type": "map", "over": [1], "as": "row", "steps": [*steps], **fields}


def call_of(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    program = {"name": "inner", "steps": [*steps]}
    return {"id": "inner", "type": "call", "program": program, "with": {"n": "$n"}, **fields}


def parallel_of(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"id": "both", "type": "parallel", "parallel_steps": [*steps]}


def loop_of(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made = {"id": "again", "type": "loop", "steps": [*steps], "until": "1 == 1"}
    return {**made, "max_iterations": 3, **fields}


SURE = {"id": "sure", "type": "assert", "condition": "$n == 3"}
LEAVES = condition("$next", "$end")
SAYS = {"id": "s", "type": "set", "values": {"x": 1}}
TO_FAIL: dict[str, list[dict[str, Any]]] = {
    "an assertion": [SURE],
    "a jump": [{**condition("$next", "$fail"), "id": "jump"}, SAYS],
    "a step that fails": [
        {"id": "stop", "type": "fail", "error": "Stopped", "message": "no", "when": "$n == 3"}
    ],
    "no case": [{"id": "w", "type": "switch", "on": "$n", "cases": {"3": [SAYS]}}],
    "a loop that ends": [loop_of(SAYS, id="search", until="$n == 3")],
}
"""Steps by which a program decides to fail."""
AROUND: dict[str, Callable[..., dict[str, Any]]] = {
    "map": map_of,
    "call": call_of,
    "loop": loop_of,
    "parallel": lambda *steps: parallel_of(condition(list(steps), on="'$ask' == 'a'")),
    "call in a map": lambda *steps: map_of(call_of(*steps)),
    "map in a call": lambda *steps: call_of(map_of(*steps)),
    "call in a parallel": lambda *steps: parallel_of(call_of(*steps)),
    "map in a loop": lambda *steps: loop_of(map_of(*steps)),
}
"""What ends its run, where what is inside it fails."""
PUBLIC = {"id": "sure", "type": "assert", "condition": "'$ask' == 'a'"}
FAILS_BY_ITSELF: dict[str, tuple[list[dict[str, Any]], str]] = {
    "an assertion": ([PUBLIC], ""),
    "a jump": ([{**condition("$fail", on="'$ask' == 'a'"), "id": "jump"}], ""),
    "a step after which it fails": ([{**SAYS, "next": "$fail"}], ""),
    "a block after which it fails": (
        [{**condition([SAYS], on="'$ask' == 'a'"), "id": "jump", "next": "$fail"}],
        "",
    ),
    "a switch without a case": (
        [{"id": "w", "type": "switch", "on": "$ask", "cases": {"3": [SAYS]}}],
        "",
    ),
    "a loop that runs out": ([loop_of(SAYS, until="'$ask' == 'a'")], ""),
    "a person who does not approve": (
        [{"id": "may", "type": "approval", "role": "officer", "show": "$ask"}],
        "",
    ),
}
"""Steps that decide to fail by nothing secret, and spell no error."""
WITHIN = {
    "map": "steps[0].steps[0]",
    "call": "steps[0].program.steps[0]",
    "loop": "steps[0].steps[0]",
    "parallel": "steps[0].parallel_steps[0].then[0]",
    "call in a map": "steps[0].steps[0].program.steps[0]",
    "map in a call": "steps[0].program.steps[0].steps[0]",
    "call in a parallel": "steps[0].parallel_steps[0].program.steps[0]",
    "map in a loop": "steps[0].steps[0].steps[0]",
}
"""Where the first step inside it stands."""


INSIDE: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "a public receiver inside a block": (
        [condition([tool_step("out", "post", text="x")])],
        {"steps[0].then[0].args.text"},
    ),
    "a model that is asked what the program spells": (
        [condition([{"id": "m", "type": "llm", "prompt": "hello"}])],
        {"steps[0].then[0].prompt"},
    ),
    "a model that is sent what the program spells": (
        [condition([{"id": "m", "type": "llm", "messages": [{"role": "user", "content": "a"}]}])],
        {"steps[0].then[0].messages"},
    ),
    "an event that anybody sends": (
        [condition([{"id": "w", "type": "wait", "event": "paid"}])],
        {"steps[0].then[0].event"},
    ),
    "which error the caller gets": (
        [
            condition(
                [{"id": "one", "type": "fail", "error": "One", "message": "a"}],
                [{"id": "two", "type": "fail", "error": "Two", "message": "a"}],
            )
        ],
        {"steps[0].then[0].error", "steps[0].otherwise[0].error"},
    ),
    "an assertion of something else": (
        [condition([{"id": "t", "type": "assert", "condition": "$ask == 'x'", "message": "no"}])],
        {"steps[0].then[0].message"},
    ),
    **{
        f"{how} of its own accord in a branch": ([condition(steps)], {f"steps[0].then[0]{at}"})
        for how, (steps, at) in FAILS_BY_ITSELF.items()
    },
    "whether a loop runs out that a secret leaves": (
        [loop_of(condition("$end", "$next"), SAYS)],
        {"steps[0]"},
    ),
    "a loop after which the program goes on where it runs out": (
        [condition([loop_of(SAYS, until="'$ask' == 'a'", on_error="skip")])],
        set(),
    ),
    "an assertion that a handler takes": (
        [condition([{**PUBLIC, "catch": [{"errors": ["*"], "next": "$end"}]}])],
        set(),
    ),
    "one whose handler fails": (
        [condition([{**PUBLIC, "catch": [{"errors": ["*"], "next": "$fail"}]}])],
        {"steps[0].then[0]"},
    ),
    "one of which a handler takes some errors": (
        [condition([{**PUBLIC, "catch": [{"errors": ["timeout"], "next": "$end"}]}])],
        {"steps[0].then[0]"},
    ),
    "a jump to fail, which no handler takes": (
        [condition([{**condition("$fail", on="'$ask' == 'a'"), "id": "jump", "on_error": "skip"}])],
        {"steps[0].then[0]"},
    ),
    "one inside a call after which the program goes on": (
        [condition([call_of(PUBLIC, on_error="skip")])],
        set(),
    ),
    "one inside items that fail each for itself": (
        [condition([map_of(PUBLIC, on_item_error="continue")])],
        set(),
    ),
    "an assertion behind the block": ([condition([SAYS]), PUBLIC], set()),
    "a jump to fail that no secret decides": (
        [condition("$fail", on="'$ask' == 'a'")],
        set(),
    ),
    "one behind the block": (
        [condition([tool_step("in", "vault", text="x")]), tool_step("out", "post", text="x")],
        set(),
    ),
    "one behind a jump that ends": (
        [
            condition("$next", "$end"),
            tool_step("out", "post", text="x"),
        ],
        {"steps[1].args.text"},
    ),
    "one behind an assertion": (
        [{"id": "t", "type": "assert", "condition": "$n == 3"}, tool_step("out", "post", text="x")],
        {"steps[0]", "steps[1].args.text"},
    ),
    "a value that was written inside": (
        [
            {"id": "s", "type": "set", "values": {"x": 1}},
            condition([{"id": "t", "type": "set", "values": {"x": 2}}]),
            tool_step("out", "post", text="$x"),
        ],
        {"steps[2].args.text"},
    ),
    "whether a step that was inside has failed": (
        [
            condition([{**tool_step("c", "vault", text="a"), "on_error": "skip"}]),
            tool_step("out", "post", text={"expr": "default($c.error.message, 'none')"}),
        ],
        {"steps[1].args.text"},
    ),
    "the error of an output that reads what was written inside": (
        [
            condition(
                [
                    {
                        "id": "c",
                        "type": "call",
                        "program": {
                            "name": "inner",
                            "steps": [{"id": "s", "type": "set", "values": {"x": "one"}}],
                            "output": {"more": {"expr": "$x + 1"}},
                        },
                        "on_error": "skip",
                    }
                ]
            ),
            tool_step("out", "post", text={"expr": "default($c.error.message, 'none')"}),
        ],
        {"steps[1].args.text"},
    ),
    "what happens if a secret event is refused": (
        [
            {
                "id": "hear",
                "type": "wait",
                "event": "told",
                "output_schema": {"type": "integer"},
                "catch": [{"errors": ["*"], "next": "bad"}],
                "next": "$end",
            },
            tool_step("bad", "post", text="failed"),
        ],
        {"steps[1].args.text"},
    ),
    "the way that was taken": (
        [
            condition([{"id": "t", "type": "set", "values": {"y": 2}}]),
            tool_step("o", "post", text="$gate.output"),
        ],
        {"steps[1].args.text"},
    ),
    "a branch that no secret decides": (
        [condition([tool_step("out", "post", text="x")], on="'$ask' == 'a'")],
        set(),
    ),
    "items of a secret list": (
        [
            tool_step("look", "record", of="a"),
            {
                "id": "each",
                "type": "map",
                "over": "$look.output.rows",
                "steps": [tool_step("out", "post", text="x")],
            },
        ],
        {"steps[1].steps[0].args.text"},
    ),
    "a call without arguments": (
        [condition([tool_step("out", "ping")])],
        {"steps[0].then[0].args"},
    ),
    "a word that a model chose": (
        [
            {
                "id": "m",
                "type": "llm",
                "model": "local",
                "prompt": "$iban",
                "allowed_outputs": ["a", "b"],
            },
            condition([tool_step("out", "post", text="x")], on="$m.output == 'a'"),
        ],
        {"steps[1].then[0].args.text"},
    ),
    "inside a fork in a branch": (
        [
            condition(
                [
                    {
                        "id": "p",
                        "type": "parallel",
                        "parallel_steps": [tool_step("out", "post", text="x")],
                    }
                ]
            )
        ],
        {"steps[0].then[0].parallel_steps[0].args.text"},
    ),
    "what happens if a call inside a branch fails": (
        [
            {
                "id": "both",
                "type": "parallel",
                "parallel_steps": [tool_step("keep", "vault", text="$iban")],
                "catch": [{"errors": ["*"], "next": "bad"}],
                "next": "$end",
            },
            tool_step("bad", "ping"),
        ],
        {"steps[1].args"},
    ),
    "what happens if a call inside a loop fails": (
        [
            {
                "id": "again",
                "type": "loop",
                "max_iterations": 3,
                "until": "1 == 1",
                "steps": [tool_step("keep", "vault", text="$iban")],
                "catch": [{"errors": ["*"], "next": "bad"}],
                "next": "$end",
            },
            tool_step("bad", "ping"),
        ],
        {"steps[1].args"},
    ),
    "what a program does before it fails": (
        [
            {
                "id": "inner",
                "type": "call",
                "program": {
                    "name": "inner",
                    "steps": [tool_step("keep", "vault", text="$x"), tool_step("out", "ping")],
                },
                "with": {"x": "$iban"},
                "catch": [{"errors": ["*"], "next": "$end"}],
            }
        ],
        {"steps[0].program.steps[1].args"},
    ),
    "which of the items failed": (
        [
            {
                "id": "each",
                "type": "map",
                "over": [1],
                "as": "row",
                "on_item_error": "continue",
                "steps": [
                    {
                        "id": "inner",
                        "type": "call",
                        "program": {
                            "name": "inner",
                            "steps": [tool_step("keep", "vault", text="$x")],
                            "output": {"kept": True},
                        },
                        "with": {"x": "$iban"},
                    }
                ],
            },
            tool_step("out", "post", text="$each.output"),
        ],
        {"steps[1].args.text"},
    ),
    "which of the items a program failed by itself": (
        [
            {
                "id": "each",
                "type": "map",
                "over": [1],
                "as": "row",
                "on_item_error": "continue",
                "steps": [
                    {"id": "gate", "type": "assert", "condition": "$n == 3"},
                    {"id": "ok", "type": "set", "values": {"a": 1}},
                ],
            },
            tool_step("out", "post", text="$each.output"),
        ],
        {"steps[1].args.text"},
    ),
    "what happens if a call with a secret fails": (
        [
            {
                **tool_step("keep", "vault", text="$iban"),
                "catch": [{"errors": ["*"], "next": "bad"}],
                "next": "$end",
            },
            tool_step("bad", "post", text="failed"),
        ],
        {"steps[1].args.text"},
    ),
    "a public decision to fail inside a map": (
        [
            map_of({"id": "sure", "type": "assert", "condition": "'$ask' == 'a'"}),
            tool_step("out", "post", text="x"),
        ],
        set(),
    ),
    "items that fail each for itself": (
        [map_of(SURE, on_item_error="continue"), tool_step("out", "post", text="x")],
        set(),
    ),
    "a call that fails inside a map by what a tool says": (
        [map_of(tool_step("keep", "vault", text="$iban")), tool_step("out", "post", text="x")],
        set(),
    ),
    "a branch in which a public decision fails a map": (
        [
            condition(
                [map_of({"id": "sure", "type": "assert", "condition": "'$ask' == 'a'"})],
                on="$n == 3",
            ),
            tool_step("out", "post", text="x"),
        ],
        {"steps[0].then[0].steps[0]", "steps[1].args.text"},
    ),
    "a receiver beside the branch that fails": (
        [parallel_of(SURE, tool_step("out", "post", text="x"))],
        {"steps[0].parallel_steps[0]", "steps[0].parallel_steps[1].args.text"},
    ),
    **{
        f"{how} inside a {where}": (
            [around(*steps), tool_step("out", "post", text="x")],
            {
                "steps[1].args.text",
                # the caller gets its name, or that it failed
                WITHIN[where] + (".error" if how == "a step that fails" else ""),
                # so too where a loop around it runs out instead
                *(["steps[0]"] if where in ("loop", "map in a loop") else []),
            },
        )
        for how, steps in TO_FAIL.items()
        for where, around in AROUND.items()
    },
}


@pytest.mark.parametrize("name", INSIDE)
def test_implicit_flows_are_refused_on_request(name: str) -> None:
    steps, places = INSIDE[name]
    document = {"steps": steps, "output": "done"}
    assert refused(verified(document)) == {}
    assert set(refused(verified(document, REFUSING))) == places


def test_an_answer_that_no_path_asks_for_gives_nothing_away() -> None:
    schema = {"type": "object", "properties": {"kind": {"enum": ["a", "b"]}}, "required": ["kind"]}
    asked = {"type": "llm", "model": "local", "prompt": "$iban", "output_schema": schema}
    steps = [
        {**asked, "id": "say", "output_key": "k", "next": "out"},
        {**asked, "id": "lost", "output_key": "k"},
        tool_step("out", "post", text="$k.kind"),
    ]
    (released,) = verified({"steps": steps, "output": "done"}).released
    assert released.answers == 2, "each writer may have either schema"


# --- one program under two policies ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "place", "status"),
    [
        ([tool_step("out", "post", text="$iban")], "steps[1].args.text", "refuted"),
        ([LEAVES, tool_step("out", "post", text="x")], "steps[2].args.text", "unproved"),
    ],
)
def test_of_two_policies_the_worse_holds(
    steps: list[dict[str, Any]], place: str, status: str
) -> None:
    """A host to whom another input is secret, and a project; and the other way round."""
    document = {"steps": [tool_step("keep", "vault", text="$ask"), *steps], "output": "done"}
    other = {**REFUSING, "inputs": {"ask": "secret", "*": "public"}}
    host, project = verified(document, other), verified(document, REFUSING)
    assert (refused(project), refused(host)) == ({place: status}, {})
    assert host.released == ()
    for report in (host.beside(project), project.beside(host)):
        assert refused(report) == {place: status}
        assert len(report.proofs) == len(project.proofs), "each statement stands once"
        assert report.released == project.released
        assert [fault.code for fault in report.faults] == ["V052"]


@pytest.mark.parametrize("statuses", [("proved", "unproved"), ("unproved", "refuted")])
def test_what_is_not_proved_is_worse_than_proved_and_refuted_the_worst(
    statuses: tuple[ProofStatus, ProofStatus],
) -> None:
    better, worse = (
        Report("p", "d", proofs=(Proof("guard", "pay", "asked first", status), OTHER))
        for status in statuses
    )
    for report in (better.beside(worse), worse.beside(better)):
        assert report.proofs == worse.proofs


OTHER = Proof("guard", "post", "asked first", "proved")


def test_a_statement_of_two_places_is_known_of_each() -> None:
    one, other = (
        Proof("secrecy", "post", "no secret reaches it", status, ("steps", place))
        for place, status in ((0, "proved"), (1, "unproved"))
    )
    both = Report("p", "d", proofs=(one, other))
    assert both.beside(both).proofs == (one, other)


def test_of_two_policies_the_larger_bounds_hold() -> None:
    one = Report("p", "d", released=(Released("a", 1, 5), Released("b", 2, 2)))
    other = Report("p", "d", released=(Released("a", 3, 4), Released("c", 1, 0)))
    assert one.beside(other).released == (
        Released("a", 3, 5),
        Released("b", 2, 2),
        Released("c", 1, 0),
    )


# --- what is wrong with a policy ------------------------------------------------------------------

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown label": (
        {"secret": ["customer"], "inputs": {"iban": ["custmer"]}},
        "inputs.iban: P047: 'custmer' is no label of this policy; did you mean 'customer'?",
    ),
    "too many labels": (
        {"secret": [f"l{i}" for i in range(17)]},
        "secret: P047: 17 labels are declared, and at most 16 are possible; join those that go the "
        "same ways",
    ),
    "a label with the name of a word": (
        {"secret": ["public"]},
        "secret: P047: 'secret' is a list of names of labels, not ['public']; write secret: "
        "[customer, payroll]; public, secret, any, trusted, untrusted, args are taken",
    ),
    "a label with the name of a word of trust": (
        {"secret": ["trusted"], "inputs": {"iban": "trusted"}},
        "secret: P047: 'secret' is a list of names of labels, not ['trusted']; write secret: "
        "[customer, payroll]; public, secret, any, trusted, untrusted, args are taken",
    ),
    "a label with the name of what a tool returns": (
        {"secret": "args", "tools": {"upper": {"returns": "args"}}},
        "secret: P047: 'secret' is a list of names of labels, not 'args'; write secret: "
        "[customer, payroll]; public, secret, any, trusted, untrusted, args are taken",
    ),
    "a declassifier without a reason": (
        {"tools": {"upper": {"declassifies": "secret"}}},
        "tools.upper.declassifies: P048: 'upper' declassifies, and no reason is given; write why "
        "what it returns is no secret: reason: names and numbers are cut",
    ),
    "a reason without a declassifier": (
        {"tools": {"upper": {"reason": "names are cut"}}},
        "tools.upper.reason: P043: 'upper' has a reason, and declassifies nothing; add "
        "declassifies: [...]",
    ),
    "an input that accepts": (
        {"inputs": {"iban": {"accepts": "secret"}}},
        "inputs.iban.accepts: P041: the rule of an input has no field 'accepts'; fields are trust, "
        "secrecy; keys that begin with x- are free",
    ),
    "a receiver that is none": (
        {"accepts": {"ouput": "secret"}},
        "accepts.ouput: P041: 'accepts' has no field 'ouput'; did you mean 'output'?",
    ),
    "a number for labels": (
        {"models": {"*": {"accepts": 3}}},
        "models.*.accepts: P040: 'accepts' says labels, not 3; write public, secret, any, or a list "
        "of labels such as [customer]",
    ),
    "an unknown way with branches": (
        {"implicit": "forbid"},
        "implicit: P040: 'implicit' is one of list, refuse, not 'forbid'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_policy_is_one_diagnostic(name: str) -> None:
    data, text = FAULTS[name]
    with pytest.raises(ProgramError) as caught:
        Policy.from_dict(data)
    assert [str(d) for d in caught.value.diagnostics] == [text]


LOOSER: dict[str, tuple[dict[str, Any], str]] = {
    "an input that is none": ({"inputs": {"iban": "public"}}, "policy.inputs.iban"),
    "an argument": ({"tools": {"post": {"args": {"text": "any"}}}}, "policy.tools.post.args.text"),
    "a model": ({"models": {"gpt": {"accepts": "secret"}}}, "policy.models.gpt.accepts"),
    "a role": ({"roles": {"intern": {"accepts": "any"}}}, "policy.roles.intern.accepts"),
    "a role that releases": (
        {"roles": {"officer": {"releases": "secret"}}},
        "policy.roles.officer.releases",
    ),
    "an event": ({"events": {"*": {"accepts": "any"}}}, "policy.events.*.accepts"),
    "a receiver": ({"accepts": {"output": "any"}}, "policy.accepts.output"),
    "a declassifier": (
        {"tools": {"upper": {"declassifies": "secret", "reason": "why not"}}},
        "policy.tools.upper.declassifies",
    ),
}


@pytest.mark.parametrize("name", LOOSER)
def test_a_program_cannot_widen_what_its_host_says(name: str) -> None:
    own, place = LOOSER[name]
    document = {"steps": [tool_step("a", "vault", text="$iban")], "output": "done", "policy": own}
    report = verified(document)
    errors = [d for d in report.diagnostics if d.severity == "error"]
    assert [(d.code, format_loc(d.loc)) for d in errors] == [("V057", place)]


NARROWED: dict[str, Any] = {
    "policy": {"inputs": {"ask": "secret"}, "tools": {"vault": {"args": {"text": "public"}}}},
    "steps": [tool_step("a", "post", text="$ask"), tool_step("b", "vault", text="$iban")],
    "output": "done",
}


def test_a_program_can_narrow_what_its_host_says() -> None:
    report = verified(NARROWED)
    assert set(refused(report)) == {"steps[0].args.text", "steps[1].args.text"}


def test_each_input_is_covered_where_any_is_labelled() -> None:
    policy = {**POLICY, "inputs": {"ibn": "secret"}}
    report = verified({"steps": [tool_step("a", "vault", text="$iban")], "output": "done"}, policy)
    (fault,) = [d for d in report.diagnostics if d.severity == "error"]
    assert fault.code == "V059"
    assert str(fault).endswith(
        "the policy does not say whether input 'iban' is secret; it names 'ibn', which the program "
        "does not read; did you mean 'iban'? name it under the policy's 'inputs' as secret or "
        "public, or write '*' for all others"
    )


KEEPING: dict[str, Any] = {"steps": [tool_step("a", "vault", text="$iban")], "output": "done"}


def faults_of(document: Mapping[str, Any], policy: Mapping[str, Any]) -> list[str]:
    found = verified(document, policy).diagnostics
    return [f"{format_loc(d.loc)}: {d.code}" for d in found if d.severity == "error"]


def test_a_misspelled_input_that_would_be_public_is_found() -> None:
    misspelled = {"ibn": "secret", "*": "public"}
    assert faults_of(KEEPING, {**POLICY, "inputs": misspelled}) == ["policy.inputs.ibn: V056"]
    own = {**KEEPING, "policy": {"inputs": {"ibn": "secret"}}}
    assert faults_of(own, POLICY) == ["policy.inputs.ibn: V056"]
    assert not faults_of(KEEPING, {**POLICY, "inputs": {"ibn": "secret", "*": "secret"}})
    assert not faults_of(KEEPING, {**POLICY, "inputs": {**misspelled, "iban": "public"}})


def test_inputs_of_value_checks_and_those_that_steps_write_are_covered_too() -> None:
    checked = {**POLICY["tools"], "vault": {"args": {"text": {"check": "$value in $known"}}}}
    policy = {**POLICY, "inputs": {"iban": "public", "known": "trusted"}, "tools": checked}
    assert "policy.tools.vault.args.text: V059" in faults_of(KEEPING, policy)
    flow = Flow(
        Program.from_dict(
            {"name": "p", "steps": [{"id": "a", "type": "set", "values": {"iban": "x"}}]}
        )
    )
    host = Policy.from_dict({"inputs": {"n": "secret"}})
    left = examine(flow, CONTRACTS, policy=host).not_covered(["iban"])
    assert [str(d) for d in left] == [
        "context.iban: V059: the policy does not say whether input 'iban' is secret; name it under "
        "the policy's 'inputs' as secret or public, or do not give it: a step writes it"
    ]


def test_a_program_says_alone_what_is_accepted_only_of_its_own_labels() -> None:
    ask = {"id": "say", "type": "llm", "model": "local", "prompt": "$iban"}
    own: dict[str, Any] = {
        "models": {"tag:eu": {"accepts": "any"}},
        "accepts": {"output": "any"},
        "tools": {"*": {"args": {"*": "any"}}},
    }
    program = Program.from_dict({"name": "p", "steps": [ask], "policy": own})

    def found(host: Mapping[str, Any] | None, document: Program = program) -> list[str]:
        policy = None if host is None else Policy.from_dict(host)
        tags = {"local": frozenset(["eu"])}
        report = examine(Flow(document), CONTRACTS, policy=policy, tags=tags).report
        return [d.code for d in report.diagnostics if d.severity == "error"]

    labels = {"inputs": {"iban": "secret"}}
    assert sorted(set(found(labels))) == ["V057", "V067"]
    assert found({**labels, "models": {"local": {"accepts": "any"}}, **own}) == []
    assert found(None, Program.from_dict({**program.to_dict(), "policy": {**own, **labels}})) == []


def test_labels_that_a_tool_returns_are_the_hosts() -> None:
    @tool(returns_secret=True)
    def salary(of: str) -> str: ...

    own = {"accepts": {"output": "any"}}
    steps = [tool_step("pay", "salary", of="anna")]
    program = Program.from_dict({"name": "p", "steps": steps, "policy": own})
    report = verify(program, tools={"salary": salary})
    assert refused(report) == {"steps[0]": "refuted"}
    assert [d.code for d in report.diagnostics if d.severity == "error"] == ["V057"]


def test_only_tools_that_are_called_are_asked_which_labels_they_know() -> None:
    @tool(returns_secret=["staff"], accepts=["staff"])
    def salary(of: str) -> str: ...

    policy = {"secret": ["customer"], "inputs": {"iban": ["customer"]}, "tools": {"*": {}}}
    steps = [tool_step("keep", "vault", text="$iban")]
    for more, codes in (
        ([], []),
        ([tool_step("pay", "salary", of="anna")], ["V065", "V065"]),
    ):
        program = Program.from_dict({"name": "p", "steps": [*steps, *more], "output": "done"})
        report = verify(program, tools={**TOOLS, "salary": salary}, policy=policy)
        errors = [d.code for d in report.diagnostics if d.severity == "error"]
        assert errors == codes


# --- campaign and mutants -------------------------------------------------------------------------


@pytest.mark.slow
def test_no_run_gives_what_is_proved_not_to_be_given() -> None:
    figures = campaign(analyse, range(200), 8)
    print(figures)
    assert not figures.contradictions, figures.contradictions[0]
    assert figures.runs > 600
    assert 0.2 < figures.holds / figures.statements < 0.8, figures
    assert figures.confirmed > 60
    assert figures.judged > 60
    assert figures.by_right > 20


@pytest.mark.campaign
def test_no_run_of_many_gives_what_is_proved_not_to_be_given() -> None:
    programs = cases(5_000)
    figures = campaign(analyse, range(10_000, 10_000 + programs), 20)
    print(figures)
    assert not figures.contradictions, figures.contradictions[0]
    assert figures.runs > 8 * programs


PARTS = [
    *(f"nano_vm.verify.trust.{part}" for part in ("labels", "graph", "approvals", "of_run")),
    *(
        f"nano_vm.verify.secrecy.{part}"
        for part in ("labels", "receivers", "sources", "bits", "implicit", "of_run", "proof")
    ),
]
MUTANTS: dict[str, tuple[str, str]] = {
    "inputs are public": (
        'if frame.kind == "run":\n            for name, slot',
        "if False:\n            for name, slot",
    ),
    "what a tool returns is public": (
        'self.seed(mask, out, f"result of tool',
        '(mask, out, f"result of tool',
    ),
    "a tool forgets its arguments": (
        "graph.reads(names, value, out, node.index, into=self.own)\n                continue",
        "continue",
    ),
    "a declassifier takes every label": (
        "labels = self.secrets.all if harmless else taken",
        "labels = self.secrets.all",
    ),
    "a reconcile says nothing": (
        'if call.use == "reconcile":  # may say what',
        "if False:  # may say what",
    ),
    "an event carries nothing": (
        "self.secrets.carries(event),\n                    out",
        "0,\n                    out",
    ),
    "a person forgets what was shown": (
        'case External("person" | "time"):\n                self._all_read(node, out)',
        'case External("person" | "time"):\n                pass',
    ),
    "errors quote nothing": (
        "self.own.strong[vertex].append((target, node.index))",
        "pass",
    ),
    "errors quote no tool": (
        "self.seed(mask, target, source, node.index)",
        "pass",
    ),
    "errors quote no event": (
        "self.seed(brought(self.secrets, node), target, source, node.index)",
        "pass",
    ),
    "errors quote nothing from inside": (
        "yield at\n        at = at.owner if at.owner is not None else at.frame.owner",
        "yield at\n        at = None",
    ),
    "what fails inside a fork ends nothing": (
        "if frame.fail in seen and frame.owner is not None:",
        "if False:",
    ),
    "a fork never decides to fail": (
        "return any(frame.index in failing for frame in node.frames)",
        "return False",
    ),
    "nobody is asked of an undo": (
        "for call in node.calls:\n            tool = call.tool",
        "for call in node.calls[:1]:\n            tool = call.tool",
    ),
    "models are not receivers": (
        "yield from self._asked(node, node.step)",
        "pass",
    ),
    "people are not receivers": (
        "yield self._shown(node, node.approval.role",
        "self._shown(node, node.approval.role",
    ),
    "events are not receivers": (
        'for field, refs in self._fields(node, ("event", "match")):',
        "for field, refs in ():",
    ),
    "only an error that is spelt is one": (
        "if node.frame.index in self._ending and not handled:",
        "if False:",
    ),
    "a way to fail is no error": (
        "not (decides or leads)",
        "not decides",
    ),
    "what decides to fail tells nothing itself": (
        'if receiver.name == "errors" else ()',
        "if False else ()",
    ),
    "every failure ends the run": (
        "return every and all(edge",
        "return False and all(edge",
    ),
    "a handler that fails ends nothing": (
        "edge.target != node.frame.fail for",
        "True for",
    ),
    "what the program spells tells nothing": (
        "first = spelt[:1] if self.secrets.refuses_implicit else ()",
        "first: list[str] = []",
    ),
    "the output is no receiver": (
        "yield from self.output()",
        "pass",
    ),
    "skipped steps hide the one before": (
        ', "catch") for edge in node.edges)',
        ', "catch") for edge in ())',
    ),
    "one accepting policy is enough": (
        "mask &= one\n",
        "mask |= one\n",
    ),
    "the last rule counts": (
        "best = max(rank for",
        "best = min(rank for",
    ),
    "one label is enough": (
        "forbidden = [bit for bit in self.reaches if not bit & receiver.accepts]",
        "forbidden = []",
    ),
    "whoever approves releases": (
        "if released & bit and not bit & receiver.accepts:",
        "if not bit & receiver.accepts:",
    ),
    "a harmless choice stays one": (
        "if reached.level != STRONG:\n            return reached.right",
        "if True:\n            return reached.right",
    ),
    "a region ends at once": (
        "queue = sorted(seen)",
        "queue: list[int] = []",
    ),
    "the region has no forks": (
        'if inner.kind == "step":\n                yield from self._inside(inner)',
        "if False:\n                yield from self._inside(inner)",
    ),
    "what is written inside is public": (
        "strong[vertex] += [(target, node.index) for target in written]",
        "pass",
    ),
    "an assertion decides nothing": (
        "return len(ways) < 2",
        "return False",
    ),
    "what is inside a fork does not fail it": (
        "at = at.frame.owner\n            if at is not None and isinstance(at.control, Forks)",
        "at = None\n            if at is not None and isinstance(at.control, Forks)",
    ),
    "a loop catches nothing": (
        "for index in dict.fromkeys(by):",
        "for index in {*by} & {at.index}:",
    ),
    "items fail alone": (
        "and at.control.goes_on:\n                yield at",
        "and False:\n                yield at",
    ),
    "a loop counts once": (
        "found *= bound\n",
        "pass\n",
    ),
}


def wrong(name: str) -> tuple[Any, Any]:
    """The pass with one thing wrong, and what it says that policies say."""
    made = mutated(PARTS, *MUTANTS[name])
    return made["nano_vm.verify.secrecy.proof"].analyse, made[
        "nano_vm.verify.secrecy.labels"
    ].Secrets


def killed_by(mutant: Any, secrets: Any, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What finds the mutant: a row of the tables, or a run of the campaign."""
    monkeypatch.setattr(examining, "secrecy_of", mutant)
    monkeypatch.setattr(examining, "Secrets", secrets)
    if set(refused(verified(NARROWED))) != {"steps[0].args.text", "steps[1].args.text"}:
        return "narrowed"
    for hostile in HOSTILE:
        document = {"steps": hostile["steps"]}
        document |= {} if hostile.get("last") else {"output": hostile.get("output", "done")}
        report = verified(document)
        if sorted(refused(report)) != sorted(hostile.get("refused", [])):
            return str(hostile["name"])
        if len(branches(report)) != len(hostile.get("listed", {})):
            return str(hostile["name"])
        chosen = [-(-one.answers * 10 // 1) / 10 for one in report.released if one.answers]
        if chosen != ([hostile["chosen"]] if "chosen" in hostile else []):
            return str(hostile["name"])
    for name, (steps, expected) in RIGHTS.items():
        report = verified({"steps": steps, "output": "done"}, NAMED)
        if set(refused(report)) != set(expected):
            return name
    for name, (steps, places) in INSIDE.items():
        if set(refused(verified({"steps": steps, "output": "done"}, REFUSING))) != places:
            return name
    figures = campaign(mutant, range(150), 5, secrets=secrets, stop=True)
    return figures.contradictions[0] if figures.contradictions else None


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert killed_by(*wrong(name), monkeypatch) is not None


@pytest.mark.slow
def test_the_campaign_finds_what_is_wrong() -> None:
    """Without the tables: runs alone find most that makes the pass accept too much."""
    for name in (
        "inputs are public",
        "what a tool returns is public",
        "a tool forgets its arguments",
        "an event carries nothing",
        "errors quote nothing",
        "a declassifier takes every label",
    ):
        mutant, secrets = wrong(name)
        found = campaign(mutant, range(400), 5, secrets=secrets, stop=True)
        assert found.contradictions, name
