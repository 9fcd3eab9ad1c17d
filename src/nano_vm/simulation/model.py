"""A model of a store: what `SqlStore` promises over SQLite and PostgreSQL, in a few dictionaries, and
nothing durable.

Each method is one transaction: it happens as a whole and at once. `tests/store` holds it to the same
histories as the databases. Time, delays and faults are in `store`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from operator import attrgetter
from typing import Any

from ..errors import LeaseLost, StoreError, UnknownRun
from ..language.correlation import mark_of_wait, marks_of_event
from ..records.record import step_of
from ..store.accounts import Amount, Books, Reservation, Shortage, Standing
from ..store.kept import KeptAnswer, KeptHere
from ..store.limits import CallLimits, Counted, Entered
from ..store.protocol import (
    ALL_RUNS,
    LABEL_GROUP,
    PAGE_RUNS,
    Append,
    Claim,
    Cost,
    Judge,
    RunFilter,
    RunPage,
    checked_groups,
)
from ..store.records import (
    ENDED,
    PENDING,
    RUNNING,
    STEP,
    SUSPENDED,
    UNENDED,
    Message,
    Row,
    StoredRun,
)
from ..store.seals import message_holds, seal_of
from ..store.waits import Entry, fault_of, same_event, takes, unanswered
from ..values import canonical

UNUSED, USED, SEEN = 0, 1, 2

DAY_NS = 86_400 * 10**9


def _copied(run: StoredRun) -> StoredRun:
    """A shallow copy, in a third of the time of `copy`."""
    return StoredRun(*_values_of(run))


_values_of = attrgetter(*(field.name for field in fields(StoredRun)))


class _Kept:
    """A run as it is kept: its header and rows, and its messages with what became of each."""

    __slots__ = ("messages", "run")

    def __init__(self, run: StoredRun) -> None:
        self.run = run
        self.messages: dict[int, tuple[Message, int]] = {}

    def shown(self, *, rows: bool) -> StoredRun:
        run = _copied(self.run)
        run.rows = list(run.rows) if rows else []
        run.inbox, run.decided = [], []
        for message, state in self.messages.values():
            if state == USED:
                run.decided.append(message)
            else:
                run.inbox.append(replace(message, seen=True) if state == SEEN else message)
        return run


class Model:
    """Runs, owners, messages and events; *clock* is nanoseconds, for leases."""

    def __init__(self, clock: Callable[[], int], *, one_machine: bool = True) -> None:
        self.clock, self.one_machine = clock, one_machine
        self._runs: dict[str, _Kept] = {}
        self._by_key: dict[int, _Kept] = {}
        self._owners: dict[str, int] = {}
        self._books, self._answers = Books(), KeptHere()
        self._windows: dict[str, dict[int, list[int]]] = {}  # by member and part
        self._calls: dict[str, tuple[str, str]] = {}  # under way: member and owner
        self._documents: dict[int, tuple[Any, str]] = {}  # with their hashes, by identity
        self._numbers = 0  # of messages
        # events that are addressed to no run, with the run that has each; and what is waited for
        self._events: dict[int, tuple[Message, str | None]] = {}
        self._marks: dict[tuple[int, str], int] = {}  # of waits, by run and path
        self._new_events: set[int] = set()  # that were not looked at
        self._new_waits: set[tuple[int, str]] = set()

    # --- a run's life ---

    def create(self, run: StoredRun, *, again: bool = False) -> bool:
        """See `Store.begin`."""
        run.read = self._hashed(run.document)
        run.seal, run.signature = seal_of(run), None
        kept = self._runs.get(run.run_id)
        if kept is not None:
            if not again or kept.run.salt != run.salt:
                return False
            run.key, run.fence = kept.run.key, 1
            return True
        run.key, run.fence = len(self._by_key) + 1, 1
        own = _copied(run)
        own.rows = []
        self._runs[run.run_id] = self._by_key[run.key] = _Kept(own)
        return True

    def _hashed(self, document: dict[str, Any]) -> tuple[Any, str]:
        """A document and its hash, as who reads a run has them; of one that came before, the same
        again.
        """
        known = self._documents.get(id(document))
        if known is None:
            known = document, sha256(canonical(document)).hexdigest()
            self._documents[id(document)] = known
        return known

    def append(self, item: Append) -> None:
        """See `Store.append`.

        Raises:
            LeaseLost: If another owner has the run.
            StoreError: If what went before was not stored.
        """
        kept = self._by_key.get(item.key)
        run = kept.run if kept is not None else None
        count = len(run.rows) if run is not None else 0
        there = self._there(run, item)
        if run is None or run.fence != item.fence:
            if not item.rows or there < len(item.rows):
                raise LeaseLost(f"run number {item.key} has another owner now")
            return
        if run.status in ENDED:
            if item.after is None or item.after + len(item.rows) > count:
                raise LeaseLost(f"run number {item.key} has ended")
            return
        if item.after is not None and item.after + there != count:
            raise StoreError(f"run number {item.key} has {count} rows and not {item.after}")
        assert kept is not None
        run.rows += item.rows[there:]
        for name, value in (item.update or {}).items():
            setattr(run, name, value)
        if item.waits is not None:
            self._register(item.key, *item.waits)
        for number in item.used:
            self._mark_message(kept, number, USED)
        for number in item.seen:
            if kept.messages.get(number, (None, USED))[1] == UNUSED:
                self._mark_message(kept, number, SEEN)

    def _there(self, run: StoredRun | None, item: Append) -> int:
        if run is None or item.after is None or len(run.rows) <= item.after or not item.rows:
            return 0
        stored = run.rows[item.after : item.after + len(item.rows)]
        same = all(a == b for a, b in zip(stored, item.rows, strict=False))
        return len(stored) if same else 0

    def _mark_message(self, kept: _Kept, number: int, state: int) -> None:
        if number in kept.messages:
            kept.messages[number] = kept.messages[number][0], state

    def load(self, run_id: str, *, rows: bool = True) -> StoredRun:
        """See `Store.load`."""
        return self._kept(run_id).shown(rows=rows)

    def load_each(self, run_ids: Sequence[str]) -> dict[str, StoredRun | StoreError]:
        """See `Store.load_each`."""
        return {
            run_id: self._runs[run_id].shown(rows=True)
            if run_id in self._runs
            else UnknownRun(f"no run {run_id!r}")
            for run_id in run_ids
        }

    def _kept(self, run_id: str) -> _Kept:
        kept = self._runs.get(run_id)
        if kept is None:
            raise UnknownRun(f"there is no run {run_id!r}")
        return kept

    # --- owners ---

    def claim(
        self,
        run_ids: Sequence[str],
        owner: str,
        now_ns: int,
        *,
        most: int = 1,
        alive: Callable[[str], bool] = lambda _: False,
    ) -> dict[str, Claim]:
        """See `Store.claim`."""
        found = {kept.run.key: kept.run for name in run_ids if (kept := self._runs.get(name))}
        free = [found[key] for key in sorted(found) if self._claimable(found[key], owner)]
        chosen = [
            run
            for run in free[:most]
            if run.owner in (None, owner) or run.owner not in self._owners or not alive(run.owner)
        ]
        claims = {}
        for run in chosen:
            claims[run.run_id] = Claim(run.fence + 1, run.status)
            run.owner, run.fence, run.status = owner, run.fence + 1, RUNNING
            run.started_ns = run.started_ns or now_ns
        self.charge(claims)
        return claims

    def owner_of(self, run_id: str) -> str | None:
        """Whose a run is; of no run nobody's."""
        kept = self._runs.get(run_id)
        return kept.run.owner if kept is not None else None

    def _claimable(self, run: StoredRun, owner: str) -> bool:
        return run.status not in ENDED and (run.owner == owner or self._is_free(run))

    def _is_free(self, run: StoredRun, spare: Collection[str] = ()) -> bool:
        if run.owner is None:
            return True
        return run.owner not in spare and not self._lives(run.owner)

    def _lives(self, owner: str) -> bool:
        return self._owners.get(owner, -1) >= self.clock()

    def heartbeat(self, owner: str, seconds: float) -> None:
        """See `Store.heartbeat`."""
        self._owners[owner] = self.clock() + int(seconds * 1e9)

    def forget_owner(self, owner: str) -> None:
        """See `Store.forget_owner`."""
        self._owners.pop(owner, None)

    def owned(self, owner: str) -> dict[str, tuple[int, int]]:
        """See `Store.owned`."""
        return {
            kept.run.run_id: (key, kept.run.fence)
            for key, kept in self._by_key.items()
            if kept.run.owner == owner and kept.run.status == RUNNING
        }

    def owners(self) -> dict[str, float]:
        """See `Store.owners`."""
        now = self.clock()
        return {owner: (self._owners[owner] - now) / 1e9 for owner in sorted(self._owners)}

    def claimable(
        self, now_ns: int, limit: int, only: str | None = None, *, spare: Collection[str] = ()
    ) -> dict[str, str]:
        """See `Store.claimable`."""
        found: dict[int, StoredRun] = {}
        free = [kept for kept in self._by_key.values() if kept.run.status not in ENDED]
        free = [kept for kept in free if self._is_free(kept.run, spare)]

        def take(runs: Iterable[StoredRun]) -> None:
            found.update({run.key: run for run in list(runs)[:limit]})

        for status in (PENDING, RUNNING):
            if only in (None, status):
                of_status = [kept.run for kept in free if kept.run.status == status]
                take(sorted(of_status, key=lambda run: (run.created_ns, run.key)))
        if only in (None, SUSPENDED):
            waiting = [kept for kept in free if kept.run.status == SUSPENDED]
            due = [k.run for k in waiting if k.run.wake_ns is not None and k.run.wake_ns <= now_ns]
            take(sorted(due, key=lambda run: (run.wake_ns, run.key)))
            take(k.run for k in waiting if any(s == UNUSED for _, s in k.messages.values()))
        return {found[key].run_id: found[key].program_digest for key in sorted(found)[:limit]}

    # --- budgets that runs share ---

    def reserve(self, reservation: Reservation) -> Shortage | None:
        """See `Store.reserve`."""
        return self._books.reserved(reservation)

    def settle(self, id: str, used: Amount | None) -> None:
        """See `Store.settle`."""
        self._books.settle(id, used)

    def charge(self, run_ids: Iterable[str]) -> None:
        """Settle what is open of runs that were claimed: their calls were lost."""
        self._books.charge(run_ids)

    def accounts(self) -> dict[str, Standing]:
        """See `Store.accounts`."""
        return self._books.accounts()

    # --- limits that processes share ---

    def enter(self, call_id: str, owner: str, limits: CallLimits, tokens: int) -> Entered:
        """See `Store.enter`."""
        now = self.clock()
        window = self._windows.setdefault(limits.name, {})
        for part in [part for part in window if part < limits.oldest_of(now)]:
            del window[part]
        parts = [Counted(number, *window[number]) for number in sorted(window)]
        calls = self._calls
        for dead in [call for call, (_, owner) in calls.items() if not self._lives(owner)]:
            del calls[dead]
        busy = sum(member == limits.name for member, _ in calls.values())
        wait = limits.wait_ns(parts, busy, tokens, now)
        if wait:
            return Entered(wait)
        number = limits.part_of(now)
        counted = window.setdefault(number, [0, 0])
        counted[0] += 1
        counted[1] += tokens
        if limits.concurrency is not None:
            calls[call_id] = limits.name, owner
        return Entered(0, number)

    def leave(self, call_id: str, limits: CallLimits, part: int, change: int) -> None:
        """See `Store.leave`."""
        counted = self._windows.get(limits.name, {}).get(part)
        if counted is not None:
            counted[1] += change
        self._calls.pop(call_id, None)

    # --- answers that runs share ---

    def kept(self, key: str, since_ns: int) -> str | None:
        """See `Store.kept`."""
        return self._answers.find(key, since_ns)

    def keep(self, answer: KeptAnswer) -> None:
        """See `Store.keep`."""
        self._answers.keep(answer)

    # --- messages ---

    def send(self, run_id: str, message: Message) -> None:
        """See `Store.send`."""
        kept = self._kept(run_id)
        if kept.run.status in ENDED and message.kind != "outcome":
            raise StoreError(f"run {run_id!r} has ended ({kept.run.status})")
        self._keep(kept, message)

    def decide(self, run_id: str, judge: Judge, path: str | None = None) -> Message:
        """See `Store.decide`."""
        kept = self._kept(run_id)
        ended = path is not None and any(
            row.kind == STEP and row.path == path and row.type == "approval"
            for row in kept.run.rows
        )
        message = judge(kept.shown(rows=False), ended)
        self._keep(kept, message)
        event_id = message.body.get("id") if message.kind == "event" else None
        if event_id is not None:
            self._withdraw(run_id, message.name, event_id)
        return message

    def _keep(self, kept: _Kept, message: Message) -> None:
        self._numbers += 1
        kept.messages[self._numbers] = replace(message, id=self._numbers, seen=False), UNUSED

    def cancelled(self, keys: Sequence[int]) -> list[int]:
        """See `Store.cancelled`."""
        wanted = (key for key in sorted(set(keys)) if key in self._by_key)
        return [
            key
            for key in wanted
            if any(
                message.kind == "cancel" and state == UNUSED
                for message, state in self._by_key[key].messages.values()
            )
        ]

    def told(self, key: int) -> list[Message]:
        """See `Store.told`."""
        return self._by_key[key].shown(rows=False).inbox

    # --- events that are addressed to no run ---

    def post(
        self,
        name: str,
        payload: Mapping[str, Any],
        write: Callable[[list[Mapping[str, Any]]], Message],
    ) -> bool:
        """See `Store.post`."""
        marks = marks_of_event(name, payload)
        message = write([entry for _, _, entry in self._waits(marks)])
        event_id = message.body.get("id")
        known = (known for known, _ in self._events.values())
        if event_id is not None and any(same_event(event, name, event_id) for event in known):
            return False
        self._numbers += 1
        self._events[self._numbers] = replace(message, id=self._numbers), None
        self._new_events.add(self._numbers)
        return True

    @property
    def undelivered(self) -> bool:
        """Whether an event or a wait is still to be looked at."""
        return bool(self._new_events or self._new_waits)

    def deliver(self, trusted: frozenset[str] | None = None) -> list[str]:
        """See `Store.deliver`."""
        given = []
        while self.undelivered:
            if self._new_events:
                number = min(self._new_events)
                run_id = self._event_given(number, trusted)
                self._new_events.discard(number)
            else:
                key, path = min(self._new_waits)
                run_id = self._wait_given(key, path, trusted)
                self._new_waits.discard((key, path))
            if run_id is not None:
                given.append(run_id)
        return given

    def _register(self, key: int, before: Sequence[Entry], now: Sequence[Entry]) -> None:
        for entry in before:
            self._marks.pop((key, entry["path"]), None)
            self._new_waits.discard((key, entry["path"]))
        for entry in now:
            self._marks[key, entry["path"]] = mark_of_wait(entry["event"], entry["match"])
            self._new_waits.add((key, entry["path"]))

    def _withdraw(self, run_id: str, name: str, event_id: str) -> None:
        for number, (event, taken) in self._events.items():
            if taken is None and same_event(event, name, event_id):
                self._taken(number, run_id)
                return

    def _taken(self, number: int, run_id: str) -> None:
        self._events[number] = self._events[number][0], run_id
        self._new_events.discard(number)

    def _waits(self, marks: Collection[int]) -> Iterator[tuple[str, str, Entry]]:
        for (key, path), mark in sorted(self._marks.items()):
            if mark in marks:
                run = self._by_key[key].run
                entry = next((entry for entry in run.waiting if entry["path"] == path), None)
                if entry is not None:
                    yield run.run_id, path, entry

    def _event_given(self, number: int, trusted: frozenset[str] | None) -> str | None:
        message, taken = self._events[number]
        if taken is not None:
            return None
        marks = marks_of_event(message.name, message.body["payload"])
        for run_id, path, _ in list(self._waits(marks)):
            if self._given(number, run_id, path, trusted):
                return run_id
        return None

    def _wait_given(self, key: int, path: str, trusted: frozenset[str] | None) -> str | None:
        run = self._by_key[key].run
        entry = next((e for e in run.waiting if e["path"] == path and e.get("match")), None)
        if entry is None:
            return None
        mark = mark_of_wait(entry["event"], entry["match"])
        for number, (message, taken) in list(self._events.items()):
            if taken is None and mark in marks_of_event(message.name, message.body["payload"]):
                if self._given(number, run.run_id, path, trusted):
                    return run.run_id
        return None

    def _given(self, number: int, run_id: str, path: str, trusted: frozenset[str] | None) -> bool:
        message = self._events[number][0]
        kept = self._runs[run_id]
        run = kept.shown(rows=False)
        if run.status != SUSPENDED or not message_holds(run_id, message, trusted):
            return False
        if any(m.kind == "cancel" and message_holds(run_id, m, trusted) for m in run.inbox):
            return False
        event_id = message.body.get("id")
        told = (*run.decided, *run.inbox)
        if event_id is not None and any(same_event(m, message.name, event_id) for m in told):
            self._taken(number, run_id)
            return True
        entry = next((e for e in unanswered(run, trusted) if e["path"] == path), None)
        if entry is None or not takes(entry, message):
            return False
        if fault_of(entry, message.body["payload"]) is not None:
            return False
        self._keep(kept, message)
        self._taken(number, run_id)
        return True

    # --- reading ---

    def has(self, run_id: str) -> bool:
        """See `Store.has`."""
        return run_id in self._runs

    def ids_starting_with(
        self, beginning: str, limit: int, *, project: str | None = None
    ) -> list[str]:
        """See `Store.ids_starting_with`."""
        return sorted(
            run_id
            for run_id, kept in self._runs.items()
            if run_id.startswith(beginning) and project in (None, kept.run.project)
        )[:limit]

    def counts(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """See `Store.counts`."""
        found = Counter(kept.run.status for kept in self._by_key.values())
        return {status: found[status] for status in statuses if found[status]}

    def oldest(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """See `Store.oldest`."""
        found: dict[str, int] = {}
        for kept in self._by_key.values():
            status, made = kept.run.status, kept.run.created_ns
            if status in statuses:
                found[status] = min(found.get(status, made), made)
        return found

    def rows_after(self, run_id: str, seq: int = -1, *, limit: int | None = None) -> list[Row]:
        """See `Store.rows_after`."""
        rows = self._kept(run_id).run.rows[max(seq + 1, 0) :]
        return rows if limit is None else rows[:limit]

    def page(
        self, filter: RunFilter = ALL_RUNS, *, size: int = PAGE_RUNS, after: str | None = None
    ) -> RunPage:
        """See `Store.page`."""
        places = sorted(
            ((kept.run.created_ns, key) for key, kept in self._by_key.items()), reverse=True
        )
        if after is not None:
            created, _, key = after.partition(".")
            places = [place for place in places if place < (int(created), int(key))]
        found = [p for p in places if _fits(self._by_key[p[1]].run, filter)][:size]
        last = "{}.{}".format(*found[-1]) if len(found) == size else None
        return RunPage([self._header(key) for _, key in found], last, [])

    def _header(self, key: int) -> StoredRun:
        run = _copied(self._by_key[key].run)
        run.rows = []
        return run

    def costs(self, by: Sequence[str] = ("model",), filter: RunFilter = ALL_RUNS) -> list[Cost]:
        """See `Store.costs`."""
        by = checked_groups(by)
        calls: dict[tuple[str, ...], list[Row]] = {}
        for kept in self._by_key.values():
            if _fits(kept.run, filter):
                for row in kept.run.rows:
                    if row.model is not None:
                        calls.setdefault(tuple(_group(kept.run, row, by)), []).append(row)
        return [_sum(dict(zip(by, of, strict=True)), calls[of]) for of in sorted(calls)]


def _fits(run: StoredRun, filter: RunFilter) -> bool:
    wanted = {
        "program_name": filter.program,
        "project": filter.project,
        "submitter": filter.submitter,
        "parent": filter.parent,
    }
    least = filter.min_cost_usd
    return (
        (filter.status is None or run.status in filter.status)
        and all(getattr(run, name) == value for name, value in wanted.items() if value is not None)
        and (filter.version is None or run.program_digest.startswith(tuple(filter.version)))
        and filter.is_waited_by(run.status, run.waiting)
        and all(run.labels.get(name) == value for name, value in filter.labels.items())
        and (filter.since_ns is None or run.created_ns >= filter.since_ns)
        and (filter.until_ns is None or run.created_ns < filter.until_ns)
        and (
            least is None
            or (run.cost_usd is not None and Decimal(run.cost_usd) >= Decimal(str(least)))
        )
    )


def _group(run: StoredRun, row: Row, by: Sequence[str]) -> Iterator[str]:
    for name in by:
        match name:
            case "project":
                yield run.project
            case "program":
                yield run.program_name
            case "version":
                yield run.program_digest
            case "model":
                yield row.model or ""
            case "step":
                yield step_of(row.path)
            case "day":
                yield (
                    datetime.fromtimestamp(row.started_ns // DAY_NS * 86_400, UTC)
                    .date()
                    .isoformat()
                )
            case _:
                labels = run.labels if type(run.labels) is dict else {}  # else they were erased
                yield labels.get(name.removeprefix(LABEL_GROUP), "")


def _sum(of: Mapping[str, str], rows: Sequence[Row]) -> Cost:
    usages = [row.usage for row in rows if row.usage is not None]
    costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    return Cost(
        of,
        len(rows),
        sum(usage.prompt_tokens or 0 for usage in usages),
        sum(usage.completion_tokens or 0 for usage in usages),
        sum(usage.total_tokens or 0 for usage in usages),
        sum(costs, Decimal(0)),
        len(rows) - len(costs),
    )
