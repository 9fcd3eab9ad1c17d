"""The examples with a policy: what is proved of them, what is refused, and that a guard that is
walked around is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_examples import ANGRY, EXAMPLES, tools

from nano_vm import ExecutionVM, Program, Trace, TraceStatus
from nano_vm.cli import main
from nano_vm.machine.machine import Machine, machine_of
from nano_vm.machine.outcome import Answer, Decided, Value
from nano_vm.machine.plan import MODEL, PAUSE, Op
from nano_vm.machine.simulate import simulate
from nano_vm.testing import ScriptedLLM, explore, only_after

LANDLORD = "DE89 3704 0044 0532 0130 00"
STRANGER = "XX00 0000"
INVOICE = json.dumps({"recipient": LANDLORD, "amount": 120.5})
FRAUD = json.dumps({"recipient": STRANGER, "amount": 120.5})


def vm(llm: Any, module: str, policy: str) -> ExecutionVM:
    return ExecutionVM(llm, tools(module), policy=EXAMPLES / f"{policy}.policy.yaml")


def transfer(name: str, policy: str, *answers: str) -> Trace:
    program = Program.from_file(EXAMPLES / f"{name}.yaml")
    return vm(ScriptedLLM(list(answers)), "transfer", policy).run_sync(
        program, {"mail": "Pay the rent, please."}
    )


def check(*arguments: str) -> int:
    return main(["check", *arguments])


def test_the_refund_program_is_proved(capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(EXAMPLES / name) for name in ("refund.yaml", "refund.policy.yaml", "refund.py")]
    assert check(files[0], "--policy", files[1], "--tools", files[2], "--strict") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "proved: 'issue_refund' is called at most once, attempts included",
        "proved: every call of 'issue_refund' is guarded by rules.then",
        "proved: every call of 'issue_refund' is guarded by guardrail.then",
        "proved: only trusted values reach argument 'order_id' of tool 'issue_refund' (step "
        "'refund')",
        "proved: only trusted values reach argument 'amount' of tool 'issue_refund' (step "
        "'refund')",
    ]
    assert lines[5].startswith("flow: untrusted input 'user_input' decides guardrail ")
    assert lines[6].startswith("at most: 5 steps, 2 model calls, 2 tool calls ")
    assert lines[7].endswith("refund.yaml: no faults, 5 proved; not checked: models (give --model)")
    assert len(lines) == 8


def test_the_refund_program_runs_under_its_policy() -> None:
    program = Program.from_file(EXAMPLES / "refund.yaml")
    trace = vm(ScriptedLLM(["unhappy"]), "refund", "refund").run_sync(
        program, {"user_input": ANGRY}
    )
    assert trace.ok, trace.error
    assert trace.final_output == "refunded $49.90 for A-1001"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The refund program, with an edge around its guard."""
    text = (EXAMPLES / "refund.yaml").read_text(encoding="utf-8")
    assert "otherwise: reject" in text
    file = tmp_path / "refund.yaml"
    file.write_text(text.replace("otherwise: reject", "otherwise: order"), encoding="utf-8")
    return file


def test_an_edge_around_the_guard_is_told_with_the_path(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = str(EXAMPLES / "refund.policy.yaml")
    assert check(str(broken), "--policy", policy, "--tools", str(EXAMPLES / "refund.py")) == 1
    out = capsys.readouterr().out
    assert (
        f"{broken}:49:5: steps[4]: refuted: every call of 'issue_refund' is guarded by "
        f"guardrail.then\n" in out
    )
    assert "path: analyze -> guardrail.otherwise ($mood = 'happy') -> order -> rules.then (" in out
    assert "analyze: the model answers 'happy'\n" in out
    assert "1 refuted, 4 proved" in out


def test_an_edge_around_the_guard_is_refused_before_any_call(broken: Path) -> None:
    llm = ScriptedLLM(["happy"])
    trace = vm(llm, "refund", "refund").run_sync(Program.from_file(broken), {"user_input": ANGRY})
    assert trace.status is TraceStatus.FAILED
    assert trace.error_kind == "refused"
    assert trace.steps == []
    assert llm.calls == []
    assert "guardrail.otherwise ($mood = 'happy')" in (trace.error or "")


@pytest.mark.slow
def test_what_is_proved_of_the_refund_holds_in_every_run(broken: Path) -> None:
    guarded = only_after("issue_refund", "guardrail.then")
    program = Program.from_file(EXAMPLES / "refund.yaml")
    assert explore(program, tools=tools("refund"), properties=guarded).ok
    assert not explore(Program.from_file(broken), tools=tools("refund"), properties=guarded).ok


# --- a recipient from a mail ----------------------------------------------------------------------


def test_a_recipient_from_a_mail_is_refused_with_its_flow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [
        str(EXAMPLES / name) for name in ("transfer.yaml", "transfer.policy.yaml", "transfer.py")
    ]
    assert check(files[0], "--policy", files[1], "--tools", files[2]) == 1
    out = capsys.readouterr().out
    assert (
        "transfer.yaml:22:12: steps[1].args.recipient: refuted: only what is trusted or is "
        "approved by tr" in out
    )
    assert (
        "  untrusted input 'mail' reaches argument 'recipient' of 'send_money' by way of "
        "invoice.output\n" in out
    )
    assert "(checked before the call: $value > 0 and $value <= 500)" in out
    trace = transfer("transfer", "transfer", INVOICE)
    assert trace.error_kind == "refused"
    assert trace.steps == []
    assert "untrusted input 'mail' reaches argument 'recipient'" in (trace.error or "")


PASSING = [
    ("transfer-chosen", "transfer"),
    ("transfer-approved", "transfer"),
    ("transfer", "transfer-payees"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy"), PASSING)
def test_three_ways_pass(name: str, policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        str(EXAMPLES / f"{name}.yaml"),
        str(EXAMPLES / f"{policy}.policy.yaml"),
        str(EXAMPLES / "transfer.py"),
    ]
    assert check(files[0], "--policy", files[1], "--tools", files[2], "--strict") == 0
    assert "no faults, 3 proved" in capsys.readouterr().out


def test_chosen_by_the_model_among_accounts_of_the_program() -> None:
    trace = transfer("transfer-chosen", "transfer", "landlord", '{"amount": 120.5}')
    assert trace.final_output == f"sent 120.50 EUR to {LANDLORD}"
    trace = transfer("transfer-chosen", "transfer", "nobody")
    assert [step.path for step in trace.steps] == ["payee", "account"]


def test_a_sum_over_the_limit_is_stopped_before_the_call() -> None:
    trace = transfer("transfer-chosen", "transfer", "landlord", '{"amount": 500.01}')
    assert trace.status is TraceStatus.FAILED
    assert trace.error_kind == "refused"
    assert trace.steps[-1].path == "send"
    assert trace.steps[-1].output is None
    assert "$value > 0 and $value <= 500" in (trace.error or "")


def test_checked_against_payees_before_the_call() -> None:
    trace = transfer("transfer", "transfer-payees", INVOICE)
    assert trace.final_output == f"sent 120.50 EUR to {LANDLORD}"
    trace = transfer("transfer", "transfer-payees", FRAUD)
    assert trace.error_kind == "refused"
    assert "$value in $payees" in (trace.error or "")


def test_a_person_is_shown_recipient_and_amount() -> None:
    trace = transfer("transfer-approved", "transfer", FRAUD)
    assert trace.status is TraceStatus.SUSPENDED
    (waiting,) = trace.waiting
    assert waiting["role"] == "treasurer"
    assert waiting["show"]["recipient"] == STRANGER
    assert waiting["show"]["amount"] == 120.5


@pytest.mark.parametrize("approved", [True, False])
def test_only_what_was_approved_is_sent(approved: bool) -> None:
    program = Program.from_file(EXAMPLES / "transfer-approved.yaml")
    host = vm(ScriptedLLM([]), "transfer", "transfer")
    machine = machine_of(host.plan(program), {"mail": "x"}, run_id="r")
    sent = []

    def feed(asked: Machine, op: Op) -> Op:
        if op.code == MODEL:
            return asked.resume(Answer(INVOICE), asked.now)
        if op.code == PAUSE:
            return asked.resume(Decided(approved, by="ann"), asked.now)
        sent.append(asked.keywords)
        return asked.resume(Value("sent"), asked.now)

    simulate(machine, feed)
    assert machine.status is TraceStatus.SUCCESS
    assert len(sent) == approved


def check_support(name: str) -> int:
    return check(
        str(EXAMPLES / f"{name}.yaml"),
        "--policy",
        str(EXAMPLES / "support.policy.yaml"),
        "--tools",
        f"{EXAMPLES / 'support.py'}:tools",
    )


def test_a_record_of_a_customer_does_not_reach_a_hosted_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_support("support") == 1
    said = capsys.readouterr().out
    assert (
        "steps[1].prompt: refuted: no secret value reaches 'prompt' for model 'gpt-4.1-mini' "
        "(step 'answer')" in said
    )
    assert "secret: result of tool 'get_customer' (step 'customer') reaches 'prompt'" in said
    assert "a run that does it, found and executed:" in said


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("support-local", "reaches 'prompt' for model 'local' (step 'answer') (accepted: secret)"),
        ("support-redacted", "(declassified by 'redact': names and numbers are cut out)"),
        ("support-chosen", "released: secret: at most 1.6 bits a run by answers, 0 by branches"),
    ],
)
def test_three_ways_to_answer_a_customer(
    name: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_support(name) == 0
    assert right in capsys.readouterr().out
    program = Program.from_file(EXAMPLES / f"{name}.yaml")
    answers = ["refund", "We look into it."] if name == "support-chosen" else ["We look into it."]
    models = ScriptedLLM(answers)
    running = ExecutionVM(
        {"local": models, "gpt-4.1-mini": models},
        tools("support"),
        policy=EXAMPLES / "support.policy.yaml",
    )
    trace = running.run_sync(program, {"customer_id": "c1", "question": "Where is my money?"})
    assert trace.ok, trace.error
    assert trace.final_output == "answered c1"
    assert trace.steps[-1].output == "sent 16 characters to customer c1"


def test_a_refused_flow_of_a_secret_says_how_to_mend_it_and_is_drawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check_support("support") == 1
    said = capsys.readouterr().out
    assert "  to mend it: ask a model whose rule accepts the label" in said
    assert "  or: give it what a tool made of the value that may declassify" in said
    assert "  or: give it a word out of 'allowed_outputs'" in said
    drawn = [
        *("graph", str(EXAMPLES / "support.yaml"), "--proofs"),
        *("--policy", str(EXAMPLES / "support.policy.yaml")),
        *("--tools", f"{EXAMPLES / 'support.py'}:tools"),
    ]
    assert main(drawn) == 0
    said = capsys.readouterr().out
    assert "refuted: secrecy<br/>secret: prompt" in said
    assert "secret: text (accepted: secret)" in said
