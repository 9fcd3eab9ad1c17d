"""Drawings of a flow: what is in them, that nothing in a program becomes markup, and that the SVG
can be read.
"""

from __future__ import annotations

import re
import time
from typing import Any
from xml.etree import ElementTree

import pytest
from build import mapped
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_vm import Program
from nano_vm.draw.dot import dot
from nano_vm.draw.formats import FORMATS
from nano_vm.draw.graph import label, picture
from nano_vm.draw.layout import MAX_SPAN, lay_out
from nano_vm.draw.mermaid import mermaid
from nano_vm.draw.svg import svg
from nano_vm.language.flow import Flow

SVG = "{http://www.w3.org/2000/svg}"


def flow(*steps: dict[str, Any], name: str = "p") -> Flow:
    return Flow(Program.from_dict({"name": name, "steps": list(steps)}))


def tool(step_id: str, **fields: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "tool", "tool": "t", **fields}


WHOLE = flow(
    {
        "id": "ask",
        "type": "llm",
        "prompt": "$x",
        "allowed_outputs": ["yes", "no"],
        "catch": [{"errors": ["timeout"], "next": "stop"}],
    },
    {
        "id": "sure",
        "type": "condition",
        "condition": "$ask.output == 'yes'",
        "then": [tool("pay")],
        "otherwise": "stop",
    },
    {
        "id": "both",
        "type": "parallel",
        "on_error": "skip",
        "parallel_steps": [
            tool("mail"),
            [tool("log"), {"id": "sw", "type": "switch", "on": "$x", "cases": {"a": "$end"}}],
        ],
    },
    {
        "id": "again",
        "type": "loop",
        "max_iterations": 3,
        "until": "$draft.output == 1",
        "steps": [tool("draft", on_error="skip")],
        "next": "$end",
    },
    {"id": "stop", "type": "set", "values": {"y": 1}},
)


def test_mermaid_says_what_the_flow_says() -> None:
    assert (
        mermaid(WHOLE)
        == """\
flowchart TD
  n2(["ask<br/>llm<br/>one of yes, no"])
  n3{{"sure<br/>condition<br/>$ask.output == 'yes'"}}
  n4["stop<br/>set<br/>y"]
  n6["both<br/>parallel<br/>2 branches"]
  subgraph f1["mail"]
    n10["mail<br/>tool<br/>t()"]
  end
  subgraph f2["log"]
    n13["log<br/>tool<br/>t()"]
    n15{{"sw<br/>switch<br/>on $x"}}
    n12(("fail"))
    n13 --> n15
    n15 -.->|"no match"| n12
  end
  j6((" "))
  n6 --> n10
  n10 --> j6
  n6 --> n13
  n15 -->|"a"| j6
  n7["pay<br/>tool<br/>t()"]
  n14["again<br/>loop<br/>at most 3 times"]
  n16{{"until $draft.output == 1"}}
  n17["draft<br/>tool<br/>t()"]
  n0(("end"))
  n2 --> n3
  n2 -.->|"catch timeout"| n4
  n3 -->|"then"| n7
  n3 -->|"otherwise"| n4
  n4 --> n0
  j6 --> n14
  n6 -.->|"skip"| n14
  n7 --> n6
  n14 --> n17
  n16 -->|"until"| n0
  n16 -->|"again"| n17
  n17 --> n16
  n17 -.->|"skip"| n16
"""
    )


def test_what_is_computed_is_shown_as_its_expression() -> None:
    one = {"id": "one", "type": "set", "values": {"x": 1}}
    text = mermaid(
        flow(
            {"id": "w", "type": "wait", "seconds": {"expr": "$n * 60"}},
            {"id": "m", "type": "map", "over": {"expr": "split($t, ',')"}, "steps": [one]},
            {
                "id": "s",
                "type": "switch",
                "on": {"expr": "len($t)"},
                "cases": {"1": "$end"},
                "default": "$end",
            },
        )
    )
    for shown in ("each item of split($t, ',')", "on len($t)", "for $n #42; 60 s"):
        assert shown in text, text


def test_a_fork_that_goes_on_after_failures_says_so() -> None:
    one = {"id": "one", "type": "set", "values": {"x": 1}}
    branches = {
        "id": "p",
        "type": "parallel",
        "parallel_steps": [{**one, "id": "two"}],
        "on_item_error": "continue",
    }
    text = mermaid(flow(mapped(one, over="$l", on_item_error="continue"), branches))
    assert "each item of $l, null for one that fails" in text
    assert "1 branches, null for one that fails" in text
    assert "null" not in mermaid(flow(mapped(one, over="$l")))


def test_dot_has_the_same_nodes_and_edges() -> None:
    text = dot(WHOLE)
    arrows = set(re.findall(r"(\w+) (?:-->|-\.->)(?:\|[^|]*\|)? (\w+)", mermaid(WHOLE)))
    assert set(re.findall(r"(\w+) -> (\w+)", text)) == arrows
    assert "n3 [label=\"sure\\ncondition\\n$ask.output == 'yes'\", shape=hexagon];" in text
    assert text.count("{") == text.count("}")
    quoted = dot(flow(tool(r'a\N" c')))
    assert r'[label="a\\N\" c\ntool' in quoted, (
        "a backslash is a backslash, and not Graphviz's escape"
    )


def test_a_step_entered_both_ways_is_drawn_twice() -> None:
    once = [
        {"id": "c", "type": "condition", "condition": "true", "then": "a", "otherwise": "$next"},
        tool("a", next="b"),
        tool("b"),
    ]
    text = mermaid(flow(*once))
    assert text.count('"a<br/>') == 1
    assert "by jump" not in text
    steps = [
        {"id": "c", "type": "condition", "condition": "true", "then": "a", "otherwise": "$next"},
        tool("a"),
        tool("b"),
    ]
    text = mermaid(flow(*steps))
    assert text.count('"a<br/>') == 1
    assert text.count('"a (by jump)<br/>') == 1


EVIL = (
    '<script>alert(1)</script> "] --> evil[" `**b**` $$x$$ #quot; & \\N \\" \n}\x1b[31m\x00\u202e'
)


def evil_flow(text: str) -> Flow:
    return flow(
        {
            "id": "a",
            "type": "condition",
            "condition": f"$x == {text.replace('$', '$$')!r}" if "'" not in text else "true",
            "then": "b",
        },
        {
            "id": "b",
            "type": "switch",
            "on": text.replace("$", "$$"),
            "cases": {text: "c"},
            "default": "$end",
        },
        {
            "id": "c",
            "type": "call",
            "program": {"name": text, "steps": [{"id": "d", "type": "set", "values": {"v": 1}}]},
        },
        tool("e"),
        name=text,
    )


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_in_a_program_becomes_markup(form: str) -> None:
    text = FORMATS[form](evil_flow(EVIL))
    plain = FORMATS[form](evil_flow("plain"))
    assert text.count("\n") == plain.count("\n"), "as many lines as with a plain text"
    assert "<script" not in text or form == "dot", "in DOT a quoted text is never HTML"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    if form == "mermaid":
        labels = re.findall(r'"([^"]*)"', text)
        assert text.count('"') == 2 * len(labels)
        for shown in labels:
            assert not re.search(r"[<>`\\*&]|\$\$|#(?!\d+;)", shown.replace("<br/>", "")), shown
    if form == "dot":
        for line in text.splitlines():
            quotes = re.findall(r'(?<!\\)(?:\\\\)*"', line)
            assert len(quotes) % 2 == 0, line
    if form == "svg":
        assert {e.tag.removeprefix(SVG) for e in ElementTree.fromstring(text).iter()} <= {
            *"svg title defs marker path rect text polygon circle".split()
        }


@pytest.mark.slow
@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_makes_a_well_formed_image(text: str) -> None:
    root = ElementTree.fromstring(svg(evil_flow(text)))
    assert root.tag == f"{SVG}svg"
    assert mermaid(evil_flow(text)).count("\n") == mermaid(evil_flow("plain")).count("\n")


def test_a_label_is_one_line_of_visible_text() -> None:
    assert label("a\n b\t\x00c", 40) == "a b \\x00c"
    assert label("x" * 50, 10) == "x" * 9 + "…"
    assert label("👩\u200d👧", 10) == "👩\u200d👧", "joined characters stay joined"


# --- the layout -----------------------------------------------------------------------------------


def boxes(
    drawing: Any, dx: float = 0.0, dy: float = 0.0
) -> list[list[tuple[float, float, float, float]]]:
    """The rectangles of each area: left, top, right, bottom."""
    found = [
        (dx + b.x - b.width / 2, dy + b.y, dx + b.x + b.width / 2, dy + b.y + b.height)
        for layer in drawing.layers
        for b in layer
        if b.dot is not None
    ]
    result = [found]
    for layer in drawing.layers:
        for b in layer:
            for inner, left, below, _ in b.inner:
                result += boxes(inner, dx + b.x - b.width / 2 + left, dy + b.y + below)
    return result


STEPS = st.lists(
    st.sampled_from(["tool", "jump", "block", "both", "loop", "switch", "nested", "end"]),
    min_size=1,
    max_size=25,
)


def program_of(kinds: list[str]) -> Flow:
    steps: list[dict[str, Any]] = []
    for i, kind in enumerate(kinds):
        later = f"s{min(i + 2, len(kinds))}"
        match kind:
            case "jump":
                steps.append(
                    {
                        "id": f"s{i}",
                        "type": "condition",
                        "condition": "true",
                        "then": later,
                        "otherwise": "$next",
                    }
                )
            case "block":
                steps.append(
                    {
                        "id": f"s{i}",
                        "type": "condition",
                        "condition": "true",
                        "then": [tool(f"b{i}"), tool(f"c{i}")],
                    }
                )
            case "both":
                steps.append(
                    {
                        "id": f"s{i}",
                        "type": "parallel",
                        "parallel_steps": [tool(f"p{i}"), [tool(f"q{i}"), tool(f"r{i}")]],
                    }
                )
            case "loop":
                body = [tool(f"x{i}", next="$next"), tool(f"y{i}")]
                steps.append(
                    {
                        "id": f"s{i}",
                        "type": "loop",
                        "max_iterations": 2,
                        "until": "true",
                        "steps": body,
                    }
                )
            case "switch":
                cases = {"a": later, "b": [tool(f"k{i}")], "c": "$end"}
                steps.append(
                    {"id": f"s{i}", "type": "switch", "on": "a", "cases": cases, "default": "$next"}
                )
            case "nested":
                inner = {"id": f"m{i}", "type": "map", "over": [1], "steps": [tool(f"n{i}")]}
                steps.append(
                    {
                        "id": f"s{i}",
                        "type": "parallel",
                        "parallel_steps": [inner, tool(f"o{i}", on_error="skip")],
                    }
                )
            case "end":
                steps.append(
                    {
                        "id": f"s{i}",
                        "type": "condition",
                        "condition": "true",
                        "then": "$end",
                        "otherwise": "$next",
                    }
                )
            case _:
                steps.append(tool(f"s{i}", catch=[{"errors": ["*"], "next": f"s{len(kinds)}"}]))
    steps.append(tool(f"s{len(kinds)}"))
    return flow(*steps)


@pytest.mark.slow
@settings(max_examples=60)
@given(STEPS)
def test_no_two_boxes_overlap_and_all_lie_inside(kinds: list[str]) -> None:
    drawing = lay_out(picture(program_of(kinds)), root=True)
    for area in boxes(drawing):
        for i, a in enumerate(area):
            assert a[0] >= -0.01
            assert a[2] <= drawing.width + 0.01
            assert a[1] >= -0.01
            assert a[3] <= drawing.height + 0.01
            for b in area[i + 1 :]:
                apart = (
                    a[2] <= b[0] + 0.01
                    or b[2] <= a[0] + 0.01
                    or a[3] <= b[1] + 0.01
                    or b[3] <= a[1] + 0.01
                )
                assert apart, (a, b)


@pytest.mark.slow
@settings(max_examples=60)
@given(STEPS)
def test_every_edge_is_drawn_or_named_and_leads_down(kinds: list[str]) -> None:
    def areas(area: Any) -> Any:
        yield area
        for d in area.dots:
            for inner in d.frames:
                yield from areas(inner)

    for area in areas(picture(program_of(kinds))):
        drawing = lay_out(area, root=True)
        tags = sum(len(b.tags) for layer in drawing.layers for b in layer)
        assert len(drawing.routes) + len(drawing.backs) + tags == len(area.lines)
        for line, route in drawing.routes:
            assert route[0].dot is line.source
            assert route[-1].dot is line.target
            assert [b.layer for b in route] == list(range(route[0].layer, route[-1].layer + 1))
            assert len(route) <= MAX_SPAN + 1
        for line, *_ in drawing.backs:
            assert "again" in line.labels


def test_a_program_that_runs_in_a_circle_can_still_be_drawn() -> None:
    circle = flow(tool("a", next="b"), tool("b", next="a"))
    assert svg(circle).count(">a</text>") == 1


def test_the_picture_depends_on_the_program_only() -> None:
    assert svg(program_of(["both", "switch", "loop"])) == svg(
        program_of(["both", "switch", "loop"])
    )


@pytest.mark.slow
def test_a_long_program_stays_narrow_and_is_drawn_in_time() -> None:
    kinds = ["tool", "jump", "end", "block", "switch"] * 400
    started = time.process_time()
    root = ElementTree.fromstring(svg(program_of(kinds)))
    assert time.process_time() - started < 20, (
        "a second on a free machine; quadratic would be minutes"
    )
    assert float(root.attrib["width"]) < 1000


def test_many_branches_stand_in_rows() -> None:
    many = flow(
        {
            "id": "all",
            "type": "parallel",
            "parallel_steps": [tool(f"branch_{i}") for i in range(200)],
        }
    )
    root = ElementTree.fromstring(svg(many))
    assert float(root.attrib["width"]) < 1700
