"""Simulated worlds in which people decide through two servers over one store: what they send is
lost, comes twice and late, servers die between a vote and what is decided by it, somebody leaves.

What answers them is what stands under the routes of the inbox. The tables of the servers are a
database of SQLite in memory, whose transactions are those of the simulated store. A request has a
connection of its own, as servers over PostgreSQL have it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
from soak.programs import key_of
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from nano_vm.errors import VMError
from nano_vm.machine.pending import shown_digest
from nano_vm.server import access, audit, credentials, votes
from nano_vm.server.access import Caller
from nano_vm.server.credentials import Credential, identified
from nano_vm.server.problems import Problem
from nano_vm.server.roles import ROLES
from nano_vm.server.routes import inbox
from nano_vm.server.rows import Prepared, Rows, Tables, everywhere
from nano_vm.server.tables import METADATA, audit_head, members, projects, sessions, users
from nano_vm.server.tables import audit as log
from nano_vm.server.tables import votes as votes_table
from nano_vm.simulation.store import SimulatedStore
from nano_vm.simulation.system import CLOCK
from nano_vm.simulation.world import EPOCH_NS, SECOND, WAY_NS, Process
from nano_vm.store.records import Message, StoredRun
from nano_vm.values import canonical, parse_json

from .life import CHAOS_NS, Life
from .programs import PROGRAMS

PROJECT = "shop"

SERVERS = ("server0", "server1")

PEOPLE = {
    "ann": ("admin", ["boss"]),
    "bob": ("operator", ["boss"]),
    "cid": ("operator", ["boss", "cook"]),
    "dee": ("operator", ["cook"]),
    "eve": ("viewer", ["boss"]),
}
"""Members of the project: their role in it, and the roles of approvals that they decide as. Only the
first three may decide what asks for a boss.
"""

ASKING = [p for p in PROGRAMS if p.name in ("order", "hurry", "retried")]
"""The programs that ask for a boss."""

THINKS_NS = SECOND // 20, 3 * SECOND
"""How long a person looks at what is asked before they answer; it may be decided meanwhile."""

ACTIONS = {"approve": "step.approved", "reject": "step.rejected", "resolve": "step.resolved"}

SCHEMA = ";\n".join(
    str(CreateTable(table).compile(dialect=sqlite.dialect())) for table in METADATA.sorted_tables
)

_NEWEST = Prepared(everywhere(sa.select(log).order_by(log.c.number.desc()).limit(1)))
_OF_ACTIONS = Prepared(
    everywhere(sa.select(log).where(log.c.action.in_(sa.bindparam("actions", expanding=True))))
)
_VOTERS = Prepared(
    sa.select(votes_table.c.user_name).where(
        *(votes_table.c[name] == sa.bindparam(name) for name in ("project", "run", "path", "shown"))
    )
)


class Beside:
    """The tables of the servers, as the transactions of a store have them."""

    dialect = "SQLite"

    def __init__(self, begun: bytes | None = None) -> None:
        """As *begun*, which another of these was, or without a row."""
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        if begun is None:
            self._connection.executescript(SCHEMA)
        else:
            self._connection.deserialize(begun)

    def all(self, statement: str, *values: Any) -> list[Any]:
        """See `Transaction.all`."""
        return self._connection.execute(statement, values).fetchall()

    def run(self, statement: str, *values: Any) -> int:
        """See `Transaction.run`."""
        return self._connection.execute(statement, values).rowcount

    def whole(self, job: Callable[[], Any]) -> Any:
        """What *job* gives; what it writes is there as a whole, or none of it."""
        self._connection.execute("BEGIN")
        try:
            found = job()
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return found

    def content(self) -> bytes:
        """All of them as they stand."""
        return self._connection.serialize()

    def close(self) -> None:
        """Forget all of them."""
        self._connection.close()


@cache
def founded(approvers: int, four_eyes: bool) -> bytes:
    """The tables with the project, which wants so many *approvers*, and its members."""
    beside = Beside()
    rows = Rows(beside)
    settings = {"approvers": {"boss": approvers}, "four_eyes": four_eyes}
    kept = canonical(settings).decode()
    rows.run(sa.insert(projects).values(name=PROJECT, settings=kept, created_ns=0))
    rows.run(sa.insert(audit_head).values(id=1, number=0, hash=""))
    for name, (role, approves) in PEOPLE.items():
        rows.run(sa.insert(users).values(name=name, owner=0, disabled=0, created_ns=0))
        may = canonical(approves).decode()
        row = {"project": PROJECT, "user_name": name, "role": role, "approves": may}
        rows.run(sa.insert(members).values(**row))
        since = {"created_ns": EPOCH_NS, "seen_ns": EPOCH_NS}
        rows.run(sa.insert(sessions).values(hash=name, user_name=name, ip="", **since))
    content = beside.content()
    beside.close()
    return content


@dataclass
class Request:
    """What somebody asks of a server: since when it is handled, and when their vote was stored."""

    began_ns: int
    voted_ns: int = 0


class ServedStore(SimulatedStore):
    """The store as a server has it while it handles *request*."""

    def __init__(self, process: Process, life: Served, request: Request) -> None:
        super().__init__(process, life.database)
        self.life, self.request = life, request
        self._also: Callable[[Any], None] | None = None

    @contextmanager
    def reading(self) -> Iterator[Beside]:
        """See `TableStore.reading`; nothing happens between its statements."""
        self._read(lambda: None)
        yield self.life.beside

    def transact(self, job: Callable[[Any], Any]) -> Any:
        """See `TableStore.transact`."""

        def whole() -> Any:
            self.request.voted_ns = self.world.now
            return job(self.life.beside)

        return self._written(lambda: self.life.beside.whole(whole))

    def along(self, also: Callable[[Any], None]) -> ServedStore:
        """See `TableStore.along`."""
        other = ServedStore(self.process, self.life, self.request)
        other._also = also
        return other

    def decide(self, run_id: str, judge: Any, path: str | None = None) -> Message:
        """See `Store.decide`."""

        def whole() -> Message:
            message = self.model.decide(run_id, judge, path)
            if self._also is not None:
                self._also(self.life.beside)
            self.life.decided(self.model.load(run_id, rows=False), message, self.request)
            return message

        return self._written(lambda: self.life.beside.whole(whole))


@dataclass
class Served(Life):
    """A world whose people decide through servers."""

    runs: int = 6
    serving: dict[str, Process] = field(default_factory=dict)
    left_ns: dict[str, int] = field(default_factory=dict)  # who decides no more, since when
    decisions: list[tuple[str, str]] = field(default_factory=list)  # by run and path

    def __post_init__(self) -> None:
        super().__post_init__()
        draw = Random(self.seed ^ 0x5E7E)
        self.programs = [draw.choice(ASKING) if draw.random() < 0.8 else p for p in self.programs]
        self.approvers = draw.choice((1, 2, 2, 3))
        self.four_eyes = draw.random() < 0.5
        self.submitters = {run_id: draw.choice((None, "ann", "bob", "dee")) for run_id in self.ids}
        self.leaves_ns = draw.randrange(CHAOS_NS) if draw.random() < 0.4 else None
        self.hurries = draw.choice((SECOND // 4, SECOND, 3 * SECOND))
        self.beside = Beside(founded(self.approvers, self.four_eyes))

    def options(self, run_id: str) -> dict[str, Any]:
        """See `Life.options`."""
        return {"project": PROJECT, "submitter": self.submitters[run_id]}

    # --- servers ---

    async def serve(self, process: Process) -> None:
        """A server: it answers what is asked of it."""
        self.serving[process.name] = process
        await process.loop.create_future()

    def ask(
        self,
        who: str,
        handle: Callable[[Caller], Any],
        answered: Callable[[Any], None] = lambda _: None,
    ) -> None:
        """Send a request to one of the servers: *answered* gets what it gives or raises, if that
        comes back.
        """
        world = self.world
        name = world.draw.choice(SERVERS)

        def arrive() -> None:
            process = self.serving.get(name)
            if process is not None and process.alive and not world.strikes("lost", name):
                process.spawn(partial(work, process), world.delay(*WAY_NS))

        def work(process: Process) -> None:
            try:
                found = handle(self.caller(process, who))
            except (VMError, Problem) as error:
                found = error
            if not world.strikes("lost", name):
                world.at(world.now + world.delay(*WAY_NS), partial(answered, found))

        world.at(world.now + world.delay(*WAY_NS), arrive)

    def caller(self, process: Process, who: str) -> Caller:
        """Who asks, as the gate before the routes finds them.

        Raises:
            Problem: If they may decide nothing.
        """
        store: Any = ServedStore(process, self, Request(self.world.now))
        state: Any = SimpleNamespace(store=store, tables=Tables(store))
        request: Any = SimpleNamespace(client=None, state=SimpleNamespace(request_id=""))
        proof = Credential(session=who)
        with state.tables.reading() as rows:
            identity = identified(rows, proof, PROJECT)
        if identity is None or "step:approve" not in identity.permissions:
            raise Problem(403, "not-permitted", "this needs the permission step:approve")
        return Caller(state, request, proof, identity, PROJECT, parse_json(identity.approves))

    # --- people ---

    def look(self, who: str) -> None:
        """Somebody looks at what is asked, and looks again after a while, whatever comes of it."""
        world = self.world
        self.ask(who, lambda caller: json.loads(inbox.inbox(caller).body), partial(self.think, who))
        world.at(world.now + world.delay(self.hurries, 4 * self.hurries), partial(self.look, who))

    def think(self, who: str, found: Any) -> None:
        """Somebody has what is asked before their eyes, and answers some of it after a while."""
        world = self.world
        if isinstance(found, Exception):
            return
        for entry in found["asked"]:
            if world.draw.random() < 0.5 and (answer := self.answer(who, entry, found["asked"])):
                when = world.now + world.delay(*THINKS_NS)
                world.at(when, partial(self.send, who, answer))
                if world.draw.random() < 0.2:  # who hears nothing presses the button again
                    world.at(when + world.delay(*THINKS_NS), partial(self.send, who, answer))

    def answer(self, who: str, entry: Any, asked: list[Any]) -> dict[str, str] | None:
        """What somebody answers to what they see: now and then with the digest of something else."""
        draw = self.world.draw
        shown = draw.choice(asked)["shown"] if draw.random() < 0.05 else entry["shown"]
        given = {"run": entry["run"], "path": entry["path"], "shown": shown}
        if entry["kind"] == "approval":
            # where somebody left, too few may be there to approve it
            alone = bool(self.left_ns) and who in entry["approved"]
            if draw.random() < (0.5 if alone else 0.2):
                return {**given, "answer": "reject", "reason": "no"}
            if who in entry["approved"] and draw.random() < 0.7:
                return None
            return {**given, "answer": "approve", "reason": "fine"}
        return self.resolution(given, entry["tool"])

    def resolution(self, given: dict[str, str], tool: str) -> dict[str, str] | None:
        """What really became of a call in doubt, if it can be known."""
        key = key_of(given["run"], given["path"])
        retry = {**given, "answer": "resolve", "how": "retry"}
        if tool.startswith("find"):
            return retry
        if self.ledger.open(key):
            return None
        done = self.ledger.truth(key)
        if done is not None:
            output = canonical(done.output).decode()
            return {**given, "answer": "resolve", "how": "done", "output": output}
        self.ledger.clear(key)
        return retry

    def send(self, who: str, given: dict[str, str]) -> None:
        """Send an answer, and note that it counts where that is said."""

        def answered(found: Any) -> None:
            told = f"{given['answer']} {given['run']} {given['path']}"
            if isinstance(found, Exception):
                self.world.tell(who, f"{told} is refused ({type(found).__name__})")
            elif missing := json.loads(found.body)["missing"]:
                self.world.tell(who, f"{told}, and {missing} more have to")
            else:
                self.note(given["run"], given["answer"], given["path"], who)

        self.ask(who, lambda caller: inbox.decide(inbox.Answer(**given), caller), answered)

    def settle(self, vm: Any, process: Process, run_id: str, entry: Any) -> None:
        """See `Life.settle`: what servers show is left to people."""
        if entry["kind"] == "wait":
            super().settle(vm, process, run_id, entry)

    def leave(self) -> None:
        """Somebody decides no more."""
        gone = sa.update(members).values(role="viewer")
        of = gone.where(members.c.project == PROJECT, members.c.user_name == "cid")
        self.beside.whole(lambda: Rows(self.beside).run(of))
        self.left_ns["cid"] = self.world.now
        self.world.tell("admin", "lets cid only look")

    # --- what must hold ---

    def may(self, who: str, role: str | None, at_ns: int) -> bool:
        """Whether somebody could decide then what asks for *role*; what is in doubt asks for none."""
        own, approves = PEOPLE[who]
        there = "step:approve" in ROLES[own] and self.left_ns.get(who, at_ns + 1) > at_ns
        return there and (role is None or role in approves)

    def decided(self, run: StoredRun, message: Message, request: Request) -> None:
        """A word is about to be durable: see that it counts."""
        path, who = message.name, str(message.by)
        entry = next((e for e in run.waiting if e["path"] == path), None)
        told = f"{run.run_id}: {message.kind} of {path} by {who}"
        if entry is None:
            self.fault(f"{told} is recorded, and nothing is asked there")
            return
        said = Rows(self.beside).one(_NEWEST)
        shown = parse_json(said.detail)["shown"] if said is not None else None
        if said is None or (said.action, said.actor, said.target) != (
            ACTIONS[message.kind],
            who,
            run.run_id,
        ):
            self.fault(f"{told} is not in the log")
        if shown != shown_digest(entry):
            self.fault(f"{told} is of something else than was shown")
        if self.barred(run, who) or not self.may(who, entry.get("role"), request.began_ns):
            self.fault(f"{told}, who may not")
        if message.kind == "resolve":
            return
        if (run.run_id, path) in self.decisions:
            self.fault(f"{told}, and it was decided before")
        self.decisions.append((run.run_id, path))
        if message.kind == "approve" and self.approvers > 1:
            count = len(self.voters(run, entry, request.voted_ns))
            if count < self.approvers:
                self.fault(f"{told} counts, and {count} of {self.approvers} have approved it")

    def barred(self, run: StoredRun, who: str) -> bool:
        """Whether somebody may not decide a run because they started it."""
        return self.four_eyes and run.submitter == who

    def voters(self, run: StoredRun, entry: Any, at_ns: int) -> set[str]:
        """Who has approved a request as it stands, and could decide it then."""
        of = {"run": run.run_id, "path": entry["path"], "shown": shown_digest(entry)}
        found = Rows(self.beside).all(_VOTERS, project=PROJECT, **of)
        return {
            vote.user_name
            for vote in found
            if self.may(vote.user_name, entry["role"], at_ns)
            and not self.barred(run, vote.user_name)
        }

    def look_back(self) -> None:
        """See `Life.look_back`: nobody broke the log, and it tells of each word that is recorded,
        and of no other.
        """
        super().look_back()
        rows = Rows(self.beside)
        for fault in audit.faults(rows):
            self.fault(f"the log: {fault}")
        entries = rows.all(_OF_ACTIONS, actions=list(ACTIONS.values()))
        logged = Counter(
            (e.action, e.target, parse_json(e.detail)["path"], e.actor) for e in entries
        )
        stored = Counter(
            (ACTIONS[m.kind], kept.run.run_id, m.name, m.by)
            for kept in self.database.model._runs.values()
            for m, _ in kept.messages.values()
            if m.kind in ACTIONS
        )
        if logged != stored:
            self.fault(f"the log tells of {logged - stored}, and not of {stored - logged}")

    # --- the whole ---

    def populate(self) -> None:
        """See `Life.populate`: with servers, and people who look at what they show."""
        super().populate()
        computer = self.computers[-1]
        for name in SERVERS:
            self.world.keep_up(name, computer, self.serve)
        for who in PEOPLE:
            self.world.at(self.world.delay(SECOND // 10, SECOND), partial(self.look, who))
        if self.leaves_ns is not None:
            self.world.at(self.leaves_ns, self.leave)

    def live(self) -> Served:
        """See `Life.live`: the servers have the clocks of their processes."""
        with ExitStack() as patches:
            for module in (access, credentials, votes, inbox):
                patches.enter_context(patch.object(module, "time", CLOCK))
            super().live()
        self.beside.close()
        return self
