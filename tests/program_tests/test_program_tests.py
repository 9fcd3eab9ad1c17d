"""Test files of programs: what they say comes to pass, and what they say wrong has its place."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from textwrap import dedent
from typing import Any
from xml.etree import ElementTree

import pytest

from nano_vm import ExecutionVM, Program, errors
from nano_vm.cli import main
from nano_vm.cli.faults import UsageFault
from nano_vm.cli.program_tests import suite_of
from nano_vm.errors import ProgramError
from nano_vm.program_tests.document import json_schema, read_document
from nano_vm.program_tests.execute import Subject, execute
from nano_vm.program_tests.expect import same
from nano_vm.program_tests.junit import junit_xml
from nano_vm.program_tests.suite import Suite, Verdict, coverage
from nano_vm.testing import ScriptedLLM

GUARD = """
name: guard
steps:
  - {id: judge, type: llm, prompt: "Refund? $message", allowed_outputs: [yes, no]}
  - {id: guard, type: condition, condition: "$judge.output == 'yes'", then: pay, otherwise: no_pay}
  - {id: pay, type: tool, tool: pay, args: {to: $message}, next: $end}
  - {id: no_pay, type: set, values: {said: "nothing"}}
"""


def suite(folder: Path, program: str, tests: str, **files: str) -> Suite:
    """The suite of *tests* beside *program*."""
    (folder / "p.yaml").write_text(dedent(program))
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(dedent(text))
    path = folder / "p.test.yaml"
    path.write_text(dedent(tests))
    return suite_of(path)


def verdicts(folder: Path, program: str, tests: str, **files: str) -> list[Verdict]:
    found = suite(folder, program, tests, **files)
    return [found.run(one) for one in found.tests]


def faults(folder: Path, program: str, tests: str, **files: str) -> list[str]:
    """What is wrong with the only test, without the name of its file."""
    (only,) = verdicts(folder, program, tests, **files)
    return [line.removeprefix(f"{folder}/p.test.yaml:") for line in only.faults]


# --- what holds, and what does not ---

EXPECTED = """
tests:
  - name: paid
    inputs: {message: hello}
    models: {judge: yes}
    tools: {pay: {returns: {paid: 5}}}
    expect:
"""


@pytest.mark.parametrize(
    "expect",
    [
        "output: {paid: 5}",
        "status: success",
        "path: [judge, guard, pay]",
        "reached: [pay], never: [no_pay]",
        "steps: {guard: {branch: then, status: success, attempts: 1}, pay: {output: {paid: 5}}}",
        "calls: {pay: 1}",
        "calls: {pay: [{to: hello}]}",
        "budget: {max_llm_calls: 1, max_tool_calls: 1, max_steps: 3, max_tokens: 3, max_cost_usd: 0, max_seconds: 0.1}",
    ],
)
def test_what_is_so_passes(tmp_path: Path, expect: str) -> None:
    assert faults(tmp_path, GUARD, f"{EXPECTED}      {{{expect}}}\n") == []


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("output: {paid: 6}", 'expect.output: expected {"paid":6}, and it is {"paid":5}'),
        ("status: failed", "expect.status: expected failed, and the run is success"),
        ("error: gone", "expect.error: expected failed, and the run is success"),
        ("waiting: [pay]", "expect.waiting: expected suspended, and the run is success"),
        ("diagnostics: [V041]", "expect.diagnostics: expected refused, and the run is success"),
        (
            "path: [judge, guard, no_pay]",
            "expect.path: expected 'no_pay' as step 3 of the path, and it is 'pay'; "
            "the run went judge, guard, pay",
        ),
        (
            "path: [judge, guard]",
            "expect.path: expected its end as step 3 of the path, and it is 'pay'; "
            "the run went judge, guard, pay",
        ),
        ("reached: [no_pay]", "expect.reached[0]: step 'no_pay' was not reached"),
        ("never: [pay]", "expect.never[0]: step 'pay' was reached"),
        ("steps: {no_pay: {}}", "expect.steps.no_pay: step 'no_pay' was not reached"),
        (
            "steps: {guard: {branch: otherwise}}",
            'expect.steps.guard.branch: expected "otherwise", and it is "then"',
        ),
        ("steps: {pay: {attempts: 2}}", "expect.steps.pay.attempts: expected 2, and it is 1"),
        ("steps: {pay: {output: 1}}", 'expect.steps.pay.output: expected 1, and it is {"paid":5}'),
        (
            "steps: {pay: {error: gone}}",
            "expect.steps.pay.error: expected an error with 'gone', and it is None",
        ),
        (
            "calls: {pay: 0}",
            "expect.calls.pay: expected no call, and it was called one call: [{'to': 'hello'}]",
        ),
        (
            "calls: {pay: [{to: bye}]}",
            'expect.calls.pay[0]: expected {"to":"bye"}, and it is {"to":"hello"}',
        ),
        ("budget: {max_steps: 2}", "expect.budget.max_steps: expected at most 2, and it is 3"),
        ("budget: {max_tokens: 2}", "expect.budget.max_tokens: expected at most 2, and it is 3"),
    ],
)
def test_what_is_not_so_is_said_with_its_place(tmp_path: Path, expect: str, said: str) -> None:
    (found,) = faults(tmp_path, GUARD, f"{EXPECTED}      {{{expect}}}\n")
    place, _, message = found.partition(" ")
    assert message == said
    assert place.startswith("8:"), found


def test_a_run_that_ends_badly_fails_the_test_that_does_not_expect_it(tmp_path: Path) -> None:
    tests = """
    tests:
      - name: broken
        inputs: {message: hello}
        models: {judge: yes}
        tools: {pay: {raises: ValueError, message: no account}}
        expect: {never: [no_pay]}
    """
    (found,) = faults(tmp_path, GUARD, tests)
    assert "expected success, and the run is failed: Step 'pay' failed: ValueError" in found
    bad = tests.replace("never: [no_pay]", "error: no account, error_kind: tool")
    assert faults(tmp_path, GUARD, bad) == []
    wrong = tests.replace("never: [no_pay]", "error: no money, error_kind: timeout")
    assert len(faults(tmp_path, GUARD, wrong)) == 2


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        (None, None, True),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1, 2], [2, 1], False),
    ],
)
def test_values_are_equal_as_json(a: Any, b: Any, equal: bool) -> None:
    assert same(a, b) is equal


# --- answers ---

LETTERS = """
name: letters
steps:
  - id: all
    type: map
    over: $names
    as: one
    steps:
      - {id: write, type: llm, prompt: "To $one", retry: {on: [rate_limit]}, max_retries: 2}
      - {id: send, type: tool, tool: send, args: {text: $write.output}}
"""


def test_an_answer_by_path_comes_before_that_by_id_and_a_list_answers_call_by_call(
    tmp_path: Path,
) -> None:
    tests = """
    tests:
      - name: letters
        inputs: {names: [ann, ben, col]}
        models:
          write: Dear all
          "all[1]/write": [{error: rate_limit}, Dear Ben]
        tools: {send: [1, 2, {returns: {id: 3}}]}
        expect:
          output: [1, 2, {id: 3}]
          calls: {send: [{text: Dear all}, {text: Dear Ben}, {text: Dear all}]}
          steps: {"all[1]/write": {attempts: 2}}
    """
    assert faults(tmp_path, LETTERS, tests) == []
    several = tests.replace('"all[1]/write": {', "write: {")
    assert faults(tmp_path, LETTERS, several)[0].endswith(
        "step 'write' has several paths, name one of them: all[0]/write, all[1]/write, all[2]/write"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("models: {}, tools: {send: 1}", "'all[0]/write' asks a model, and the test gives no "),
        ("models: {write: x}", "'all[0]/send' calls the tool 'send', and the test gives no answer"),
        ("models: {write: [x]}, tools: {send: 1}", "models.write has 1 answers, and this is call"),
        (
            "models: {write: [x, y, z]}, tools: {send: 1}",
            "models.write has 3 answers, and 2 were asked for",
        ),
        ("models: {write: {txt: x}}", "models.write: an answer is a string, {json: ...}"),
        ("models: {write: x}, tools: {send: {value: 1}}", "tools.send: a tool's answer is"),
        ("tools: {send: {raises: 3}}", "tools.send.raises: the name of an exception, not 3"),
        ("models: {write: {times_out: true}}, tools: {send: 1}", "expected success"),
    ],
)
def test_answers_that_are_not_there_or_too_many_end_the_test(
    tmp_path: Path, given: str, said: str
) -> None:
    tests = f"tests: [{{name: t, inputs: {{names: [a, b]}}, {given}}}]"
    assert any(said in found for found in faults(tmp_path, LETTERS, tests))


def test_what_a_test_does_not_answer_is_taken_by_no_handler(tmp_path: Path) -> None:
    program = GUARD.replace(
        "args: {to: $message}", 'args: {to: $message}, on_error: skip, default: ""'
    )
    tests = "tests: [{name: t, inputs: {message: hi}, models: {judge: yes}}]"
    (found,) = faults(tmp_path, program, tests)
    assert "the test gives no answer" in found


def test_exceptions_by_their_names_are_caught_as_the_program_says(tmp_path: Path) -> None:
    program = """
    steps:
      - id: fetch
        type: tool
        tool: fetch
        catch: [{errors: [OSError], next: file}, {errors: [ShopClosed], next: shop}]
        next: $end
      - {id: file, type: set, values: {said: file}, next: $end}
      - {id: shop, type: set, values: {said: shop}}
    """
    tests = """
    tests:
      - {name: a, tools: {fetch: {raises: FileNotFoundError}}, expect: {reached: [file]}}
      - {name: b, tools: {fetch: {raises: ShopClosed}}, expect: {reached: [shop]}}
      - {name: c, tools: {fetch: {raises: UnicodeDecodeError, message: m}}, expect: {error: m}}
      - {name: d, tools: {fetch: {times_out: true}}, expect: {status: suspended, error: 60 s}}
    """
    for verdict in verdicts(tmp_path, program, tests):
        assert verdict.faults == []


PAUSES = """
steps:
  - {id: cool, type: wait, seconds: 3600}
  - {id: ask, type: approval, role: boss, show: {n: 1}, then: paid, otherwise: off, timeout_seconds: 60}
  - {id: paid, type: wait, event: paid, match: {order: $order}, timeout_seconds: 7200, next: $end}
  - {id: off, type: set, values: {said: off}}
"""


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ("", "status: suspended, waiting: [ask]"),
        ("approvals: {ask: approve}", "waiting: [paid], path: [cool, ask, paid]"),
        ("approvals: {ask: reject}", "path: [cool, ask, off]"),
        ("approvals: {ask: times_out}", "path: [cool, ask, off]"),
        (
            "approvals: {ask: {approved: true, reason: fine}}, "
            "events: {paid: {payload: {order: 7, sum: 5}}}",
            "output: {order: 7, sum: 5}, steps: {ask: {output: {approved: true, reason: fine}}}, "
            "budget: {max_seconds: 1}",
        ),
        ("approvals: {ask: approve}, events: {paid: times_out}", "error_kind: timeout"),
    ],
)
def test_people_events_and_time_are_answers_too(tmp_path: Path, given: str, expect: str) -> None:
    head = f"tests: [{{name: t, inputs: {{order: 7}}, {given or 'untrusted: []'}"
    assert faults(tmp_path, PAUSES, f"{head}, expect: {{{expect}}}}}]") == []


def test_an_event_that_does_not_fit_and_a_pause_without_a_deadline_are_faults(
    tmp_path: Path,
) -> None:
    head = "tests: [{name: t, inputs: {order: 7}, approvals: {ask: approve}, events: {paid: "
    (found,) = faults(tmp_path, PAUSES, head + "{payload: {order: 8}}}}]")
    assert "lacks a value that the step matches" in found
    forever = "steps: [{id: ask, type: approval, role: boss, show: {n: 1}, then: $end}]"
    (found,) = faults(tmp_path, forever, "tests: [{name: t, approvals: {ask: times_out}}]")
    assert "'ask' cannot time out: it has no timeout_seconds" in found


def test_a_run_begins_when_its_test_says(tmp_path: Path) -> None:
    program = "steps: [{id: w, type: wait, until: '2027-03-01T00:00:00Z', timeout_seconds: 60}]"
    early = "tests: [{name: t, expect: {error_kind: timeout}}]"
    assert faults(tmp_path, program, early) == []
    near = 'tests: [{name: t, starts_at: "2027-02-28T23:59:30Z"}]'
    assert faults(tmp_path, program, near) == []


TOOLS = """
from nano_vm import tool
calls = []

@tool(effect="read")
async def send(text: str) -> str:
    calls.append(text)
    return "sent " + text

tools = {"send": send}
"""


def test_a_real_tool_is_called_only_where_the_test_says_so(tmp_path: Path) -> None:
    tests = """
    tools: tools.py:tools
    inputs: {names: [ann]}
    tests:
      - {name: not, models: {write: x}}
      - {name: by name, models: {write: x}, real_tools: [send], expect: {output: [sent x]}}
      - {name: all, models: {write: y}, real_tools: true, expect: {output: [sent y]}}
      - {name: answered, models: {write: y}, tools: {send: no}, real_tools: true, expect: {output: ["no"]}}
    """
    found = suite(tmp_path, LETTERS, tests, tools_py=TOOLS)
    refused, *others = [found.run(one) for one in found.tests]
    assert "the test gives no answer" in refused.faults[0]
    assert [one.faults for one in others] == [[], [], []]
    send: Any = found.subject.functions["send"]
    assert send.__globals__["calls"] == ["x", "y"]


def test_undo_and_reconcile_calls_are_answered_by_their_own_paths(tmp_path: Path) -> None:
    program = """
    steps:
      - {id: book, type: tool, tool: book, undo: {tool: unbook, args: {n: 1}}}
      - {id: pay, type: tool, tool: pay, reconcile: {tool: paid}}
      - {id: stop, type: fail, error: Closed, message: closed}
    """
    tests = """
    tests:
      - name: t
        tools:
          book: 1
          book/undo: ok
          pay: {times_out: true}
          pay/reconcile: {returns: {done: true, output: 5}}
        expect: {error: closed, calls: {unbook: [{n: 1}], paid: 1}, steps: {pay: {output: 5}}}
    """
    assert faults(tmp_path, program, tests) == []


# --- the run is that of a VM ---

WORKFLOW = """
name: workflow
inputs: {type: object, properties: {names: {type: array}}, required: [names]}
steps:
  - id: both
    type: parallel
    parallel_steps:
      - {id: a, type: llm, prompt: "$names", retry: {on: [rate_limit], delay_seconds: 0}, max_retries: 3}
      - {id: b, type: tool, tool: send, args: {text: hi}}
  - id: again
    type: loop
    max_iterations: 3
    until: "$check.output == 'good'"
    steps: [{id: check, type: llm, prompt: "$both.output", allowed_outputs: [good, bad]}]
  - {id: all, type: map, over: $names, as: one, steps: [{id: s, type: tool, tool: send, args: {text: $one}}]}
"""


def test_a_run_of_a_test_has_the_digest_of_a_run_on_a_vm(tmp_path: Path) -> None:
    found = suite(
        tmp_path,
        WORKFLOW,
        """
        tools: tools.py
        real_tools: true
        tests:
          - name: t
            inputs: {names: [ann, ben]}
            models: {a: [{error: rate_limit}, fine], check: [bad, good]}
        """,
        tools_py=TOOLS,
    )
    case: Any = found.tests[0].case
    assert found.run(found.tests[0]).faults == []
    subject = found.subject
    ran = execute(subject, case, case.inputs, frozenset(subject.functions))
    from nano_vm import RateLimited

    script = ScriptedLLM(
        steps={
            "a": [RateLimited("as the script says", retry_after_seconds=0), "fine"],
            "check": ["bad", "good"],
        }
    )
    vm = ExecutionVM(script, dict(subject.functions))
    trace = vm.run_sync(subject.program, case.inputs, seed=0)
    assert [step.path for step in ran.trace.steps] == [step.path for step in trace.steps]
    assert ran.trace.digest == trace.digest


# --- what a file says wrong ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "P050: a test file is an object with 'tests', not list"),
        ("{}", "P050: there is no test in it; write tests:"),
        ("tests: []", "P050: there is no test in it"),
        (
            "tests: [{nam: x}]",
            "1:10: tests[0].nam: P051: unknown field 'nam'; did you mean 'name'?",
        ),
        ("tests: [{}]", "tests[0]: P050: 'name' is missing"),
        ("tests: [{name: 3}]", "tests[0].name: P050: input should be a valid string, not 3"),
        ("tests: [{name: a}, {name: a}]", "two tests are called 'a'; rename one of them"),
        ("test: [{name: a}]", "P051: unknown field 'test'; did you mean 'tests'?"),
        (
            "tests: [{name: a, expect: {outptu: 1}}]",
            "tests[0].expect.outptu: P051: unknown field 'outptu'; did you mean 'output'?",
        ),
        (
            "tests: [{name: a, expect: {steps: {b: {brunch: then}}}}]",
            "tests[0].expect.steps.b.brunch: P051: unknown field 'brunch'; did you mean 'branch'?",
        ),
        (
            "tests: [{name: a, expect: {calls: {pay: -1}}}]",
            "tests[0].expect.calls.pay: P050: input should be greater than or equal to 0, not -1",
        ),
        (
            "tests: [{name: a, expect: {status: good}}]",
            "expect.status: P050: input should be 'succ",
        ),
        (
            "prices: {default: [x, 1]}\ntests: [{name: a}]",
            "1:10: prices.default: P050: the price of 'default' is ['x', 1]; it is a pair of",
        ),
        ("prices: {m: [-1, 1]}\ntests: [{name: a}]", "prices.m: P050: the price of 'm' is [-1, 1]"),
        (
            "prices: {m: {input: 1}}\nproperties: [{name: a, never: [b]}]",
            "prices.m: P050: the price",
        ),
        ("tests: [{name: a, golden: ../a.json}]", "P050: '../a.json' is no file beside the test"),
        ("tests: [{name: a, golden: a.txt}]", "P050: 'a.txt' is no file beside the test file"),
        ("tests: [{name: a, starts_at: monday}]", "P050: 'monday' is no time; write 2027-01-31T"),
        ("properties: [{name: a}]", "P050: the property states nothing; write at_most, never"),
        ("tests: [{name: a}\n", "P001: not YAML"),
        ("tests: [{name: a, name: b}]", "P002: duplicate key 'name'"),
    ],
)
def test_a_faulty_file_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        read_document(text, "t.test.yaml")
    found = list(map(str, caught.value.diagnostics))
    assert any(said in line for line in found), found
    assert all(line.startswith("t.test.yaml:") for line in found)


@pytest.mark.parametrize("name", ["intent", "interval", "int", "bool", "boolean", "list[x]"])
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("tests: [{name: a, expect: {steps: {'NAME': {brunch: x}}}}]", "steps.NAME.brunch: P051"),
        ("tests: [{name: a, expect: {calls: {'NAME': -1}}}]", "calls.NAME: P050"),
        ("tests: [{name: a, expect: {calls: {'NAME': [3]}}}]", "calls.NAME: P050"),
        ("tests: [{name: a, real_tools: {'NAME': 3}}]", "tests[0].real_tools: P050"),
        ("real_tools: {'NAME': 3}\ntests: [{name: a}]", "real_tools: P050"),
        ("properties: [{name: a, at_most: {'NAME': -1}}]", "properties[0].at_most.NAME: P050"),
        ("properties: [{name: a, only_after: {'NAME': 3}}]", "[0].only_after.NAME: P050"),
        ("prices: {'NAME': 3}\ntests: [{name: a}]", "prices.NAME: P050"),
        ("programs: {'NAME': 3}\ntests: [{name: a}]", "programs.NAME: P050"),
    ],
)
def test_a_place_has_the_names_of_the_document_whatever_they_are(
    name: str, text: str, place: str
) -> None:
    with pytest.raises(ProgramError) as caught:
        read_document(text.replace("NAME", name))
    found = list(map(str, caught.value.diagnostics))
    assert place.replace("NAME", name) in found[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {juge: yes}", "models.juge: P052: the program has no step 'juge'; did you mean"),
        ("models: {pay: yes}", "P052: step 'pay' is a tool step, no model step; its answers stand"),
        ("tools: {guard: 1}", "P052: step 'guard' is a condition step, no tool step"),
        ("tools: {pya/undo: 1}", "P052: the program has no step 'pya'; did you mean 'pay'?"),
        ("expect: {path: [judge, gaurd]}", "expect.path[1]: P052: the program has no step 'gaurd'"),
        ("expect: {reached: [x]}", "expect.reached[0]: P052: the program has no step 'x'"),
        ("expect: {never: [refnd]}", "expect.never[0]: P052: the program has no step 'refnd'"),
        ("expect: {steps: {pai: {}}}", "P052: the program has no step 'pai'; did you mean 'pay'?"),
        ("expect: {calls: {pya: 1}}", "P052: the program calls no tool 'pya'; did you mean 'pay'?"),
        ("real_tools: [send]", "P052: the program calls no tool 'send'; it calls pay"),
        ("untrusted: [messge]", "tests[0].untrusted[0]: P052: the program reads no input 'messge'"),
    ],
)
def test_names_that_the_program_lacks_are_faults(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        suite(tmp_path, GUARD, f"tests: [{{name: t, {text}}}]")
    found = list(map(str, caught.value.diagnostics))
    assert any(said in line for line in found), found


def test_the_tools_that_every_test_calls_are_tools_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(ProgramError) as raised:
        suite(tmp_path, GUARD, "real_tools: [pya]\ntests: [{name: t}]")
    (only,) = [str(d) for d in raised.value.diagnostics]
    said = "1:14: real_tools[0]: P052: the program calls no tool 'pya'; did you mean 'pay'?"
    assert only.endswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at_most: {pya: 1}", "P052: the program calls no tool 'pya'"),
        ("never: [pya]", "P052: the program calls no tool 'pya'"),
        ("only_after: {pay: gard.then}", "P052: the program has no step 'gard'"),
        ("only_after: {pay: guard}", "P052: 'guard' is no branch of a step; write step.then"),
    ],
)
def test_a_property_of_what_is_not_there_is_a_fault(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ProgramError, match=said):
        suite(tmp_path, GUARD, f"properties: [{{name: t, {text}}}]")


def test_a_file_without_its_program_or_tools_says_so(tmp_path: Path) -> None:
    alone = tmp_path / "alone.test.yaml"
    alone.write_text("tests: [{name: t}]")
    with pytest.raises(UsageFault, match="there is no program beside it of that name"):
        suite_of(alone)
    with pytest.raises(UsageFault, match=r"there is no file .*gone\.py"):
        suite(tmp_path, GUARD, "tools: gone.py\ntests: [{name: t}]")
    with pytest.raises(ProgramError, match="unknown step type"):
        suite(tmp_path, GUARD.replace("type: llm", "type: lm"), "tests: [{name: t}]")


def test_a_program_that_is_refused_is_an_end_that_can_be_expected(tmp_path: Path) -> None:
    policy = 'tools: {"*": {allow: false}}'
    head = "policy: policy.yaml\ntests: [{name: t, inputs: {message: x}, models: {judge: yes}"
    (found,) = faults(tmp_path, GUARD, head + "}]", policy_yaml=policy)
    assert "expected success, and the run is refused" in found
    expect = head + ", expect: {status: refused, diagnostics: [V050]}}]"
    assert faults(tmp_path, GUARD, expect, policy_yaml=policy) == []
    missing = "tests: [{name: t, expect: {diagnostics: [V040]}}]"
    assert faults(tmp_path, GUARD, missing) == []


# --- properties, coverage, golden files, reports ---


def test_a_property_holds_in_every_run_or_shows_one_that_breaks_it(tmp_path: Path) -> None:
    tests = """
    properties:
      - {name: guarded, only_after: {pay: guard.then}, at_most: {pay: 1}}
      - {name: wrong, never: [pay]}
    """
    good, bad = verdicts(tmp_path, GUARD, tests)
    assert good.passed
    assert bad.faults[0] == "broken: pay is never called"
    assert "  guard -> then ($judge.output = 'yes')" in bad.faults


def test_a_property_does_not_hold_where_its_search_was_cut_off(tmp_path: Path) -> None:
    tests = """
    properties:
      - {name: once, at_most: {pay: 1}, max_runs: 2}
      - {name: broken, never: [pay], max_runs: 2}
      - {name: all, at_most: {pay: 1}}
    """
    once, broken, every = verdicts(tmp_path, GUARD, tests)
    said = (
        f"{tmp_path}/p.test.yaml:3:37: max_runs: the search was cut off after 2 runs, and the "
        "others may break the property: max_runs is 2, and 1,000 choices of a run are varied; "
        "raise max_runs, give inputs, or write errors: false"
    )
    assert once.faults == [said]
    assert broken.faults[0] == "broken: pay is never called"
    assert broken.faults[-1] == said.replace(":3:37:", ":4:34:")
    assert every.passed


DECLARED = GUARD.replace(
    "steps:",
    "inputs: {type: object, properties: {message: {type: string}}, required: [message]}\nsteps:",
)


@pytest.mark.parametrize(
    ("program", "inputs", "said"),
    [
        (GUARD, "{messge: hi}", "input 'message' is needed and not given: step 'judge' reads it"),
        (GUARD, "{}", "input 'message' is needed and not given"),
        (DECLARED, "{message: 5}", "inputs do not fit the program's schema"),
        (DECLARED, "{messge: hi}", "input 'message' is needed and not given"),
    ],
)
def test_a_property_does_not_hold_of_inputs_that_no_run_may_have(
    tmp_path: Path, program: str, inputs: str, said: str
) -> None:
    tests = f"properties: [{{name: a, at_most: {{pay: 5}}, inputs: {inputs}}}]"
    found = faults(tmp_path, program, tests)
    assert found, "it passed"
    assert said in found[0], found


def test_tests_cover_steps_and_branches_together(tmp_path: Path) -> None:
    tests = """
    tests:
      - {name: yes, inputs: {message: hi}, models: {judge: yes}, tools: {pay: 1}}
      - {name: no, inputs: {message: hi}, models: {judge: no}}
    """
    found = suite(tmp_path, GUARD, tests)
    nothing = coverage([found])
    assert nothing is not None
    assert (nothing.steps_reached, nothing.branches_taken) == (0, 0)
    found.run(found.tests[0])
    one = coverage([found])
    assert one is not None
    assert (one.steps, one.steps_reached, one.branches, one.branches_taken) == (4, 3, 2, 1)
    assert one.missed == ("no_pay", "guard: otherwise")
    found.run(found.tests[1])
    both = coverage([found])
    assert both is not None
    assert both.missed == ()


def test_a_golden_file_is_written_on_request_and_held_from_then_on(tmp_path: Path) -> None:
    tests = """
    tests:
      - {name: t, inputs: {message: hi}, models: {judge: yes}, tools: {pay: 1}, golden: kept/t.json}
    """
    found = suite(tmp_path, GUARD, tests)
    (test,) = found.tests
    assert "there is no kept/t.json yet; write it with --update" in found.run(test).faults[0]
    assert not (tmp_path / "kept").exists()
    assert found.run(test, update=True).updated
    assert found.run(test).passed
    assert not found.run(test, update=True).updated
    kept = (tmp_path / "kept/t.json").read_text()
    assert json.loads(kept)["steps"][1] == {
        "path": "guard",
        "status": "success",
        "branch": "then",
        "output": "pay",
    }
    changed = suite(tmp_path, GUARD, tests.replace("pay: 1", "pay: 2"))
    first, *lines = changed.run(changed.tests[0]).faults
    assert "the run is not that of kept/t.json; if it may differ, write it anew" in first
    assert '  -  "output": 1,' in lines
    assert '  +  "output": 2,' in lines
    assert (tmp_path / "kept/t.json").read_text() == kept


def test_the_report_for_ci_is_xml_whatever_the_messages_hold(tmp_path: Path) -> None:
    tests = (
        'tests: [{name: "a <b> & \\u0001", inputs: {message: x}, models: {judge: yes},'
        ' tools: {pay: "\\u0007]]>"}, expect: {output: 1}}]'
    )
    found = suite(tmp_path, GUARD, tests)
    verdict = found.run(found.tests[0])
    report = junit_xml({"p.test.yaml": [verdict]}, {"q.test.yaml": "not YAML\nat all"})
    root = ElementTree.fromstring(report.encode())
    assert root.attrib["tests"] == "2"
    assert root.attrib["failures"] == "1"
    assert root.attrib["errors"] == "1"
    case = root.find("testsuite/testcase")
    assert case is not None
    assert case.attrib["name"] == "a <b> & \\u0001"
    assert case.attrib["line"] == "1"
    failure = case.find("failure")
    assert failure is not None
    assert failure.text is not None
    assert "]]>" in failure.text
    error = root.find("testsuite/testcase/error")
    assert error is not None
    assert error.text == "not YAML\nat all"


# --- the command ---


NAMES_OF_EXCEPTIONS = sorted(
    name
    for module in (builtins, errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, BaseException)
)


@pytest.mark.parametrize("name", NAMES_OF_EXCEPTIONS)
def test_a_tool_raises_every_exception_that_there_is(tmp_path: Path, name: str) -> None:
    program = "name: p\nsteps: [{id: ask, type: tool, tool: ask}]"
    reads = """
    from nano_vm import tool

    @tool(effect="read")
    def ask(): ...
    """
    tests = f"""
    tools: tools.py
    tests:
      - name: t
        tools: {{ask: {{raises: {name}, message: closed}}}}
        expect: {{status: failed, error: closed}}
    """
    assert faults(tmp_path, program, tests, tools_py=reads) == []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(GUARD)
    Path("p.test.yaml").write_text(
        "inputs: {message: hi}\n"
        "tests:\n"
        "  - {name: paid, models: {judge: yes}, tools: {pay: 1}}\n"
        "  - {name: wrong, models: {judge: no}, expect: {output: 1}}\n"
    )
    return tmp_path


def test_the_command_says_what_passed_and_what_is_covered(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".venv").mkdir()
    Path(".venv/x.test.yaml").write_text("not ours")
    assert main(["test"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "p.test.yaml",
        "  ok      paid",
        "  FAILED  wrong",
        '          p.test.yaml:4:49: expect.output: expected 1, and it is {"said":"nothing"}',
        "p.yaml: 4 of 4 steps, 2 of 2 branches",
        "1 passed, 1 failed",
    ]
    assert main(["test", "p.test.yaml", "-k", "paid"]) == 0
    out = capsys.readouterr().out
    assert "  not reached: no_pay\n  not reached: guard: otherwise\n1 passed\n" in out
    assert main(["test", "-k", "paid", "--min-coverage", "90"]) == 1
    assert "66.7 % covered, and --min-coverage is 90" in capsys.readouterr().out
    assert main(["test", ".", "--json", "--junit", "r.xml"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["coverage"]["p.yaml"]["percent"] == 100.0
    assert [one["passed"] for one in said["files"][0]["tests"]] == [True, False]
    assert Path("r.xml").read_text().startswith("<?xml")


def test_the_command_goes_on_behind_a_file_that_is_wrong(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.test.yaml").write_text("program: p.yaml\ntests: [{name: t, models: {juge: x}}]")
    Path("b.test.yaml").write_text("tests: [{name: t}]")
    assert main(["test"]) == 1
    out = capsys.readouterr().out
    assert "P052: the program has no step 'juge'; did you mean 'judge'?" in out
    assert "b.test.yaml: there is no program beside it of that name; write program: FILE" in out
    assert out.endswith("1 passed, 1 failed, 2 not readable\n")
    assert main(["test", "-x"]) == 1
    assert "p.test.yaml" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gone.test.yaml"], "there is no file gone.test.yaml"),
        (["p.yaml"], "p.yaml is no test file: their names end with .test.yaml"),
        (["empty"], "there is no test in empty: no file is called NAME.test.yaml"),
        (["--junit", "no/r.xml"], "--junit: cannot write no/r.xml: "),
        (["--min-coverage", "200"], "200.0 is not in the range 0<=x<=100"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    Path("empty").mkdir()
    assert main(["test", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_the_same_program_in_two_files_is_covered_by_both(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p.test.yaml").write_text(
        "tests: [{name: a, inputs: {message: x}, models: {judge: yes}, tools: {pay: 1}}]"
    )
    Path("q.test.yaml").write_text(
        "program: p.yaml\ntests: [{name: b, inputs: {message: x}, models: {judge: no}}]"
    )
    assert main(["test", "--min-coverage", "100"]) == 0
    assert capsys.readouterr().out.endswith("p.yaml: 4 of 4 steps, 2 of 2 branches\n2 passed\n")


REFUSING = "policy: none.yaml\ntests: [{name: r, inputs: {message: x}, expect: {status: refused}}]"


def test_coverage_is_that_of_the_suites_whose_program_may_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("none.yaml").write_text('tools: {"*": {allow: false}}')
    Path("a.test.yaml").write_text("program: p.yaml\n" + REFUSING)
    assert main(["test", "-k", "paid", "--min-coverage", "90"]) == 1
    out = capsys.readouterr().out
    assert "p.yaml: 3 of 4 steps, 1 of 2 branches" in out
    assert "p.yaml: 66.7 % covered, and --min-coverage is 90" in out


def test_a_program_that_may_never_run_is_not_covered(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("none.yaml").write_text('tools: {"*": {allow: false}}')
    Path("p.test.yaml").write_text(REFUSING)
    assert main(["test"]) == 0
    said = "p.yaml: nothing is covered: the program is refused"
    assert said in capsys.readouterr().out.splitlines()
    assert main(["test", "--min-coverage", "1"]) == 1
    assert f"{said}, and --min-coverage is 1" in capsys.readouterr().out.splitlines()


def test_a_subject_without_tools_takes_any() -> None:
    program = Program.from_yaml(GUARD)
    assert set(Subject(program, {}, {}).contracts) == {"pay"}


def test_the_schema_of_test_files_describes_every_field() -> None:
    schema = json_schema()
    parts = [schema, *schema["$defs"].values()]
    silent = [
        field
        for part in parts
        if part.get("title") != "Budget"
        for field, kind in part.get("properties", {}).items()
        if "description" not in kind
    ]
    assert silent == []
