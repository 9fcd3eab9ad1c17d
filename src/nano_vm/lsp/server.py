"""The language server: requests of an editor come in by pygls, answers of the modules beside go out.

Answers are made from the text as it is; diagnostics follow in a thread, some time after the last
key. A client that sends a change of a document that it has not opened, or an older version, is put
up with: such a change is ignored, and the next whole text is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, lsp_method

from ..diagnostics.register import explained
from ..draw.formats import FORMATS
from ..errors import ProgramError, VMError
from ..language.canonical import formatted
from ..program_tests.document import ENDINGS, read_document
from .complete import Completion, completions
from .diagnose import Findings, Shown, diagnose, flow_of, lenses
from .documents import Document, Documents, path_of
from .elsewhere import Project, files_of
from .fixes import CannotFormat, commented, fixes
from .hover import hover
from .index import Index, Span
from .navigate import (
    CannotRename,
    Entry,
    definitions,
    outline,
    references,
    renamed,
    symbol_at,
    tool_at,
    tool_source,
)
from .project import Known, LoadTools, Projects
from .tree import MAX_TEXT, Place

QUIET_SECONDS = 0.2
"""Without a key for so long, text is looked at."""

GRAPH = "nano-vm.graph"
EXPLAIN = "nano-vm.explain"

KINDS = {
    "field": types.CompletionItemKind.Property,
    "word": types.CompletionItemKind.EnumMember,
    "step": types.CompletionItemKind.Reference,
    "name": types.CompletionItemKind.Variable,
    "tool": types.CompletionItemKind.Function,
    "argument": types.CompletionItemKind.Field,
}
SEVERITIES = {
    "error": types.DiagnosticSeverity.Error,
    "warning": types.DiagnosticSeverity.Warning,
    "hint": types.DiagnosticSeverity.Hint,
}


class Lenient(LanguageServerProtocol):
    """The protocol, for clients that send documents out of order."""

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> Any:
        """A change: of a document that is not open only where it is the whole text."""
        uri, version = params.text_document.uri, params.text_document.version
        known = self.workspace.text_documents.get(uri)
        if known is not None and known.version is not None and version < known.version:
            return
        if known is None:
            whole = [c for c in params.content_changes if not hasattr(c, "range")]
            if not whole:
                return
            item = types.TextDocumentItem(uri, "yaml", version, whole[-1].text)
            self.workspace.put_text_document(item)
        else:
            for change in params.content_changes:
                self.workspace.update_text_document(params.text_document, change)
        handler = self.fm.features.get(types.TEXT_DOCUMENT_DID_CHANGE)
        if handler is not None:
            yield handler, (params,), None

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> Any:
        """A document is closed, if it was open."""
        if params.text_document.uri in self.workspace.text_documents:
            self.workspace.remove_text_document(params.text_document.uri)
        handler = self.fm.features.get(types.TEXT_DOCUMENT_DID_CLOSE)
        if handler is not None:
            yield handler, (params,), None


class ProgramServer(LanguageServer):
    """Answers an editor about programs."""

    def __init__(self, version: str, load_tools: LoadTools | None) -> None:
        super().__init__("nano-vm", version or "0", protocol_cls=Lenient)
        self.projects = Projects(load_tools)
        self.documents = Documents()
        self.timers: dict[str, asyncio.TimerHandle] = {}

    def document(self, uri: str) -> Document:
        """The document at *uri*, as its text is now."""
        known = self.workspace.text_documents.get(uri)
        return self.documents.of(uri, known.source if known is not None else "")

    def known(self, document: Document) -> Known:
        """Its project, as it was when it was looked at last: files are not read for each key."""
        return self.projects.last(document.path)

    def elsewhere(
        self, document: Document, place: Place, *, rename: bool = False
    ) -> list[tuple[str, Index, Sequence[Span]]]:
        """Other files that name what stands at *place*: their URIs, and where.

        Raises:
            CannotRename: If they would be changed by *rename*, and may not be.
        """
        symbol, file = symbol_at(document.index, place), document.path
        if symbol is None or file is None:
            return []
        known = self.known(document)
        documents = self.workspace.text_documents
        opened = {path_of(uri): uri for uri in documents}

        def read(path: Path) -> str | None:
            uri = opened.get(path)
            return documents[uri].source if uri is not None else _on_disk(path)

        project = Project(files_of(file, known.root), known.policy_file, read)
        ask = project.renamed if rename else project.naming
        return [
            (opened.get(other.path) or other.path.absolute().as_uri(), other.index, other.spans)
            for other in ask(symbol, document.index, file)
        ]

    # --- places ---

    def place(self, document: Document, position: types.Position) -> Place:
        """A position of the client's, in characters."""
        lines = [f"{line}\n" for line in document.index.lines]
        if position.line >= len(lines):
            return max(len(lines) - 1, 0), len(document.index.lines[-1]) if lines else 0
        found = self.workspace.position_codec.position_from_client_units(lines, position)
        return found.line, min(found.character, len(document.index.lines[found.line]))

    def range(self, index: Index, span: Span) -> types.Range:
        """A piece of a line in units of the client's."""
        if span.line >= len(index.lines):
            at = types.Position(span.line, 0)
            return types.Range(at, at)
        line = index.lines[span.line]
        count = self.workspace.position_codec.client_num_units
        start = min(span.start, len(line))
        return types.Range(
            types.Position(span.line, count(line[:start])),
            types.Position(span.line, count(line[: max(span.end, start)])),
        )

    # --- diagnostics ---

    def look_soon(self, uri: str) -> None:
        """Look at a document when it has been quiet for a while."""
        timer = self.timers.pop(uri, None)
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self.timers[uri] = loop.call_later(QUIET_SECONDS, self.look, uri)

    def look(self, uri: str) -> None:
        """Find out what is wrong with a document, and send it."""
        self.timers.pop(uri, None)
        known = self.workspace.text_documents.get(uri)
        if known is None:
            return
        document = self.document(uri)
        work = partial(
            _found, known.source, document.path, self.projects, program=document.is_program
        )
        future = asyncio.get_running_loop().run_in_executor(None, work)
        future.add_done_callback(partial(self.tell, uri, known.version))

    def tell(self, uri: str, version: int | None, future: asyncio.Future[Findings]) -> None:
        """Send what was found, unless the text has changed since."""
        now = self.workspace.text_documents.get(uri)
        if future.cancelled() or now is None or now.version != version:
            return
        found = future.result()
        if found.text != now.source:  # a client that gives no versions
            return
        document = self.document(uri)
        document.found = found
        self.text_document_publish_diagnostics(
            types.PublishDiagnosticsParams(
                uri, [self.diagnostic(document.index, one) for one in found.shown], version
            )
        )
        for fault in found.faults:
            self.window_log_message(types.LogMessageParams(types.MessageType.Warning, fault))
        capabilities = self.client_capabilities.workspace
        refresh = capabilities.code_lens if capabilities is not None else None
        if refresh is not None and refresh.refresh_support:
            self.workspace_code_lens_refresh(None)

    def diagnostic(self, index: Index, shown: Shown) -> types.Diagnostic:
        """As the protocol has it."""
        d = shown.diagnostic
        return types.Diagnostic(
            range=self.range(index, shown.span),
            message=f"{d.message}; {d.hint}" if d.hint else d.message,
            severity=SEVERITIES[d.severity],
            code=d.code,
            source="nano-vm",
        )


def _on_disk(path: Path) -> str | None:
    """The text of a file; None where it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_TEXT)
    except (OSError, UnicodeDecodeError):
        return None


def _found(text: str, path: Path | None, projects: Projects, *, program: bool) -> Findings:
    """What is found of text: of a *program*, of a test file, or nothing of any other."""
    if path is not None and path.name.endswith(ENDINGS):
        try:
            read_document(text, path.name)
        except ProgramError as error:
            spans = [Span(max((d.line or 1) - 1, 0), 0, 1000) for d in error.diagnostics]
            shown = [Shown(d, s) for d, s in zip(error.diagnostics, spans, strict=True)]
            return Findings(text, shown)
        return Findings(text)
    if not program or not text.strip():
        return Findings(text)
    return diagnose(text, path, projects.of(path))


def server_of(version: str, load_tools: LoadTools | None) -> ProgramServer:
    """The server with all that it answers; *load_tools* imports a project's tools."""
    server = ProgramServer(version, load_tools)
    for add in (_follow, _write, _rename, _read, _find, _draw):
        add(server)
    return server


def _follow(server: ProgramServer) -> None:
    """Documents as they are opened, changed and closed."""

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        server.look_soon(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        server.look_soon(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(_: types.DidSaveTextDocumentParams) -> None:
        for uri in list(server.workspace.text_documents):  # tools or a policy may have changed
            server.look_soon(uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        server.documents.forget(uri)
        timer = server.timers.pop(uri, None)
        if timer is not None:
            timer.cancel()
        server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))


def _write(server: ProgramServer) -> None:
    """What helps to write: completion, quick fixes, formatting."""

    @server.feature(
        types.TEXT_DOCUMENT_COMPLETION,
        types.CompletionOptions(trigger_characters=["$", ".", ":", " ", "{", "["]),
    )
    def complete(params: types.CompletionParams) -> types.CompletionList:
        document = server.document(params.text_document.uri)
        if not document.is_program:
            return types.CompletionList(is_incomplete=False, items=[])
        place = server.place(document, params.position)
        found = completions(document.index, place, server.known(document))
        return types.CompletionList(
            is_incomplete=False,
            items=[_item(server, document.index, place, n, one) for n, one in enumerate(found)],
        )

    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
    )
    def actions(params: types.CodeActionParams) -> list[types.CodeAction]:
        document = server.document(params.text_document.uri)
        index, result = document.index, []
        for shown in document.findings.shown:
            where = server.range(index, shown.span)
            if where.start.line > params.range.end.line or where.end.line < params.range.start.line:
                continue
            for fix in fixes(index, shown):
                edits = [types.TextEdit(server.range(index, e.span), e.text) for e in fix.edits]
                result.append(
                    types.CodeAction(
                        title=fix.title,
                        kind=types.CodeActionKind.QuickFix,
                        diagnostics=[server.diagnostic(index, shown)],
                        edit=types.WorkspaceEdit(changes={params.text_document.uri: edits}),
                    )
                )
        return result

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def format_all(params: types.DocumentFormattingParams) -> list[types.TextEdit]:
        document = server.document(params.text_document.uri)
        text, path = document.index.text, document.path
        json = path is not None and path.suffix == ".json"
        try:
            new = commented(text, formatted(document.program(), json_form=json))
        except VMError:
            return []  # its diagnostics say why
        except CannotFormat as error:
            server.window_show_message(types.ShowMessageParams(types.MessageType.Info, str(error)))
            return []
        if new == text:
            return []
        end = types.Position(len(document.index.lines), 0)
        return [types.TextEdit(types.Range(types.Position(0, 0), end), new)]


def _rename(server: ProgramServer) -> None:
    """A name changed everywhere."""

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    def prepare(params: types.PrepareRenameParams) -> types.Range | None:
        document = server.document(params.text_document.uri)
        symbol = symbol_at(document.index, server.place(document, params.position))
        return server.range(document.index, symbol.span) if symbol is not None else None

    @server.feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))
    def rename(params: types.RenameParams) -> types.WorkspaceEdit:
        document = server.document(params.text_document.uri)
        place = server.place(document, params.position)
        try:
            spans = renamed(document.index, place, params.new_name)
            others = server.elsewhere(document, place, rename=True)
        except CannotRename as error:
            raise JsonRpcInvalidParams(str(error)) from None
        named = [(params.text_document.uri, document.index, spans), *others]
        return types.WorkspaceEdit(
            changes={
                uri: [types.TextEdit(server.range(index, span), params.new_name) for span in found]
                for uri, index, found in named
            }
        )


def _item(
    server: ProgramServer, index: Index, place: Place, number: int, one: Completion
) -> types.CompletionItem:
    span = Span(place[0], max(place[1] - one.begun, 0), place[1])
    return types.CompletionItem(
        label=one.label,
        kind=KINDS[one.kind],
        detail=one.detail or None,
        documentation=one.text or None,
        sort_text=f"{number:05}",
        filter_text=one.label,
        text_edit=types.TextEdit(server.range(index, span), one.insert),
    )


def _read(server: ProgramServer) -> None:
    """What helps to read: hover, lenses, outline."""

    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def hovered(params: types.HoverParams) -> types.Hover | None:
        document = server.document(params.text_document.uri)
        if not document.is_program:
            return None
        place = server.place(document, params.position)
        said = [hover(document.index, place, server.known(document))]
        said += [
            explained(shown.diagnostic.code)
            for shown in document.findings.shown
            if shown.span.holds(place)
        ]
        text = "\n\n---\n\n".join(dict.fromkeys(one for one in said if one))
        if not text:
            return None
        return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, text))

    @server.feature(types.TEXT_DOCUMENT_CODE_LENS)
    def code_lenses(params: types.CodeLensParams) -> list[types.CodeLens]:
        document = server.document(params.text_document.uri)
        return [
            types.CodeLens(
                range=server.range(document.index, Span(lens.line, 0, 0)),
                command=types.Command(title=lens.text, command=""),
            )
            for lens in lenses(document.index, document.findings)
        ]

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def symbols(params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
        document = server.document(params.text_document.uri)
        if not document.is_program:
            return []
        return [_symbol(server, document.index, entry) for entry in outline(document.index)]


def _symbol(server: ProgramServer, index: Index, entry: Entry) -> types.DocumentSymbol:
    last = index.lines[entry.end] if entry.end < len(index.lines) else ""
    return types.DocumentSymbol(
        name=entry.name,
        detail=entry.detail,
        kind=types.SymbolKind.Event,
        range=types.Range(
            types.Position(entry.line, 0),
            types.Position(entry.end, server.workspace.position_codec.client_num_units(last)),
        ),
        selection_range=server.range(index, entry.span),
        children=[_symbol(server, index, child) for child in entry.children],
    )


def _find(server: ProgramServer) -> None:
    """Where things are written and read."""

    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def definition(params: types.DefinitionParams) -> list[types.Location]:
        document = server.document(params.text_document.uri)
        place = server.place(document, params.position)
        found = [
            types.Location(params.text_document.uri, server.range(document.index, span))
            for span in definitions(document.index, place)
        ]
        name = tool_at(document.index, place) if not found else None
        source = tool_source(server.known(document), name) if name is not None else None
        if source is not None:
            at = types.Position(source.line, 0)
            found.append(types.Location(source.path.resolve().as_uri(), types.Range(at, at)))
        return found

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    def all_references(params: types.ReferenceParams) -> list[types.Location]:
        document = server.document(params.text_document.uri)
        place = server.place(document, params.position)
        found = references(document.index, place, declared=params.context.include_declaration)
        named = [
            (params.text_document.uri, document.index, found),
            *server.elsewhere(document, place),
        ]
        return [
            types.Location(uri, server.range(index, span))
            for uri, index, spans in named
            for span in spans
        ]


def _draw(server: ProgramServer) -> None:
    """Commands: the graph of a program, the page of a code."""

    @server.command(GRAPH)
    def graph(uri: str, form: str = "svg") -> dict[str, str]:
        """The graph of a document, in one of the forms of ``nano-vm graph``."""
        if form not in FORMATS:
            raise JsonRpcInvalidParams(f"a form is one of {', '.join(FORMATS)}, not {form!r}")
        document = server.document(uri)
        if path_of(uri) is None and not document.index.text:
            raise JsonRpcInvalidParams(f"{uri!r} is not open")
        try:
            flow = flow_of(document.program(), document.path)
            return {"form": form, "text": FORMATS[form](flow, None)}
        except VMError as error:
            raise JsonRpcInvalidParams(str(error)) from None

    @server.command(EXPLAIN)
    def explain(code: str) -> dict[str, str]:
        """What a code of a diagnostic means, as Markdown."""
        text = explained(code)
        if text is None:
            raise JsonRpcInvalidParams(f"there is no code {code!r}")
        return {"text": text}
