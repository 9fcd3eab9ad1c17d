"""The language server, spoken to as an editor does: a client of pygls, over a process's streams."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from lsprotocol import types
from patience import HANGS_SECONDS
from pygls.exceptions import JsonRpcException
from pygls.lsp.client import LanguageClient

from nano_vm.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


class Editor(LanguageClient):
    """A client that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__("editor", "1")
        self.diagnostics: dict[str, list[types.PublishDiagnosticsParams]] = {}
        self.messages: list[str] = []
        self.uri = ""
        self.arrived = asyncio.Event()

    @property
    def document(self) -> types.TextDocumentIdentifier:
        """The document of the test."""
        return types.TextDocumentIdentifier(self.uri)

    async def said(
        self, uri: str, holds: Callable[[list[types.Diagnostic]], bool]
    ) -> list[types.Diagnostic]:
        """The diagnostics of a document, as soon as they are such."""
        async with asyncio.timeout(HANGS_SECONDS):
            while True:
                for sent in self.diagnostics.get(uri, ()):
                    if holds(list(sent.diagnostics)):
                        return list(sent.diagnostics)
                self.arrived.clear()
                await self.arrived.wait()

    def open(self, text: str, uri: str = "", version: int = 1) -> None:
        item = types.TextDocumentItem(uri or self.uri, "yaml", version, text)
        self.text_document_did_open(types.DidOpenTextDocumentParams(item))

    def change(self, text: str, uri: str = "", version: int = 2) -> None:
        document = types.VersionedTextDocumentIdentifier(version, uri or self.uri)
        whole = types.TextDocumentContentChangeWholeDocument(text)
        self.text_document_did_change(types.DidChangeTextDocumentParams(document, [whole]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connected() -> AsyncIterator[Editor]:
    """One server for all tests: to start it costs more than they do."""
    client = Editor()

    @client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
    def published(params: types.PublishDiagnosticsParams) -> None:
        client.diagnostics.setdefault(params.uri, []).append(params)
        client.arrived.set()

    @client.feature(types.WINDOW_SHOW_MESSAGE)
    def shown(params: types.ShowMessageParams) -> None:
        client.messages.append(params.message)

    @client.feature(types.WINDOW_LOG_MESSAGE)
    def logged(params: types.LogMessageParams) -> None:
        client.messages.append(params.message)
        client.arrived.set()

    await client.start_io(sys.executable, "-m", "nano_vm", "lsp")
    await client.initialize_async(
        types.InitializeParams(capabilities=types.ClientCapabilities(), process_id=None)
    )
    client.initialized(types.InitializedParams())
    yield client
    await client.shutdown_async(None)
    client.exit(None)
    await client.stop()


@pytest.fixture
def editor(connected: Editor, request: pytest.FixtureRequest) -> Editor:
    """The client, with a document of the test's own."""
    connected.uri = f"file:///nowhere/{request.node.name}/p.yaml"
    connected.messages.clear()
    return connected


def at(text: str, mark: str = "|") -> tuple[str, types.Position]:
    """The text without its mark, and where that stood, in units of UTF-16."""
    before, _, after = text.partition(mark)
    line = before.count("\n")
    last = before.rpartition("\n")[2]
    return before + after, types.Position(line, len(last.encode("utf-16-le")) // 2)


async def labels(editor: Editor, text: str, uri: str = "") -> list[str]:
    """What is offered at the mark of a text."""
    plain, position = at(text)
    editor.open(plain, uri)
    found = await editor.text_document_completion_async(
        types.CompletionParams(types.TextDocumentIdentifier(uri or editor.uri), position)
    )
    assert isinstance(found, types.CompletionList)
    return [item.label for item in found.items]


PROGRAM = """\
name: p
inputs: {type: object, properties: {mail: {type: string}}}
steps:
  - id: judge
    type: llm
    prompt: "Refund? $mail"
    allowed_outputs: [yes, no]
  - id: gate
    type: condition
    condition: "$judge.output == 'yes'"
    then: pay
    otherwise: $end
  - {id: pay, type: tool, tool: pay, args: {to: $mail}}
"""


async def test_what_is_wrong_is_said_while_typing_and_mended_by_its_fix(editor: Editor) -> None:
    wrong = PROGRAM.replace("then: pay", "then: pya")
    editor.open(wrong)
    found = await editor.said(editor.uri, bool)
    (jump,) = [d for d in found if d.code == "V003"]
    assert jump.message.endswith("did you mean 'pay'?")
    assert (jump.range.start.line, jump.range.start.character) == (10, 4)
    actions = await editor.text_document_code_action_async(
        types.CodeActionParams(editor.document, jump.range, types.CodeActionContext([jump]))
    )
    assert actions is not None
    action = actions[0]
    assert isinstance(action, types.CodeAction)
    assert action.title == "write 'pay'"
    assert action.edit is not None
    assert action.edit.changes is not None
    (edit,) = action.edit.changes[editor.uri]
    lines = wrong.split("\n")
    line = lines[edit.range.start.line]
    lines[edit.range.start.line] = (
        line[: edit.range.start.character] + edit.new_text + line[edit.range.end.character :]
    )
    assert "\n".join(lines) == PROGRAM
    editor.change(PROGRAM)
    await editor.said(editor.uri, lambda ds: not [d for d in ds if d.code == "V003"])


async def test_what_was_found_of_an_earlier_text_is_not_said_of_this_one(editor: Editor) -> None:
    wrong = PROGRAM.replace("then: pay", "then: pya")
    editor.open(wrong)
    (jump,) = [d for d in await editor.said(editor.uri, bool) if d.code == "V003"]
    editor.change(wrong.replace("steps:", "description: a line more\nsteps:"))
    hover = await editor.text_document_hover_async(
        types.HoverParams(editor.document, jump.range.start)
    )
    assert hover is None or "V003" not in str(hover.contents)  # whichever of the texts is known


async def test_the_graph_of_a_program_in_json_is_that_of_json(editor: Editor) -> None:
    uri = editor.uri.replace(".yaml", ".json")
    face = '"description": "\\ud83d\\ude00"'  # two escapes of one character, as JSON has it
    step = '{"id": "a", "type": "set", "values": {"x": 1}}'
    editor.open(f'{{"name": "p", {face}, "steps": [{step}]}}', uri)
    drawn = await editor.workspace_execute_command_async(
        types.ExecuteCommandParams("nano-vm.graph", [uri, "mermaid"])
    )
    text = drawn["text"] if isinstance(drawn, dict) else drawn.text
    assert "flowchart" in text


async def test_completion_offers_fields_types_steps_and_names(editor: Editor) -> None:
    fields = await labels(editor, "steps:\n  - id: a\n    type: llm\n    |")
    assert {"prompt", "allowed_outputs", "max_tokens"} <= set(fields)
    assert "tool" not in fields
    assert "llm" in await labels(editor, "steps:\n  - id: a\n    type: |")
    jumps = await labels(editor, PROGRAM.replace("then: pay", "then: |"))
    assert jumps[:4] == ["judge", "pay", "$end", "$fail"]
    names = await labels(editor, PROGRAM.replace("$mail}", "$|}"))
    assert set(names) >= {"mail", "judge", "gate", "pay"}


async def test_positions_are_counted_as_the_client_counts(editor: Editor) -> None:
    text = PROGRAM.replace('"Refund? $mail"', '"\N{PILE OF POO}\N{PILE OF POO} $ma|il"')
    plain, position = at(text)
    editor.open(plain)
    found = await editor.text_document_definition_async(
        types.DefinitionParams(editor.document, position)
    )
    assert isinstance(found, list)
    start = found[0].range.start  # type: ignore[union-attr]
    assert (start.line, start.character) == (1, PROGRAM.split("\n")[1].index("mail"))
    back = await editor.text_document_references_async(
        types.ReferenceParams(types.ReferenceContext(True), editor.document, start)
    )
    assert back is not None
    line = plain.split("\n")[5]
    units = len(line[: line.index("mail")].encode("utf-16-le")) // 2
    assert (5, units) in {(one.range.start.line, one.range.start.character) for one in back}


async def test_hover_tells_of_fields_names_and_diagnostics(editor: Editor) -> None:
    async def over(text: str) -> str:
        plain, position = at(text)
        editor.open(plain)
        found = await editor.text_document_hover_async(types.HoverParams(editor.document, position))
        assert found is not None
        assert isinstance(found.contents, types.MarkupContent)
        return found.contents.value

    assert "The only answers that are valid" in await over(
        PROGRAM.replace("allowed_outputs", "allowed|_outputs")
    )
    assert "one of 'yes', 'no'" in await over(PROGRAM.replace("$judge.", "$ju|dge."))
    assert "**$mail**: string" in await over(PROGRAM.replace("to: $mail", "to: $ma|il"))
    assert "Any value" not in await over(PROGRAM.replace("type: llm", "type: l|lm"))


async def test_rename_changes_every_place_or_says_why_not(editor: Editor) -> None:
    plain, position = at(PROGRAM.replace("id: judge", "id: ju|dge"))
    editor.open(plain)
    where = await editor.text_document_prepare_rename_async(
        types.PrepareRenameParams(editor.document, position)
    )
    assert isinstance(where, types.Range)
    edit = await editor.text_document_rename_async(
        types.RenameParams(editor.document, position, "asks")
    )
    assert edit is not None
    assert edit.changes is not None
    assert len(edit.changes[editor.uri]) == 2
    for name, why in (("gate", "there is a step 'gate' already"), ("a b", "cannot be a step's id")):
        with pytest.raises(JsonRpcException, match=why):
            await editor.text_document_rename_async(
                types.RenameParams(editor.document, position, name)
            )


async def test_rename_and_references_are_of_the_whole_project(
    editor: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "p"
    assert main(["init", str(folder)]) == 0
    program, tests = folder / "program.yaml", folder / "program.test.yaml"
    editor.uri = program.as_uri()
    plain, position = at(program.read_text().replace("id: guard", "id: gu|ard"))
    editor.open(plain)
    editor.open("# not saved yet\n" + tests.read_text(), tests.as_uri())
    edit = await editor.text_document_rename_async(
        types.RenameParams(editor.document, position, "gate")
    )
    assert edit is not None
    assert edit.changes is not None
    assert set(edit.changes) == {editor.uri, tests.as_uri(), (folder / "policy.yaml").as_uri()}
    saved = [number for number, line in enumerate(tests.read_text().split("\n")) if "guard" in line]
    lines = {one.range.start.line for one in edit.changes[tests.as_uri()]}
    assert lines <= {number + 1 for number in saved}  # as it stands in the editor
    found = await editor.text_document_references_async(
        types.ReferenceParams(types.ReferenceContext(True), editor.document, position)
    )
    assert {one.uri for one in found or ()} == set(edit.changes)


async def test_outline_lenses_formatting_and_commands(editor: Editor) -> None:
    editor.open(PROGRAM)
    await editor.said(editor.uri, lambda _: True)
    symbols = await editor.text_document_document_symbol_async(
        types.DocumentSymbolParams(editor.document)
    )
    assert symbols is not None
    assert [one.name for one in symbols] == ["judge", "gate", "pay"]
    lens = await editor.text_document_code_lens_async(types.CodeLensParams(editor.document))
    assert lens is not None
    assert lens[0].command is not None
    assert lens[0].command.title.startswith("at most: 3 steps, 2 model calls, 1 tool call (pay 1)")
    options = types.FormattingOptions(2, True)
    edits = await editor.text_document_formatting_async(
        types.DocumentFormattingParams(editor.document, options)
    )
    assert edits is not None
    (edit,) = edits
    assert "  - id: pay\n    type: tool\n" in edit.new_text
    editor.change(PROGRAM.replace("  - id: gate", "  - id: gate  # why"))
    lost = await editor.text_document_formatting_async(
        types.DocumentFormattingParams(editor.document, options)
    )
    assert not lost
    assert "formatting would lose the comment in line 8" in editor.messages
    drawn: Any = await editor.workspace_execute_command_async(
        types.ExecuteCommandParams("nano-vm.graph", [editor.uri, "mermaid"])
    )
    assert "judge" in (drawn["text"] if isinstance(drawn, dict) else drawn.text)
    page: Any = await editor.workspace_execute_command_async(
        types.ExecuteCommandParams("nano-vm.explain", ["V003"])
    )
    assert "V003" in (page["text"] if isinstance(page, dict) else page.text)


async def test_documents_out_of_order_do_no_harm(editor: Editor) -> None:
    other = "file:///nowhere/other.yaml"
    piece = types.TextDocumentContentChangePartial(
        types.Range(types.Position(5, 0), types.Position(9, 3)), "x"
    )
    unknown = types.VersionedTextDocumentIdentifier(1, other)
    editor.text_document_did_change(types.DidChangeTextDocumentParams(unknown, [piece]))
    editor.text_document_did_close(
        types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(other))
    )
    editor.change(PROGRAM.replace("then: pay", "then: pya"), other)  # the whole text, not opened
    assert [d.code for d in await editor.said(other, bool) if d.code == "V003"]
    editor.open(PROGRAM, version=5)
    editor.change("steps: []", version=3)  # an older one
    document = types.VersionedTextDocumentIdentifier(6, editor.uri)
    far = types.TextDocumentContentChangePartial(
        types.Range(types.Position(900, 7), types.Position(901, 0)), "\n# end\n"
    )
    editor.text_document_did_change(types.DidChangeTextDocumentParams(document, [far]))
    symbols = await editor.text_document_document_symbol_async(
        types.DocumentSymbolParams(editor.document)
    )
    assert symbols is not None
    assert [one.name for one in symbols] == ["judge", "gate", "pay"]
    for position in (types.Position(0, 4000), types.Position(4000, 0)):
        await editor.text_document_completion_async(
            types.CompletionParams(editor.document, position)
        )
        await editor.text_document_hover_async(types.HoverParams(editor.document, position))


async def test_the_tools_and_the_policy_are_those_of_the_project(
    editor: Editor, tmp_path: Path
) -> None:
    assert main(["init", str(tmp_path / "p")]) == 0
    file = tmp_path / "p" / "program.yaml"
    text = file.read_text()
    uri = file.as_uri()
    tools = await labels(editor, text.replace("tool: issue_refund", "tool: |"), uri)
    assert tools == ["get_order", "issue_refund", "reply"]
    arguments = await labels(
        editor, text.replace("{order_id: $order_id, amount", "{order_id: $order_id, a|mount"), uri
    )
    assert arguments == ["amount"]
    editor.change(text, uri)
    await editor.said(uri, lambda ds: not ds)
    lens = await editor.text_document_code_lens_async(
        types.CodeLensParams(types.TextDocumentIdentifier(uri))
    )
    assert lens is not None
    titles = [one.command.title for one in lens if one.command is not None]
    assert "2 proved" in titles
    assert "proved: every call of 'issue_refund' is guarded by guard.then" in titles
    plain, position = at(text.replace("tool: issue_refund", "tool: issue_re|fund"))
    assert plain == text
    found = await editor.text_document_definition_async(
        types.DefinitionParams(types.TextDocumentIdentifier(uri), position)
    )
    assert isinstance(found, list)
    assert found[0].uri == (tmp_path / "p" / "tools.py").as_uri()  # type: ignore[union-attr]
    editor.change(text.replace("otherwise: reply", "otherwise: refund"), uri, version=3)
    assert [d for d in await editor.said(uri, bool) if "refuted" in d.message]
    (tmp_path / "p" / "tools.py").write_text("print('loud')\n1 / 0\n")
    editor.change(text + "\n", uri, version=4)
    async with asyncio.timeout(HANGS_SECONDS):
        while not any("ZeroDivisionError" in message for message in editor.messages):
            editor.arrived.clear()
            await editor.arrived.wait()


async def test_test_files_have_diagnostics_too(editor: Editor) -> None:
    uri = "file:///nowhere/p.test.yaml"
    editor.open("tests: [{nam: x}]", uri)
    assert {d.code for d in await editor.said(uri, bool)} == {"P050", "P051"}
