"""Runs as JSON Lines: written from a store, read without one, taken into another.

One object a line, each named by ``record``: ``export`` with the format; ``program`` with its
document, before the first run that names it by hash; ``run``, its ``row`` in order, and its ``end``
with the seal, the salt, and a hash of the run's lines; at last ``done`` with the number of runs. A
reader takes a file that is whole, or none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import IO, Any

from ..errors import StoreError
from ..language.kinds import TYPES
from ..values import UNSET, canonical, parse_json, short
from .records import (
    ROW_KINDS,
    RUN_STATUSES,
    STATUSES,
    UNREADABLE,
    Erased,
    Message,
    Row,
    StoredRun,
    checked_row,
    checked_run,
    counts_of,
    message_of,
    used,
)
from .seals import sealed_as

EXPORT_FORMAT = 3

_FIRST = (
    "run_id",
    "program_name",
    "program_digest",
    "created_ns",
    "seed",
    "parent",
    "project",
    "submitter",
    "started_ns",
)

_LAST = (
    "status",
    "finished_ns",
    "error_kind",
    "wake_ns",
    "seal",
    "signature",
    "hidden",
    "steps",
    "tokens",
    "cost_usd",
)

_STATUSES = {status.value: status for status in STATUSES}


def export(runs: Iterable[StoredRun], stream: IO[str]) -> int:
    """Write *runs*, which have their rows; how many."""
    stream.write(_text({"record": "export", "format": EXPORT_FORMAT}))
    programs: set[str] = set()
    count = 0
    for run in runs:
        digest = document_digest(run)
        if digest not in programs:
            programs.add(digest)
            stream.write(_text({"record": "program", "sha256": digest, "document": run.document}))
        stream.writelines(run_lines(run, digest))
        count += 1
    stream.write(_text({"record": "done", "runs": count}))
    return count


def run_lines(run: StoredRun, document: str) -> Iterator[str]:
    """The lines of one run, whose document has the hash *document*."""
    seen = sha256()

    def line(data: dict[str, Any]) -> str:
        text = _text(data)
        seen.update(text.encode())
        return text

    first = {"record": "run", "document": document, **{name: getattr(run, name) for name in _FIRST}}
    for name in ("inputs", "about", "labels"):
        first |= _shown(name, getattr(run, name))
    yield line(first)
    for row in run.rows:
        yield line(_row_line(row))
    end = {
        "record": "end",
        **{name: getattr(run, name) for name in _LAST},
        "salt": None if run.salt is None else run.salt.hex(),
    }
    end |= _shown("output", run.output) | _shown("error", run.error) | {"waiting": run.waiting}
    for name in ("inbox", "decided"):
        messages: list[Message] = getattr(run, name)
        end[name] = [[m.kind, m.name, m.body, m.by, m.created_ns, m.signature] for m in messages]
    seen.update(canonical(end))
    yield _text({**end, "sha256": seen.hexdigest()})


def _row_line(row: Row) -> dict[str, Any]:
    line = {
        "record": "row",
        "kind": row.kind,
        "frame": row.frame,
        "path": row.path,
        "type": row.type,
    }
    line |= {"status": None if row.status is None else row.status.value}
    line |= {"started_ns": row.started_ns, "finished_ns": row.finished_ns}
    line |= _shown("request", row.request) | _shown("output", row.output)
    line |= _shown("rest", row.rest) if row.rest is not None else {}
    line |= {"model": row.model} if row.model is not None else {}
    return line | ({"usage": list(counts_of(row.usage))} if row.usage is not None else {})


def _shown(name: str, value: Any) -> dict[str, Any]:
    if value is UNSET:
        return {}
    return {f"{name}_erased": str(value)} if type(value) is Erased else {name: value}


def _text(data: dict[str, Any]) -> str:
    return canonical(data).decode() + "\n"


def read_export(stream: Iterable[str]) -> Iterator[StoredRun]:
    """The runs in an exported file, one by one, each with its rows and its unused messages.

    Raises:
        StoreError: At the first line that is none of an export, or does not fit what was read
        before, or if lines are missing.
    """
    return _Reader(stream).runs()


class _Reader:
    """Reads a file line by line, and knows where it is."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._lines = iter(stream)
        self._number = 0
        self._text = ""

    def runs(self) -> Iterator[StoredRun]:
        """The runs of the file."""
        first = self.next()
        if first.get("record") != "export":
            raise self.wrong("it is no export of runs")
        version = first.get("format")
        if type(version) is not int or version != EXPORT_FORMAT:
            raise self.wrong(
                f"it is of format {version!r}, this llm-nano-vm knows {EXPORT_FORMAT}; install "
                f"the one that wrote it"
            )
        documents: dict[str, Any] = {}
        count = 0
        while True:
            line = self.next()
            match line.get("record"):
                case "program":
                    document = self.field(line, "document", dict)
                    digest = sha256(canonical(document)).hexdigest()
                    if digest != line.get("sha256"):
                        raise self.wrong("the program was edited: its hash does not fit")
                    documents[digest] = document
                case "run":
                    yield self.run(line, documents)
                    count += 1
                case "done":
                    if line.get("runs") != count:
                        raise self.wrong(
                            f"it ends after {line.get('runs')!r} runs, and {count} were there"
                        )
                    for text in self._lines:
                        if text.strip():
                            self._number += 1
                            raise self.wrong("there is more after the end")
                    return
                case other:
                    raise self.wrong(f"a record {other!r} has no place here")

    def run(self, line: dict[str, Any], documents: dict[str, Any]) -> StoredRun:
        """The run that begins with *line*."""
        seen = sha256(canonical(line) + b"\n")
        name = self.field(line, "document", str)
        if name not in documents:
            raise self.wrong("the run's program is not in the file")
        run = StoredRun(
            self.field(line, "run_id", str),
            self.field(line, "program_name", str),
            self.field(line, "program_digest", str),
            self.field(line, "created_ns", int),
            document=documents[name],
            inputs=self.value(line, "inputs", dict),
            about=self.value(line, "about", dict),
            seed=self.field(line, "seed", int, type(None)),
            parent=self.field(line, "parent", str, type(None)),
            project=self.field(line, "project", str),
            submitter=self.field(line, "submitter", str, type(None)),
            labels=self.value(line, "labels", dict),
            started_ns=self.field(line, "started_ns", int),
        )
        while True:
            line = self.next()
            if line.get("record") == "end":
                break
            if line.get("record") != "row":
                raise self.wrong(
                    f"a record {line.get('record')!r} inside run {run.run_id!r}, which has no end"
                )
            seen.update(canonical(line) + b"\n")
            run.rows.append(self.row(line))
        given = line.pop("sha256", None)
        seen.update(canonical(line))
        if given != seen.hexdigest():
            raise self.wrong(f"run {run.run_id!r} was edited: the hash of its lines does not fit")
        self.end(run, line)
        if sealed_as(run) is None:
            raise self.wrong(f"run {run.run_id!r} was edited: its seal does not fit its records")
        return run

    def row(self, line: dict[str, Any]) -> Row:
        """A row of a run."""
        status = self.field(line, "status", str, type(None))
        type_ = self.field(line, "type", str)
        kind = self.field(line, "kind", int)
        if (
            type_ not in TYPES
            or kind not in ROW_KINDS
            or (status is not None and status not in _STATUSES)
        ):
            raise self.wrong(f"a row of kind {kind!r}, type {type_!r} and status {status!r}")
        try:
            usage = used(self.field(line, "usage", list) if "usage" in line else [None] * 4)
        except ValueError as error:
            raise self.wrong(f"a row that no run has: {error}") from None
        row = Row(
            kind,
            self.field(line, "frame", str),
            self.field(line, "path", str),
            type_,
            None if status is None else _STATUSES[status],
            self.field(line, "started_ns", int),
            self.field(line, "finished_ns", int),
            self.value(line, "request"),
            self.value(line, "output"),
            None if (rest := self.value(line, "rest", dict, absent=True)) is UNSET else rest,
            line.get("model"),
            usage,
        )
        try:
            return checked_row(row)
        except UNREADABLE as error:
            raise self.wrong(f"a row that no run has: {error}") from None

    def end(self, run: StoredRun, line: dict[str, Any]) -> None:
        """How it stands."""
        run.status = self.field(line, "status", str)
        if run.status not in RUN_STATUSES:
            raise self.wrong(f"a run of status {run.status!r}")
        run.finished_ns = self.field(line, "finished_ns", int)
        run.wake_ns = self.field(line, "wake_ns", int, type(None))
        run.steps, run.tokens = self.field(line, "steps", int), self.field(line, "tokens", int)
        run.seal = self.field(line, "seal", str)
        for name in ("error_kind", "signature", "hidden", "cost_usd"):
            setattr(run, name, self.field(line, name, str, type(None)))
        run.output, run.error = (
            self.value(line, "output"),
            self.value(line, "error", str, type(None)),
        )
        run.waiting = self.field(line, "waiting", list)
        salt = self.field(line, "salt", str, type(None))
        try:
            run.salt = None if salt is None else bytes.fromhex(salt)
            for name in ("inbox", "decided"):
                messages = self.field(line, name, list)
                setattr(
                    run, name, [message_of(0, m[0], canonical(m[:5]), *m[5:]) for m in messages]
                )
            checked_run(run)
        except UNREADABLE as error:
            raise self.wrong(f"no end of a run: {error}") from None

    def value(self, line: dict[str, Any], name: str, *types: type, absent: bool = False) -> Any:
        """A value that may be erased, or absent."""
        digest = line.get(f"{name}_erased")
        if type(digest) is str and len(digest) == 64:
            try:
                return Erased(bytes.fromhex(digest).hex())
            except ValueError:
                raise self.wrong(f"{name}_erased is no hash") from None
        if name not in line and (absent or not types):
            return UNSET
        return self.field(line, name, *types)

    def field(self, line: dict[str, Any], name: str, *types: type) -> Any:
        """A field of one of *types*; of any where none is given."""
        if name not in line:
            raise self.wrong(f"{name!r} is missing")
        value = line[name]
        if types and type(value) not in types:
            raise self.wrong(f"{name!r} is {short(value)}")
        return value

    def next(self) -> dict[str, Any]:
        """The next line."""
        try:
            text = next(self._lines)
        except StopIteration:
            raise StoreError(
                f"the file was cut short: it stops after line {self._number}"
            ) from None
        except UnicodeDecodeError as error:
            raise StoreError(f"line {self._number + 1}: not UTF-8: {error}") from None
        self._number += 1
        try:
            line = parse_json(text)
        except ValueError as error:
            what = "" if text.endswith("\n") else "the file was cut short here: "
            raise self.wrong(f"{what}{error}") from None
        if type(line) is not dict:
            raise self.wrong("not a record")
        return line

    def wrong(self, what: str) -> StoreError:
        """What is wrong with the line that was read last."""
        return StoreError(f"line {self._number}: {what}")


def document_digest(run: StoredRun) -> str:
    """By what the lines of *run* name its document."""
    return sha256(canonical(run.document)).hexdigest()
