"""What people and the outside say to stored runs: decisions, events, resolutions of what is in
doubt, cancellations.

A word is only recorded here; who has the tools resumes the run. It counts by the time at which
it is recorded, under the lock of its run, so of several who decide at the same time exactly one
does and the others learn who did.

Rule 1: a decision has a principal, a string with something visible in it. Rule 2: nothing is
recorded that could no longer count: after a deadline, an end, a cancellation or another decision.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import AlreadyDecided, Changed, Expired, NotPermitted, VMError
from ..language.correlation import MATCHABLE_FIELDS, fits
from ..machine.pending import shown_digest, shown_fault
from ..store.protocol import Store
from ..store.records import ENDED, RUNNING, SUSPENDED, Message, StoredRun
from ..store.seals import message_holds
from ..store.waits import fault_of, same_event, takes
from ..values import MAX_VALUE_BYTES, UNSET, admit, is_text, short
from ..visible import HIDDEN
from .system import SYSTEM, Process, Seen, System

if TYPE_CHECKING:
    from .aio import AsyncInbox

PRINCIPAL_CHARS = 200
"""A name, an address or a URI of somebody; what is longer is a mistake."""

EVENT_CHARS = 200
"""Of an event's name and its id, by which stores find it: an index of PostgreSQL has 2,700 bytes for
both."""

_DECISIONS = {"approval": ("approve", "reject"), "in_doubt": ("resolve", "outcome")}
_KINDS = {"approval": ("approval",), "in_doubt": ("in_doubt", "effect")}
DECIDED = frozenset(kind for kinds in _KINDS.values() for kind in kinds)
"""Kinds of what a run waits for that people decide; it waits for an event or a time besides."""

_ASKS = {"approval": "asks no approval", "in_doubt": "has nothing in doubt"}


class Clock(Protocol):
    """Tells the time; the module `time` does."""

    def time_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...


Roles = Callable[[str], Iterable[str]]
"""The roles that a principal has."""


def presented(
    waiting: Iterable[Mapping[str, Any]], system: System = SYSTEM
) -> list[dict[str, Any]]:
    """What a run waits for, as people and programs get it: ``shown`` identifies each request as it
    stands, ``process`` is that which began a call in doubt, and whether it lives is looked at now.
    """
    return [_presented(entry, system) for entry in waiting]


def _presented(entry: Mapping[str, Any], system: System) -> dict[str, Any]:
    told = {**entry, "shown": shown_digest(entry)}
    if "owner" in told:
        told["process"] = process_of(told.pop("owner"), system)
    return told


def process_of(owner: str, system: System = SYSTEM) -> dict[str, Any]:
    """The process of an owner of runs: its host and pid, and whether it lives; None where that
    cannot be seen from here.
    """
    process = Process.of(owner)
    alive = {Seen.ALIVE: True, Seen.GONE: False, Seen.UNKNOWN: None}[
        system.sees(owner, system.process())
    ]
    return {
        "host": process.host if process is not None else owner,
        "pid": process.pid if process is not None else None,
        "alive": alive,
    }


def usable(message: Message, waiting: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a run that waits for *waiting* has something to do with *message*."""
    if message.kind == "cancel":
        return True
    if message.kind == "event":
        return any(takes(entry, message) for entry in waiting)
    return any(entry["path"] == message.name for entry in waiting)


class Inbox:
    """Records what is said to the runs of *store*; *roles* says who may decide what, and without it
    anybody may.

    With *trusted* public keys, what none of them has signed counts as not said: no run uses it, and
    nobody is second to it. Needs neither tools nor an event loop. Every method blocks for a
    transaction; those of ``aio`` are awaited.

    Examples:
        >>> import time
        >>> from nano_vm import ExecutionVM, Program
        >>> from nano_vm.run.inbox import Inbox
        >>> from nano_vm.store.protocol import open_store
        >>> program = Program.from_yaml("steps: [{id: ask, type: approval, role: manager, show: {x: 1}}]")
        >>> store = open_store("sqlite:///asked.db")
        >>> trace = ExecutionVM(store=store).run_sync(program, run_id="a-1")
        >>> inbox = Inbox(store, {"ann": ["manager"]}.__getitem__, time)
        >>> inbox.approve("a-1", "ask", shown=trace.waiting[0]["shown"], by="ann")
        >>> store.close()
    """

    def __init__(
        self,
        store: Store,
        roles: Roles | None,
        clock: Clock,
        *,
        value_bytes: int = MAX_VALUE_BYTES,
        trusted: frozenset[str] | None = None,
        system: System = SYSTEM,
    ) -> None:
        self.store = store
        self.system = system
        self.trusted = trusted
        self.roles = roles
        self.clock = clock
        self.value_bytes = value_bytes

    @property
    def aio(self) -> AsyncInbox:
        """The same methods for code in an event loop, which awaits them."""
        from .aio import AsyncInbox  # late: who has no event loop needs none

        return AsyncInbox(self)

    def waiting(self, run_id: str) -> list[dict[str, Any]]:
        """What a stored run waits for; ``shown`` identifies each request as it stands."""
        stored = self.store.load(run_id, rows=False)
        return presented(stored.waiting, self.system) if stored.status == SUSPENDED else []

    def _said(self, run: StoredRun) -> list[Message]:
        """All that was said to a run and counts, what it has used first."""
        return [m for m in (*run.decided, *run.inbox) if message_holds(run.run_id, m, self.trusted)]

    # --- decisions ---

    def approve(
        self, run_id: str, path: str, *, shown: str, by: str, reason: str | None = None
    ) -> None:
        """Record that *by* approves what the run asks at *path*; *shown* identifies what was seen,
        by its digest or at least 12 first digits of it.

        Raises:
            Changed: If the run asks something else by now, or nothing there.
            NotPermitted: If *by* is nobody, or lacks the role.
            AlreadyDecided: If somebody was first; or the run is to be cancelled, or has ended.
            Expired: If its deadline has passed.
            UnknownRun: If there is no such run.
        """
        if not isinstance(shown, str):
            raise VMError(
                f"shown is the digest of the request that was seen, as waiting() gives it, not "
                f"{shown!r}"
            )
        self._decide("approve", run_id, path, shown, by, reason)

    def reject(
        self,
        run_id: str,
        path: str,
        *,
        by: str,
        shown: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Record that *by* rejects; as `approve`."""
        self._decide("reject", run_id, path, shown, by, reason)

    def require_open(self, run_id: str, path: str, *, shown: str, by: str) -> dict[str, Any]:
        """What the run asks at *path*, as it was *shown* and *by* could approve it now. Nothing is
        recorded.

        Raises:
            VMError: As `approve`.
        """
        principal(by)
        self._permitted(run_id, path, by)
        run = self.store.load(run_id, rows=False)
        now = self.clock.time_ns()
        entry = _pending(run, self._said(run), path, "approval", False, now)
        _seen(shown, run, entry)
        return entry

    def _decide(
        self, kind: str, run_id: str, path: str, shown: str | None, by: str, reason: str | None
    ) -> None:
        principal(by)
        require_reason(reason)
        role = self._permitted(run_id, path, by)

        def judge(run: StoredRun, done: bool) -> Message:
            now = self.clock.time_ns()
            entry = _pending(run, self._said(run), path, "approval", done, now)
            if shown is not None:
                _seen(shown, run, entry)
            if entry["role"] != role:  # the role that was looked up is not that of this request
                raise Changed(
                    f"run {run_id!r} asks another role at {path!r} by now; look at it again"
                )
            return Message(kind, path, {"reason": reason}, by, now)

        self.store.decide(run_id, judge, path)

    def _permitted(self, run_id: str, path: str, by: str) -> Any:
        """The role that is asked at *path*, which *by* has. Looked up outside of the transaction:
        it is the host's code.
        """
        run = self.store.load(run_id, rows=False)
        entry = next(
            (
                entry
                for entry in run.waiting
                if entry["path"] == path and entry["kind"] == "approval"
            ),
            None,
        )
        role = entry["role"] if entry is not None else None
        if entry is not None:
            require_role(self.roles, by, role, path)
        return role

    def resolve(
        self,
        run_id: str,
        path: str,
        *,
        by: str,
        done: Any = UNSET,
        retry: bool = False,
        fail: str | None = None,
        shown: str | None = None,
    ) -> None:
        """Record what became of a call in doubt: that it is *done* and gave this output, that it
        may be made again, or why it failed. Of a call that a fork holds back, what is to become of
        it: this output, that it is to be made, or that it fails. With *shown*, only if what is in
        doubt is what was seen, as in `approve`.

        Raises:
            VMError: If not exactly one of the three is said; else as `approve`.
        """
        body = resolution(done, retry, fail, self.value_bytes)
        principal(by)

        def judge(run: StoredRun, _: bool) -> Message:
            now = self.clock.time_ns()
            entry = _pending(run, self._said(run), path, "in_doubt", False, now)
            if shown is not None:
                _seen(shown, run, entry)
            return Message("resolve", path, body, by, now)

        self.store.decide(run_id, judge, path)

    def cancel(self, run_id: str, *, by: str) -> None:
        """Record that a run is to be cancelled, and undone.

        Raises:
            AlreadyDecided: If it is to be cancelled already.
            Expired: If it has ended.
        """
        principal(by)

        def judge(run: StoredRun, _: bool) -> Message:
            _not_ended(run)
            _not_cancelled(run, self._said(run))
            return Message("cancel", "", {}, by, self.clock.time_ns())

        self.store.decide(run_id, judge)

    # --- events ---

    def send_event(
        self, name: str, payload: Any = None, *, run_id: str | None = None, id: str | None = None
    ) -> bool:
        """Record an event; used once. Whether it was: an event of this name and *id* that was
        recorded before is not recorded again.

        With *run_id* it is for a `wait` that this run stands at, or the next that asks for it.
        Without, it is for the first run whose `wait` has a ``match`` that *payload* fits, now or
        later; *payload* is an object then, of at most `MATCHABLE_FIELDS` fields.

        Raises:
            Expired: If the run has ended, or it waits for this event and its deadline has passed.
            AlreadyDecided: If the run is to be cancelled.
            VMError: If the payload does not fit the schema of the wait that it is for.
        """
        _require_key("the name", name)
        if id is not None:
            _require_key("the id", id)
        payload, _ = admit(payload, self.value_bytes)
        body = {"payload": payload, **({"id": id} if id is not None else {})}

        def recorded() -> Message:
            return Message("event", name, body, None, self.clock.time_ns())

        return (
            self._send(run_id, recorded)
            if run_id is not None
            else self._post(recorded, name, payload)
        )

    def _send(self, run_id: str, recorded: Callable[[], Message]) -> bool:
        def judge(run: StoredRun, _: bool) -> Message:
            message = recorded()
            event_id = message.body.get("id")
            if event_id is not None and any(
                same_event(known, message.name, event_id) for known in self._said(run)
            ):
                raise _RecordedBefore
            _not_ended(run)
            _not_cancelled(run, self._said(run))
            waits = [e for e in run.waiting if e.get("event") == message.name]
            waits = [e for e in waits if fits(message.body["payload"], e.get("match"))]
            if waits and not any(takes(entry, message) for entry in waits):
                raise _expired(run, waits[-1], f"event {message.name!r} at {waits[-1]['path']!r}")
            _valid(message, waits)
            return message

        try:
            self.store.decide(run_id, judge)
        except _RecordedBefore:
            return False
        return True

    def _post(self, recorded: Callable[[], Message], name: str, payload: Any) -> bool:
        if type(payload) is not dict or not 0 < len(payload) <= MATCHABLE_FIELDS:
            raise VMError(
                f"the payload of event {name!r} is {short(payload)}; one that is addressed to no "
                f"run is an object with 1 to "
                f"{MATCHABLE_FIELDS} fields, by whose values a run waits for it"
            )

        def write(waits: list[Mapping[str, Any]]) -> Message:
            message = recorded()
            waits = [entry for entry in waits if takes(entry, message)]
            if waits and all(fault_of(entry, payload) is not None for entry in waits):
                _valid(message, waits)
            return message

        recorded_now = self.store.post(name, payload, write)
        self.store.deliver(self.trusted)
        return recorded_now


class _RecordedBefore(VMError):
    """An event of this name and id was recorded before."""


def _require_key(what: str, text: Any) -> None:
    """Refuse what no store can find an event by.

    Raises:
        VMError: If it is not a string of characters that all stores have, or too long for an index.
    """
    if type(text) is not str or not text:
        raise VMError(f"{what} of an event is a string that is not empty, not {short(text)}")
    if len(text) > EVENT_CHARS:
        raise VMError(f"{what} of an event has {len(text)} characters, more than {EVENT_CHARS}")
    if not is_text(text):
        raise VMError(f"{what} of an event holds a NUL or a lone surrogate: {text!r}")


def _valid(message: Message, waits: Iterable[Mapping[str, Any]]) -> None:
    """Raises if the payload of an event is not what one of *waits* asks for."""
    for entry in waits:
        fault = fault_of(entry, message.body["payload"])
        if fault is not None:
            raise VMError(
                f"the payload of event {message.name!r} does not fit what {entry['path']!r} waits "
                f"for: {fault}"
            )


def require_role(roles: Roles | None, by: str, role: Any, path: str) -> None:
    """Refuse *by*, who lacks the role that is asked at *path*; without *roles* anybody may.

    Raises:
        NotPermitted: If so.
    """
    if roles is None:
        return
    found = roles(by)
    if role not in ((found,) if isinstance(found, str) else tuple(found)):
        raise NotPermitted(
            f"{by!r} lacks the role {role!r} that {path!r} asks for", by=by, role=role
        )


def require_reason(reason: Any) -> None:
    """Refuse what is no reason of a decision.

    Raises:
        VMError: If it is not a string, or None.
    """
    if reason is not None and not isinstance(reason, str):
        raise VMError(f"a reason is a string, not {reason!r}")


def resolution(
    done: Any, retry: bool, fail: Any, value_bytes: int = MAX_VALUE_BYTES
) -> dict[str, Any]:
    """What is recorded of a call in doubt that took place and gave *done*, is to be made again, or
    failed.

    Raises:
        VMError: If not exactly one of them is said, or it cannot be recorded.
    """
    if (done is not UNSET) + bool(retry) + (fail is not None) != 1:
        raise VMError("say one of done=<output>, retry=True and fail=<reason>")
    if done is not UNSET:
        return {"output": admit(done, value_bytes)[0]}
    if retry:
        return {"retry": True}
    if type(fail) is not str:
        raise VMError(f"fail is the reason why the call failed, a string, not {fail!r}")
    return {"reason": fail}


def principal(by: Any) -> str:
    """*by*, if it names somebody.

    Raises:
        NotPermitted: If it is not a string, or nothing in it is visible.
    """
    if not isinstance(by, str) or not HIDDEN.sub("", by).strip() or len(by) > PRINCIPAL_CHARS:
        told = (
            f"one of {len(by)} characters"
            if isinstance(by, str) and len(by) > PRINCIPAL_CHARS
            else repr(by)
        )
        raise NotPermitted(
            f"a decision is somebody's: by is their name, a string that is not empty, not {told}",
            by=by,
        )
    if not by.isascii() and any("\ud800" <= char <= "\udfff" for char in by):
        raise NotPermitted(f"by holds a lone surrogate, which no text has: {by!r}", by=by)
    return by


def account() -> str:
    """The account that this process runs under: the principal of what its own code decides."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may know its user by number only
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "this process"


def _seen(shown: str, run: StoredRun, entry: Mapping[str, Any]) -> None:
    """Raises `Changed` unless *shown* identifies *entry*."""
    fault = shown_fault(shown, entry, run.waiting, f"run {run.run_id!r}")
    if fault is not None:
        raise Changed(fault)


def _pending(
    run: StoredRun, said: Sequence[Message], path: str, kind: str, done: bool, now: int
) -> dict[str, Any]:
    """What a run, to which *said* was said, waits for at *path*, where it can still be decided.
    *done* says that the approval there has ended.

    A run that is under way may come to the same request again, so what it waited for before still
    counts.
    """
    entries = (
        [e for e in run.waiting if e["kind"] in _KINDS[kind]]
        if run.status in (SUSPENDED, RUNNING)
        else []
    )
    entry = next((entry for entry in entries if entry["path"] == path), None)
    # a call that was resolved and made again may be in doubt again; a request is made once
    again = kind == "in_doubt" and run.status == SUSPENDED and entry is not None
    before = frozenset(message.id for message in run.decided) if again else ()
    words = [
        m for m in said if m.kind in _DECISIONS[kind] and m.name == path and m.id not in before
    ]
    if words:
        raise _was_decided(run, path, words[-1])
    if kind == "approval":  # what is in doubt is settled before a run is cancelled
        _not_cancelled(run, said)
    _not_ended(run)
    if done:
        raise Expired(f"{path!r} of run {run.run_id!r} is over: nobody decided in time")
    if entry is None:
        known = (
            f"; it does at {', '.join(repr(entry['path']) for entry in entries)}" if entries else ""
        )
        raise Changed(f"run {run.run_id!r} ({run.status}) {_ASKS[kind]} at {path!r}{known}")
    if entry.get("deadline_ns") is not None and now >= entry["deadline_ns"]:
        raise _expired(run, entry, repr(path))
    return entry


def _was_decided(run: StoredRun, path: str, first: Message) -> AlreadyDecided:
    if first.kind == "outcome":
        return AlreadyDecided(
            f"{path!r} of run {run.run_id!r} is in doubt no longer: the process that made the call "
            f"has said what it gave, {_moment(first.created_ns)}",
            decision=first.kind,
            by=None,
            decided_ns=first.created_ns,
        )
    word = "resolved" if first.kind == "resolve" else "decided"
    ended = f"run {run.run_id!r} has ended ({run.status}); " if run.status in ENDED else ""
    told = f"{first.kind} by {first.by!r}, {_moment(first.created_ns)}"
    return AlreadyDecided(
        f"{ended}{path!r} of run {run.run_id!r} is {word} already: {told}",
        decision=first.kind,
        by=first.by,
        decided_ns=first.created_ns,
    )


def _not_ended(run: StoredRun) -> None:
    if run.status in ENDED:
        raise Expired(f"run {run.run_id!r} has ended ({run.status})", deadline_ns=run.finished_ns)


def _not_cancelled(run: StoredRun, said: Iterable[Message]) -> None:
    first = next((message for message in said if message.kind == "cancel"), None)
    if first is not None:
        by = f", by {first.by!r}" if first.by is not None else ""
        ended = f"has ended ({run.status}): it was" if run.status in ENDED else "is to be"
        raise AlreadyDecided(
            f"run {run.run_id!r} {ended} cancelled already{by}, {_moment(first.created_ns)}",
            decision="cancel",
            by=first.by,
            decided_ns=first.created_ns,
        )


def _expired(run: StoredRun, entry: Mapping[str, Any], what: str) -> Expired:
    deadline = entry["deadline_ns"]
    return Expired(
        f"{what} of run {run.run_id!r} could be decided until {_moment(deadline)}",
        deadline_ns=deadline,
    )


def _moment(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"
