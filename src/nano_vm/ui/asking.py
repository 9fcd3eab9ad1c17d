"""What stored runs ask of people, and what people answer through a page.

Rule 1: a page shows all of what is asked, written so that nothing in it hides (`nano_vm.visible`),
or it cannot be decided there. Rule 2: an answer names the digest of what was shown, so one to what
has changed since is refused, and says who gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from typing_extensions import TypedDict  # of typing, pydantic reads it from Python 3.12 on

from ..errors import StoreError, VMError
from ..records.secrecy import NOTHING_SECRET, Levels
from ..run.inbox import DECIDED, Clock, Inbox, Roles, presented
from ..store.protocol import Archive, RunFilter
from ..store.records import ANSWERS, SUSPENDED
from ..values import parse_json
from ..visible import exact, name, written

MOST_RUNS = 200
"""Suspended runs that a page lists, newest first: more than a person decides at a sitting."""

WHOLE_CHARS = 100_000
"""Of what is asked, up to here it is shown; what is longer nobody has read before deciding."""


class Fact(TypedDict):
    """A part of what is asked. ``exact`` is the same in ASCII, where letters may be mistaken."""

    name: str
    text: str
    exact: str | None


class Asking(TypedDict):
    """What a run asks at a place. Times are milliseconds since the epoch; without ``whole`` the
    facts are too long for a page. ``needed`` people approve it, and ``approved`` have.
    """

    run: str
    program: str
    path: str
    kind: Literal["approval", "in_doubt", "effect"]
    role: str | None
    tool: str | None
    facts: list[Fact]
    whole: bool
    shown: str
    since: float
    deadline: float | None
    needed: int
    approved: list[str]


class AskedList(TypedDict):
    """What runs ask. ``by`` is who decides here, None where nobody does; ``now`` is the server's
    time.
    """

    asked: list[Asking]
    damaged: list[str]
    by: str | None
    now: float


def asked(store: Archive, project: str | None = None) -> tuple[list[Asking], list[str]]:
    """What the runs of *store*, or of one project in it, ask and nobody has answered; and what of
    runs cannot be read.
    """
    found: list[Asking] = []
    damaged: list[str] = []
    waiting = RunFilter(status=SUSPENDED, project=project)
    for listed in store.runs(waiting, limit=MOST_RUNS, damaged=damaged):
        try:
            run = store.load(listed.run_id, rows=False)
        except StoreError as error:
            damaged.append(str(error))
            continue
        if run.status != SUSPENDED:
            continue
        answered = {m.name for m in run.inbox if m.kind in ANSWERS}
        levels = Levels.of(run.about) or NOTHING_SECRET
        for entry in presented(run.waiting):
            if entry["kind"] in DECIDED and entry["path"] not in answered:
                shown = levels.waiting("pages", entry)
                found.append(_asking(run.run_id, run.program_name, run.created_ns, shown))
    return found, damaged


def _asking(run_id: str, program: str, created_ns: int, entry: Mapping[str, Any]) -> Asking:
    parts = list(_parts(entry))
    facts: list[Fact] = []
    # 10 MB would take half a minute to write, at each look of each page
    if sum(_chars(value) for _, value in parts) <= WHOLE_CHARS:
        facts = [Fact(name=name(key), text=written(of), exact=exact(of)) for key, of in parts]
    whole = len(facts) == len(parts) and sum(len(f["text"]) for f in facts) <= WHOLE_CHARS
    deadline = entry.get("deadline_ns")
    return {
        "run": run_id,
        "program": program,
        "path": entry["path"],
        "kind": entry["kind"],
        "role": entry.get("role"),
        "tool": entry.get("tool"),
        "facts": facts if whole else [],
        "whole": whole,
        "shown": entry["shown"],
        "since": entry.get("began_ns", created_ns) / 1e6,
        "deadline": None if deadline is None else deadline / 1e6,
        "needed": 1,
        "approved": [],
    }


def _chars(value: Any) -> int:
    """The characters of all strings in *value*."""
    found, left = 0, [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            found += len(one)
        elif isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            left += one
    return found


def _parts(entry: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    match entry["kind"]:
        case "approval":
            shown = entry.get("show")
        case "effect":
            shown = entry.get("request")
        case _:
            shown = entry.get("arguments")
    if isinstance(shown, Mapping):
        yield from ((str(key), value) for key, value in shown.items())
    elif isinstance(shown, list):
        yield from ((f"item {number}", value) for number, value in enumerate(shown, 1))
    elif shown is not None:
        yield "shown", shown


class Answers:
    """Records what *by* says, in a store that is open to be written; *roles* as `Inbox` has them."""

    def __init__(self, store: Archive, by: str, clock: Clock, roles: Roles | None = None) -> None:
        self.by = by
        self.inbox = Inbox(store, roles, clock)

    def record(self, body: Any) -> None:
        """An answer as a page sends it: ``run``, ``path``, ``shown``, ``answer``, ``reason``, and of
        one in doubt ``how``: ``done`` with its ``output`` as JSON, ``retry``, or ``fail``.

        Raises:
            VMError: If it is none, or can no longer count.
        """
        given = _Given(body)
        run, path, shown = given.text("run"), given.text("path"), given.text("shown")
        reason = given.text("reason", "").strip()
        match given.text("answer"):
            case "approve":
                self.inbox.approve(run, path, shown=shown, by=self.by, reason=reason or None)
            case "reject":
                if not reason:
                    raise VMError("a rejection has a reason: whoever waits for it will read it")
                self.inbox.reject(run, path, shown=shown, by=self.by, reason=reason)
            case "resolve":
                self._resolve(run, path, shown, given, reason)
            case other:
                raise VMError(f"an answer is one of {', '.join(ANSWERS)}, not {other!r}")

    def _resolve(self, run: str, path: str, shown: str, given: _Given, reason: str) -> None:
        match given.text("how"):
            case "done":
                try:
                    output = parse_json(given.text("output", "null") or "null")
                except ValueError as error:
                    raise VMError(f"what the call gave is JSON: {error}") from None
                self.inbox.resolve(run, path, by=self.by, shown=shown, done=output)
            case "retry":
                self.inbox.resolve(run, path, by=self.by, shown=shown, retry=True)
            case "fail":
                if not reason:
                    raise VMError("say why the call failed")
                self.inbox.resolve(run, path, by=self.by, shown=shown, fail=reason)
            case other:
                raise VMError(f"a call in doubt is done, retry or fail, not {other!r}")


class _Given:
    """The fields of an answer, which are strings."""

    def __init__(self, body: Any) -> None:
        if not isinstance(body, dict):
            raise VMError("an answer is a JSON object")
        self.body = body

    def text(self, field: str, absent: str | None = None) -> str:
        value = self.body.get(field, absent)
        if not isinstance(value, str):
            raise VMError(f"an answer has {field!r}, a string")
        return value
