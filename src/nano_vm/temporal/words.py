"""What a run waits for, and what people and the outside say of it: decisions, events, and what became
of calls in doubt. Each word is used once; an event that comes before a step waits for it is kept.

Nothing here waits, or knows of Temporal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ..errors import AlreadyDecided, Changed, Expired, VMError
from ..language.correlation import fits
from ..machine.pending import shown_fault

Entry = dict[str, Any]
"""What a run waits for, as `Trace.waiting` has it, with its deadline."""

Check = Callable[[Any], str | None]
"""What is wrong with an event's payload; None where nothing is."""

_ASKED = {"approval": "asks no approval", "in_doubt": "has nothing in doubt"}


class Words:
    """What is asked and said of one run; *events* are those that no step has taken yet, *decided*
    the words that were said and not used, by path.
    """

    def __init__(
        self,
        events: Iterable[Mapping[str, Any]] = (),
        decided: Mapping[str, Mapping[str, Any]] | None = None,
        known: Iterable[Sequence[str]] = (),
    ) -> None:
        self.waiting: dict[str, Entry] = {}
        self.events = [dict(event) for event in events]
        self.decided = {path: dict(word) for path, word in (decided or {}).items()}
        # names and ids of events that were recorded
        self.known = {(name, event_id) for name, event_id in known}
        self._checks: dict[str, Check | None] = {}
        self._brief: set[str] = set()  # paths of requests that soon end by themselves
        self._over: dict[str, dict[str, Any]] = {}  # what was said and used, by path

    # --- what the run does ---

    def ask(self, entry: Entry, check: Check | None = None, *, brief: bool = False) -> None:
        """Wait for what *entry* says; *check* is of the payload of an event. A *brief* request soon
        ends by itself.
        """
        path = entry["path"]
        self.waiting[path], self._checks[path] = entry, check
        self._over.pop(path, None)
        self._brief.discard(path)
        if brief:
            self._brief.add(path)
        if "event" not in entry or path in self.decided:
            return
        for event in self.events:
            if event["name"] == entry["event"] and fits(event["payload"], entry.get("match")):
                self.events.remove(event)
                self.decided[path] = event
                return

    @property
    def stand(self) -> bool:
        """Whether there are requests, of which none is brief or has its answer."""
        waiting = self.waiting.keys()
        answered = self._brief | self.decided.keys()
        return bool(waiting) and waiting.isdisjoint(answered)

    def came(self, path: str) -> bool:
        """Whether something was said of the request at *path*."""
        return path in self.decided

    def taken(self, path: str) -> dict[str, Any] | None:
        """What was said, which is used up, of a request that stands no longer; None where nothing
        was, and it stands.
        """
        word = self.decided.pop(path, None)
        if word is not None:
            self._over[path] = word
            del self.waiting[path]
        return word

    def over(self, path: str) -> None:
        """The request at *path* stands no longer, though nobody said anything."""
        self.waiting.pop(path, None)

    # --- what is said ---

    def look(
        self,
        kind: str,
        path: str,
        shown: str | None,
        now: int,
        roles: Collection[Any] | None = None,
    ) -> Entry:
        """The request of *kind* at *path*, where it can be answered; *now* is since the epoch. With
        *roles*, which who answers has, it asks one of them.

        Raises:
            Changed, AlreadyDecided, Expired: If it cannot.
        """
        entry = self.waiting.get(path)
        said = self.decided.get(path) or (self._over.get(path) if entry is None else None)
        if said is not None and "by" in said:
            raise AlreadyDecided(
                f"{path!r} is decided already, by {said['by']!r}",
                decision=_named(said),
                by=said["by"],
                decided_ns=said["at_ns"],
            )
        if entry is None or entry["kind"] != kind:
            known = [repr(one["path"]) for one in self.waiting.values() if one["kind"] == kind]
            more = f"; it does at {', '.join(known)}" if known else ""
            raise Changed(f"the run {_ASKED[kind]} at {path!r}{more}")
        if entry.get("deadline_ns") is not None and now >= entry["deadline_ns"]:
            raise Expired(
                f"{path!r} could be decided until its deadline", deadline_ns=entry["deadline_ns"]
            )
        if roles is not None and entry.get("role") not in roles:
            raise Changed(f"the run asks another role at {path!r} by now; look at it again")
        fault = None
        if shown is not None:
            fault = shown_fault(shown, entry, self.waiting.values(), "the run")
        if fault is not None:
            raise Changed(fault)
        return entry

    def say(self, path: str, word: Mapping[str, Any]) -> None:
        """Answer the request at *path* with *word*, which `look` let pass."""
        self.decided[path] = dict(word)

    def fault_of_event(self, name: str, payload: Any, now: int) -> str | None:
        """Why an event cannot be recorded: it is too late for the wait it is for, or does not fit
        its schema; None where it can.
        """
        waits = [e for e in self._waits(name) if fits(payload, e.get("match"))]
        if not waits:
            return None
        timely = [e for e in waits if e.get("deadline_ns") is None or now < e["deadline_ns"]]
        if not timely:
            return f"the deadline of {waits[-1]['path']!r}, which waits for it, has passed"
        for entry in timely:
            check = self._checks.get(entry["path"])
            fault = check(payload) if check is not None else None
            if fault is not None:
                return f"its payload does not fit what {entry['path']!r} waits for: {fault}"
        return None

    def event(self, name: str, payload: Any, event_id: str | None) -> bool:
        """Record an event for a step that waits for it, or the next that does; whether it was: one
        of this name and id that was recorded before is not recorded again.
        """
        if event_id is not None and (name, event_id) in self.known:
            return False
        if event_id is not None:
            self.known.add((name, event_id))
        told = {"name": name, "payload": payload}
        for entry in self._waits(name):
            if fits(payload, entry.get("match")):
                self.decided[entry["path"]] = told
                return True
        self.events.append(told)
        return True

    def _waits(self, name: str) -> list[Entry]:
        return [
            entry
            for path, entry in self.waiting.items()
            if entry.get("event") == name and path not in self.decided
        ]


def _named(word: Mapping[str, Any]) -> str:
    if "approved" in word:
        return "approve" if word["approved"] else "reject"
    return "resolve"


def refusal(error: VMError) -> tuple[str, dict[str, Any]]:
    """A refusal of a word as what travels: the name of its class, and its attributes."""
    return type(error).__name__, {
        name: getattr(error, name)
        for name in ("decision", "by", "decided_ns", "deadline_ns")
        if hasattr(error, name)
    }


def refused(name: str, message: str, about: Mapping[str, Any]) -> VMError:
    """The inverse of `refusal`."""
    if name == "AlreadyDecided":
        return AlreadyDecided(
            message,
            decision=str(about.get("decision")),
            by=about.get("by"),
            decided_ns=int(about.get("decided_ns") or 0),
        )
    if name == "Expired":
        return Expired(message, deadline_ns=about.get("deadline_ns"))
    return Changed(message) if name == "Changed" else VMError(message)
