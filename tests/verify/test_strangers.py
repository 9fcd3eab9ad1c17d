"""What strangers found who tried to get round a policy: each case was accepted once, and did what
the policy forbids.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, Planner, Policy, Program, ProgramError, VMError, tool
from nano_vm.testing import ScriptedLLM

TRUSTED = {"tools": {"send": {"args": {"to": "trusted"}}}}


class Bank:
    """Tools that keep what they were called with."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def vm(self, policy: dict[str, Any], answer: str = "", **options: Any) -> ExecutionVM:
        @tool(effect="irreversible")
        async def send(to: Any, amount: int = 1) -> str:
            self.sent.append((to, amount))
            return "sent"

        @tool(effect="read")
        async def fetch() -> str:
            return "EVIL"

        return ExecutionVM(
            ScriptedLLM({"": answer}), {"send": send, "fetch": fetch}, policy=policy, **options
        )


def send(to: Any, id: str = "s", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "tool", "tool": "send", "args": {"to": to}, **fields}


def call(*steps: Any, id: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "call", "program": {"steps": list(steps), **fields}}


def refused(
    host: dict[str, Any], /, *steps: Any, inputs: Any = None, answer: str = "", **fields: Any
) -> str:
    """Why the program does not run; nothing is called."""
    bank = Bank()
    trace = bank.vm(host, answer).run_sync(
        Program.from_dict({"name": "p", "steps": list(steps), **fields}), inputs
    )
    assert bank.sent == []
    assert trace.error_kind == "refused"
    assert trace.error is not None
    return trace.error


def test_a_program_that_an_untrusted_program_calls_is_untrusted_too() -> None:
    assert "V052" in refused(TRUSTED, call(call(send("EVIL"), id="d"), id="c", untrusted=True))


def test_names_of_arguments_are_text_of_the_program() -> None:
    bank = Bank()
    vm = bank.vm(TRUSTED)
    vm.register_tool("kw", tool(effect="read", returns="args")(lambda **keywords: keywords))
    steps = [{"id": "m", "type": "tool", "tool": "kw", "args": {"EVIL": "$t"}}, send("$m.output")]
    for untrusted, sent in ((True, []), (False, [({"EVIL": "x"}, 1)])):
        trace = vm.run_sync(Program.from_dict({"untrusted": untrusted, "steps": steps}), {"t": "x"})
        assert ("V052" in (trace.error or "")) is untrusted
        assert bank.sent == sent


def test_a_programs_own_policy_does_not_choose_who_approves_for_the_host() -> None:
    fetch = {"id": "f", "type": "tool", "tool": "fetch"}
    ask = {
        "id": "a",
        "type": "approval",
        "role": "clerk",
        "show": {"to": "$f.output"},
        "then": "s",
        "otherwise": "$end",
    }
    own = {"tools": {"send": {"approval": "clerk"}}}
    assert "V052" in refused(TRUSTED, fetch, ask, send("$f.output"), policy=own)
    both = {"tools": {"send": {"args": {"to": "trusted"}, "approval": "clerk"}}}
    vm = Bank().vm(both)
    assert vm.verify(Program.from_dict({"steps": [fetch, ask, send("$f.output")]})).ok


async def test_a_policy_may_name_inputs_that_a_run_does_not_have(tmp_path: Path) -> None:
    bank = Bank()
    policy = {"inputs": {"mail": "untrusted"}, **TRUSTED}
    vm = bank.vm(policy, store=f"sqlite:///{tmp_path / 'r.db'}")
    try:
        one = Program.from_dict(
            {"steps": [{"id": "a", "type": "approval", "role": "r", "then": [send("me")]}]}
        )
        await vm.run(one, run_id="r")
        vm.approve("r", "a", shown=vm.waiting("r")[0]["shown"], by="ann")
        assert (await vm.resume("r")).ok
    finally:
        vm.close()


def test_all_inputs_can_be_called_untrusted() -> None:
    policy = {"inputs": {"*": "untrusted", "mine": "trusted"}, **TRUSTED}
    assert "V052" in refused(policy, send("$mail"), inputs={"mail": "EVIL"})
    bank = Bank()
    assert (
        bank.vm(policy).run_sync(Program.from_dict({"steps": [send("$mine")]}), {"mine": "me"}).ok
    )
    with pytest.raises(ProgramError, match="names no input"):
        Policy.from_dict({"inputs": {"mail*": "untrusted"}})
    own = {"inputs": {"mail": "trusted"}}
    assert "V057" in refused(
        {"inputs": {"*": "untrusted"}}, send("$mail"), inputs={"mail": "x"}, policy=own
    )


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"sen*": {"args": {"recipient": "trusted"}}}, "no tool that 'sen*' matches takes"),
        ({"send": {"args": {"too": "trusted"}}}, "did you mean 'to'"),
        ({"sned": {}}, "did you mean 'send'"),
    ],
)
def test_names_that_mean_nothing_are_told(rules: dict[str, Any], text: str) -> None:
    assert text in refused({"tools": rules}, send("x"))


@pytest.mark.parametrize(
    "rules",
    [
        {"send": None},
        {"send": {"max_calls": None}},
        {"send": {"guarded_by": None}},
        {"send": {"args": None}},
        {"send": {"allow": None}},
        {"send": {"args": {"t*": "trusted"}}},
    ],
)
def test_a_half_written_rule_is_no_rule(rules: dict[str, Any]) -> None:
    with pytest.raises(ProgramError, match=r"P04[45]: .*; (write|fill)"):
        Policy.from_dict({"tools": rules})


def test_a_check_of_all_arguments_demands_all() -> None:
    policy = {"tools": {"send": {"args": {"*": "$value in ['GOOD', 5]"}}}}
    assert "argument 'amount' of tool 'send' is given" in refused(policy, send("GOOD"))


def test_a_subschema_has_no_draft_of_its_own() -> None:
    inner = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": "#/$defs/any",
        "enum": ["ok"],
    }
    schema = {"type": "object", "required": ["a"], "$defs": {"any": {}}, "properties": {"a": inner}}
    with pytest.raises(ProgramError, match="subschema"):
        Program.from_dict(
            {"steps": [{"id": "l", "type": "llm", "prompt": "x", "output_schema": schema}]}
        )
    named = {
        "type": "object",
        "properties": {"$schema": {"type": "string"}},
        "enum": [{"$schema": "x"}],
    }
    Program.from_dict(
        {"steps": [{"id": "l", "type": "llm", "prompt": "x", "output_schema": named}]}
    )


def test_equally_close_patterns_forbid_in_any_order() -> None:
    for rules in ({"s*": {"allow": False}, "*d": {}}, {"*d": {}, "s*": {"allow": False}}):
        assert "V050" in refused({"tools": rules}, send("x"))


@pytest.mark.parametrize("approval", [["a"], {"b": 1}, 5, ""])
def test_an_approval_names_a_role(approval: Any) -> None:
    with pytest.raises(ProgramError, match="name of a role"):
        Policy.from_dict({"tools": {"send": {"args": {"to": {"approval": approval}}}}})


@pytest.mark.parametrize(
    "budget", [{"max_cost_usd": True}, {"max_cost_usd": "1"}, {"max_seconds": True}]
)
def test_a_budget_is_a_number(budget: dict[str, Any]) -> None:
    with pytest.raises(ProgramError, match="P040"):
        Policy.from_dict({"budget": budget})


def test_a_check_compares_something() -> None:
    with pytest.raises(ProgramError, match="compares nothing"):
        Policy.from_dict({"tools": {"send": {"args": {"to": "$value"}}}})


def test_a_called_program_is_approved_by_its_digest() -> None:
    inner = Program.from_dict({"untrusted": True, "steps": [send("me")]})
    outer = Program.from_dict({"steps": [{"id": "c", "type": "call", "program": "inner"}]})
    bank = Bank()
    assert not bank.vm(TRUSTED, programs={"inner": inner}).run_sync(outer).ok
    assert bank.vm(TRUSTED, programs={"inner": inner}, approved=[inner.digest]).run_sync(outer).ok
    assert bank.sent == [("me", 1)]


async def test_a_planned_program_from_a_stranger_waits_for_its_approval() -> None:
    reply = '{"steps": [{"id": "s", "type": "tool", "tool": "send", "args": {"to": "A"}}]}'
    bank = Bank()
    vm = bank.vm(TRUSTED, reply)
    planner = Planner(ScriptedLLM([reply]), vm.tools, policy=TRUSTED)
    program = await planner.generate("Send it to A", untrusted=True)
    assert program.untrusted
    assert (await vm.run(program)).error_kind == "refused"
    assert (await bank.vm(TRUSTED, approved=[program.digest]).run(program)).ok


def test_a_planner_with_a_faulty_policy_says_so_before_it_asks() -> None:
    with pytest.raises(ProgramError, match="did you mean 'send'"):
        Planner(ScriptedLLM([]), Bank().vm({}).tools, policy={"tools": {"sned": {}}})


def test_a_check_does_not_read_what_a_stranger_gives() -> None:
    policy = {
        "inputs": {"payees": "trusted"},
        "tools": {"send": {"args": {"to": "trusted or $value in $payees"}}},
    }
    bank = Bank()
    one = Program.from_dict({"steps": [send("$q")]})
    trace = bank.vm(policy).run_sync(
        one, {"q": "EVIL", "payees": ["EVIL"]}, untrusted=["q", "payees"]
    )
    assert (trace.error_kind, bank.sent) == ("refused", [])
    assert "V058" in (trace.error or "")


def test_what_a_pattern_must_come_before_holds_for_each_tool_that_it_names() -> None:
    assert "comes before" in refused({"tools": {"fet*": {"before": ["send"]}}}, send("x"))
    assert "did you mean 'send'" in refused({"tools": {"fetch": {"before": ["sned"]}}}, send("x"))


async def test_a_run_under_a_policy_that_reads_what_it_was_not_given(tmp_path: Path) -> None:
    bank = Bank()
    url = f"sqlite:///{tmp_path / 'r.db'}"
    first = bank.vm({}, store=url)
    one = Program.from_dict(
        {"steps": [{"id": "a", "type": "approval", "role": "r", "then": [send("$q")]}]}
    )
    await first.run(one, {"q": "me"}, run_id="r", untrusted=["q"])
    policy = {
        "inputs": {"payees": "trusted"},
        "tools": {"send": {"args": {"to": "trusted or $value in $payees"}}},
    }
    second = bank.vm(policy, store=url)
    try:
        first.reject("r", "a", by="ann")
        with pytest.raises(VMError, match="read input 'payees', which the run was not given"):
            await second.resume("r")
        assert await second.work(until_idle=True) == []
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize(("index", "answer"), [(-1, '["x", "EVIL"]'), (-2, '["EVIL", "x"]')])
def test_what_is_last_in_a_list_is_not_the_last_that_the_schema_names(
    index: int, answer: str
) -> None:
    rules = {"inputs": {"mail": "untrusted"}, **TRUSTED}
    schema = {"type": "array", "prefixItems": [{"enum": ["x"]}]}
    ask = {"id": "m", "type": "llm", "prompt": "$mail", "output_schema": schema}
    read = send(f"$m.output[{index}]")
    assert "V052" in refused(rules, ask, read, inputs={"mail": "m"}, answer=answer)


@pytest.mark.parametrize("rule", ["trusted", {"approval": "boss"}])
@pytest.mark.parametrize(("named", "shown"), [("amount", {}), ("*", {"to": "A"})])
def test_who_approves_is_shown_what_the_policy_names_and_no_default_of_the_tool(
    rule: Any, named: str, shown: dict[str, Any]
) -> None:
    rules = {"tools": {"send": {"approval": "boss", "args": {named: rule}}}}
    ask = {"id": "ask", "type": "approval", "role": "boss", "otherwise": "$end"}
    hidden = refused(rules, {**ask, "show": {"to": "A"}}, send("A"))
    assert "argument 'amount' of tool 'send' is given (step 's')" in hidden
    assert "its default would not be shown" in hidden
    whole = {**ask, "show": {**shown, "amount": 5}}
    pay = {"id": "s", "type": "tool", "tool": "send", "args": {"to": "A", "amount": 5}}
    trace = Bank().vm(rules).run_sync(Program.from_dict({"name": "p", "steps": [whole, pay]}))
    assert trace.status.value == "suspended"
