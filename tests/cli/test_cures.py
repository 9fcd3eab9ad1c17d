"""What `check` says to change where a rule is not proved: done, it is proved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nano_vm import Policy, Program
from nano_vm.cli import main
from nano_vm.cli.cures import cures
from nano_vm.language.flow import Flow
from nano_vm.verify.examine import verify

INVOICE = {
    "id": "invoice",
    "type": "llm",
    "prompt": "$mail",
    "output_schema": {
        "type": "object",
        "properties": {"to": {"type": "string"}, "amount": {"type": "number"}},
        "required": ["to", "amount"],
    },
}
SEND = {
    "id": "send",
    "type": "tool",
    "tool": "send",
    "args": {"to": "$invoice.to", "amount": "$invoice.amount", "note": "paid"},
}


def ask(**fields: Any) -> dict[str, Any]:
    step = {"id": "ask", "type": "approval", "role": "boss", "then": "send", "otherwise": "$end"}
    return {**step, "show": {"amount": "$invoice.amount"}, **fields}


def mended(document: dict[str, Any], cure: str) -> dict[str, Any]:
    """The program with what the cure says to add."""
    steps = list(document["steps"])
    if cure.startswith("add to 'show' of step 'ask': "):
        added = yaml.safe_load("{" + cure.partition("': ")[2] + "}")
        at = next(number for number, step in enumerate(steps) if step["id"] == "ask")
        steps[at] = {**steps[at], "show": {**steps[at]["show"], **added}}
    else:
        assert cure.startswith("ask before step 'send': ")
        at = next(number for number, step in enumerate(steps) if step["id"] == "send")
        steps.insert(at, yaml.safe_load(cure.partition(": ")[2]))
    return {**document, "steps": steps}


UNTRUSTED = {"inputs": {"mail": "untrusted"}}


@pytest.mark.parametrize(
    ("steps", "rule", "begins"),
    [
        ([INVOICE, ask(), SEND], {"approval": "boss"}, "add to 'show' of step 'ask': to: $inv"),
        ([INVOICE, SEND], {"approval": "boss"}, "ask before step 'send': {id: ask, type: appr"),
        (
            [INVOICE, ask(), SEND],
            {"args": {"to": {"approval": "boss"}}},
            "add to 'show' of step 'ask': to: $invoice.to",
        ),
        (
            [INVOICE, SEND],
            {"args": {"to": {"approval": "boss"}}},
            "ask before step 'send': {id: ask, type: approval, role: boss, show: {to: $invoice",
        ),
        (
            [INVOICE, ask(show={"to": "an account: $invoice.to"}), SEND],
            {"args": {"to": {"approval": "boss"}}},
            "add to 'show' of step 'ask': to: $invoice.to",
        ),
        (
            [INVOICE, ask(role="clerk", id="other", then="$next"), SEND],
            {"args": {"to": {"approval": "boss"}}},
            "ask before step 'send': ",
        ),
    ],
)
def test_a_cure_of_an_approval_cures(
    steps: list[dict[str, Any]], rule: dict[str, Any], begins: str
) -> None:
    document = {"steps": steps}
    policy = Policy.from_dict({"tools": {"send": rule, "*": {}}, **UNTRUSTED})
    tools = {"send": lambda to, amount, note="": None}
    before = verify(Program.from_dict(document), tools=tools, policy=policy)
    (failed,) = [proof for proof in before.proofs if proof.status != "proved"]
    program = Program.from_dict(document)
    first = next(cures(failed, Flow(program, {}), policy))
    assert first.startswith(begins), first
    after = verify(Program.from_dict(mended(document, first)), tools=tools, policy=policy)
    assert [proof.status for proof in after.proofs] == ["proved"] * len(after.proofs)


@pytest.mark.parametrize(
    ("steps", "rule", "told"),
    [
        (
            [INVOICE, SEND],
            {"args": {"to": "trusted"}},
            "to mend it: take the value from what no stranger writes",
        ),
        (
            [INVOICE, SEND],
            {"approval": "boss"},
            "or: where an approver need not see every argument, name those that count in the rule "
            "of 'send': args: {to: {approval: boss}}",
        ),
        (
            [{**ask(otherwise="send"), "show": SEND["args"]}, SEND],
            {"guarded_by": ["ask.then"]},
            "to mend it: let every way to step 'send' cross ask.then",
        ),
        (
            [INVOICE, ask(otherwise="send", show=SEND["args"]), SEND],
            {"approval": "boss"},
            "let every way to step 'send' cross ask.then, and write to nothing that it shows",
        ),
    ],
)
def test_the_cure_stands_beside_what_is_refuted(
    steps: list[dict[str, Any]],
    rule: dict[str, Any],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program, policy = tmp_path / "p.yaml", tmp_path / "policy.yaml"
    program.write_text(yaml.safe_dump({"steps": steps}, sort_keys=False))
    inputs = UNTRUSTED if any(step["id"] == "invoice" for step in steps) else {}
    policy.write_text(yaml.safe_dump({"tools": {"send": rule, "*": {}}, **inputs}))
    assert main(["check", str(program), "--policy", str(policy)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  ") and told in line for line in lines), lines
