"""Hints: the nearest known name, at a price that does not grow with the number of names."""

from __future__ import annotations

import ast
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_vm import ExecutionVM, Program, ProgramError, spelling
from nano_vm.spelling import (
    MAX_CANDIDATES,
    MAX_COMPARISONS,
    SLIP_COMPARISONS,
    Hints,
    meant,
    nearest,
)

NAMES = st.text("abc_", min_size=1, max_size=8)
SOURCE = Path(spelling.__file__).parent


@pytest.fixture
def comparisons(monkeypatch):
    """The comparisons that are made in a test; a search for slips of the pen counts as some."""
    made = []
    slips = spelling._slips

    def counted_slips(name):
        made.extend([name] * SLIP_COMPARISONS)
        return slips(name)

    class Counted(SequenceMatcher):
        def set_seq1(self, name):
            made.append(name)
            super().set_seq1(name)

    monkeypatch.setattr(spelling, "SequenceMatcher", Counted)
    monkeypatch.setattr(spelling, "_slips", counted_slips)
    return made


@pytest.mark.slow
@given(NAMES, st.lists(NAMES, max_size=12, unique=True))
def test_among_few_names_it_is_as_near_as_any(name, known):
    found = nearest(name, known)
    best = get_close_matches(name, known, n=1)
    assert (found is None) == (not best)
    if found is not None:
        assert (
            SequenceMatcher(None, found, name).ratio()
            == SequenceMatcher(None, best[0], name).ratio()
        )


@pytest.mark.parametrize(
    "name",
    [
        "step_nunber_7123",
        "step_umber_7123",
        "step_nnumber_7123",
        "step_unmber_7123",
        "tep_number_7123",
    ],
)
def test_among_very_many_names_a_slip_of_the_pen_is_found(name):
    known = [f"step_number_{i}" for i in range(10_000)]
    assert nearest(name, known) == "step_number_7123"


def test_equally_near_names_are_taken_in_their_order():
    assert nearest("ab", ["abc", "abd"]) == "abc"
    assert nearest("ab", ["abd"], ["abc"]) == "abd"


@pytest.mark.parametrize("known", [[], ["zzz"], ["x" * 100_000]])
def test_nothing_near(known):
    assert nearest("abc", known) is None
    assert meant("abc", known, otherwise="write it") == "write it"
    assert nearest("x" * 90_000, known) is None


def test_one_pass_compares_so_much_and_no_more(comparisons):
    hints, known = Hints(), [f"name_{i}_{i}" for i in range(5_000)]
    found = [hints.nearest(f"nam3_{i}_{i}", known) for i in range(5_000)]
    asked = MAX_COMPARISONS // (MAX_CANDIDATES + SLIP_COMPARISONS)
    assert found[:asked] == known[:asked]
    assert not any(found[asked + 1 :])
    assert len(comparisons) <= MAX_COMPARISONS


SETS = [{"id": f"step_number_{i}", "type": "set", "values": {f"a{i}": 1}} for i in range(600)]
MANY = [f"name_number_{i}" for i in range(600)]


def set_of(values):
    return {"id": "s", "type": "set", "values": values}


def with_policy(policy):
    return {"steps": [{"id": "s", "type": "set", "values": {"a": 1}}], "policy": policy}


# Each is a document with 600 faults of one kind, among 600 names where the kind has names.
DOCUMENTS = {
    "outputs": {
        "steps": [*SETS, set_of({f"b{i}": f"$step_nunber_{i}.output" for i in range(600)})]
    },
    "declared inputs": {
        "inputs": {"type": "object", "properties": {name: {} for name in MANY}},
        "steps": [set_of({f"b{i}": f"$name_nunber_{i}" for i in range(600)})],
    },
    "inputs": {
        "steps": [
            set_of({f"b{i}": f"$name_nunber_{i}" for i in range(600)}),
            set_of(dict.fromkeys(MANY, 1)) | {"id": "t"},
        ]
    },
    "targets": {"steps": [{**step, "next": f"step_nunber_{i}"} for i, step in enumerate(SETS)]},
    "types": {"steps": [{"id": f"s{i}", "type": "tooll"} for i in range(600)]},
    "fields": {"steps": [{**step, "outptu_key": 1} for step in SETS]},
    "many fields": {"steps": [{**SETS[0], **{f"outputt_{i}": 1 for i in range(600)}}]},
    "kinds of errors": {
        "steps": [
            {**SETS[0], "catch": [{"errors": [f"timeouut{i}" for i in range(600)], "next": "$end"}]}
        ]
    },
    "programs": {
        "steps": [{"id": f"c{i}", "type": "call", "program": f"progran_{i}"} for i in range(600)]
    },
    "tools": {"steps": [{"id": f"c{i}", "type": "tool", "tool": f"too1_{i}"} for i in range(600)]},
    "arguments": {
        "steps": [
            {
                "id": "c",
                "type": "tool",
                "tool": "tool_0",
                "args": {f"amounts_{i}": 1 for i in range(600)},
            }
        ]
    },
    "rules": with_policy({"tools": {f"too1_{i}": {"allow": False} for i in range(600)}}),
    "arguments of rules": with_policy(
        {"tools": {"tool_0": {"args": {f"amount_{i}x": "trusted" for i in range(600)}}}}
    ),
    "names of checks": with_policy(
        {
            "values": dict.fromkeys(MANY, 1),
            "tools": {
                "tool_0": {
                    "args": {
                        "amount": " or ".join(f"$value == $name_nunber_{i}" for i in range(50))
                    }
                }
            },
        }
    ),
    "fields of rules": with_policy({"tools": {"tool_0": {f"max_cals{i}": 1 for i in range(600)}}}),
    "edges": {
        "steps": [{"id": "c", "type": "tool", "tool": "tool_0", "args": {"amount": 1}}],
        "policy": {
            "tools": {
                "tool_0": {
                    "guarded_by": [f"step_{i}.thn" for i in range(600)],
                    "after": [f"too1_{i}" for i in range(600)],
                }
            }
        },
    },
}


def tool_0(amount=0):
    return amount


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_refusal_compares_few_names(name, comparisons):
    tools = {f"tool_{i}": tool_0 for i in range(300)}
    programs = {f"program_{i}": Program.from_dict({"steps": [SETS[0]]}) for i in range(300)}
    vm = ExecutionVM(tools=tools, programs=programs)
    try:
        program = Program.from_dict(DOCUMENTS[name])
    except ProgramError as error:
        diagnostics = error.diagnostics
    else:
        diagnostics = [*vm.check(program), *vm.verify(program).diagnostics]
    assert any("did you mean" in (found.hint or "") for found in diagnostics), name
    assert 0 < len(comparisons) <= 3 * MAX_COMPARISONS, name


def test_inputs_that_nobody_takes_compare_few_names(comparisons):
    program = Program.from_dict(
        {
            "inputs": {"type": "object", "properties": {name: {} for name in MANY}},
            "steps": [SETS[0]],
        }
    )
    trace = ExecutionVM().run_sync(program, {f"name_nunber_{i}": 1 for i in range(600)})
    assert "did you mean 'name_number_0'?" in str(trace.diagnostics[0])
    assert 0 < len(comparisons) <= MAX_COMPARISONS


@pytest.mark.slow
def test_names_are_compared_in_one_place_only():
    """Lines of two documents are another matter."""
    for path in SOURCE.rglob("*.py"):
        names = {
            name.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            or (isinstance(node, ast.ImportFrom) and node.module == "difflib")
            for name in node.names
        }
        compares = names & {"difflib", "SequenceMatcher", "get_close_matches"}
        assert not compares or path.name == "spelling.py", path
