"""What holds any `Store` to the same histories: operations are generated, each is done to every
store, and after each all of them must have said, and must hold, the same.

A history is data: a list of `Operation`s, drawn from a seed, in which runs, owners and messages go
by names. So it can be kept, and done to a store that is not written yet. What a store numbers for
itself (keys, numbers of messages, its identity and clock) is never compared.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from random import Random
from typing import Any

from nano_vm.errors import StoreError, VMError
from nano_vm.records.status import StepStatus
from nano_vm.records.usage import LLMUsage
from nano_vm.store.accounts import Account, Amount, Reservation
from nano_vm.store.protocol import COST_GROUPS, Append, Archive, RunFilter
from nano_vm.store.records import (
    ENDED,
    INTENT,
    PENDING,
    RUN_STATUSES,
    RUNNING,
    STEP,
    SUSPENDED,
    Message,
    Row,
    StoredRun,
)
from nano_vm.store.seals import RunSeal

OWNERS = ("ann's process", "bob's process", "the cluster")
LONG = "an output that is longer than what stands in a cell of a table " * 3
LASTS_SECONDS = 10_000.0
"""How long an owner is said to live, or to be dead: no test lasts as long."""

LATE = "came to something else since"
"""What `check` says of an outcome that was sent to a run which has ended: that is no damage."""

LENGTH = 60
"""Operations of a history."""

WIDTH = 200
"""Characters of an operation in a report: who wants all of it draws its history again."""

LABELS: tuple[dict[str, str], ...] = ({}, {"team": "billing"}, {"team": "ops", "tier": "gold"})
PROJECTS, SUBMITTERS, PROGRAMS = ("default", "eu"), (None, "ann", "bob"), ("refund", "parcel")


@dataclass(frozen=True)
class Operation:
    """A method of `Subject`, and what it is given."""

    name: str
    given: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.given.items())})"


def history(seed: int, length: int, without: Collection[str] = frozenset()) -> Iterator[Operation]:
    """Operations that make sense more often than not, but those *without*."""
    draw = Random(seed)
    drawn = _Draws(draw)
    weights = {name: weight for name, weight in _WEIGHTS.items() if name not in without}
    for _ in range(length):
        (name,) = draw.choices(list(weights), list(weights.values()))
        yield Operation(name, getattr(drawn, name)())


_WEIGHTS = {
    "create": 10,
    "append": 14,
    "suspend": 5,
    "end": 9,
    "repeat": 3,
    "claim": 9,
    "heartbeat": 3,
    "forget_owner": 2,
    "send": 4,
    "decide": 4,
    "post": 3,
    "deliver": 3,
    "reserve": 6,
    "settle": 4,
    "erase": 4,
    "prune": 1,
    "reopen": 1,
}


class _Draws:
    """What each operation is given."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.made = 0
        self.steps = 0
        self.reserved = 0

    def run(self) -> str:
        return f"run-{self.draw.randint(1, max(self.made, 1))}"

    def create(self) -> dict[str, Any]:
        self.made += 1
        draw = self.draw
        status = draw.choice((PENDING, RUNNING))
        return {
            # at times one that is there
            "run_id": self.run() if draw.random() < 0.15 else f"run-{self.made}",
            "created_ns": 1000 + self.made // 3,  # several at the same time
            "program_name": draw.choice(PROGRAMS),
            "status": status,
            "started_ns": 40 if status == RUNNING else 0,
            "owner": draw.choice((None, *OWNERS)),
            "labels": draw.choice(LABELS),
            "project": draw.choice(PROJECTS),
            "submitter": draw.choice(SUBMITTERS),
            "parent": draw.choice((None, None, "run-1")),
            "inputs": {"n": draw.randint(0, 3), "text": draw.choice(("", LONG))},
            "begin": draw.random() < 0.5,
        }

    def row(self) -> Row:
        self.steps += 1
        path = self.draw.choice((f"s{self.steps}", f"each[{self.steps}]/ask", f"l#{self.steps}/x"))
        at = 86_400 * 10**9 * self.draw.randint(0, 2) + self.steps
        kind = self.draw.randrange(4)
        if kind == 0:
            return Row(INTENT, "", path, "tool", None, at)
        if kind > 1:
            output = self.draw.choice((None, LONG, {"b": 1, "a": [1.5, LONG]}, self.steps))
            return Row(STEP, "", path, "tool", StepStatus.SUCCESS, at, at + 5, {"x": 1}, output)
        cost = self.draw.choice((None, Decimal("0.1"), Decimal("1E-7"), Decimal("0.123456789012")))
        usage = self.draw.choice((None, LLMUsage(self.steps, 2, self.steps + 2, cost)))
        model = self.draw.choice((None, "", "small", "large"))
        return Row(
            STEP, "", path, "llm", StepStatus.SUCCESS, at, at + 5, "?", LONG, {}, model, usage
        )

    def append(self) -> dict[str, Any]:
        draw = self.draw
        return {
            "run_id": self.run(),
            "rows": [self.row() for _ in range(draw.randint(0, 3))],
            "update": {},
            "stale": draw.random() < 0.1,
            "after": draw.choice(("right", "right", "none", "wrong")),
            "use": draw.random() < 0.3,
        }

    def suspend(self) -> dict[str, Any]:
        waiting = [{"path": "ask", "kind": "approval", "role": "boss"}]
        order = self.draw.randint(1, 3)
        waiting += [{"path": "w", "kind": "event", "event": "paid", "match": {"order": order}}]
        wake = self.draw.choice((None, 50, 5_000))
        update = {"status": SUSPENDED, "owner": None, "waiting": waiting, "wake_ns": wake}
        return {**self.append(), "update": update}

    def end(self) -> dict[str, Any]:
        draw = self.draw
        update = {
            "status": draw.choice(ENDED),
            "owner": None,
            "waiting": [],
            "wake_ns": None,
            "finished_ns": draw.randint(1, 99),
            "output": draw.choice((None, LONG, [1])),
            "steps": draw.randint(0, 9),
            "tokens": draw.randint(0, 99),
            "cost_usd": draw.choice((None, "0.5", "12.25")),
        }
        return {**self.append(), "update": update, "after": "right", "stale": False}

    def repeat(self) -> dict[str, Any]:
        return {"run_id": self.run()}

    def claim(self) -> dict[str, Any]:
        return {
            "run_ids": [self.run() for _ in range(self.draw.randint(1, 4))],
            "owner": self.draw.choice(OWNERS),
            "most": self.draw.randint(1, 3),
            "alive": self.draw.sample(OWNERS, self.draw.randint(0, 1)),
        }

    def heartbeat(self) -> dict[str, Any]:
        return {"owner": self.draw.choice(OWNERS), "lives": self.draw.random() < 0.7}

    def forget_owner(self) -> dict[str, Any]:
        return {"owner": self.draw.choice(OWNERS)}

    def send(self) -> dict[str, Any]:
        kind = self.draw.choice(("event", "cancel", "outcome"))
        return {"run_id": self.run(), "kind": kind, "by": self.draw.choice((None, "ann"))}

    def decide(self) -> dict[str, Any]:
        return {"run_id": self.run(), "by": self.draw.choice(("ann", "bob"))}

    def post(self) -> dict[str, Any]:
        event_id = self.draw.choice((None, "e1", "e2", "e3"))
        return {"order": self.draw.randint(1, 3), "event_id": event_id}

    def deliver(self) -> dict[str, Any]:
        return {}

    def reserve(self) -> dict[str, Any]:
        draw = self.draw
        self.reserved += 1
        of = (("project", draw.choice(PROJECTS)),)
        limits = (draw.choice((None, 2, 5)), None, draw.choice((None, 10**13)))
        accounts = [Account("all", (), limits), Account("é", of, (None, 900, None))]
        return {
            # at times one that was made before, and may be settled since
            "id": f"c{draw.randint(1, self.reserved)}",
            "run_id": self.run(),
            "accounts": draw.choice((accounts, accounts[:1], accounts[::-1])),
            "amount": (1, draw.randint(0, 300), draw.choice((0, 1, 4 * 10**12))),
        }

    def settle(self) -> dict[str, Any]:
        used = (1, self.draw.randint(0, 400), self.draw.randint(0, 5 * 10**12))
        made = self.draw.randint(1, max(self.reserved, 1))
        return {"id": f"c{made}", "used": self.draw.choice((None, used))}

    def erase(self) -> dict[str, Any]:
        return {"run_id": self.run()}

    def prune(self) -> dict[str, Any]:
        return {"older_than_ns": self.draw.randint(1, 60)}

    def reopen(self) -> dict[str, Any]:
        return {}


class Subject:
    """A store under a history; *opened* opens it, and again where it is kept somewhere."""

    def __init__(self, opened: Callable[[], Archive], *, kept: bool) -> None:
        self.opened, self.kept = opened, kept
        self.store = opened()
        self.last: dict[str, Append] = {}  # by run

    def do(self, operation: Operation) -> Any:
        """What it gave, or the type of the error: the words of errors name the database."""
        try:
            return getattr(self, operation.name)(**operation.given)
        except VMError as error:
            return type(error).__name__

    # --- operations ---

    def create(self, *, begin: bool, **given: Any) -> Any:
        run = StoredRun(program_digest="d" * 64, salt=b"0123456789abcdef", **given)
        run.document = {"program": {"name": run.program_name, "steps": [LONG]}, "programs": {}}
        if begin:
            return asyncio.run(_awaited(lambda: self.store.begin(run)))
        return self.store.create(run)

    def append(
        self,
        run_id: str,
        rows: list[Row],
        update: dict[str, Any],
        stale: bool,
        after: str,
        use: bool,
    ) -> Any:
        run = self.store.load(run_id)
        if run.status != RUNNING:  # only an owner appends, and it claims the run before
            return run.status
        used = run.inbox[:1] if use else []
        seen = [message.id for message in run.inbox[len(used) :: 2]]  # of no use yet
        sealed = RunSeal(replace(run, rows=list(run.rows))).after(rows, update, used)
        place = {"right": len(run.rows), "none": None, "wrong": len(run.rows) + 1}[after]
        waits = None
        if "waiting" in update:
            waits = (_matched(run.waiting), _matched(update["waiting"]))
        item = Append(
            run.key,
            run.fence - stale,
            rows,
            sealed,
            [message.id for message in used],
            seen,
            place,
            waits,
        )
        asyncio.run(_awaited(lambda: self.store.append(item)))
        self.last[run_id] = item
        return "stored"

    suspend = end = append

    def repeat(self, run_id: str) -> Any:
        """The last append once more, as after a lost answer."""
        item = self.last.get(run_id)
        if item is None or item.after is None:
            return "nothing"
        return asyncio.run(_awaited(lambda: self.store.append(item)))

    def claim(self, run_ids: list[str], owner: str, most: int, alive: list[str]) -> Any:
        claimed = self.store.claim(run_ids, owner, 77, most=most, alive=alive.__contains__)
        return {run_id: (claim.fence, claim.status) for run_id, claim in sorted(claimed.items())}

    def heartbeat(self, owner: str, lives: bool) -> None:
        self.store.heartbeat(owner, LASTS_SECONDS if lives else -LASTS_SECONDS)

    def forget_owner(self, owner: str) -> None:
        self.store.forget_owner(owner)

    def send(self, run_id: str, kind: str, by: str | None) -> None:
        body = {"payload": {"order": 1}} if kind == "event" else {"output": 1}
        self.store.send(run_id, Message(kind, "paid", body, by, 5))

    def decide(self, run_id: str, by: str) -> Any:
        def judge(run: StoredRun, ended: bool) -> Message:
            if any(known.kind == "approve" for known in (*run.decided, *run.inbox)):
                raise StoreError("somebody was first")
            return Message("approve", "ask", {"ended": ended}, by, 6)

        message = self.store.decide(run_id, judge, "ask")
        return message.by, message.body

    def post(self, order: int, event_id: str | None) -> Any:
        payload = {"order": order, "text": LONG}
        body = {"payload": payload, **({"id": event_id} if event_id is not None else {})}
        fitting: list[int] = []

        def write(waits: list[Mapping[str, Any]]) -> Message:
            fitting[:] = [len(waits)]
            return Message("event", "paid", body, None, 7)

        return self.store.post("paid", payload, write), fitting

    def deliver(self) -> Any:
        return self.store.deliver()

    def reserve(
        self, id: str, run_id: str, accounts: list[Account], amount: tuple[int, int, int]
    ) -> Any:
        reservation = Reservation(id, run_id, tuple(accounts), Amount(*amount))
        short = asyncio.run(_awaited(lambda: self.store.reserve(reservation)))
        return short.to_dict() if short is not None else "reserved"

    def settle(self, id: str, used: tuple[int, int, int] | None) -> None:
        amount = Amount(*used) if used is not None else None
        asyncio.run(_awaited(lambda: self.store.settle(id, amount)))

    def erase(self, run_id: str) -> Any:
        return self.store.erase(run_id)

    def prune(self, older_than_ns: int) -> Any:
        found = [run.run_id for run in self.store.prunable(older_than_ns)]
        return found, self.store.prune(older_than_ns)

    def reopen(self) -> None:
        if self.kept:
            self.store.close()
            self.store = self.opened()

    # --- what it holds ---

    def view(self) -> dict[str, Any]:
        """All that can be asked of it, without its own numbers."""
        store = self.store
        return {
            **self.kept_runs(),
            "unused": sorted(store.unused()),
            "receipts": {
                f"run-{n}": [receipt.entry.kind for receipt in store.receipts(f"run-{n}")]
                for n in range(20)
            },
            "check": [line for line in store.check() if LATE not in line],
        }

    def kept_runs(self) -> dict[str, Any]:
        """What any `Store` can be asked; `view` has what an `Archive` can be asked beside."""
        store = self.store
        headers = list(store.runs())
        names = {run.key: run.run_id for run in headers}
        return {
            "runs": [_shown(store.load(run.run_id)) for run in headers],
            "headers": [_shown(run) for run in headers],
            "rows": [
                store.rows_after(run.run_id, seq, limit=limit)
                for run in headers
                for seq, limit in ((-1, 1), (0, 1), (1, 2), (2, None))
            ],
            "has": [store.has(f"run-{n}") for n in range(3)],
            "ids": [store.ids_starting_with(start, 3) for start in ("run-1", "run-", "", "x")],
            "ids of projects": [
                store.ids_starting_with("", 9, project=name) for name in ("default", "a", "x")
            ],
            "counts": [store.counts(), store.counts(RUN_STATUSES), store.counts([])],
            "oldest": [store.oldest(), store.oldest(RUN_STATUSES), store.oldest([])],
            "pages": {str(f): list(_pages(store, f)) for f in FILTERS},
            "costs": {by: store.costs(by) for by in GROUPS},
            "costs of some": [
                store.costs(COST_GROUPS, wanted) for wanted in FILTERS if wanted.waiting is None
            ],
            "claimable": [
                store.claimable(100, 5, only, spare=OWNERS[:spared])
                for only in (None, PENDING, RUNNING, SUSPENDED)
                for spared in (0, 1)
            ],
            "accounts": store.accounts(),
            "owners": {owner: left > 0 for owner, left in store.owners().items()},
            "owned": {
                owner: {run_id: fence for run_id, (_, fence) in store.owned(owner).items()}
                for owner in OWNERS
            },
            "cancelled": sorted(names[key] for key in store.cancelled(list(names))),
            "told": [
                list(map(_said, asyncio.run(_awaited(lambda key=key: store.told(key)))))  # type: ignore[misc]
                for key in names
            ],
        }

    def exported(self) -> str:
        """All its runs in a file."""
        stream = io.StringIO()
        self.store.export(sorted(run.run_id for run in self.store.runs()), stream)
        return stream.getvalue()


FILTERS = (
    RunFilter(),
    RunFilter(status=SUSPENDED),
    RunFilter(status=("running", "success")),
    RunFilter(status=()),
    RunFilter(program="refund"),
    RunFilter(program="parcel", status=ENDED, project="eu"),
    RunFilter(project="eu"),
    RunFilter(submitter="ann"),
    RunFilter(parent="run-1"),
    RunFilter(labels={"team": "billing"}),
    RunFilter(labels={"team": "ops", "tier": "gold"}, status=RUN_STATUSES[:3]),
    RunFilter(since_ns=1001, until_ns=1003),
    RunFilter(min_cost_usd="0.5"),
    RunFilter(waiting="approval"),
    RunFilter(waiting="event:paid", project="eu"),
    RunFilter(version=("0" * 64, "d" * 8)),
)
GROUPS = (
    (),
    ("model",),
    ("program", "step"),
    ("day", "model"),
    ("label:team",),
    ("label:none", "version", "label:team"),
    COST_GROUPS,
)


def _pages(store: Archive, filter: RunFilter) -> Iterator[list[str]]:
    after = None
    while True:
        page = store.page(filter, size=2, after=after)
        yield [run.run_id for run in page.runs]
        if page.after is None:
            return
        after = page.after


OWN = ("key", "read")
"""Fields of a run that are the store's own."""


def _shown(run: StoredRun) -> dict[str, Any]:
    """A run without the store's own numbers."""
    told = {field.name: getattr(run, field.name) for field in fields(run) if field.name not in OWN}
    return {**told, **{name: list(map(_said, told[name])) for name in ("inbox", "decided")}}


def _said(message: Message) -> Message:
    return replace(message, id=0)


def _matched(waiting: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in waiting if "match" in entry]


async def _awaited(call: Callable[[], Any]) -> Any:
    return await call()


def differences(views: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In what stores differ, each in a sentence."""
    (first, expected), *others = views.items()
    return [
        f"{name} of {other}: {found[name]!r}, and of {first}: {expected[name]!r}"
        for other, found in others
        for name in expected
        if found[name] != expected[name]
    ]


ARCHIVE = frozenset({"erase", "prune", "reopen"})
"""Operations of an `Archive`, which not every `Store` is."""

ANSWERS = {
    ("create", True),
    ("create", False),
    ("append", "stored"),
    ("append", "StoreError"),
    ("append", "LeaseLost"),
    ("append", "UnknownRun"),
    ("end", "stored"),
    ("suspend", "stored"),
    ("repeat", "nothing"),
    ("repeat", type(None)),
    ("claim", dict),
    ("send", "StoreError"),
    ("decide", tuple),
    ("decide", "StoreError"),
    ("post", tuple),
    ("deliver", list),
    ("reserve", "reserved"),
    ("reserve", dict),
    ("settle", type(None)),
    ("erase", True),
    ("erase", "StoreError"),
    ("prune", tuple),
}
"""What histories are to do, with what must be answered: by its word, or by its type."""


def answers(
    make: Callable[[], Any], seeds: Iterable[int], without: Collection[str] = frozenset()
) -> set[tuple[str, Any]]:
    """What the histories of *seeds* together do to a store, and what it answers."""
    said: set[tuple[str, Any]] = set()
    for seed in seeds:
        subject = Subject(make, kept=False)
        for operation in history(seed, LENGTH, without):
            found = subject.do(operation)
            said.add((operation.name, found if isinstance(found, str | bool) else type(found)))
        subject.store.close()
    return said


def hold(
    subjects: Mapping[str, Subject],
    operations: Sequence[Operation],
    *,
    each: int,
    archives: bool = True,
) -> None:
    """Do *operations* to all of *subjects*; after each they must have said the same, and after
    *each* and at the end hold the same. Those that are no *archives* are asked what they hold of
    runs only.
    """
    view = Subject.view if archives else Subject.kept_runs
    for number, operation in enumerate(operations, 1):
        said = {name: {"answer": subject.do(operation)} for name, subject in subjects.items()}
        faults = differences(said)
        if number % each == 0 or number == len(operations):
            views = {name: view(subject) for name, subject in subjects.items()}
            faults += differences(views)
            faults += [
                f"check of {name}: {shown['check']}"
                for name, shown in views.items()
                if shown.get("check")
            ]
        if faults:
            told = "\n".join(str(done)[:WIDTH] for done in operations[:number])
            raise AssertionError(f"{faults[0][: 10 * WIDTH]}\nafter\n{told}")
    if not archives:
        return
    exports = {name: {"export": subject.exported()} for name, subject in subjects.items()}
    assert differences(exports) == []
