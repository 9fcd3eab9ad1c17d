"""What a notebook shows, and the notebook of the examples, which is executed as one."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from nano_vm import ExecutionVM, Program, Trace
from nano_vm.draw.timeline import MAX_ROWS, timeline
from nano_vm.errors import MissingExtra
from nano_vm.replay import diff
from nano_vm.testing import ScriptedLLM

NOTEBOOK = Path(__file__).parents[2] / "examples" / "refund.ipynb"

EVIL = "</pre><script>alert('x')</script>\x1b[2J\u202e&amp;"

PROGRAM = Program.from_yaml("""
name: shown
steps:
  - {id: ask, type: llm, prompt: "$text", allowed_outputs: [yes, no]}
  - {id: gate, type: condition, condition: "$ask.output == 'yes'", then: pay, otherwise: no_pay}
  - {id: pay, type: tool, tool: pay, args: {note: $text}, next: $end}
  - {id: no_pay, type: tool, tool: gone, args: {}}
""")


def run(answer: str = "yes", text: str = "hello") -> Trace:
    def gone() -> None:
        raise ValueError(EVIL)

    tools = {"pay": lambda note: {"paid": note}, "gone": gone}
    return ExecutionVM(ScriptedLLM([answer]), tools).run_sync(PROGRAM, {"text": text})


class Page(HTMLParser):
    """Tags that are open, and what a page may not have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page(thing: Any) -> str:
    """What a notebook shows of a thing, if it is a page that may do nothing."""
    shown = thing._repr_html_()
    assert isinstance(shown, str)
    found = Page(shown)
    assert found.open == []
    assert not found.tags & {"script", "link", "style", "iframe", "img"}
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    return shown


def test_a_run_is_shown_with_its_way_and_its_steps() -> None:
    shown = page(run())
    for part in (
        "<b>shown</b>",
        "success",
        ">ask<",
        ">pay<",
        "(then)",
        "the way that the run took",
    ):
        assert part in shown
    failed = page(run("no"))
    assert "failed" in failed
    assert "alert(&#x27;x&#x27;)" in failed


def test_text_of_models_tools_and_inputs_is_no_markup() -> None:
    trace = run(text=EVIL)
    page(trace)
    evil = Program.from_dict(
        {"name": EVIL, "steps": [{"id": "a<b>", "type": "set", "values": {"n": EVIL}}]}
    )
    page(evil)
    page(ExecutionVM().run_sync(evil))
    page(ExecutionVM().verify(evil))
    page(diff(run(text=EVIL), run("no", text=EVIL)))


def test_the_picture_of_a_run_marks_what_it_took() -> None:
    taken, refused = run()._repr_svg_(), run("no")._repr_svg_()
    assert taken is not None
    assert refused is not None
    plain = PROGRAM._repr_svg_()
    assert plain is not None
    for drawn in (taken, refused, plain):
        ElementTree.fromstring(drawn)
    assert "the way that the run took" in taken
    assert "the way that the run took" not in plain
    assert ">failed<" in refused
    assert ">failed<" not in taken


def test_a_trace_that_was_read_back_has_its_timeline() -> None:
    back = Trace.from_json(run().to_json())
    drawn = back._repr_svg_()
    assert drawn is not None
    root = ElementTree.fromstring(drawn)
    names = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ask", "gate", "pay"} <= set(names)
    page(back)


def test_a_timeline_of_very_many_steps_is_cut() -> None:
    program = Program.from_yaml(
        "steps: [{id: m, type: map, over: $xs, as: x, steps: [{id: s, type: set, values: {n: $x}}]}]"
    )
    trace = ExecutionVM().run_sync(program, {"xs": list(range(700))})
    drawn = timeline(trace)
    assert drawn.count("<rect") == MAX_ROWS + 1
    assert "more steps" in drawn
    empty = timeline(ExecutionVM().run_sync(PROGRAM))
    ElementTree.fromstring(empty)


def test_a_large_or_broken_program_is_shown_without_its_graph() -> None:
    large = Program.from_dict(
        {"steps": [{"id": f"s{n}", "type": "set", "values": {"n": 1}} for n in range(400)]}
    )
    assert "<svg" not in page(large)
    assert large._repr_svg_() is None
    broken = Program.from_yaml("steps: [{id: a, type: set, values: {n: 1}, next: nowhere}]")
    assert "V003" in page(broken)


def test_what_a_policy_keeps_secret_is_not_shown() -> None:
    program = Program.from_yaml(
        "steps: [{id: keep, type: tool, tool: keep, args: {text: $iban}}]\noutput: {done: 1}"
    )
    policy = {"inputs": {"iban": "secret"}, "tools": {"keep": {"args": {"text": "any"}}}}
    tools = {"keep": lambda text: "kept " + text}
    trace = ExecutionVM(tools=tools, policy=policy).run_sync(program, {"iban": "DE-1234"})
    assert trace.ok, trace.error
    assert "DE-1234" not in page(trace)
    shown = {**policy, "accepts": {"export": "any"}}
    accepted = ExecutionVM(tools=tools, policy=shown).run_sync(program, {"iban": "DE-1234"})
    assert "kept DE-1234" in page(accepted)


# --- data frames ---


class Frame:
    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns


@pytest.mark.parametrize("there", ["pandas", "polars"])
def test_steps_are_rows_of_whichever_library_is_there(
    there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pandas", "polars"):
        module = ModuleType(name)
        module.DataFrame = Frame  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module if name == there else None)
    found = run().to_dataframe()
    assert isinstance(found, Frame)
    assert {len(column) for column in found.columns.values()} == {3}
    assert found.columns["path"] == ["ask", "gate", "pay"]
    assert found.columns["branch"] == [None, "then", None]
    assert found.columns["output"][2] == '{"paid":"hello"}'
    assert found.columns["total_tokens"][0] == 2


def test_without_a_library_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"llm-nano-vm\[dataframe\]"):
        run().to_dataframe()


# --- the notebook ---


def executed(cells: list[str]) -> list[Any]:
    """What the cells of a notebook show, executed as its kernel does: in one namespace, under a
    loop that runs, with `await` at the top.
    """

    async def kernel() -> list[Any]:
        space: dict[str, Any] = {"__name__": "__main__"}
        shown = []
        for source in cells:
            tree = ast.parse(source)
            last = tree.body[-1]
            if isinstance(last, ast.Expr):
                tree.body[-1] = ast.Assign([ast.Name("shown_", ast.Store())], last.value)
                ast.fix_missing_locations(tree)
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(tree, "<cell>", "exec", flags=flags)
            space["shown_"] = None
            result = eval(code, space)
            if inspect.iscoroutine(result):
                await result
            shown.append(space["shown_"])
        return shown

    return asyncio.run(kernel())


def test_the_notebook_of_the_examples_runs_and_shows_what_it_says() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in code)  # kept out of the repository
    program, trace, report, differs, runs = executed(["".join(cell["source"]) for cell in code])
    for thing in (program, trace, report, differs):
        page(thing)
    assert trace.final_output == "paid"
    assert runs > 1


def test_a_run_that_blocks_in_a_notebook_says_what_to_write() -> None:
    async def cell() -> None:
        ExecutionVM(ScriptedLLM(["yes"]), {"pay": print}).run_sync(PROGRAM, {"text": "x"})

    with pytest.raises(Exception, match="await"):
        asyncio.run(cell())
