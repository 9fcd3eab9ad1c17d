"""The command line under a policy: what `check` proves and shows, what `run` refuses, what `graph
--proofs` marks.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pages import find

from nano_vm import ExecutionVM, Policy, Program, Trace
from nano_vm.cli import main
from nano_vm.language.policy import _TOOL_FIELDS
from nano_vm.verify.examine import verify

PROGRAM = """\
name: pay
steps:
  - {id: ask, type: tool, tool: get, args: {text: $who}}
  - {id: gate, type: condition, condition: "$ask.output == 'ok'", then: pay, otherwise: $end}
  - {id: pay, type: tool, tool: pay, args: {to: $who}}
"""
TOOLS = """\
from nano_vm import tool

@tool(effect="read")
def get(text: str) -> str:
    return text

@tool(effect="write")
def pay(to: str) -> str:
    print("PAID")
    return to

tools = {"get": get, "pay": pay}
"""
POLICY = "tools:\n  pay: {guarded_by: [gate.then], max_calls: 1}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "p.yaml").write_text(PROGRAM)
    (tmp_path / "around.yaml").write_text(PROGRAM.replace("otherwise: $end", "otherwise: pay"))
    (tmp_path / "t.py").write_text(TOOLS)
    (tmp_path / "policy.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path


Captured = pytest.CaptureFixture[str]


def check(*arguments: str) -> int:
    return main(["check", *arguments])


# --- check ----------------------------------------------------------------------------------------


def test_a_good_program_takes_a_handful_of_lines(folder: Path, capsys: Captured) -> None:
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 0
    assert capsys.readouterr().out == (
        "proved: 'pay' is called at most once, attempts included\n"
        "proved: every call of 'pay' is guarded by gate.then\n"
        "flow: result of tool 'get' (step 'ask') decides gate (only a branch)\n"
        "at most: 3 steps, 2 tool calls (get 1, pay 1)\n"
        "p.yaml: no faults, 2 proved\n"
    )


def test_a_counterexample_is_shown_with_the_values_of_its_branches(
    folder: Path, capsys: Captured
) -> None:
    assert check("around.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 1
    out = capsys.readouterr().out
    assert re.search(
        r"^around\.yaml:5:5: steps\[2\]: refuted: every call of 'pay' is guarded by gate\.then\n"
        r"  path: ask -> gate\.otherwise \(\$ask\.output = '[^']*'\) -> pay\n"
        r"  a run that does it, found and executed:\n"
        r"    input who = '[^']*'\n",
        out,
        re.MULTILINE,
    )
    assert out.endswith("around.yaml: 1 refuted, 1 proved\n")


def test_without_tools_stubs_stand_in_also_for_what_the_policy_names(
    folder: Path, capsys: Captured
) -> None:
    (folder / "policy.yaml").write_text(
        POLICY + "  elsewhere: {max_calls: 3, args: {x: trusted}}\n"
    )
    assert check("p.yaml", "--policy", "policy.yaml", "--strict") == 0
    assert capsys.readouterr().out.endswith(
        "p.yaml: no faults, 2 proved; not checked: tools (give --tools)\n"
    )
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 1
    assert (
        "policy.yaml:3:3: tools.elsewhere: V051: the policy names unknown tool"
        in capsys.readouterr().out
    )


def test_a_stub_may_return_anything(folder: Path, capsys: Captured) -> None:
    assert check("p.yaml", "--strict") == 0, "no branch is decided by what a stub is"
    assert "V060" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("policy", "place", "message"),
    [
        ("tools: {pya: {max_calls: 1}}", "policy.yaml:1:9: tools.pya: V051", "did you mean 'pay'?"),
        (
            "tools: {pay: {args: {too: trusted}}}",
            "policy.yaml:1:22: tools.pay.args.too: V055",
            "did you mean 'to'?",
        ),
        (
            "tools: {pay: {guarded_by: [gte.then]}}",
            "policy.yaml:1:15: tools.pay.guarded_by: V054",
            "'gate.then'?",
        ),
        (
            "tools: {pay: {guarded_by: gate}}",
            "policy.yaml:1:15: tools.pay.guarded_by: P046",
            "step.then",
        ),
        (
            "tools: {pay: {max_calls: many}}",
            "policy.yaml:1:15: tools.pay.max_calls: P040",
            "a whole number",
        ),
        ("tools: {pay: {effect: read}}", "policy.yaml:1:15: tools.pay.effect: V057", "graver"),
        (
            "budget: {max_steps: 1}",
            "policy.yaml:1:10: budget.max_steps: V070",
            "ask -> gate -> pay",
        ),
        (
            "tools: {'*': {allow: false}}",
            "p.yaml:3:27: steps[0].tool: V050",
            "does not allow tool 'get'",
        ),
        ("tools: {a: [}", "policy.yaml:1:13: program: P001", "not YAML"),
        ("- a\n- b", "policy.yaml:1:1: program: P040", "a policy is an object"),
        ("\0", "policy.yaml", "P001"),
    ],
)
def test_what_is_wrong_with_a_policy_stands_in_its_file(
    folder: Path, policy: str, place: str, message: str, capsys: Captured
) -> None:
    (folder / "policy.yaml").write_text(policy)
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 1
    out, err = capsys.readouterr()
    assert out.startswith(place)
    assert message in out.splitlines()[0]
    assert err == ""


def test_faults_of_program_and_policy_are_told_together(folder: Path, capsys: Captured) -> None:
    (folder / "p.yaml").write_text("steps: [{id: a, type: tol}]")
    (folder / "policy.yaml").write_text("tool: {}")
    assert check("p.yaml", "--policy", "policy.yaml", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [(d["code"], d["file"]) for d in report["diagnostics"]] == [
        ("P041", "policy.yaml"),
        ("P014", "p.yaml"),
    ]
    assert report["not_checked"] == ["graph", "tools", "models"]


def test_what_a_programs_own_policy_loosens_stands_in_the_program(
    folder: Path, capsys: Captured
) -> None:
    (folder / "p.yaml").write_text(PROGRAM + "policy: {tools: {pay: {max_calls: 5}}}\n")
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 1
    out = capsys.readouterr().out
    assert out.startswith(
        "p.yaml:6:24: policy.tools.pay.max_calls: V057: the host allows 1 calls of 'pay', not 5"
    )


def test_a_policy_that_cannot_be_read(folder: Path, capsys: Captured) -> None:
    for command in ("check", "run", "graph"):
        more = ["--proofs"] if command == "graph" else []
        assert main([command, "p.yaml", "--policy", "nowhere.yaml", *more]) == 2
        assert (
            "nano-vm: --policy: cannot read nowhere.yaml: No such file" in capsys.readouterr().err
        )
    assert check("p.yaml", "--policy", ".") == 2
    assert "Is a directory" in capsys.readouterr().err


def test_an_untrusted_input_is_named_on_the_command_line(folder: Path, capsys: Captured) -> None:
    (folder / "policy.yaml").write_text("tools: {pay: {args: {to: trusted}}}")
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 0
    capsys.readouterr()
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py", "--untrusted", "who") == 1
    out = capsys.readouterr().out
    assert ": only trusted values reach argument 'to' of tool 'pay' (step 'pay')\n" in out
    assert "  untrusted input 'who' reaches argument 'to' of 'pay'\n" in out


def test_a_misspelled_untrusted_input_does_not_leave_the_meant_one_trusted(
    folder: Path, capsys: Captured
) -> None:
    for command in ("check", "run"):
        assert main([command, "p.yaml", "--untrusted", "whoo"]) == 2
        assert (
            "--untrusted: the program reads no input 'whoo'; did you mean 'who'?"
            in capsys.readouterr().err
        )


def test_an_approved_digest(folder: Path, capsys: Captured) -> None:
    text = PROGRAM.replace("to: $who", "to: bank") + "untrusted: true\n"
    (folder / "p.yaml").write_text(text)
    (folder / "policy.yaml").write_text("tools: {pay: {args: {to: trusted}}}")
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 1
    assert "untrusted" in capsys.readouterr().out
    digest = Program.from_yaml(text).digest
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py", "--approve", digest) == 0
    assert check("p.yaml", "--approve", "abc") == 2
    assert "64 hexadecimal digits, not 'abc'" in capsys.readouterr().err


def test_a_strict_check_takes_a_read_that_some_path_lacks_for_an_error(
    folder: Path, capsys: Captured
) -> None:
    (folder / "p.yaml").write_text(
        "steps:\n"
        "  - {id: gate, type: condition, condition: $x == 1, then: [{id: a, type: set, values: "
        "{y: 1}}]}\n"
        "  - {id: b, type: set, values: {z: $y}}\n"
    )
    assert check("p.yaml") == 0
    assert "warning: V011" in capsys.readouterr().out
    assert check("p.yaml", "--strict") == 1
    out = capsys.readouterr().out
    assert ": V011: " in out
    assert "warning" not in out
    assert "1 error" in out


def test_prices_make_the_worst_case_money(folder: Path, capsys: Captured) -> None:
    (folder / "p.yaml").write_text(
        "steps: [{id: a, type: llm, prompt: hello, max_tokens: 10, model: m}]"
    )
    assert check("p.yaml") == 0
    assert "$" not in capsys.readouterr().out
    assert check("p.yaml", "--price", "m=1,2") == 0
    assert re.search(
        r"^at most: 1 step, 1 model call \(m 1\), \d+ tokens, \$0\.\d+$",
        capsys.readouterr().out,
        re.M,
    )


def test_the_report_as_json(folder: Path, capsys: Captured) -> None:
    assert check("around.yaml", "--policy", "policy.yaml", "--tools", "t.py", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["digest"] == Program.from_file("around.yaml").digest
    assert [(p["kind"], p["status"]) for p in report["proofs"]] == [
        ("max_calls", "proved"),
        ("guard", "refuted"),
    ]
    refuted = report["proofs"][1]
    assert [(move["step"], move["edge"]) for move in refuted["path"]][-2:] == [
        ("gate", "otherwise"),
        ("pay", ""),
    ]
    assert refuted["run"]["branches"][0]["branch"] == "otherwise"
    assert report["ceiling"]["tools"] == {"get": 1, "pay": 1}
    assert report["flows"][0]["kind"] == "branch"
    assert report["not_checked"] == []


@pytest.mark.slow
def test_many_statements_fit_one_screen(folder: Path, capsys: Captured) -> None:
    steps = "\n".join(
        f"  - {{id: s{i}, type: tool, tool: pay, args: {{to: x}}}}" for i in range(40)
    )
    (folder / "p.yaml").write_text(f"steps:\n{steps}\n")
    (folder / "policy.yaml").write_text("tools: {pay: {args: {to: trusted}}}")
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 18
    assert lines[15] == "and 25 more are proved"
    (folder / "p.yaml").write_text(f"steps:\n{steps}\n".replace("to: x", "to: $x"))
    assert check("p.yaml", "--policy", "policy.yaml", "--tools", "t.py", "--untrusted", "x") == 1
    out = capsys.readouterr().out
    assert out.count("refuted: ") + out.count("unproved: ") == 5
    assert "and 35 more are not proved (--json shows all)" in out


def test_what_is_shown_can_do_nothing_to_a_terminal(folder: Path, capsys: Captured) -> None:
    (folder / "p.yaml").write_text(
        'steps: [{id: a, type: tool, tool: "x\\e[31m\\nproved: y", args: {"z\\u202e": $q}}]',
        encoding="utf-8",
    )
    (folder / "policy.yaml").write_text('tools: {"*": {args: {"*": trusted}, max_calls: 0}}')
    assert check("p.yaml", "--policy", "policy.yaml", "--untrusted", "q") == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert not any(line.startswith("proved: y") for line in out.splitlines())


# --- what the documents say -----------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def test_the_policies_in_the_reference_have_every_field_of_a_rule() -> None:
    text = find("policy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    policies = [Policy.from_yaml(block) for block in blocks]
    used = {
        name
        for policy in policies
        for rule in policy.tools
        for name in policy.source["tools"][rule.pattern]
    }
    assert used == set(_TOOL_FIELDS), "every field is shown"
    assert {name for name in _TOOL_FIELDS if f"| `{name}`" not in text} <= {"reason"}


def test_the_output_in_the_guarantees_is_what_the_command_prints(capsys: Captured) -> None:
    text = find("guarantees.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```console\n\$ nano-vm (.*?)^```$", text, re.DOTALL | re.MULTILINE)
    command, *expected, more = block.splitlines()
    assert more == "..."
    assert (
        main(
            [str(ROOT / word) if word.startswith("examples/") else word for word in command.split()]
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines()[: len(expected)] == expected


# --- run ------------------------------------------------------------------------------------------


def test_a_run_is_refused_before_any_call(folder: Path, capsys: Captured) -> None:
    arguments = ["--policy", "policy.yaml", "--tools", "t.py", "-i", "who=no"]
    assert main(["run", "around.yaml", *arguments]) == 1
    out, err = capsys.readouterr()
    assert "PAID" not in out
    assert (
        "around.yaml:5:5: steps[2]: V052: refuted: every call of 'pay' is guarded by gate.then; "
        "on the path ask -> gate" in err
    )
    assert "refused: no step was run" in err
    assert main(["run", "p.yaml", *arguments[:-1], "who=ok"]) == 0
    assert "PAID" in capsys.readouterr().out


def test_a_value_is_checked_before_the_call(folder: Path, capsys: Captured) -> None:
    (folder / "policy.yaml").write_text(
        "tools: {pay: {args: {to: 'trusted or $value in $payees'}}}\nvalues: {payees: [ok]}"
    )
    (folder / "p.yaml").write_text(PROGRAM.replace("to: $who", "to: $other"))
    arguments = [
        "--policy",
        "policy.yaml",
        "--tools",
        "t.py",
        "--untrusted",
        "other",
        "-i",
        "who=ok",
    ]
    assert main(["run", "p.yaml", *arguments, "-i", "other=ok"]) == 0
    assert "PAID" in capsys.readouterr().out
    assert main(["run", "p.yaml", *arguments, "-i", "other=evil", "--trace", "run.json"]) == 1
    out, err = capsys.readouterr()
    assert "PAID" not in out
    assert "$value in $payees" in err
    assert Trace.from_json((folder / "run.json").read_text()).error_kind == "refused"


# --- graph ----------------------------------------------------------------------------------------


def drawn(capsys: Captured, *arguments: str) -> str:
    assert main(["graph", *arguments]) == 0
    return capsys.readouterr().out


def test_a_graph_is_plain_without_proofs(folder: Path, capsys: Captured) -> None:
    for form in ("mermaid", "dot", "svg"):
        plain = drawn(capsys, "p.yaml", "--format", form)
        assert "legend" not in plain
        assert "guards" not in plain
        assert "carries" not in plain


def test_guards_calls_and_flows_are_marked(folder: Path, capsys: Captured) -> None:
    out = drawn(capsys, "p.yaml", "--proofs", "--policy", "policy.yaml", "--tools", "t.py")
    node = {
        m[2]: (m[1], m[3]) for m in re.finditer(r'^ *(n\d+)\W+?"(\w+)<br/>(.*)$', out, re.MULTILINE)
    }
    assert node["gate"][1].endswith(":::guard")
    assert "guards pay" in node["gate"][1]
    assert "decided by untrusted values" in node["gate"][1]
    assert node["pay"][1].endswith(":::guarded")
    assert "proved: max_calls, guard" in node["pay"][1]
    assert node["ask"][1].endswith(":::untrusted")
    links = [line.strip() for line in out.splitlines() if "-->" in line]
    (style,) = re.findall(r"linkStyle (\d+) stroke:#1f6feb", out)
    assert links[int(style)] == f'{node["gate"][0]} -->|"then"| {node["pay"][0]}'
    assert set(re.findall(r"legend_(\w+)\[", out)) == {"guard", "guarded", "untrusted"}
    assert set(re.findall(r"classDef (\w+)", out)) == {"guard", "guarded", "untrusted"}


def test_the_way_around_a_guard_is_marked_beside_the_guards_edge(
    folder: Path, capsys: Captured
) -> None:
    arguments = ["around.yaml", "--policy", "policy.yaml", "--tools", "t.py"]
    out = drawn(capsys, *arguments)
    assert '|"then"|' in out
    assert '|"otherwise"|' in out
    links = [line.strip() for line in out.splitlines() if "-->" in line]
    red = [links[int(number)] for number in re.findall(r"linkStyle (\d+) stroke:#c0392b", out)]
    assert len(red) == 2
    assert '|"otherwise"|' in red[1]
    dot = drawn(capsys, *arguments, "--format", "dot")
    assert re.search(r'-> n\d+ \[label="otherwise", color="#c0392b", penwidth=3\]', dot)
    assert re.search(
        r'label="pay\\ntool\\n[^"]*refuted: guard", shape=box, style="filled", fillcolor="#ffdcd9"',
        dot,
    )
    svg = ElementTree.fromstring(drawn(capsys, *arguments, "--format", "svg"))
    lines = [
        e
        for e in svg.iter()
        if e.tag.endswith("path") and e.get("marker-end") == "url(#arrow-refuted)"
    ]
    assert len(lines) == 2
    assert any(e.get("id") == "arrow-refuted" for e in svg.iter())
    texts = ["".join(e.itertext()) for e in svg.iter() if e.tag.endswith("text")]
    assert "refuted: a run breaks it, this way" in texts
    assert all(
        float(e.get("x") or 0) < float(svg.get("width") or 0)
        for e in svg.iter()
        if e.tag.endswith("text")
    )


def test_an_approval_guards_what_its_role_approves(folder: Path, capsys: Captured) -> None:
    (folder / "p.yaml").write_text(
        "steps:\n  - {id: ask, type: approval, role: boss, show: {to: $who}, then: pay, "
        "otherwise: $end}\n"
        "  - {id: pay, type: tool, tool: pay, args: {to: $who}}\n"
    )
    (folder / "policy.yaml").write_text(
        "tools: {pay: {args: {to: {approval: boss}}}}\ninputs: {who: untrusted}"
    )
    out = drawn(capsys, "p.yaml", "--policy", "policy.yaml")
    assert re.search(
        r'"ask<br/>approval<br/>by boss<br/>guards pay"/\]:::guard$', out, re.MULTILINE
    )
    assert re.search(
        r'"pay<br/>.*proved: flow<br/>untrusted: to \(approved by boss at step ask\)"\]:::guarded$',
        out,
        re.MULTILINE,
    )


def test_faults_of_the_policy_are_told_beside_the_graph(folder: Path, capsys: Captured) -> None:
    (folder / "policy.yaml").write_text("tools: {pay: {guarded_by: [gte.then]}}")
    assert main(["graph", "p.yaml", "--policy", "policy.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("flowchart TD")
    assert "policy.yaml:1:15: tools.pay.guarded_by: V054" in err


def test_a_guard_that_guards_nothing_says_so_beside_its_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.yaml").write_text(
        'steps:\n- {id: gate, type: condition, condition: "1 == 1", then: send, otherwise: $end}\n'
        "- {id: send, type: tool, tool: pay}"
    )
    (tmp_path / "policy.yaml").write_text("tools: {pay: {max_calls: 1, guarded_by: [gate.then]}}")
    assert main(["check", str(tmp_path / "p.yaml"), "--policy", str(tmp_path / "policy.yaml")]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "proved: every call of 'pay' is guarded by gate.then",
        "  but gate.then is the only way that its step goes on, so it decides nothing",
        "proved: 'pay' is called at most once, attempts included",
    ]


MAIL = """
steps:
- {id: gate, type: condition, condition: "$ok == 'yes'", then: $next, otherwise: $end}
- {id: send, type: tool, tool: send_money, args: {recipient: $who}}
"""
FAULTY = """
inputs: {who: untrusted}
tools:
  send_mony: {max_calls: 1}
  send_money:
    guardedby: [gate.then]
    args: {recpient: trusted}
    guarded_by: [gat.then]
"""
FOUND = [
    ("bad.yaml:6:5: tools.send_money.guardedby: P041", "did you mean 'guarded_by'?"),
    ("bad.yaml:4:3: tools.send_mony: V051", "did you mean 'send_money'?"),
    ("bad.yaml:7:12: tools.send_money.args.recpient: V055", "did you mean 'recipient'?"),
    ("bad.yaml:8:5: tools.send_money.guarded_by: V054", "did you mean 'gate.then'?"),
]


@pytest.fixture
def mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mail.yaml").write_text(MAIL)
    (tmp_path / "bad.yaml").write_text(FAULTY)
    (tmp_path / "bank.py").write_text("tools = {'send_money': lambda recipient: 1 / 0}")
    (tmp_path / "inputs.jsonl").write_text('{"who": "x", "ok": "yes"}\n')
    return tmp_path


@pytest.mark.parametrize("command", ["check", "run", "batch"])
def test_a_policys_faults_are_told_at_once_in_its_own_file(
    command: str, mail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "run": ["-i", "who=x", "-i", "ok=yes"],
        "batch": ["inputs.jsonl", "-o", "out.jsonl"],
        "check": [],
    }[command]
    assert (
        main([command, "mail.yaml", *more, "--tools", "bank.py:tools", "--policy", "bad.yaml"]) == 1
    )
    told = "".join(capsys.readouterr())
    for place, hint in FOUND:
        (line,) = [line for line in told.splitlines() if line.startswith(place)]
        assert hint in line
    assert any(
        "mail.yaml" in line and "'ok'" in line and "V059" in line for line in told.splitlines()
    )
    if command == "check":
        assert told.splitlines()[-1].startswith(
            "mail.yaml: 1 error; bad.yaml: 4 errors; not checked: "
        )


def test_the_count_of_errors_names_the_file_that_has_them(
    mail: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (mail / "bad.yaml").write_text(
        "tools: {send_money: {guarded_by: [gate.then], args: {recpient: trusted}}}"
    )
    assert main(["check", "mail.yaml", "--tools", "bank.py:tools", "--policy", "bad.yaml"]) == 1
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("mail.yaml: 1 proved; bad.yaml: 1 error")
    )


def test_a_policys_faults_stand_in_its_file_for_python_too(mail: Path) -> None:
    (mail / "bad.yaml").write_text("tools: {send_mony: {}}")
    one = Program.from_file("mail.yaml")
    tools = {"send_money": lambda recipient: None}
    vm = ExecutionVM(tools=tools, policy="bad.yaml")
    expected = "bad.yaml:1:9: tools.send_mony: V051"
    assert str(vm.check(one)[0]).startswith(expected)
    assert str(vm.verify(one).diagnostics[0]).startswith(expected)
    assert str(verify(one, tools=tools, policy="bad.yaml").diagnostics[0]).startswith(expected)
    assert (vm.run_sync(one, {"who": "x", "ok": "no"}).error or "").startswith(expected)
    (plain,) = ExecutionVM(tools=tools, policy={"tools": {"send_mony": {}}}).check(one)
    assert str(plain).startswith("policy.tools.send_mony: V051")


def test_a_programs_own_policy_stands_in_the_program(mail: Path) -> None:
    (mail / "mail.yaml").write_text(f"{MAIL}\npolicy: {{tools: {{send_mony: {{}}}}}}\n")
    one = Program.from_file("mail.yaml")
    vm = ExecutionVM(
        tools={"send_money": lambda recipient: None}, policy={"tools": {"send_money": {}}}
    )
    (fault,) = vm.check(one)
    assert str(fault).startswith("mail.yaml:6:18: policy.tools.send_mony: V051")


def test_a_guards_edge_stays_one_and_a_checked_value_says_so(
    folder: Path, capsys: Captured
) -> None:
    """Where the way that breaks a rule crosses a guard, the guard's edge is still drawn as one."""
    (folder / "policy.yaml").write_text(
        "inputs: {who: untrusted}\n"
        "tools:\n"
        "  pay: {guarded_by: [gate.then], args: {to: {check: \"$value != 'x'\"}}, after: [mail]}\n"
    )
    out = drawn(capsys, "p.yaml", "--policy", "policy.yaml", "--tools", "t.py")
    links = [line.strip() for line in out.splitlines() if "-->" in line]
    colour = dict(re.findall(r"linkStyle (\d+) stroke:(#\w+)", out))
    (then,) = [number for number, link in enumerate(links) if '|"then"|' in link]
    assert colour[str(then)] == "#1f6feb"
    assert "untrusted: to (checked before the call" in out
