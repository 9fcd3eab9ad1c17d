"""Runs are found by what was said in them: all that a page shows of it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program, tool
from nano_vm.store import few
from nano_vm.store.encryption import StoreKeys
from nano_vm.store.protocol import RunFilter, open_store
from nano_vm.testing import ScriptedLLM
from nano_vm.ui import library
from nano_vm.ui.asked_for import NoSuchFilter
from nano_vm.ui.library import FileLibrary, FoundList, StoreLibrary

MARK = "zq-secret-zq"

SAID = Program.from_yaml("""
name: said
inputs: {type: object, properties: {text: {}, secret: {type: string}}, required: [text, secret]}
steps:
- {id: ask, type: llm, prompt: "about $text", allowed_outputs: [yes, no], max_retries: 2}
- {id: keep, type: tool, tool: keep, args: {text: $text}}
- {id: hide, type: tool, tool: keep, args: {text: $secret}}
- {id: lost, type: tool, tool: lose, args: {text: $text}, on_error: skip}
- {id: gone, type: tool, tool: lose, args: {text: $secret}, on_error: skip}
output: {end: $keep.output, number: 4711}
""")

KEEPS = Program.from_yaml("""
name: keeps
inputs: {type: object, properties: {text: {}}, required: [text]}
steps: [{id: keep, type: tool, tool: keep, args: {text: $text}}]
""")

POLICY: dict[str, Any] = {
    "inputs": {"text": "public", "secret": "secret"},
    "tools": {"keep": {"args": {"text": "any"}}, "lose": {"args": {"text": "any"}}},
    "models": {"*": {"accepts": "public"}},
}


@tool(effect="read", inline=True)
def keep(text: Any) -> Any:
    return {"Kept": text}


@tool(effect="read", inline=True)
def lose(text: Any) -> Any:
    raise ValueError(f"lost {text}")


def run(store: Any, run_id: str, text: Any, policy: Any = POLICY, **more: Any) -> Any:
    model = ScriptedLLM(["perhaps", "yes"])
    vm = ExecutionVM(model, {"keep": keep, "lose": lose}, store=store, policy=policy)
    given = {"text": text, "secret": f"{MARK} {run_id}"}
    trace = vm.run_sync(SAID, given, run_id=run_id, **more)
    assert trace.ok, trace.error
    return trace


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    with open_store(f"sqlite:///{tmp_path}/runs.db") as opened:
        yield opened


def searched(runs: Any, text: str, **wanted: Any) -> FoundList:
    return StoreLibrary(runs).search(RunFilter(**wanted), text)


def places(found: FoundList) -> list[tuple[str | None, str, str]]:
    return [
        (hit["path"], hit["field"], hit["before"] + hit["found"] + hit["after"])
        for row in found["runs"]
        for hit in row["hits"]
    ]


def test_what_was_said_is_found_where_it_stands(store: Any) -> None:
    run(store, "a", "Late Parcel")
    run(store, "b", "broken lamp")
    found = searched(store, "late parcel")
    assert [row["id"] for row in found["runs"]] == ["a"]
    assert (found["searched"], found["after"], found["damaged"]) == (2, None, [])
    assert places(found) == [
        (None, "input", "Late Parcel"),
        ("ask", "request", "about Late Parcel"),
        ("keep", "request", "Late Parcel"),
    ]
    assert places(searched(store, "perhaps"))[0] == ("ask", "answer", "perhaps")
    assert places(searched(store, "LOST late"))[0][:2] == ("lost", "error")
    assert (None, "output", "4711") in places(searched(store, "4711"))
    assert [row["id"] for row in searched(store, "parcel", since_ns=2**62)["runs"]] == []


def test_names_and_the_marks_of_json_are_not_text(store: Any) -> None:
    vm = ExecutionVM(None, {"keep": keep}, store=store)
    given = {"Ünïcode": 'line\nsaid "hi" \\ end', "on": True, "none": None}
    assert vm.run_sync(KEEPS, {"text": given}, run_id="a").ok
    for text in ("ünïcode", "kept", "{", '":', "true", "null", "\\n", ".*"):
        assert places(searched(store, text)) == [], text
    assert len(places(searched(store, 'line\nsaid "hi" \\ end'))) > 0
    run(store, "b", "x" * 100 + "needle" + "y" * 100)
    (first, *_) = searched(store, "needle")["runs"][0]["hits"]
    assert (first["before"], first["found"], first["after"]) == ("x" * 40, "needle", "y" * 40)


def test_a_secret_is_not_found(store: Any) -> None:
    run(store, "hidden", "public words")
    assert MARK in json.dumps(store.load("hidden").inputs)  # it is there to be found
    assert places(searched(store, MARK)) == []
    assert len(places(searched(store, "public words"))) == 3
    run(store, "shown", "public words", {**POLICY, "accepts": {"pages": "any"}})
    assert [row["id"] for row in searched(store, MARK)["runs"]] == ["shown"]


def test_what_was_erased_is_not_found(store: Any) -> None:
    run(store, "a", "late parcel")
    assert store.erase("a")
    found = searched(store, "late")
    assert (found["runs"], found["searched"], found["damaged"]) == ([], 1, [])


def test_what_is_encrypted_is_found_by_who_has_the_key(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sealed.db"
    with open_store(url, keys=StoreKeys(["11" * 32])) as sealed:
        run(sealed, "a", "late parcel")
        assert [row["id"] for row in searched(sealed, "late")["runs"]] == ["a"]
    with open_store(url) as closed:
        found = searched(closed, "late")
        assert found["runs"] == []
        assert "its values are encrypted" in found["damaged"][0]


def test_so_much_is_read_and_no_more(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        run(store, f"r{number}", "odd one" if number % 2 else "even one")
    runs = StoreLibrary(store)

    def pages(text: str) -> list[tuple[list[str], int]]:
        found, after = [], None
        while True:
            page = runs.search(RunFilter(), text, after)
            found.append(([row["id"] for row in page["runs"]], page["searched"]))
            after = page["after"]
            if after is None:
                return found

    assert pages("odd") == [(["r7", "r5", "r3", "r1"], 9)]
    monkeypatch.setattr(library, "READ_AT_ONCE", 2)
    monkeypatch.setattr(library, "MOST_SEARCHED", 4)
    assert pages("odd") == [(["r7", "r5"], 4), (["r3", "r1"], 4), ([], 1)]
    monkeypatch.setattr(library, "SEARCH_SECONDS", -1)
    assert [count for _, count in pages("odd")] == [2, 2, 2, 2, 1]
    monkeypatch.setattr(few, "STEPS_AT_ONCE", 1)  # a run that has more is read alone
    assert [count for _, count in pages("odd")] == [1] * 9
    monkeypatch.undo()
    monkeypatch.setattr(library, "PAGE_RUNS", 1)
    monkeypatch.setattr(library, "READ_AT_ONCE", 3)
    assert [ids for ids, _ in pages("even")] == [["r8", "r6"], ["r4"], ["r2", "r0"], []]


def test_files_are_searched_too(tmp_path: Path) -> None:
    files = FileLibrary([run(None, "a", "late parcel"), run(None, "b", "lamp")])
    found = files.search(RunFilter(), "parcel")
    assert ([row["id"] for row in found["runs"]], found["searched"]) == (["a"], 2)
    assert files.search(RunFilter(), MARK)["runs"] == []


@pytest.mark.parametrize("text", ["", "x" * 201])
def test_a_text_is_a_line(store: Any, text: str) -> None:
    with pytest.raises(NoSuchFilter, match="has 1 to 200 characters"):
        searched(store, text)
