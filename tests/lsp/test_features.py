"""What the language server answers, asked of its modules: whole text, broken text, and any text."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from campaigns import cases

from nano_vm import tool
from nano_vm.errors import ProgramError
from nano_vm.language.canonical import formatted
from nano_vm.language.kinds import TYPES
from nano_vm.language.program import Program
from nano_vm.language.semantics import edge_words
from nano_vm.lsp.complete import completions
from nano_vm.lsp.cursor import cursor_at
from nano_vm.lsp.diagnose import diagnose, lenses
from nano_vm.lsp.fixes import CannotFormat, commented, fixes
from nano_vm.lsp.hover import hover
from nano_vm.lsp.index import Index
from nano_vm.lsp.names import edges_of
from nano_vm.lsp.navigate import (
    CannotRename,
    definitions,
    outline,
    references,
    renamed,
)
from nano_vm.lsp.offers import step_fields
from nano_vm.lsp.project import Known
from nano_vm.lsp.tree import parts_of
from nano_vm.tools.contract import contract

EXAMPLES = Path(__file__).parents[2] / "examples"
TEMPLATES = Path(__file__).parents[2] / "src/nano_vm/cli/templates"


@tool(effect="irreversible")
def pay(to: str, amount: float = 1) -> str:
    """Pay somebody."""
    return to


KNOWN = Known({"pay": pay}, {"pay": contract("pay", pay)}, models=("fast", "good"))


def marked(text: str) -> tuple[Index, tuple[int, int]]:
    """The index of a text, and the place of the mark in it."""
    before, mark, after = text.partition("|")
    assert mark
    return Index(before + after), (before.count("\n"), len(before.rpartition("\n")[2]))


def offered(text: str) -> list[str]:
    index, place = marked(text)
    return [one.label for one in completions(index, place, KNOWN)]


STEP = "steps:\n  - id: a\n    type: {}\n    "


ASKED = """\
inputs: {type: object, properties: {order: {type: object, properties: {amount: {type: number}}}}}
steps:
  - {id: a, type: llm, prompt: x, allowed_outputs: [yes, no], output_key: said}
  - id: b
    type: llm
    prompt: x
    output_schema:
      type: object
      properties:
        mood: {enum: [glad, sad]}
        who: {type: object, properties: {name: {type: string}}}
"""
GUARDED = """\
steps:
  - {id: g, type: condition, condition: true, when: true, then: p, otherwise: $end}
  - {id: w, type: switch, on: $x, cases: {x: p}}
  - {id: p, type: tool, tool: pay}
"""


@pytest.mark.parametrize(
    ("text", "some", "never"),
    [
        ("|", {"steps", "inputs", "budget"}, {"prompt"}),
        ("name: x\n|", {"steps", "inputs"}, {"name"}),
        ("name: x\nst|", {"steps"}, {"prompt"}),
        ("steps:\n  - |", {"id", "type"}, {"name"}),
        (STEP.format("llm") + "|", {"prompt", "max_tokens", "next"}, {"tool", "id", "type"}),
        (STEP.format("tool") + "|", {"tool", "args", "undo"}, {"prompt"}),
        (STEP.format("tool") + "tool: |", {"pay"}, {"id"}),
        (STEP.format("tool") + "tool: pay\n    args:\n      |", {"to", "amount"}, {"id"}),
        (STEP.format("tool") + "tool: pay\n    args: {to: x, |", {"amount"}, {"to", "id"}),
        ("steps:\n  - {id: a, type: tool, tool: pay, args: {|", {"to"}, {"type"}),
        ("steps:\n  - {id: a, type: |", {"llm", "loop"}, {"string"}),
        (STEP.format("llm") + "model: |", {"fast", "good"}, set()),
        (STEP.format("llm") + "on_error: |", {"fail", "skip", "retry"}, set()),
        (STEP.format("llm") + "on_truncated: |", {"fail", "accept"}, set()),
        (STEP.format("llm") + "catch: [{errors: [|", {"timeout", "rate_limit", "*"}, set()),
        (STEP.format("llm") + "catch: [{|", {"errors", "next"}, {"prompt"}),
        (STEP.format("llm") + "retry:\n      |", {"delay_seconds", "on"}, {"prompt"}),
        ("budget: {|", {"max_steps", "max_tokens"}, {"prompt"}),
        ("inputs:\n  type: |", {"object", "string"}, {"llm"}),
        ("inputs:\n  |", {"type", "properties"}, {"prompt"}),
        (STEP.format("set") + "values: {n: 1}\n  - id: b\n    next: |", {"a", "$end"}, {"b"}),
        (STEP.format("switch") + "cases:\n      yes: |", {"$end"}, {"id"}),
        (STEP.format("llm") + 'prompt: "hello $|', {"a"}, {"id"}),
        (STEP.format("llm") + "prompt: |\n      hello $".replace("|", "|") + "", set(), set()),
        (
            "steps:\n  - id: a\n    type: loop\n    steps:\n      - id: b\n        type: llm\n        |",
            {"prompt"},
            {"until"},
        ),
        (
            "steps:\n  - id: a\n    type: loop\n    steps:\n      - id: b\n        type: llm\n    |",
            {"until", "max_iterations"},
            {"prompt"},
        ),
        (f"{ASKED}  - {{id: c, type: condition, condition: $a.output == '|", {"yes", "no"}, {"a"}),
        (f"{ASKED}  - {{id: c, type: condition, condition: \"$a.output == 'y|", {"yes"}, {"a"}),
        (
            f"{ASKED}  - {{id: c, type: switch, on: $b.output.mood, cases: {{|",
            {"glad", "sad"},
            {"a"},
        ),
        (f"{ASKED}  - id: c\n    type: switch\n    on: $said\n    cases:\n      |", {"yes"}, {"a"}),
        (
            f"{ASKED}  - {{id: c, type: switch, on: $b.output.mood, cases: {{glad: $end, |",
            {"sad"},
            {"glad"},
        ),
        (f"{ASKED}  - {{id: c, type: set, values: {{x: $b.output.|", {"mood", "who"}, {"output"}),
        (f"{ASKED}  - {{id: c, type: set, values: {{x: $b.output.who.|", {"name"}, {"mood"}),
        (f"{ASKED}  - {{id: c, type: set, values: {{x: $order.|", {"amount"}, {"output", "error"}),
        (
            STEP.format("llm") + "allowed_outputs: [glad, no]\n    on_invalid: |",
            {"glad", '"no"'},
            {"no"},
        ),
        (f"policy:\n  tools:\n    |\n{ASKED}", {"pay"}, {"guarded_by"}),
        (f"policy:\n  tools:\n    pay:\n      |\n{ASKED}", {"guarded_by", "max_calls"}, {"pay"}),
        (
            f"policy:\n  tools: {{pay: {{guarded_by: [|]}}}}\n{GUARDED}",
            {"g.then", "g.otherwise", "w.x", "g.when"},
            {"a"},
        ),
        (f"policy:\n  tools: {{pay: {{effect: |}}}}\n{GUARDED}", {"read", "irreversible"}, {"a"}),
        (
            f"policy:\n  inputs: {{order: |}}\n{ASKED}",
            {"trusted", "untrusted", "public", "secret"},
            {"a"},
        ),
        (f"policy:\n  inputs: {{order: {{|}}}}\n{ASKED}", {"trust", "secrecy"}, {"tools"}),
        (
            f"policy:\n  inputs: {{order: {{trust: |}}}}\n{ASKED}",
            {"trusted", "untrusted"},
            {"public", "secret"},
        ),
        (f"policy:\n  inputs: {{order: {{secrecy: |}}}}\n{ASKED}", set(), {"trusted"}),
        (
            f"policy:\n  tools: {{pay: {{returns: |}}}}\n{ASKED}",
            {"trusted", "args", "public", "secret"},
            {"untrusted"},
        ),
        (
            f"policy:\n  tools: {{pay: {{returns: {{trust: |}}}}}}\n{ASKED}",
            {"trusted", "args"},
            {"public"},
        ),
        (
            f"policy:\n  tools: {{pay: {{args: {{to: {{|}}}}}}}}\n{ASKED}",
            {"trusted", "check", "approval"},
            {"guarded_by"},
        ),
        (
            f"policy:\n  tools: {{pay: {{args: {{to: {{trusted: |}}}}}}}}\n{ASKED}",
            {"true", "false"},
            {"trusted"},
        ),
        (f"policy:\n  metadata: {{x: {{y: |}}}}\n{ASKED}", set(), {"trusted", "true"}),
        (f"policy:\n  |\n{ASKED}", {"tools", "inputs", "values"}, {"steps"}),
        (
            "steps:\n  - id: a\n    type: llm\n    prompt: x\n    |\n    max_tokens: 4\n",
            {"system"},
            {"max_tokens", "prompt"},
        ),
    ],
)
def test_what_is_offered_fits_the_place(text: str, some: set[str], never: set[str]) -> None:
    found = set(offered(text))
    assert some <= found
    assert not never & found


WITH_EDGES = """\
steps:
  - {id: c, type: condition, condition: $x, then: $next}
  - {id: d, type: condition, when: $x, condition: $x, then: [], otherwise: $end}
  - {id: a, type: approval, role: boss}
  - {id: late, type: approval, role: boss, timeout_seconds: 5, then: $next}
  - {id: never, type: approval, role: boss, timeout_seconds: null, then: $next}
  - {id: tilde, type: approval, role: boss, timeout_seconds: ~, then: $next}
  - {id: loud, type: approval, role: boss, timeout_seconds: NULL, then: $next}
  - {id: empty, type: approval, role: boss, timeout_seconds: , then: $next}
  - {id: many, type: switch, on: $x, cases: {x: $end}, default: []}
  - {id: given, type: approval, role: boss, timeout_seconds: &limit 5, then: $next}
  - {id: alias, type: approval, role: boss, timeout_seconds: *limit, then: $next}
  - {id: s, type: switch, on: $x, cases: {x: $end, "y z": $end}}
  - {id: t, type: switch, on: $x, cases: {x: $end}, default: $end}
  - {id: twice, type: switch, when: $x, on: $x, cases: {when: $end, default: $end}, default: $end}
  - {id: l, type: loop, until: $x, max_iterations: 2, steps: [{id: in, type: set, values: {a: 1}}]}
  - id: m
    type: loop
    on_exhausted: continue
    until: $x
    max_iterations: 2
    steps: [{id: n, type: assert, condition: $x, when: $x}]
  - {id: g, type: tool, tool: pay, when: $x}
  - {id: w, type: wait, seconds: 1}
  - {id: p, type: parallel, parallel_steps: [[{id: q, type: llm, prompt: x, when: $x}]]}
  - {id: e, type: map, over: $x, as: i, max_items: 2, steps: [{id: h, type: llm, prompt: x}]}
  - {id: o, type: call, program: other.yaml}
  - {id: f, type: fail, error: Refused, message: x}
"""


def test_the_branches_of_every_type_are_compared() -> None:
    assert {step.type.value for step, _ in Program.from_yaml(WITH_EDGES).walk()} == set(TYPES)


@pytest.mark.parametrize(
    "text",
    [
        WITH_EDGES,
        *(
            path.read_text()
            for path in sorted(EXAMPLES.glob("*.yaml"))
            if "policy" not in path.name
        ),
    ],
)
def test_the_branches_that_are_offered_are_those_that_a_policy_may_name(text: str) -> None:
    steps = [step for step, _ in Program.from_yaml(text).walk()]
    known = [f"{step.id}.{word}" for step in steps for word in edge_words(step)]
    assert sorted(edges_of(Index(text))) == sorted(known)


def test_names_come_with_what_they_hold() -> None:
    index, place = marked(
        "inputs: {type: object, properties: {mail: {type: string}}}\n"
        "steps:\n"
        "  - {id: a, type: llm, prompt: x, allowed_outputs: [yes, no], output_key: said}\n"
        "  - {id: b, type: tool, tool: pay, args: {}}\n"
        "  - id: c\n    type: set\n    values: {n: $|}\n"
    )
    found = {one.label: one.detail for one in completions(index, place, KNOWN)}
    assert found["mail"] == "string"
    assert found["said"] == found["a"] == "one of 'yes', 'no'"
    assert found["b"] == "str"
    index, place = marked("steps:\n  - {id: a, type: llm}\n  - {id: b, prompt: $a.|}\n")
    assert [one.label for one in completions(index, place, KNOWN)] == ["output", "error"]


def test_every_field_of_every_type_is_offered_with_its_meaning() -> None:
    for kind in ("llm", "tool", "map", "loop", "approval", "wait", "switch"):
        assert all(step_fields(kind).values()), kind


# --- broken text ---

BROKEN = [
    '    prompt: "not closed',
    "    args: {a: 1",
    "    prompt: @x",
    "    typ",
    "    - x: : y",
    "    prompt: Answer: yes",
    "    \t: tab",
    "    'x",
]


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_line_costs_its_own_answers_only(line: str) -> None:
    text = (
        "inputs: {type: object, properties: {mail: {type: string}}}\n"
        "steps:\n"
        f"  - id: a\n    type: llm\n{line}\n    max_tokens: 4\n"
        "  - {id: b, type: tool, tool: pay, args: {to: $mail}, next: a}\n"
        "  - {id: c, type: tool, tool: pay, args: {to: $mali}, next: nowhere}\n"
    )
    index = Index(text)
    assert [step.id for step in index.steps()] == ["a", "b", "c"]
    row = next(n for n, one in enumerate(index.lines) if "$mail" in one)
    column = index.lines[row].index("$mail") + 2
    assert [span.line for span in definitions(index, (row, column))] == [0]
    jump = index.lines[row].index("next: a") + 6
    assert [span.line for span in definitions(index, (row, jump))] == [2]
    offers = completions(index, (row, column), KNOWN)
    assert "mail" in [one.label for one in offers]
    found = diagnose(text, None, KNOWN)
    codes = [shown.diagnostic.code for shown in found.shown]
    assert codes[0] == "P001"


def test_faults_in_other_parts_are_said_beside_that_of_the_broken_line() -> None:
    text = (
        "steps:\n  - id: a\n    prompt: @x\n    type: llm\n"
        "  - {id: b, type: tol}\n  - {id: c, type: set, values: {n: 1}, next: a}\n"
    )
    found = [shown.diagnostic for shown in diagnose(text, None, KNOWN).shown]
    assert [(d.code, d.line) for d in found] == [("P001", 3), ("P014", 5)]


# --- from place to place ---

JUMPS = """\
steps:
  - {id: judge, type: llm, prompt: x, output_key: judge_said}
  - id: gate
    type: condition
    condition: "$judge.output == 'yes' and $judge_said == 'yes'"
    then: pay
    otherwise: [{id: inner, type: set, values: {judge: 1}, next: judge}]
  - id: choose
    type: switch
    on: $judge
    cases: {a: pay, b: gate}
    default: judge
  - {id: pay, type: tool, tool: pay, args: {to: "$$judge costs ${judge.output} $5"}}
policy:
  tools: {pay: {guarded_by: [gate.then, judge.then]}}
"""


def rename(text: str, line: int, column: int, name: str) -> str:
    index = Index(text)
    lines = text.split("\n")
    for span in sorted(renamed(index, (line, column), name), key=lambda s: (s.line, -s.start)):
        old = lines[span.line]
        lines[span.line] = old[: span.start] + name + old[span.end :]
    return "\n".join(lines)


def test_renaming_a_step_changes_what_names_the_step_and_nothing_else() -> None:
    new = rename(JUMPS, 1, 10, "asked")
    assert "id: asked," in new
    assert "$asked.output == 'yes' and $judge_said" in new
    assert "next: asked" in new
    assert "default: asked" in new
    assert "$$judge costs ${asked.output} $5" in new
    assert "guarded_by: [gate.then, asked.then]" in new
    assert "values: {judge: 1}" in new  # a name that is written
    assert "on: $judge\n" in new  # reads that name
    assert new.count("asked") == 6


def test_renaming_a_name_leaves_the_step_of_that_id() -> None:
    new = rename(JUMPS, 9, 9, "value")
    assert "on: $value\n" in new
    assert "values: {value: 1}" in new
    assert "id: judge," in new
    assert "$judge.output == 'yes'" in new
    assert "${judge.output}" in new
    assert new.count("value") == JUMPS.count("value") + 2


def test_renaming_an_input_changes_where_it_is_required() -> None:
    text = (
        "inputs:\n  properties: {mail: {type: string}}\n  required: [mail]\n"
        "steps: [{id: a, type: set, values: {x: $mail}}]\n"
    )
    new = rename(text, 1, 17, "letter")
    assert new == text.replace("mail", "letter")
    assert rename(text, 2, 14, "letter") == new


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gate", "there is a step 'gate' already, in line 3"),
        ("a/b", "cannot be a step's id"),
        ("", "cannot be a step's id"),
        ("a-b", "is read as \\$name, where a '-' ends the name"),
        ("x" * 5000, "cannot be a step's id"),
    ],
)
def test_a_rename_that_would_change_the_program_is_refused(name: str, why: str) -> None:
    with pytest.raises(CannotRename, match=why):
        renamed(Index(JUMPS), (1, 10), name)


@pytest.mark.slow
def test_a_renamed_program_is_the_same_but_for_the_name() -> None:
    for path in sorted(TEMPLATES.glob("*/program.yaml")):
        text = path.read_text()
        index = Index(text)
        for step in index.steps():
            assert step.span is not None
            assert step.id is not None
            new = rename(text, step.span.line, step.span.start, "renamed_step")
            program = Program.from_yaml(new)
            assert step.id not in {one.id for one, _ in program.walk()}
            assert not [
                d
                for d in diagnose(new, None, Known()).shown
                if d.diagnostic.code[0] == "V" and d.diagnostic.severity == "error"
            ], (path, step.id)


def test_definitions_and_references_are_each_other() -> None:
    index = Index(JUMPS)
    gate = references(index, (2, 9))
    assert [span.line for span in gate] == [2, 10, 14]
    for span in gate:
        assert [one.line for one in definitions(index, (span.line, span.start))] == [2]
    assert [span.line for span in references(index, (2, 9), declared=False)] == [10, 14]


def test_the_outline_has_blocks_below_their_steps() -> None:
    entries = outline(Index((TEMPLATES / "agentic-review/program.yaml").read_text()))
    assert [one.name for one in entries] == ["first", "rounds", "approved", "publish", "shelve"]
    assert [one.name for one in entries[1].children] == ["write", "review", "verdict"]


def test_inline_programs_have_names_of_their_own() -> None:
    text = (
        "steps:\n"
        "  - {id: a, type: set, values: {n: 1}}\n"
        "  - id: c\n    type: call\n"
        "    program: {steps: [{id: a, type: set, values: {n: 2}}, {id: d, next: a, prompt: $n}]}\n"
    )
    index = Index(text)
    inner = index.lines[4].index("$n") + 1
    assert [span.line for span in definitions(index, (4, inner))] == [4]
    assert [span.line for span in references(index, (1, 10))] == [1]


# --- fixes ---


def fixed(text: str, title: str, known: Known = KNOWN) -> str:
    """The text after the fix with this title."""
    index = Index(text)
    found = [fix for shown in diagnose(text, None, known).shown for fix in fixes(index, shown)]
    fix = next((one for one in found if one.title == title), None)
    assert fix is not None, [one.title for one in found]
    lines = text.split("\n")
    for edit in fix.edits:
        line = lines[edit.span.line]
        lines[edit.span.line] = line[: edit.span.start] + edit.text + line[edit.span.end :]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "title", "part"),
    [
        ("steps:\n  - {id: a, type: tol}\n", "write 'tool'", "type: tool}"),
        ("steps:\n  - {id: a, type: tool, toool: pay}\n", "write 'tool'", ", tool: pay}"),
        (
            "steps:\n  - {id: a, type: set, values: {n: 1}, next: bb}\n  - {id: bbb, type: set, values: {m: 1}}\n",
            "write 'bbb'",
            "next: bbb}",
        ),
        (
            "steps:\n  - id: a\n    type: loop\n    until: $b.output\n    steps: [{id: b, type: set, values: {n: 1}}]\n",
            "add 'max_iterations'",
            "  - id: a\n    max_iterations: 3\n",
        ),
        (
            "steps:\n  - {id: a, type: loop, until: $b.output, steps: [{id: b, type: set, values: {n: 1}}]}\n",
            "add 'max_iterations'",
            "values: {n: 1}}], max_iterations: 3}",
        ),
        (
            'steps:\n  - id: a\n    type: llm\n    prompt: Answer: yes or "no"\n',
            "quote the value",
            'prompt: "Answer: yes or \\"no\\""',
        ),
        ("steps:\n  - id: a\n    type: llm\n    prompt: @x\n", "quote the value", 'prompt: "@x"'),
        (
            "inputs: {type: object, properties: {mail: {type: string}}}\n"
            "steps:\n  - id: a\n    type: llm\n    prompt: |\n      One\n      two $mali\n",
            "write 'mail'",
            "two $mail\n",
        ),
    ],
)
def test_a_fix_mends_what_it_says(text: str, title: str, part: str) -> None:
    new = fixed(text, title)
    assert part in new
    before = [s.diagnostic.message for s in diagnose(text, None, KNOWN).shown]
    after = [s.diagnostic.message for s in diagnose(new, None, KNOWN).shown]
    assert set(before) - set(after)


def test_a_condition_without_otherwise_gets_one() -> None:
    text = (
        "steps:\n  - id: a\n    type: condition\n    condition: 1 == 1\n    then: b\n"
        "  - {id: b, type: set, values: {n: 1}}\n"
    )
    index = Index(text)
    from nano_vm.diagnostics import Diagnostic
    from nano_vm.lsp.diagnose import Shown
    from nano_vm.lsp.index import Span

    d = Diagnostic("V006", ("steps", 0), "it has no 'otherwise'", line=2, column=5)
    (fix,) = fixes(index, Shown(d, Span(1, 4, 6)))
    assert fix.title == "add 'otherwise'"
    assert fix.edits[0].text == "    otherwise: $end\n"


# --- formatting ---


def test_comments_above_the_program_and_its_steps_stay() -> None:
    text = (
        "# About it\nsteps:\n  # first\n  # of two\n  - {id: a, type: set, values: {n: '#1'}}\n"
        "  # second\n  - {id: b, type: set, values: {m: 1}}\n"
    )
    program = Program.from_yaml(text)
    new = commented(text, formatted(program))
    assert new.startswith("# About it\nsteps:\n  # first\n  # of two\n  - id: a\n")
    assert "  # second\n  - id: b\n" in new
    assert Program.from_yaml(new).digest == program.digest
    assert commented(new, formatted(Program.from_yaml(new))) == new


@pytest.mark.parametrize("line", ["    # inside\n", "    type: set # behind\n"])
def test_a_comment_that_would_be_lost_stops_formatting(line: str) -> None:
    text = f"steps:\n  - id: a\n{line}    values: {{n: 1}}\n"
    with pytest.raises(CannotFormat, match="would lose the comment in line 3"):
        commented(text, "")


# --- any text, and long ones ---

PIECES = [
    *"\n\n\n   :{}[]\"'|>-#$&*!@%,\t\\",
    "- ", "steps:", "id: ", "type: llm", "$a", "${", "$$", "then: ", "\n  - ", "\n    ", "é", "💩",
    "args: {", "catch: [{errors: [", "prompt: |\n      ", "\r\n", "\x00", "\u2028", "<<: *x", "? ",
    "policy:\n  tools: {", "cases: {", "program: {steps: [", "---\n", "...\n",
]  # fmt: skip


@pytest.mark.campaign
def test_no_edit_and_no_place_makes_an_exception() -> None:
    """10,000 edits of real programs, each followed by every question at a place drawn."""
    sources = [path.read_text() for path in sorted(TEMPLATES.glob("*/program.yaml"))] + [JUMPS, ""]
    drawn = random.Random(14)
    text = ""
    for number in range(cases(10_000)):
        if number % 40 == 0:
            text = drawn.choice(sources)
        start = drawn.randint(0, len(text))
        end = min(start + drawn.choice((0, 0, 0, 1, 3, 40)), len(text))
        text = text[:start] + drawn.choice(PIECES) * drawn.choice((0, 1, 1, 2)) + text[end:]
        index = Index(text)
        line = drawn.randrange(len(index.lines))
        place = (line, drawn.randint(0, len(index.lines[line])))
        completions(index, place, KNOWN)
        hover(index, place, KNOWN)
        definitions(index, place)
        references(index, place)
        outline(index)
        try:
            renamed(index, place, "other")
        except CannotRename:
            pass
        if number % 20 == 0:
            found = diagnose(text, None, KNOWN)
            lenses(index, found)
            for shown in found.shown[:5]:
                fixes(index, shown)
            try:
                commented(text, formatted(Program.from_yaml(text)))
            except (CannotFormat, ProgramError):
                pass


def long_program(steps: int) -> str:
    body = "".join(
        f"  - id: step{n}\n    type: tool\n    tool: pay\n"
        f"    args: {{to: $mail, amount: $step{max(n - 1, 0)}.output}}\n    next: step{n + 1}\n"
        for n in range(steps)
    )
    return f"inputs: {{type: object, properties: {{mail: {{type: string}}}}}}\nsteps:\n{body}"


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "ms"), [(200, 50), (2_000, 200)])
def test_answers_come_in_time(steps: int, ms: float) -> None:
    """Each after an edit, in processor time; what is measured is the median."""
    text = long_program(steps)
    Index(text)
    asked = {
        "completion": lambda index, place: completions(index, place, KNOWN),
        "hover": lambda index, place: hover(index, place, KNOWN),
        "definition": lambda index, place: definitions(index, place),
        "references": lambda index, place: references(index, place),
        "rename": lambda index, place: renamed(index, place, "other"),
        "outline": lambda index, place: outline(index),
    }
    drawn = random.Random(1)
    for name, ask in asked.items():
        taken = []
        for _ in range(7):
            line = 2 + 5 * drawn.randrange(steps)
            begun = time.process_time()
            edited = text.replace("to: $mail", f"to: $mail{drawn.randrange(9)}", 1)
            index = Index(edited)
            ask(index, (line, 10))
            taken.append(time.process_time() - begun)
        assert sorted(taken)[3] * 1000 < ms, name


@pytest.mark.slow
def test_parts_of_any_size_are_bounded() -> None:
    parts_of("[" * 100_000)
    parts_of("a: " * 10_000)
    parts_of("steps:\n" + "  - x\n" * 20_000)
    assert Index("\n" * 10).step_at(3) is None


class Looked(str):
    """A line that counts how many of its characters are looked at by index or are copied."""

    count = 0

    def __getitem__(self, at: Any) -> str:
        found = super().__getitem__(at)
        Looked.count += len(found)
        return Looked(found)


@pytest.mark.parametrize("part", ["- ", "-\t", "-   "])
def test_a_line_of_items_in_items_is_read_once(part: str) -> None:
    items = 20_000
    line = Looked(part * items)
    Looked.count = 0
    assert len(cursor_at([line], (0, len(line))).frames) >= items
    assert Looked.count < 5 * len(line)
