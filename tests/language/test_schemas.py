"""Schemas: what is valid, what the first fault says, and that a check takes bounded time and
memory.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import find
from schema_cases import Cases

from nano_vm import ExecutionVM, Program, ProgramError, VMError
from nano_vm.explore.samples import Asked, samples
from nano_vm.language import schema_cost, schemas
from nano_vm.language.answers import MAX_ANSWER_CHARS
from nano_vm.language.schema_cost import MAX_CHECK_COST, everywhere, extent
from nano_vm.language.schemas import MAX_FAULT_CHARS, schema_check, schema_fault
from nano_vm.testing import ScriptedLLM

SEEDS = st.integers(0, 2**32)


def rates(schema):
    return schema_cost.rates(schema, schemas._in_python)


def usable(seed):
    """Cases and a usable schema drawn from *seed*; the schema is None where it is refused."""
    cases = Cases(random.Random(seed))
    schema = cases.schema()
    return cases, None if schema_fault(schema) else schema


@pytest.mark.slow
@given(SEEDS)
def test_a_verdict_is_that_of_another_engine(seed):
    cases, schema = usable(seed)
    if schema is None or any(
        "format" in node or "multipleOf" in node for node in everywhere(schema)
    ):
        return  # the other engine knows other formats, and divides floats
    other = jsonschema.Draft202012Validator(schema)
    check = schema_check(schema)
    for _ in range(5):
        value = cases.value(3)
        assert (check(value) is None) == other.is_valid(value), (schema, value)


@pytest.mark.slow
@given(SEEDS)
def test_the_fault_of_what_is_not_valid_is_short_and_its_place_is_there(seed):
    cases, schema = usable(seed)
    if schema is not None:
        check = schema_check(schema)
        for value in [cases.value(3), cases.large(300)]:
            fault = check(value)
            assert fault is None or 0 < len(fault) <= MAX_FAULT_CHARS


@pytest.mark.slow
@given(
    st.lists(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=2), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=6,
    )
)
def test_unique_items_are_those_of_another_engine(value):
    schema = {"uniqueItems": True}
    assert (schema_check(schema)(value) is None) == jsonschema.Draft202012Validator(
        schema
    ).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "value", "fault"),
    [
        ({"items": {"type": "string"}}, [1], """[0]: 1 is not of type "string\""""),
        ({"properties": {"a": {"minimum": 3}}}, {"a": 2}, "['a']: 2 is less than the minimum of 3"),
        ({"items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, ["", 1], "[1]: 1 does not "
                                                                                "fit what 'anyOf' allows"),
        ({"oneOf": [{}, {"type": "string"}]}, "a", "'a' does not fit what 'oneOf' allows"),
        ({"anyOf": [{"items": {"type": "string"}}, {"type": "null"}]}, [1], "[1] does not fit "
                                                                            "what 'anyOf' allows"),
        ({"uniqueItems": True}, [1, 1.0], "[1, 1.0] has items that are equal"),
        ({"uniqueItems": False}, [1, 1], None),
        ({"required": ["a"]}, {}, '"a" is a required property'),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}, "type": "array"}}}, [[], [1]],
         """[1][0]: 1 is not of type "array\""""),
        ({"$ref": "#/anyOf/0", "anyOf": [{"type": "string"}]}, 1, "it does not fit the schema"),
        ({"properties": {"a b/c~d": {"$ref": "#/$defs/x%20y~1z"}}, "$defs": {"x y/z": {"type": "null"}}}, {"a b/c~d": 1},
         """['a b/c~d']: 1 is not of type "null\""""),
        ({"$id": "urn:x", "$ref": "urn:x#a", "$defs": {"b": {"$anchor": "a", "type": "null"}}}, 1,
         '1 is not of type "null"'),
        (False, 1, None),
    ],
)  # fmt: skip
def test_a_fault_says_where_and_what(schema, value, fault):
    if isinstance(schema, bool):
        schema = {"items": schema} if fault else {}
    assert schema_check(schema)(value) == fault


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"$ref": "http://example.com/a"}, "leads out of the schema or nowhere"),
        ({"$ref": "#/$defs/a"}, "nowhere"),
        ({"$ref": "#a", "$defs": {"b": {"$anchor": "a"}, "c": {"$anchor": "a"}}}, "nowhere"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "back to itself"),
        ({"anyOf": [{"$ref": "#"}]}, "back to itself"),
        ({"$defs": {"a": {"$id": "urn:a"}}}, "$id"),
        ({"properties": {"a": {"$schema": "http://json-schema.org/draft-04/schema"}}}, "$schema"),
        ({"format": "dat"}, "did you mean 'date'?"),
        ({"type": "strin"}, "strin"),
        ({"pattern": "(?=a)"}, "look-around"),
        ({"$ref": "#/$defs/d200", "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}]} for i in range(1, 201)}
          | {"d0": {}}}, "deeper than 100"),
        ({"$ref": "#/$defs/d24", "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i - 1}"}] * 2} for i in range(1, 25)}
          | {"d0": {}}}, "more than 100000 steps"),
        ({"enum": [i / 3 for i in range(1000)]}, "more than 100000 steps"),
    ],
)  # fmt: skip
def test_what_no_value_could_be_checked_by_is_refused(schema, word):
    assert word in schema_fault(schema)
    with pytest.raises(ValueError, match=word.replace("$", r"\$").replace("?", r"\?")):
        schema_check(schema)(1)


KEYWORDS = [
    *sorted(schema_cost._PARTS),
    *sorted(schema_cost._NAMED_PARTS),
    *schema_cost.REFERENCES,
    *("$id", "$anchor", "format", "pattern", "enum", "const", "uniqueItems", "multipleOf", "a"),
]
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text("a#/$", max_size=4)
    | st.sampled_from(["#", "#/$defs/a", "date"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(KEYWORDS), JUNK, max_size=4))
def test_a_malformed_schema_is_a_fault_and_no_crash(schema):
    fault = schema_fault(schema)
    assert fault is None or (fault and "\n" not in fault and len(fault) < 600)


HELD = [*schemas.FORMATS, *schemas._READ_FORMATS]


@pytest.mark.parametrize("name", HELD)
def test_a_format_is_held_and_explored(name):
    schema = {"type": "string", "format": name}
    good = samples(Asked(), schema)
    assert good
    check = schema_check(schema)
    assert all(check(text) is None for text in good)
    assert check("\\ {") is not None or name == "regex"
    assert check("(") is not None or name in ("iri-reference", "uri-reference", "uri-template")


@pytest.mark.parametrize(("name", "bits"), [("int32", 31), ("int64", 63)])
def test_a_number_format_is_a_bound(name, bits):
    check = schema_check({"type": "integer", "format": name})
    assert check(2**bits - 1) is None
    assert check(-(2**bits)) is None
    assert check(2**bits) is not None
    assert check(-(2**bits) - 1) is not None


@pytest.mark.parametrize("name", sorted(schemas._NOTES))
def test_a_format_that_restricts_nothing(name):
    assert schema_check({"format": name})("anything") is None


def test_all_formats_stand_in_the_documentation():
    text = find("answers.md").read_text()
    named = [
        name for name in [*HELD, *schemas._BITS, *schemas._NOTES] if not name.startswith("uuid")
    ]
    assert not [name for name in named if f"`{name}`" not in text]


def evaluations(schema, value):
    """How often a subschema of *schema* is evaluated to its end when *value* is checked: the engine
    counts.
    """
    count = 0

    class Counted:
        def __init__(self, *_):
            pass

        def validate(self, _):
            nonlocal count
            count += 1

    body = json.loads(json.dumps(schema))
    for node in everywhere(body):
        node["counted"] = True
    jsonschema_rs.Draft202012Validator(body, keywords={"counted": Counted}, offline=True).is_valid(
        value
    )
    return count


@pytest.mark.slow
@given(SEEDS)
def test_the_bound_is_above_what_is_evaluated(seed):
    cases, schema = usable(seed)
    if schema is None or any("format" in node for node in everywhere(schema)):
        return
    limits = rates(schema)
    for value in [cases.value(4), cases.large(200)]:
        assert evaluations(schema, value) <= limits.cost(extent(value)), (schema, value)


@given(SEEDS)
def test_an_extent_counts_all_there_is(seed):
    value = Cases(random.Random(seed)).value(4)

    def counted(value):
        if isinstance(value, (list, dict)):
            inner = [
                counted(item) for item in (value.values() if isinstance(value, dict) else value)
            ]
            keys = sum(map(len, value)) if isinstance(value, dict) else 0
            return (
                1 + sum(n for n, _, _ in inner),
                1 + sum(n for _, n, _ in inner),
                keys + sum(n for _, _, n in inner),
            )
        return 1, 0, len(value) if isinstance(value, str) else 0

    assert extent(value)[:3] == counted(value)


UNION = {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {
                        "left": {"$ref": "#/$defs/node"},
                        "right": {"$ref": "#/$defs/node"},
                        "kind": {"const": f"kind_{i}"},
                    },
                    "required": ["kind"],
                }
                for i in range(20)
            ]
            + [{"type": "integer"}]
        }
    },
}


def tree(depth):
    return {"left": tree(depth - 1), "right": tree(depth - 1), "kind": "kind_9"} if depth else 1


LARGE = {
    "strings": (UNION, ["a"] * 1_000_000),
    "records": (
        {
            "items": {
                "properties": {f"f{i}": {"type": ["string", "null"]} for i in range(200)},
                "required": ["f1"],
            }
        },
        [{f"f{i}": "x" for i in range(10)} for _ in range(20_000)],
    ),
    "a syntax tree": (TREE, tree(12)),
    "a deep syntax tree": (TREE, {"left": tree(3), "right": tree(3), "kind": "kind_3"}),
    "distinct long integers": ({"uniqueItems": True}, [2**70 + i for i in range(20_000)]),
    "patterns": (
        {"patternProperties": {f"^p{i}$": {} for i in range(50)}},
        {f"k{i}": i for i in range(20_000)},
    ),
    "dates": ({"items": {"format": "date"}}, ["2026-01-02"] * 200_000),
}


@pytest.mark.parametrize("name", LARGE)
def test_what_people_send_is_far_from_the_bound(name):
    schema, value = LARGE[name]
    assert schema_check(schema)(value) is None
    assert rates(schema).cost(extent(value)) < MAX_CHECK_COST / 2


@pytest.mark.slow
def test_what_could_take_too_long_is_refused_unchecked():
    schema = {"items": {"enum": [{"a": i} for i in range(1_000)]}}
    fault = schema_check(schema)([{"a": 1}] * 100_000)
    assert "too large to be checked by this schema: 200001 entries" in fault
    assert schema_check(schema)([{"a": 1}] * 1_000) is None


SCRIPT = """
import json, random, resource, sys, time
from schema_cases import Cases
from nano_vm.language.schemas import schema_check, schema_fault

seeds, entries, seconds, megabytes = json.loads(sys.argv[1])
import jsonschema_rs  # its own size is not what is measured
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (base * 1024 + (megabytes + 300 << 20),) * 2)
for seed in seeds:
    cases = Cases(random.Random(seed))
    schema = cases.schema()
    if schema_fault(schema) is None:
        value, check = cases.large(entries), schema_check(schema)
        started = time.process_time()
        check(value)
        taken = time.process_time() - started
        if taken > seconds:
            print(f"seed {seed}: {taken:.1f} s")
print("grew by", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)
"""


def checked_elsewhere(seeds, entries, seconds, megabytes):
    """The output of checks in a process of their own, which ends if they take more memory."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([list(seeds), entries, seconds, megabytes])],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=300,
        check=True,
    ).stdout


@pytest.mark.slow
def test_schemas_by_sizes_stay_within_time_and_memory():
    # 60 s stand for "not minutes" on any machine; the engine without bounds takes hours for some of these
    output = checked_elsewhere(range(150), 20_000, seconds=60, megabytes=700)
    assert output.startswith("grew by")


MANY = list(range(300_000))


@pytest.mark.slow
def test_a_large_wrong_answer_costs_nothing():
    steps = [{"id": "m", "type": "llm", "prompt": "x", "output_schema": UNION, "max_retries": 1}]
    trace = ExecutionVM(llm=ScriptedLLM([json.dumps(MANY)])).run_sync(
        Program.from_dict({"steps": steps})
    )
    assert "does not fit the schema" in trace.error
    assert len(trace.error) < 600


def test_a_large_wrong_input_costs_nothing():
    program = {
        "inputs": {"type": "object", "properties": {"a": UNION}},
        "steps": [{"id": "s", "type": "set", "values": {"b": "$a"}}],
    }
    trace = ExecutionVM().run_sync(Program.from_dict(program), {"a": MANY})
    assert trace.diagnostics[0].code == "V041"
    assert len(str(trace.diagnostics[0])) < 600


def test_a_large_wrong_event_costs_nothing():
    program = {"steps": [{"id": "w", "type": "wait", "event": "paid", "output_schema": UNION}]}
    vm = ExecutionVM(store="sqlite://")
    vm.run_sync(Program.from_dict(program), run_id="r")
    with pytest.raises(VMError) as caught:
        vm.send_event("r", "paid", MANY)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("field", [{"output_schema": {}}, {"allowed_outputs": ["yes", "no"]}])
def test_an_endless_answer_is_not_parsed(field):
    steps = [{"id": "m", "type": "llm", "prompt": "x", "max_retries": 1, **field}]
    trace = ExecutionVM(llm=ScriptedLLM(["[" + "1," * (MAX_ANSWER_CHARS // 2) + "1]"])).run_sync(
        Program.from_dict({"steps": steps})
    )
    assert f"more than {MAX_ANSWER_CHARS}" in trace.error


def test_an_unknown_format_is_an_error_of_the_program():
    with pytest.raises(ProgramError, match="the format 'datum' is not known"):
        Program.from_dict(
            {
                "steps": [
                    {"id": "m", "type": "llm", "prompt": "x", "output_schema": {"format": "datum"}}
                ]
            }
        )
