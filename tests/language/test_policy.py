"""Policies: reading and every fault of it, joining, what a program's own may not loosen, and what a
VM with one refuses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from build import llm, program, step

from nano_vm import ExecutionVM, Policy, Program, ProgramError, Trace, VMError, tool
from nano_vm.language.policy import EFFECTS, policy_of
from nano_vm.language.policy_schema import POLICY_SCHEMA
from nano_vm.language.rules import Rules, loosened, rules_of
from nano_vm.language.schemas import schema_check
from nano_vm.testing import ScriptedLLM
from nano_vm.verify.examine import verify
from nano_vm.verify.report import Proof

FULL = """\
description: what may be paid
version: 2
inputs: {mail: untrusted, order: trusted}
tools:
  pay:
    args: {to: "trusted or $value in $payees", amount: {check: "$value <= 500", approval: boss}, note: trusted}
    guarded_by: [gate.then, route.big]
    approval: boss
    max_calls: 1
    after: [look]
    before: [tell]
    effect: irreversible
    returns: args
  look: {returns: trusted, effect: read}
  "send_*": {args: {"*": trusted}}
  "*": {allow: false}
values: {payees: [a, b]}
budget: {max_steps: 60, max_llm_calls: 5, max_tokens: 12000, max_cost_usd: 0.05}
"""


def faults(data: Any) -> list[tuple[str, str]]:
    with pytest.raises(ProgramError) as caught:
        Policy.from_dict(data)
    return [(d.code, ".".join(map(str, d.loc))) for d in caught.value.diagnostics]


def pay(**rule: Any) -> dict[str, Any]:
    return {"tools": {"pay": rule}}


# --- reading --------------------------------------------------------------------------------------


def test_every_field_is_read() -> None:
    policy = Policy.from_yaml(FULL)
    rule = policy.tools[0]
    assert (rule.pattern, rule.allow, rule.guarded_by) == ("pay", True, ("gate.then", "route.big"))
    assert (rule.approval, rule.max_calls, rule.after, rule.before) == (
        "boss",
        1,
        ("look",),
        ("tell",),
    )
    assert (rule.effect, rule.returns) == ("irreversible", "args")
    assert {name: arg.text for name, arg in rule.args.items()} == {
        "to": "trusted or $value in $payees",
        "amount": "trusted or approved by boss or $value <= 500",
        "note": "trusted",
    }
    assert [arg.trusted for arg in rule.args.values()] == [True, True, True]
    assert [arg.approval for arg in rule.args.values()] == [None, "boss", None]
    assert policy.untrusted == ("mail",)
    assert policy.trusted == ("order",)
    assert policy.budget is not None
    assert policy.budget.max_cost_usd == 0.05


def test_a_policy_is_what_was_written() -> None:
    policy = Policy.from_yaml(FULL)
    assert Policy.from_dict(policy.to_dict()).digest == policy.digest
    assert Policy.from_yaml(json.dumps(policy.to_dict())).digest == policy.digest
    assert Policy.from_yaml(FULL.replace("500", "501")).digest != policy.digest
    assert Policy.from_dict({}).tools == ()


def test_a_rule_of_an_argument_that_trust_does_not_satisfy() -> None:
    rule = Policy.from_dict(
        pay(args={"a": "$value == 1", "b": {"trusted": False, "approval": "boss"}})
    ).tools[0]
    assert [arg.trusted for arg in rule.args.values()] == [False, False]


def test_a_host_gives_a_policy_a_dict_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(FULL, encoding="utf-8")
    policy = Policy.from_yaml(FULL)
    assert policy_of(policy) is policy
    assert policy_of(None) is None
    for given in (file, str(file), policy.to_dict()):
        found = policy_of(given)
        assert found is not None
        assert found.digest == policy.digest
    with pytest.raises(VMError, match="a policy is a Policy, a dict or the path of a file, not"):
        policy_of(5)
    with pytest.raises(ProgramError, match="cannot read the policy: No such file"):
        policy_of(tmp_path / "nowhere.yaml")


def test_a_fault_has_file_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("tools:\n  pay:\n    max_calls: -1\n  other: 5\n", encoding="utf-8")
    with pytest.raises(ProgramError) as caught:
        Policy.from_file(file)
    assert [(d.file, d.line, d.column) for d in caught.value.diagnostics] == [
        (str(file), 3, 5),
        (str(file), 4, 3),
    ]


def test_a_policy_that_is_no_yaml(tmp_path: Path) -> None:
    for text in ("tools: {a: [}", "\0", "a: 1\na: 2"):
        with pytest.raises(ProgramError):
            Policy.from_yaml(text)
    (tmp_path / "p").write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ProgramError, match="cannot read the policy"):
        Policy.from_file(tmp_path / "p")


@pytest.mark.parametrize(
    ("data", "code", "loc"),
    [
        (None, "P040", ""),
        ("tools", "P040", ""),
        ([1], "P040", ""),
        ({"tools": {1: {}}}, "P004", ""),
        ({"values": {"a": float("nan")}}, "P004", ""),
        ({"tools": []}, "P040", "tools"),
        ({"tools": {"pay": 5}}, "P040", "tools.pay"),
        ({"tools": {"": {}}}, "P045", "tools."),
        ({"tools": {"p?y": {}}}, "P045", "tools.p?y"),
        ({"tools": {"p[a]y": {}}}, "P045", "tools.p[a]y"),
        ({"inputs": {"mail": "evil"}}, "P040", "inputs.mail"),
        ({"inputs": ["mail"]}, "P040", "inputs"),
        (pay(allow="no"), "P040", "tools.pay.allow"),
        (pay(args=["to"]), "P040", "tools.pay.args"),
        (pay(args={"to": 5}), "P040", "tools.pay.args.to"),
        (pay(args={"to": " "}), "P040", "tools.pay.args.to"),
        (pay(args={"to": {"trusted": False}}), "P040", "tools.pay.args.to"),
        (pay(args={"to": {"trusted": "yes"}}), "P040", "tools.pay.args.to"),
        (pay(guarded_by=[]), "P040", "tools.pay.guarded_by"),
        (pay(guarded_by=[5]), "P040", "tools.pay.guarded_by"),
        (pay(guarded_by="gate"), "P046", "tools.pay.guarded_by"),
        (pay(guarded_by=".then"), "P046", "tools.pay.guarded_by"),
        (pay(guarded_by="gate."), "P046", "tools.pay.guarded_by"),
        (pay(approval=5), "P040", "tools.pay.approval"),
        (pay(approval=""), "P040", "tools.pay.approval"),
        (pay(max_calls=-1), "P040", "tools.pay.max_calls"),
        (pay(max_calls=True), "P040", "tools.pay.max_calls"),
        (pay(max_calls=1.0), "P040", "tools.pay.max_calls"),
        (pay(after={}), "P040", "tools.pay.after"),
        (pay(before=[""]), "P040", "tools.pay.before"),
        (pay(effect="reed"), "P040", "tools.pay.effect"),
        (pay(returns="untrusted"), "P040", "tools.pay.returns"),
        ({"budget": 5}, "P040", "budget"),
        ({"budget": {"max_steps": 0}}, "P040", "budget.max_steps"),
        ({"budget": {"max_steps": "5"}}, "P040", "budget.max_steps"),
        ({"budget": {"max_cost_usd": -1}}, "P040", "budget.max_cost_usd"),
        ({"tool": {}}, "P041", "tool"),
        (pay(max_cals=1), "P041", "tools.pay.max_cals"),
        (pay(args={"to": {"chek": "$value"}}), "P041", "tools.pay.args.to.chek"),
        ({"budget": {"max_stesp": 1}}, "P041", "budget.max_stesp"),
        (pay(args={"to": "truste"}), "P042", "tools.pay.args.to"),
        (pay(args={"to": "trusted or"}), "P042", "tools.pay.args.to"),
        (pay(args={"to": "trusted or 1 == 1"}), "P042", "tools.pay.args.to"),
        (pay(args={"to": "$value == $other"}), "P042", "tools.pay.args.to"),
        (pay(args={"to": "$value in 'abc'"}), "P042", "tools.pay.args.to"),
        (pay(args={"to": "'a' in $value"}), "P042", "tools.pay.args.to"),
        (pay(args={"to": "__import__('os')"}), "P042", "tools.pay.args.to"),
        (pay(args={"to": {"check": 5}}), "P042", "tools.pay.args.to"),
        ({"values": {"v": "abc"}, **pay(args={"to": "$value in $v"})}, "P042", "tools.pay.args.to"),
        (
            {"inputs": {"v": "untrusted"}, **pay(args={"to": "$value in $v"})},
            "P042",
            "tools.pay.args.to",
        ),
        ({"values": {"value": 1}}, "P043", "values.value"),
        (pay(allow=False, max_calls=1), "P043", "tools.pay.max_calls"),
        (pay(after=["pay"]), "P043", "tools.pay"),
        ({"tools": {"a": {"after": ["b"]}, "b": {"after": ["a"]}}}, "P043", "tools.a"),
        ({"tools": {"a": {"after": ["b"], "before": ["b"]}}}, "P043", "tools.a"),
    ],
)
def test_each_fault_has_its_code_and_place(data: Any, code: str, loc: str) -> None:
    assert (code, loc) in faults(data)


def test_all_faults_are_told_at_once() -> None:
    found = faults(
        {
            "tol": 1,
            "inputs": {"a": 2},
            **pay(max_calls=-1, args={"to": "x"}),
            "budget": {"max_steps": 0},
        }
    )
    assert [code for code, _ in found] == ["P041", "P040", "P042", "P040", "P040"]


def test_the_schema_takes_what_is_read_and_nothing_else() -> None:
    check = schema_check(POLICY_SCHEMA)
    assert check(Policy.from_yaml(FULL).to_dict()) is None
    labels = {
        "secret": ["customer"],
        "inputs": {"ssn": "customer", "iban": {"secrecy": "customer"}, "mail": "untrusted"},
        "tools": {
            "find": {"returns": "customer", "args": {"of": "customer"}},
            "cut": {"declassifies": "customer", "reason": "names are cut"},
        },
        "models": {"local": {"accepts": "customer"}},
        "roles": {"clerk": {"accepts": "customer", "releases": "customer"}},
        "events": {"paid": {"accepts": "customer", "returns": "customer"}},
        "accepts": {"output": "customer"},
    }
    assert Policy.from_dict(labels)
    assert check(labels) is None
    undeclared = {"inputs": {"ssn": "customer"}, "tools": {"find": {"returns": "customer"}}}
    for data in (
        *({name: said} for name, said in undeclared.items()),
        {"tool": {}},
        pay(max_calls=-1),
        pay(effect="reed"),
        {"inputs": {"a": "evil"}},
        {"budget": {"x": 1}},
    ):
        assert check(data) is not None
        assert faults(data)


# --- joining --------------------------------------------------------------------------------------


def joined(tool_name: str, *policies: dict[str, Any], **contract: Any) -> Rules:
    return rules_of(tool_name, [Policy.from_dict(data) for data in policies], **contract)


def test_the_closest_pattern_decides_what_is_allowed() -> None:
    host = {"tools": {"pay_now": {}, "pay_*": {"allow": False}, "*": {"allow": True}}}
    assert joined("pay_now", host).allow
    assert not joined("pay_later", host).allow
    assert joined("look", host).allow
    assert not joined("look", {"tools": {"*": {"allow": False}}}).allow
    assert joined("look", {}).allow


def test_one_of_several_policies_is_enough_to_forbid() -> None:
    assert not joined("pay", {}, pay(allow=False)).allow
    assert not joined("pay", pay(allow=False), pay(allow=True)).allow


def test_demands_add_up_also_those_of_patterns() -> None:
    rules = joined(
        "pay",
        {
            "tools": {
                "*": {"guarded_by": ["a.then"], "max_calls": 5},
                "pay": {"guarded_by": ["b.then"], "after": ["x"]},
            }
        },
        pay(
            guarded_by=["a.then"],
            max_calls=3,
            approval="boss",
            before=["y"],
            args={"to": "trusted"},
        ),
        trusted=["to", "note"],
    )
    assert rules.guards == (("a.then",), ("b.then",))
    assert rules.max_calls == 3
    assert rules.approvals == ("boss",)
    assert rules.after == ("x",)
    assert rules.before == ("y",)
    assert [name for name, _ in rules.args] == ["to", "note", "to"]
    assert len(rules.argument("to")) == 2
    assert rules.protected


def test_all_arguments_are_one_pattern() -> None:
    rules = joined("pay", pay(args={"*": "trusted", "to": "$value == 1"}))
    assert [rule.text for rule in rules.argument("to")] == ["trusted", "$value == 1"]
    assert [rule.text for rule in rules.argument("other")] == ["trusted"]


def test_only_the_host_says_what_a_tool_returns() -> None:
    assert joined("pay", {}, pay(returns="trusted")).returns is None
    assert joined("pay", pay(returns="trusted")).returns == "trusted"
    assert joined("pay", pay(max_calls=1), returns="args").returns == "args"


# --- what a program's own policy may not do -------------------------------------------------------

HOST = Policy.from_dict(
    {
        "inputs": {"mail": "untrusted"},
        "tools": {
            "pay": {"max_calls": 2, "effect": "irreversible"},
            "get": {"returns": "trusted"},
            "x_*": {"allow": False},
        },
        "values": {"payees": ["a"]},
    }
)


@pytest.mark.parametrize(
    ("own", "loc"),
    [
        ({"inputs": {"mail": "trusted"}}, "policy.inputs.mail"),
        (pay(returns="trusted"), "policy.tools.pay.returns"),
        ({"tools": {"get": {"returns": "args"}}}, "policy.tools.get.returns"),
        ({"tools": {"x_y": {"allow": True}}}, "policy.tools.x_y.allow"),
        (pay(max_calls=3), "policy.tools.pay.max_calls"),
        (pay(effect="write"), "policy.tools.pay.effect"),
        ({"values": {"payees": ["a", "evil"]}}, "policy.values.payees"),
    ],
)
def test_what_would_loosen_the_hosts_is_a_fault(own: dict[str, Any], loc: str) -> None:
    (fault,) = loosened(HOST, Policy.from_dict(own))
    assert fault.code == "V057"
    assert ".".join(map(str, fault.loc)) == loc


@pytest.mark.parametrize(
    "own",
    [
        {"inputs": {"mail": "untrusted", "other": "untrusted"}},
        pay(max_calls=1, effect="irreversible", guarded_by=["g.then"], allow=False)["tools"]
        and pay(max_calls=1),
        pay(allow=False),
        {"tools": {"get": {"returns": "trusted"}}},
        {"values": {"payees": ["a"], "more": 1}},
    ],
)
def test_what_tightens_is_none(own: dict[str, Any]) -> None:
    assert list(loosened(HOST, Policy.from_dict(own))) == []


# --- a VM with a policy ---------------------------------------------------------------------------


class Shop:
    """Tools that remember how they were called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def tools(self) -> dict[str, Any]:
        @tool(effect="read")
        def get(key: str = "") -> Any:
            self.calls.append(("get", {"key": key}))
            return key

        @tool(effect="write")
        def pay(to: Any = None, amount: Any = None) -> str:
            self.calls.append(("pay", {"to": to, "amount": amount}))
            return "paid"

        @tool(effect="write")
        def refund(to: Any = None) -> str:
            self.calls.append(("refund", {"to": to}))
            return "back"

        return {"get": get, "pay": pay, "refund": refund}

    def vm(self, policy: Any = None, **options: Any) -> ExecutionVM:
        tools = options.pop("tools", None) or self.tools()
        return ExecutionVM(ScriptedLLM(["x"]), tools, policy=policy, **options)


@pytest.fixture
def shop() -> Shop:
    return Shop()


GUARDED = (
    {
        "id": "gate",
        "type": "condition",
        "condition": "$who == 'ann'",
        "then": "send",
        "otherwise": "$end",
    },
    step("send", "pay", args={"to": "$who"}),
)
AROUND = ({**GUARDED[0], "otherwise": "send"}, GUARDED[1])


def refused(trace: Trace, *said: str) -> None:
    assert trace.error_kind == "refused", trace.error
    assert trace.steps == []
    for text in said:
        assert text in (trace.error or "")


def test_what_is_proved_runs(shop: Shop) -> None:
    vm = shop.vm(pay(guarded_by=["gate.then"], max_calls=1))
    assert vm.check(program(*GUARDED)) == []
    assert vm.run_sync(program(*GUARDED), {"who": "ann"}).ok
    assert shop.calls == [("pay", {"to": "ann", "amount": None})]


@pytest.mark.parametrize("who", ["ann", "bob"])
def test_what_is_refuted_is_refused_whatever_the_inputs(shop: Shop, who: str) -> None:
    vm = shop.vm(pay(guarded_by=["gate.then"]))
    trace = vm.run_sync(program(*AROUND), {"who": who})
    refused(trace, "V052", "every call of 'pay' is guarded by gate.then", "gate.otherwise")
    assert [d.code for d in vm.check(program(*AROUND))] == ["V052"]
    with pytest.raises(ProgramError):
        vm.plan(program(*AROUND))
    assert shop.calls == []


def test_what_is_unproved_is_refused(shop: Shop) -> None:
    one = program(
        {
            "id": "gate",
            "type": "condition",
            "condition": "1 == 1",
            "then": [step("g", "get")],
            "otherwise": "$next",
        },
        step("send", "pay"),
    )
    vm = shop.vm(pay(guarded_by=["gate.then"]))
    (proof,) = vm.verify(one).proofs
    assert proof.status == "unproved", (
        "no run takes the other way, and the pass does not look at conditions"
    )
    refused(vm.run_sync(one, {}), "unproved: every call of 'pay'")
    assert shop.calls == []


def test_a_tool_that_no_rule_names_is_denied_by_default(shop: Shop) -> None:
    host = {"tools": {"get": {}, "*": {"allow": False}}}
    refused(shop.vm(host).run_sync(program(step("a", "pay")), {}), "V050", "'pay'")
    assert shop.vm(host).run_sync(program(step("a", "get")), {}).ok
    for beside in ("undo", "reconcile"):
        one = program(step("a", "get", **{beside: {"tool": "refund", "args": {}}}))
        refused(shop.vm(host).run_sync(one, {}), "V050", "'refund'")
    assert shop.calls == [("get", {"key": ""})]


def test_unknown_tools_and_arguments_of_a_policy(shop: Shop) -> None:
    one = program(step("a", "get"))
    refused(
        shop.vm({"tools": {"pya": {"max_calls": 1}}}).run_sync(one, {}),
        "V051",
        "did you mean 'pay'?",
    )
    refused(shop.vm(pay(args={"too": "trusted"})).run_sync(one, {}), "V055", "did you mean 'to'?")
    assert shop.vm({"tools": {"nothing_*": {"max_calls": 1}}}).run_sync(one, {}).ok, (
        "a pattern may name none"
    )


def test_a_budget_of_the_policy_is_held_before_and_during(shop: Shop) -> None:
    two = program(step("a", "get"), step("b", "get"))
    refused(shop.vm({"budget": {"max_tool_calls": 1}}).run_sync(two, {}), "V072", "a -> b")
    vm = shop.vm({"budget": {"max_tool_calls": 5}}, budget={"max_tool_calls": 1})
    trace = vm.run_sync(two, {})
    assert trace.error_kind == "budget", (
        "what the host gives beside its policy holds while the program runs"
    )
    assert len(shop.calls) == 1


def test_max_calls_counts_attempts_and_undo(shop: Shop) -> None:
    once = pay(max_calls=1)
    refused(shop.vm(once).run_sync(program(step("a", "pay", max_retries=2)), {}), "at most once")
    undone = program(step("a", "get", undo={"tool": "pay", "args": {}}), step("b", "pay"))
    refused(shop.vm(once).run_sync(undone, {}), "at most once")
    assert shop.vm(once).run_sync(program(step("a", "pay")), {}).ok
    refused(shop.vm(pay(max_calls=0)).run_sync(program(step("a", "pay")), {}))


# --- trust ----------------------------------------------------------------------------------------


def test_untrusted_inputs_are_named_by_policy_or_run(shop: Shop) -> None:
    one = program(step("send", "pay", args={"to": "$who"}))
    protected = pay(args={"to": "trusted"})
    assert shop.vm(protected).run_sync(one, {"who": "ann"}).ok
    shop.calls.clear()
    vm = shop.vm(protected)
    said = "untrusted input 'who' reaches argument 'to' of 'pay'"
    refused(vm.run_sync(one, {"who": "ann"}, untrusted=["who"]), said)
    refused(vm.run_sync(one, {"who": "ann"}, untrusted="who"), said)
    refused(
        shop.vm({**protected, "inputs": {"who": "untrusted"}}).run_sync(one, {"who": "ann"}), said
    )
    assert shop.calls == []
    assert vm.run_sync(one, {"who": "ann"}).ok, (
        "the same program with another trust is another meeting"
    )
    with pytest.raises(VMError, match="untrusted are names of inputs, not \\[5\\]"):
        vm.run_sync(one, {"who": "ann"}, untrusted=[5])  # type: ignore[list-item]


def test_a_tools_result_is_untrusted_unless_the_policy_says_otherwise(shop: Shop) -> None:
    one = program(
        step("a", "get", args={"key": "$who"}), step("send", "pay", args={"to": "$a.output"})
    )
    protected = {"pay": {"args": {"to": "trusted"}}}
    refused(
        shop.vm({"tools": protected}).run_sync(one, {"who": "ann"}),
        "result of tool 'get' (step 'a')",
    )
    assert (
        shop.vm({"tools": {**protected, "get": {"returns": "trusted"}}})
        .run_sync(one, {"who": "ann"})
        .ok
    )
    by_args = {"tools": {**protected, "get": {"returns": "args"}}}
    assert shop.vm(by_args).run_sync(one, {"who": "ann"}).ok
    refused(
        shop.vm(by_args).run_sync(one, {"who": "ann"}, untrusted=["who"]), "untrusted input 'who'"
    )


def test_a_tools_own_contract_protects_without_a_policy(shop: Shop) -> None:
    @tool(effect="irreversible", trusted=["to"])
    def pay(to: str, amount: int) -> str:
        shop.calls.append(("pay", {"to": to, "amount": amount}))
        return "paid"

    tools = {**shop.tools(), "pay": pay}
    one = program(
        step("a", "get", args={"key": "ann"}),
        step("send", "pay", args={"to": "$a.output", "amount": 1}),
    )
    refused(shop.vm(tools=tools).run_sync(one, {}), "result of tool 'get'", "argument 'to'")
    assert shop.calls == []

    @tool(effect="read", returns="args")
    def get(key: str) -> str:
        return key

    assert shop.vm(tools={**tools, "get": get}).run_sync(one, {}).ok


def test_a_model_passes_on_what_it_was_shown(shop: Shop) -> None:
    protected = {"inputs": {"mail": "untrusted"}, **pay(args={"to": "trusted"})}
    one = program(llm("m", "Who? $mail"), step("send", "pay", args={"to": "$m.output"}))
    refused(shop.vm(protected).run_sync(one, {"mail": "x"}), "by way of m.output")
    chosen = program(
        llm("m", "Who? $mail", allowed_outputs=["x", "y"]),
        step("send", "pay", args={"to": "$m.output"}),
    )
    assert shop.vm(protected).run_sync(chosen, {"mail": "x"}).ok


def test_a_program_from_an_untrusted_source_waits_for_its_digest(shop: Shop) -> None:
    one = Program.from_dict(
        {"name": "p", "steps": [step("send", "pay", args={"to": "evil"})], "untrusted": True}
    )
    refused(shop.vm(pay(args={"to": "trusted"})).run_sync(one, {}))
    assert shop.calls == []
    assert shop.vm(pay(args={"to": "trusted"}), approved=[one.digest]).run_sync(one, {}).ok


# --- value checks ---------------------------------------------------------------------------------

CHECKED = program(step("send", "pay", args={"to": "$who", "amount": "$much"}))


def checked(shop: Shop, rule: Any, inputs: dict[str, Any], **fields: Any) -> Trace:
    host = {"inputs": {"who": "untrusted", "much": "untrusted"}, **pay(args={"to": rule}), **fields}
    return shop.vm(host).run_sync(CHECKED, {"who": "ann", "much": 1, **inputs})


def stopped(trace: Trace, text: str) -> None:
    """The step was reached, and its call was not made."""
    assert trace.error_kind == "refused", trace.error
    assert [s.path for s in trace.steps] == ["send"]
    assert text in (trace.error or "")


def test_a_check_holds_before_the_call(shop: Shop) -> None:
    rule, values = "trusted or $value in $payees", {"payees": ["ann", "bob"]}
    assert checked(shop, rule, {"who": "ann"}, values=values).ok
    shop.calls.clear()
    stopped(checked(shop, rule, {"who": "eve"}, values=values), "$value in $payees")
    stopped(checked(shop, rule, {"who": "an"}, values=values), "$value in $payees")
    stopped(checked(shop, rule, {"who": ["ann"]}, values=values), "$value in $payees")
    assert shop.calls == []


@pytest.mark.parametrize("value", ["x", None, [1], {"a": 1}, True])
def test_a_check_that_is_an_error_stops_the_call(shop: Shop, value: Any) -> None:
    assert checked(shop, "trusted or $value <= 500", {"who": 500}).ok
    shop.calls.clear()
    stopped(
        checked(shop, "trusted or $value <= 500", {"who": value}),
        "the policy's check 'trusted or $value <= 500' cannot be made: cannot compare",
    )
    assert shop.calls == []


def test_a_check_reads_trusted_inputs_as_they_were_given(shop: Shop) -> None:
    host = {
        "inputs": {"who": "untrusted", "payees": "trusted"},
        **pay(args={"to": "trusted or $value in $payees"}),
    }
    one = program(
        {"id": "s", "type": "set", "values": {"payees": ["eve"]}},
        step("send", "pay", args={"to": "$who"}),
    )
    vm = shop.vm(host)
    assert vm.run_sync(one, {"who": "ann", "payees": ["ann"]}).ok
    shop.calls.clear()
    trace = vm.run_sync(one, {"who": "eve", "payees": ["ann"]})
    assert trace.error_kind == "refused", "what a step writes under the name is not the input"
    assert shop.calls == []


@pytest.mark.parametrize("payees", ["annabel", {"ann": 1}, None, 5])
def test_in_takes_a_list_also_from_an_input(shop: Shop, payees: Any) -> None:
    host = {
        "inputs": {"who": "untrusted", "payees": "trusted"},
        **pay(args={"to": "trusted or $value in $payees"}),
    }
    trace = shop.vm(host).run_sync(
        program(step("send", "pay", args={"to": "$who"})), {"who": "ann", "payees": payees}
    )
    assert not trace.ok
    assert shop.calls == []


def test_an_input_that_a_check_reads_must_be_given(shop: Shop) -> None:
    host = {
        "inputs": {"who": "untrusted", "payees": "trusted"},
        **pay(args={"to": "trusted or $value in $payees"}),
    }
    trace = shop.vm(host).run_sync(
        program(step("send", "pay", args={"to": "$who"})), {"who": "ann"}
    )
    assert not trace.ok
    assert "payees" in (trace.error or "")
    assert shop.calls == []


def test_a_trusted_argument_needs_no_check(shop: Shop) -> None:
    one = program(step("send", "pay", args={"to": "someone else"}))
    vm = shop.vm(
        {"values": {"payees": ["ann"]}, **pay(args={"to": "trusted or $value in $payees"})}
    )
    assert vm.run_sync(one, {}).ok, "a literal of the program is trusted"
    strict = shop.vm({"values": {"payees": ["ann"]}, **pay(args={"to": "$value in $payees"})})
    stopped(strict.run_sync(one, {}), "$value in $payees")


def test_a_check_is_neither_skipped_nor_tried_again(shop: Shop) -> None:
    host = {"inputs": {"who": "untrusted"}, **pay(args={"to": "trusted or $value < 5"})}
    for handler in ({"on_error": "skip"}, {"on_error": "retry"}):
        for who in (7, "eve"):  # does not hold; is an error
            trace = shop.vm(host).run_sync(
                program(step("send", "pay", args={"to": "$who"}, **handler)), {"who": who}
            )
            stopped(trace, "$value < 5")
            assert trace.steps[0].retries == 0
    assert shop.calls == []


def test_what_catches_a_refused_call_does_not_make_it(shop: Shop) -> None:
    host = {"inputs": {"who": "untrusted"}, **pay(args={"to": "trusted or $value == 'ann'"})}
    send = step(
        "send",
        "pay",
        args={"to": "$who"},
        catch=[{"errors": ["refused"], "next": "instead"}],
        next="$end",
    )
    trace = shop.vm(host).run_sync(program(send, step("instead", "get")), {"who": "eve"})
    assert [s.path for s in trace.steps] == ["send", "instead"]
    assert [name for name, _ in shop.calls] == ["get"]


def test_a_check_holds_for_undo_calls(shop: Shop) -> None:
    host = {
        "inputs": {"who": "untrusted"},
        "tools": {"refund": {"args": {"to": "trusted or $value == 'ann'"}}},
    }
    one = program(
        step("a", "get", undo={"tool": "refund", "args": {"to": "$who"}}),
        {"id": "b", "type": "set", "values": {"x": {"expr": "1 / 0"}}},
    )
    shop.vm(host).run_sync(one, {"who": "eve"})
    assert ("refund", {"to": "eve"}) not in shop.calls
    shop.vm(host).run_sync(one, {"who": "ann"})
    assert ("refund", {"to": "ann"}) in shop.calls


# --- effects --------------------------------------------------------------------------------------


def test_a_policy_makes_an_effect_graver_and_never_harmless(shop: Shop) -> None:
    async def lost() -> None:
        raise ConnectionResetError("gone")

    def run(effect: str | None, function: Any = lost) -> Trace:
        host = {"tools": {"x": {"effect": effect}}} if effect else {}
        vm = ExecutionVM(tools={"x": function}, policy=host)
        return vm.run_sync(program(step("a", "x", on_error="skip")), {})

    assert run("irreversible").waiting[0]["kind"] == "in_doubt"
    assert run("read").ok, "the host knows better than an undeclared effect"
    reading = tool(effect="read")(lost)
    assert run(None, reading).ok
    assert run("write", reading).waiting[0]["kind"] == "in_doubt"
    declared = tool(effect="irreversible")(lost)
    for milder in EFFECTS[:-1]:
        refused(run(milder, declared), "V057", "a policy may only make an effect graver")


def test_a_programs_own_policy_may_not_make_an_undeclared_effect_harmless(shop: Shop) -> None:
    async def unknown() -> None: ...

    one = program(step("a", "x"), policy={"tools": {"x": {"effect": "read"}}})
    refused(ExecutionVM(tools={"x": unknown}).run_sync(one, {}), "V057")


# --- the program's own policy ---------------------------------------------------------------------


def test_a_program_may_demand_more_of_itself(shop: Shop) -> None:
    own = program(*AROUND, policy=pay(guarded_by=["gate.then"]))
    refused(shop.vm().run_sync(own, {"who": "ann"}), "is guarded by gate.then")
    assert (
        shop.vm()
        .run_sync(program(*GUARDED, policy=pay(guarded_by=["gate.then"])), {"who": "ann"})
        .ok
    )


def test_a_program_that_loosens_is_refused(shop: Shop) -> None:
    own = program(*GUARDED, policy=pay(max_calls=9))
    refused(shop.vm(pay(max_calls=2)).run_sync(own, {"who": "ann"}), "V057")
    assert shop.calls == []


@pytest.mark.slow
def test_a_called_programs_policy_counts_too(shop: Shop) -> None:
    inner = {"name": "inner", "steps": [step("send", "pay")], "policy": pay(max_calls=0)}
    refused(
        shop.vm().run_sync(program({"id": "c", "type": "call", "program": inner}), {}),
        "at most 0 times",
    )


# --- meeting once ---------------------------------------------------------------------------------


def test_program_and_policy_meet_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import nano_vm.run.prepare as room

    met = []
    examine = room.examine
    monkeypatch.setattr(room, "examine", lambda *a, **k: (met.append(1), examine(*a, **k))[1])
    one, vm = program(*GUARDED), shop.vm(pay(guarded_by=["gate.then"]))
    for _ in range(3):
        assert vm.run_sync(one, {"who": "ann"}).ok
    assert len(met) == 1
    vm.register_tool("other", lambda: None)
    vm.run_sync(one, {"who": "ann"})
    assert len(met) == 2, "a new tool is a new meeting"
    refusing = program(*AROUND)
    for _ in range(3):
        refused(vm.run_sync(refusing, {"who": "ann"}))
    assert len(met) == 3


def test_the_trace_says_under_what_it_ran(shop: Shop) -> None:
    host = {"inputs": {"who": "trusted", "mail": "untrusted"}, **pay(guarded_by=["gate.then"])}
    trace = shop.vm(host).run_sync(program(*GUARDED), {"who": "ann"})
    about = trace.about
    assert len(about["policy"]) == 64
    assert about["proofs"] == shop.vm(host).verify(program(*GUARDED)).proofs_digest
    assert about["untrusted"] == ["mail"]
    other = shop.vm({**host, **pay(guarded_by=["gate.then"], max_calls=1)}).run_sync(
        program(*GUARDED), {"who": "ann"}
    )
    assert other.about["policy"] != about["policy"]
    assert other.about["proofs"] != about["proofs"]


# --- reports --------------------------------------------------------------------------------------


def test_verify_for_people_takes_callables_and_a_policy(shop: Shop) -> None:
    good = verify(program(*GUARDED), tools=shop.tools(), policy=pay(guarded_by=["gate.then"]))
    assert good.ok
    assert good.faults == ()
    assert "proved: every call of 'pay' is guarded by gate.then" in str(good)
    bad = verify(program(*AROUND), tools=shop.tools(), policy=pay(guarded_by=["gate.then"]))
    assert not bad.ok
    (proof,) = bad.proofs
    assert proof.status == "refuted"
    assert proof.way.startswith("gate.otherwise ($who = ")
    assert proof.way.endswith(" -> send")
    assert proof.run is not None
    assert proof.run.inputs["who"] != "ann"
    assert json.loads(json.dumps(bad.to_dict()))["proofs"][0]["status"] == "refuted"
    assert good.proofs_digest != bad.proofs_digest
    with pytest.raises(ProgramError):
        verify(program(*GUARDED), policy={"tol": 1})


def test_what_is_not_proved_is_a_fault_with_its_way() -> None:
    proof = Proof(
        "max_calls",
        "pay",
        "'pay' is called at most once",
        "unproved",
        (),
        (),
        None,
        "nothing was tried",
    )
    fault = proof.fault()
    assert fault is not None
    assert (fault.code, fault.message, fault.hint) == (
        "V052",
        "unproved: 'pay' is called at most once",
        "nothing was tried",
    )
    assert Proof("guard", "pay", "s", "proved").fault() is None


# --- inputs of a run, and the entries that cover them ---------------------------------------------

SEND = step("send", "pay", args={"to": "$who"})
SAYS = "the policy does not say whether input 'who' is trusted"


def inputs(**entries: str) -> dict[str, Any]:
    return {"inputs": entries, "tools": {"pay": {}}}


@pytest.mark.parametrize(
    ("host", "hint"),
    [
        (inputs(mail="untrusted"), "name it under the policy's 'inputs' as trusted or untrusted"),
        (inputs(mail="trusted"), "or write '*' for all others"),
        (
            inputs(whoo="untrusted"),
            "it names 'whoo', which the program does not read; did you mean 'who'?",
        ),
        (inputs(hwo="trusted"), "it names 'hwo'"),
        (inputs(), "or write '*'"),
    ],
)
@pytest.mark.parametrize("declared", [False, True])
def test_an_input_that_no_entry_covers_is_an_error(
    shop: Shop, host: Any, hint: str, declared: bool
) -> None:
    vm = shop.vm(host)
    schema = {"inputs": {"type": "object", "properties": {"who": {}}}} if declared else {}
    one = program(SEND, **schema)
    (fault,) = [d for d in vm.check(one) if d.code == "V059"]
    assert (fault.severity, fault.message) == ("error", SAYS)
    assert hint in (fault.hint or "")
    assert not vm.verify(one).ok
    refused(vm.run_sync(one, {"who": "ann"}), SAYS)
    assert shop.calls == []


def test_a_misspelled_entry_is_an_error_where_the_right_name_is_trusted_by_a_star(
    shop: Shop,
) -> None:
    host = inputs(**{"hwo": "untrusted", "*": "trusted"})
    refused(shop.vm(host).run_sync(program(SEND), {"who": "ann"}), "did you mean 'who'?")
    for entries in ({"hwo": "untrusted", "*": "untrusted"}, {"hwo": "untrusted", "who": "trusted"}):
        (fault,) = shop.vm(inputs(**entries)).check(program(SEND))
        assert (fault.code, fault.severity) == ("V056", "warning")


def test_an_input_that_is_declared_and_not_read_needs_an_entry_too(shop: Shop) -> None:
    declared = {"type": "object", "properties": {"who": {"default": "x"}}}
    refused(
        shop.vm(inputs(mail="trusted")).run_sync(program(step("p", "pay"), inputs=declared), {}),
        SAYS,
    )


@pytest.mark.parametrize(
    ("host", "own", "untrusted"),
    [
        (inputs(who="trusted"), {}, ()),
        (inputs(**{"mail": "untrusted", "*": "trusted"}), {}, ()),
        (inputs(**{"*": "untrusted"}), {}, ()),
        (inputs(mail="untrusted"), {}, ("who",)),
        (inputs(mail="untrusted"), {"inputs": {"who": "untrusted"}}, ()),
        ({"tools": {"pay": {}}}, {}, ()),  # a policy that says nothing of inputs trusts them
    ],
)
def test_what_covers_an_input(shop: Shop, host: Any, own: Any, untrusted: tuple[str, ...]) -> None:
    one = program(SEND, **({"policy": own} if own else {}))
    assert shop.vm(host).run_sync(one, {"who": "ann"}, untrusted=untrusted).ok
    assert shop.calls == [("pay", {"to": "ann", "amount": None})]


def test_a_programs_own_policy_does_not_cover_by_trust(shop: Shop) -> None:
    one = program(SEND, policy={"inputs": {"who": "trusted"}})
    refused(shop.vm(inputs(mail="untrusted")).run_sync(one, {"who": "ann"}), SAYS)


def test_an_input_that_a_check_reads_needs_an_entry(shop: Shop) -> None:
    own = {"inputs": {"who": "trusted"}, **pay(args={"to": "$value == $who"})}
    one = program(step("send", "pay", args={"to": "ann"}), policy=own)
    refused(shop.vm(inputs(mail="untrusted")).run_sync(one, {"who": "ann"}), SAYS)


def test_a_name_that_a_step_writes_needs_an_entry_where_it_is_given(shop: Shop) -> None:
    vm = shop.vm(inputs(mail="untrusted"))
    one = program({"id": "w", "type": "set", "values": {"who": "bob"}}, SEND)
    assert vm.check(one) == []
    refused(vm.run_sync(one, {"who": "ann"}), SAYS, "or do not give it")
    assert shop.calls == []
    assert vm.run_sync(one, {}).ok


def test_what_no_step_reads_needs_no_entry(shop: Shop) -> None:
    assert (
        shop.vm(inputs(who="trusted")).run_sync(program(SEND), {"who": "ann", "session": "s-1"}).ok
    )


async def test_a_run_is_not_resumed_with_an_input_that_the_policy_now_leaves_out(
    tmp_path: Path,
) -> None:
    shop = Shop()
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    ask = {"id": "ask", "type": "approval", "role": "boss", "show": {}}
    first, second = shop.vm(store=url), shop.vm(inputs(mail="untrusted"), store=url)
    try:
        await first.run(program(ask, SEND), {"who": "ann"}, run_id="r")
        first.approve("r", "ask", shown=first.waiting("r")[0]["shown"], by="ann")
        with pytest.raises(ProgramError, match="V059"):
            await second.resume("r")
        assert shop.calls == []
        assert (await shop.vm(inputs(who="trusted"), store=url).resume("r")).ok
    finally:
        first.close()
        second.close()


# --- a run under way, and another policy ----------------------------------------------------------

ASKED = program({"id": "ask", "type": "approval", "role": "boss", "show": {"who": "$who"}}, SEND)
STRICT = pay(args={"to": "$value in ['ann']"})
LOOSE = pay(args={"to": "$value in ['ann', 'evil']"})


async def resumed(folder: Path, begun: Any, now: Any, own: Any = None) -> list[Any]:
    """The calls of a run that was begun under one policy, approved, and resumed under another."""
    shop, url = Shop(), f"sqlite:///{folder / 'runs.db'}"
    first, second = shop.vm(begun, store=url), shop.vm(now, store=url)
    one = ASKED if own is None else Program.from_dict({**ASKED.to_dict(), "policy": own})
    try:
        await first.run(one, {"who": "evil" if "evil" in str(now) else "ann"}, run_id="r")
        first.approve("r", "ask", shown=first.waiting("r")[0]["shown"], by="ann")
        assert (await second.resume("r")).ok
        return shop.calls
    finally:
        first.close()
        second.close()


async def test_a_run_does_not_go_on_under_a_looser_policy(tmp_path: Path) -> None:
    with pytest.raises(VMError) as caught:
        await resumed(tmp_path, STRICT, LOOSE)
    digest = Policy.from_dict(STRICT).digest
    assert (
        f"run 'r' was begun under a policy that is not this VM's; resume it under that one, or "
        f"write replaces: [{digest}]" in str(caught.value)
    )


async def test_nor_under_none_nor_is_it_taken_by_a_worker(tmp_path: Path) -> None:
    with pytest.raises(VMError, match="and this VM has none"):
        await resumed(tmp_path, STRICT, None)
    shop = Shop()
    worker = shop.vm(LOOSE, store=f"sqlite:///{tmp_path / 'runs.db'}")
    try:
        assert await worker.work(until_idle=True) == []
        assert worker.load("r").status == "suspended"
    finally:
        worker.close()
    assert shop.calls == []


@pytest.mark.parametrize(
    ("begun", "now"),
    [
        (STRICT, STRICT),
        (STRICT, {**STRICT, "description": "the same"}),
        (STRICT, {**LOOSE, "replaces": [Policy.from_dict(STRICT).digest]}),
        (LOOSE, {**STRICT, "replaces": [Policy.from_dict(LOOSE).digest, "0" * 64]}),
        (None, STRICT),
        ({}, STRICT),
    ],
)
async def test_a_run_goes_on_under_its_own_policy_or_one_that_replaces_it(
    begun: Any, now: Any, tmp_path: Path
) -> None:
    assert [name for name, _ in await resumed(tmp_path, begun, now)] == ["pay"]


async def test_a_programs_own_policy_is_part_of_the_program(tmp_path: Path) -> None:
    assert [name for name, _ in await resumed(tmp_path, None, pay(max_calls=1), own=STRICT)] == [
        "pay"
    ]


def test_what_replaces_is_a_list_of_digests() -> None:
    digest = "a" * 64
    assert Policy.from_dict({"replaces": [digest]}).replaces == (digest,)
    assert Policy.from_dict({"replaces": [digest]}).digest == Policy.from_dict({}).digest
    for wrong in (["abc"], [5], {}, [digest.upper()]):
        with pytest.raises(ProgramError, match=r"P040.*replaces|replaces.*P040"):
            Policy.from_dict({"replaces": wrong})
    (fault,) = loosened(HOST, Policy.from_dict({"replaces": [digest]}))
    assert (fault.code, fault.loc) == ("V057", ("policy", "replaces"))


# --- a guard that guards nothing ------------------------------------------------------------------

KIND = llm("m", output_schema={"enum": ["a", "b"]}, output_key="kind")


def gate(condition: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "gate",
        "type": "condition",
        "condition": condition,
        "then": "send",
        "otherwise": "$end",
        **fields,
    }


def noted(edge: str, *steps: Any) -> str | None:
    report = verify(program(*steps), tools=Shop().tools(), policy=pay(guarded_by=[edge, "x.then"]))
    (proof,) = report.proofs
    assert proof.status == "proved"
    assert (proof.to_dict().get("note") or "") in str(proof)
    return proof.note


ALWAYS = [
    ("gate.then", gate("true")),
    ("gate.then", gate("1 == 1")),
    ("gate.then", gate("$kind in ['a', 'b', 'c']")),
    ("gate.otherwise", gate("$kind == 'c'", then="$end", otherwise="send")),
    ("send.when", {"id": "gate", "type": "set", "values": {"x": 1}}),
    (
        "gate.default",
        {"id": "gate", "type": "switch", "on": "$kind", "cases": {"c": "$end"}, "default": "send"},
    ),
    (
        "gate.until",
        {
            "id": "gate",
            "type": "loop",
            "max_iterations": 1,
            "until": "true",
            "steps": [step("g", "get")],
        },
    ),
]


@pytest.mark.parametrize(
    ("edge", "decision"), ALWAYS, ids=[f"{d.get('condition', d['type'])}" for _, d in ALWAYS]
)
def test_a_guard_that_every_run_crosses_says_so_beside_its_proof(
    edge: str, decision: dict[str, Any]
) -> None:
    note = f"{edge} is the only way that its step goes on, so it decides nothing"
    sent = {**SEND, "when": "$kind != 'c'"} if edge == "send.when" else SEND
    assert noted(edge, KIND, decision, sent) == note


@pytest.mark.parametrize(
    "decision",
    [
        gate("$kind == 'a'"),
        gate("$n > 0"),
        gate("$n == $n"),
        gate("$kind in ['a', 'b'] and $n > 0"),
        {k: v for k, v in gate("$kind == 'a'").items() if k != "otherwise"},
        {"id": "gate", "type": "approval", "role": "boss", "then": "send", "otherwise": "$end"},
    ],
    ids=lambda d: d.get("condition", d["type"]),
)
def test_a_guard_that_decides_something_has_no_note(decision: dict[str, Any]) -> None:
    assert noted("gate.then", KIND, decision, SEND) is None


def test_a_switch_that_knows_no_case_decides_by_failing() -> None:
    only = {"id": "gate", "type": "switch", "on": "$kind", "cases": {"a": "send"}}
    assert noted("gate.a", KIND, only, SEND) is None


def test_one_of_several_edges_that_every_run_crosses(shop: Shop) -> None:
    report = shop.vm(pay(guarded_by=["gate.then", "other.then"])).verify(
        program(gate("true", then="$next"), {**gate("$who == 'a'"), "id": "other"}, SEND)
    )
    assert str(report).splitlines()[:2] == [
        "proved: every call of 'pay' is guarded by gate.then or other.then",
        "  but gate.then is the only way that its step goes on, so it decides nothing",
    ]


def test_a_literal_that_a_check_of_values_refuses_is_told_before_the_run(shop: Shop) -> None:
    def told(amount: Any, check: str) -> list[str]:
        step = {"id": "p", "type": "tool", "tool": "pay", "args": {"to": "ann", "amount": amount}}
        rules = {
            "inputs": {"limit": "trusted"},
            "tools": {"pay": {"args": {"amount": check}}},
            "values": {"most": 100},
        }
        found = shop.vm(rules).check(Program.from_dict({"inputs": LIMIT, "steps": [step]}))
        return [f"{d.severity} {d.code} {'.'.join(map(str, d.loc))}" for d in found]

    refused = ["warning V053 steps.0.args.amount"]
    assert told(500, "$value < 100") == refused
    assert told("500", "$value <= $most") == refused
    assert told(["$$", 1], "$value < 100") == refused
    assert told(50, "$value < 100") == []
    assert told("50", "$value <= $most") == []
    assert told("$limit", "$value < 100") == []
    assert told(500, "$value <= $limit") == []  # an input of the run


LIMIT = {"type": "object", "properties": {"limit": {"type": "integer"}}, "required": ["limit"]}
