"""The register of codes: complete, documented, and each example has its code and no other error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nano_vm import ExecutionVM, Program, ProgramError
from nano_vm.adapters.scripted import ScriptedLLM
from nano_vm.cli import main
from nano_vm.diagnostics import Diagnostic
from nano_vm.diagnostics.code import PAY, Code
from nano_vm.diagnostics.register import CODES, explained, has, register
from nano_vm.language.policy import Policy
from nano_vm.language.reader import placed
from nano_vm.tools.contract import tool
from nano_vm.verify import verify

ROOT = Path(__file__).parents[2]
SOURCES = [p for p in (ROOT / "src").rglob("*.py") if "diagnostics" not in p.parts]
_CODE = re.compile(r'"([PV]\d{3})"')


@tool(effect="read")
def fetch(q: str = "") -> str:
    """Never called."""
    return q


def pay(to: str, amount: int) -> None:
    """Never called."""


def told(example: str, policy: str) -> list[Diagnostic]:
    """What is said of an example."""
    try:
        rules = Policy.from_yaml(policy) if policy else None
        program = Program.from_yaml(example or PAY)
    except ProgramError as error:
        return list(error.diagnostics)
    tools = {"fetch": fetch, "pay": pay}
    return list(verify(program, tools=tools, policy=rules).faults)


def test_every_code_that_is_used_is_registered_and_no_other() -> None:
    used = {code for path in SOURCES for code in _CODE.findall(path.read_text())}
    assert used == set(CODES)


WITH_EXAMPLES = [one for one in CODES.values() if one.example or one.policy]


@pytest.mark.parametrize("one", WITH_EXAMPLES, ids=lambda one: one.code)
def test_an_example_has_its_code(one: Code) -> None:
    found = told(one.example, one.policy)
    assert (one.code, one.severity) in {(d.code, d.severity) for d in found}
    assert {d.code for d in found if d.severity == "error"} <= {one.code}


@pytest.mark.slow
def test_what_has_no_example_needs_more_than_a_program_and_is_tested_all_the_same() -> None:
    tests = "\n".join(
        path.read_text() for suffix in ("*.py", "*.yaml") for path in (ROOT / "tests").rglob(suffix)
    )
    assert len(WITH_EXAMPLES) > 50
    assert [code for code in CODES if CODES[code] not in WITH_EXAMPLES and code not in tests] == []


def test_a_code_that_nobody_registered_is_caught_where_the_diagnostic_is_made() -> None:
    with pytest.raises(ValueError, match=r"no code 'V999' is registered; describe it in"):
        Diagnostic("V999", (), "of no kind")
    with pytest.raises(ValueError, match="no code 'v003' is registered"):
        Diagnostic("v003", (), "in another case")


def test_a_code_of_another_version_is_read_all_the_same() -> None:
    written = {**Diagnostic("V003", ("steps", 1), "m", "h").to_dict(), "code": "V999", "new": 1}
    read = Diagnostic.from_dict(written)
    assert read.to_dict() == {key: value for key, value in written.items() if key != "new"}
    assert str(read) == "steps[1]: V999: m; h"


def test_a_code_of_another_version_is_placed_in_a_text() -> None:
    """A newer server refuses a program for what this version does not know."""
    source = "steps:\n- {id: pay, type: set, value: 1}\n"
    told = {"code": "V999", "loc": ["steps", 0, "id"], "message": "new", "line": 7, "column": 7}
    newer = Diagnostic.from_dict({**told, "hint": "upgrade", "severity": "warning"})
    inner = newer.at(newer.loc)
    assert (inner.line, inner.column) == (None, None)
    (found,) = placed([inner], source, "p.yaml")
    assert str(found) == "p.yaml:2:4: steps[0].id: V999: new; upgrade"
    assert (found.severity, newer.line) == ("warning", 7)


def test_no_two_codes_have_one_name() -> None:
    one, other = Code("V001", "a", "", ""), Code("V001", "b", "", "")
    with pytest.raises(ValueError, match="'V001' stands twice: 'a' and 'b'"):
        register([one], [Code("V002", "c", "", ""), other])


def test_traits_are_those_of_the_register() -> None:
    assert has("V010", "host")
    assert has("V011", "doubt")
    assert not has("V012", "host")
    assert not has("X999", "host")  # of another version


def test_explain_tells_what_a_code_means(capsys: pytest.CaptureFixture[str]) -> None:
    for code in ("V003", "v003"):
        assert main(["explain", code]) == 0
        said = capsys.readouterr().out
        assert said.strip() == explained("V003")
    assert "A jump to a step that does not exist" in said
    assert main(["explain", "V999"]) == 2
    assert "no fault has the code 'V999'" in capsys.readouterr().err


def test_a_model_that_the_host_does_not_have() -> None:
    vm = ExecutionVM({"small": ScriptedLLM(["x"])})
    program = Program.from_dict(
        {"steps": [{"id": "a", "type": "llm", "prompt": "?", "model": "samll"}]}
    )
    (fault,) = [d for d in vm.check(program) if d.severity == "error"]
    assert (fault.code, fault.loc) == ("V031", ("steps", 0, "model"))
