"""Runs of a store as one host drives them: begun, claimed, resumed from their records, let go.

A run goes on by feeding its records to a machine at its beginning; where this process loses it
meanwhile, its trace is what the other owner makes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from ... import forking
from ...adapters.pool.sharing import SHARING
from ...collector import collector_paused
from ...errors import LeaseLost, StoreError, VMError
from ...language.program import Program
from ...machine.machine import machine_of
from ...machine.terms import RunTerms
from ...records.recording import Recording
from ...records.status import TraceStatus
from ...records.trace import Trace
from ...store.protocol import Append, Claim, Store
from ...store.records import ENDED, PENDING, SUSPENDED, StoredRun
from ...store.seals import RunSeal
from ...store.waits import matched
from ..driver import Abandoned
from ..host import Host
from ..inbox import presented, usable
from ..kept import Kept
from ..live import Begun, call_in, execute
from ..observers import Notifier, Observer
from ..prepare import Preparer
from ..shared import Shared, Whose
from ..system import SYSTEM, System
from .journal import Journal, Origin
from .lease import Lease, living
from .limits import StoredLimits
from .listener import NOTICED_SECONDS, Listener
from .outbox import patiently
from .stored import about_of, new_run, trace_of

T = TypeVar("T")

Leaving = Callable[[], bool]
"""Whether who drives a run is stopping, and begins nothing more."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Claimed:
    """A run that is this process's now, as it was loaded, or why it could not be; *lapses* is how
    often the lease had run out before.
    """

    run_id: str
    claim: Claim
    lapses: int
    stored: StoredRun | StoreError


def pending_run(preparer: Preparer, program: Program, trace: Trace) -> StoredRun:
    """A new run as it is stored."""
    return new_run(trace, preparer.prepare(program).document(), preparer.clock.time_ns())


class Durable(forking.Begins):
    """The runs of *store* as one host drives them; *trusted* are the public keys whose signature
    counts.
    """

    def __init__(
        self,
        store: Store,
        preparer: Preparer,
        *,
        lease_seconds: float,
        trusted: frozenset[str] | None,
        sign: Callable[[str], str] | None,
        observers: tuple[Observer, ...] = (),
        system: System = SYSTEM,
    ) -> None:
        self.store, self.preparer, self.system = store, preparer, system
        self.trusted, self.sign, self.observers = trusted, sign, observers
        self.lease = Lease(store, lease_seconds, system=system)
        self.listener = Listener(store, system)
        self.flights: dict[
            tuple[int, str], asyncio.Future[None]
        ] = {}  # calls whose answers are kept
        self.journals: set[Journal] = set()  # of runs under way here
        forking.join(self)

    def with_preparer(self, preparer: Preparer) -> Durable:
        """The same owner of runs, for a host that prepares programs otherwise."""
        other = copy(self)
        other.preparer = preparer
        forking.join(other)
        return other

    def after_fork_in_child(self) -> None:
        """Drive nothing: what is under way is the parent's."""
        forking.leave(list(self.journals))
        self.journals.clear()

    async def run(
        self, begun: Begun, notifier: Notifier | None = None, origin: Origin | None = None
    ) -> bool:
        """Run durably what was *begun*; where its run id is stored already, join that run."""
        trace, store = begun.trace, self.store
        lease = await self.leased()
        lapses = lease.lapses
        stored = pending_run(self.preparer, begun.program, trace)
        stored.started_ns = trace.started_ns + trace.recording.base_ns
        stored.status, stored.owner = "running", lease.owner
        held = lease.hold([trace.run_id])
        try:
            written = bool(held) and await patiently(
                self.preparer.clock, lambda again: store.begin(stored, again=again)
            )
        except BaseException:  # it may have been begun, for all that is known here
            self._give_back(held)
            raise
        if written:
            try:
                seal = RunSeal(stored, store.signer, self.trusted)
                if notifier is not None:
                    notifier.run_started()
            except BaseException:
                self._give_back(held)
                raise
            return await self._drive(begun, stored, seal, lapses, notifier, origin)
        lease.let_go(held)
        await self._check_same(trace)
        await self._follow_for(trace)
        return False

    def _give_back(self, run_ids: Iterable[str]) -> None:
        """Have others claim runs of this process that nobody here drives."""
        self.lease.let_go(run_ids)
        self.lease.doubt()

    async def _follow_for(self, trace: Trace, leaving: Leaving = _never) -> None:
        """Have *trace* say what `follow` does: another owner drives its run, or has driven it."""
        followed = await self.follow(trace.run_id, leaving=leaving)
        trace.recording.become(followed.recording)

    async def _check_same(self, trace: Trace) -> None:
        """Raises unless the run that is stored under the id of *trace* can be joined in its place."""
        known = await self.stored_call(self.store.load, trace.run_id, rows=False)
        if (known.program_digest, known.inputs) != (trace.program_digest, trace.inputs):
            raise VMError(f"run {trace.run_id!r} exists, with another program or other inputs")

    async def stored_call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """What a function of the store gives, called in a thread; again where the store fails for
        the moment.
        """
        return await patiently(
            self.preparer.clock, lambda _: asyncio.to_thread(function, *arguments, **options)
        )

    async def _drive(
        self,
        begun: Begun,
        stored: StoredRun,
        seal: RunSeal,
        lapses: int,
        notifier: Notifier | None = None,
        origin: Origin | None = None,
        leaving: Leaving = _never,
    ) -> bool:
        """Drive a run that is ours; where others take it over meanwhile, its trace is what they
        make of it.
        """
        trace = begun.trace
        journal = self._journal(trace.recording, stored, seal, lapses, origin)
        journal.leaving = leaving()
        try:
            cancelled = await self._drive_here(journal, begun, notifier)
        except Abandoned as gone:
            if not isinstance(gone.cause, LeaseLost):
                raise gone.cause from None
            if journal.leaving:
                raise asyncio.CancelledError from None
            await self.stored_call(self.lease.pay)  # what its calls gave, before anybody looks
            await self._follow_for(trace, leaving)
            return False
        if trace.status is TraceStatus.SUSPENDED:
            await self._look_again(trace, leaving)
        return cancelled

    def _journal(
        self,
        recording: Recording,
        stored: StoredRun,
        seal: RunSeal,
        lapses: int,
        origin: Origin | None,
    ) -> Journal:
        pause = collector_paused if stored.rows else nullcontext
        try:
            with pause():
                return Journal(
                    self.store,
                    self.lease,
                    stored,
                    recording.base_ns,
                    recording.ops,
                    seal,
                    self.preparer.clock,
                    lapses,
                    origin,
                )
        except BaseException:
            self._give_back([recording.run_id])
            raise

    async def _drive_here(self, journal: Journal, begun: Begun, notifier: Notifier | None) -> bool:
        """Drive a run until it has ended or waits, and store that; `Abandoned` where it is no
        longer ours. However this ends, the run is let go, or the store is owed what it lacks.
        """
        trace, machine, host = begun.trace, begun.machine, begun.host
        assert machine is not None
        assert host is not None
        journal.recorded.attach(machine)
        left = False
        sharing = SHARING.set(
            StoredLimits(self.store, self.lease.owner, self.preparer.clock, self.system.run_id())
        )
        self.journals.add(journal)
        try:
            with journal.interruption.driven():
                stop = partial(call_in, asyncio.get_running_loop(), journal.interruption.stop)
                self.listener.add(journal.run.key, stop)
                shared = self._shared(trace.recording)
                kept = self._kept(host, trace.recording)
                cancelled = await execute(
                    host, trace.recording, machine, notifier, journal, shared, kept
                )
            waiting = journal.rows.entries(machine.waiting)
            trace.recording.waiting = presented(waiting, self.system)
            await journal.end(machine, trace, waiting)
            left = True
            if notifier is not None:
                notifier.run_left()
        except Abandoned as gone:
            if isinstance(gone.cause, LeaseLost):
                await journal.leave_run()
            raise
        finally:
            with suppress(ValueError):  # this coroutine is being closed from elsewhere
                SHARING.reset(sharing)
            self.journals.discard(journal)
            self.listener.discard(journal.run.key)
            if notifier is not None and not left:
                notifier.run_released()
            debt = journal.debt()
            if debt.append is None:
                self.lease.let_go([trace.run_id])
            if debt.append is not None or debt.outcomes:
                self.lease.owe(debt)
        return cancelled

    def _kept(self, host: Host, recording: Recording) -> Kept | None:
        if not host.keeps:
            return None
        return Kept(self.store, recording, self.preparer.clock, self.flights)

    def _shared(self, recording: Recording) -> Shared | None:
        budgets = self.preparer.budgets
        if not budgets:
            return None
        whose = Whose.of(recording)
        return Shared(budgets, self.store, whose, self.preparer.clock, self.system.run_id())

    async def _look_again(self, trace: Trace, leaving: Leaving) -> None:
        """Go on with a run that waits for what came before it waited."""
        if matched(trace.waiting):
            await self.stored_call(self.store.deliver, self.trusted)
        now = await self.stored_call(self.store.load, trace.run_id, rows=False)
        if not self._rests(now):
            await self._follow_for(trace, leaving)

    def _rests(self, run: StoredRun, fence: int = 0) -> bool:
        """Whether nothing becomes of a run before somebody says something, or a time comes: it has
        ended; or it waits, was claimed since it had *fence*, and nobody said anything since that it
        can use.
        """
        if run.status != SUSPENDED or self.lease.has(run.run_id):
            return run.status in ENDED
        due = run.wake_ns is not None and run.wake_ns <= self.preparer.clock.time_ns()
        new = [message for message in run.inbox if not message.seen]
        return run.fence > fence and not due and not any(usable(m, run.waiting) for m in new)

    async def follow(self, run_id: str, fence: int = 0, leaving: Leaving = _never) -> Trace:
        """The trace of a stored run once it rests: driven here if nobody has it, else looked at
        until then. With the *fence* that it had, it is resumed at least once after that, here or
        elsewhere.

        Raises:
            CancelledError: Once who asks is *leaving*.
        """
        store = self.store
        pause = 0.02
        while True:
            for rows in (False, True):  # what stood in the header may have changed since
                known = await self.stored_call(store.load, run_id, rows=rows)
                if not self._rests(known, fence):
                    break
            else:
                return trace_of(known, self.system)
            if leaving():
                raise asyncio.CancelledError
            taken = await self.claim_and_drive(run_id, leaving=leaving)
            if taken is not None:
                return taken
            await self.preparer.clock.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def claim_and_drive(
        self, run_id: str, stored: StoredRun | None = None, leaving: Leaving = _never
    ) -> Trace | None:
        """Claim a stored run and drive it; None where another owner is alive. *stored* is its
        header, if that was just read.
        """
        if stored is None:
            stored = await self.stored_call(self.store.load, run_id, rows=False)
        self.preparer.fitting(stored)
        lease = await self.leased()
        await self.stored_call(lease.spared)  # which gives free what processes that are gone had
        claimed = await self.claim([run_id])
        return await self.drive_claimed(claimed[run_id], leaving) if claimed else None

    async def leased(self) -> Lease:
        """The lease of this VM, so far ahead that calls may be begun."""
        lease = self.lease
        if not lease.begun:
            await self.stored_call(lease.begin)
        if not lease.holds():
            await self.stored_call(lease.renew)
        return lease

    async def drive_claimed(self, claimed: Claimed, leaving: Leaving = _never) -> Trace | None:
        """Drive a run that was claimed; None where it is lost already."""
        store = self.store
        run_id, claim, stored = claimed.run_id, claimed.claim, claimed.stored
        ready = False
        try:
            if isinstance(stored, StoreError):
                raise stored
            # this process stood still since it was claimed, and another has it now
            if stored.fence != claim.fence:
                return None
            try:
                seal = collector_paused()(RunSeal)(stored, store.signer, self.trusted)
                fault = seal.fault(claim.status)
                if fault is not None:
                    raise VMError(f"run {run_id!r} is not resumed: {fault}")
                begun = self._restored(stored)
            except VMError:  # another host may be able to resume it
                was: dict[str, Any] = {"owner": None, "status": claim.status}
                if claim.status == PENDING:
                    was["started_ns"] = 0
                await store.append(Append(stored.key, claim.fence, (), was))
                raise
            watched = self.observers
            notifier = Notifier(begun.trace, watched, begun.host) if watched else None
            if notifier is not None:
                notifier.run_started(resumed=claim.status != PENDING)
            ready = True
        finally:
            if not ready:
                self._give_back([run_id])
        await self._drive(begun, stored, seal, claimed.lapses, notifier, leaving=leaving)
        return begun.trace

    def _restored(self, stored: StoredRun) -> Begun:
        """A stored run, its machine at its beginning."""
        prepared = self.preparer.fitting(stored)
        plan = prepared.plan
        assert plan is not None
        run_id = stored.run_id
        clock = self.preparer.clock
        now = clock.monotonic_ns()
        # a run's own time does not go back where the clock was set back since
        told = max([stored.started_ns, *[row.finished_ns or row.started_ns for row in stored.rows]])
        base = max(clock.time_ns(), told) - now
        recording = Recording(
            stored.program_name,
            stored.program_digest,
            run_id,
            stored.seed,
            stored.started_ns - base,
            base,
            (stored.salt or b"").hex(),
            about_of(stored),
            self.sign,
        )
        recording.inputs = stored.inputs
        # those that it was begun with: under others its records would be those of another run
        try:
            terms = RunTerms.of_record(stored.about, prepared.program.budget)
        except ValueError as error:
            raise VMError(f"run {run_id!r}: {error}") from None
        if prepared.terms.count_tokens is not None:
            terms = replace(terms, count_tokens=prepared.terms.count_tokens)
        machine = machine_of(
            plan, stored.inputs, terms, recording.started_ns, run_id=run_id, seed=stored.seed
        )
        recording.records, recording.ops = machine.records, plan.ops
        return Begun(prepared.program, Trace(recording), machine, prepared.host)

    async def claim(self, run_ids: Sequence[str], most: int = 1) -> dict[str, Claimed]:
        """Claim up to *most* runs that are not driven here, and load them."""
        lapses = self.lease.lapses
        claims = await self._claim(run_ids, most)
        if not claims:
            return {}
        try:
            found = await self.stored_call(collector_paused()(self.store.load_each), list(claims))
        except BaseException:
            self._give_back(claims)
            raise
        return {
            run_id: Claimed(run_id, claim, lapses, found[run_id])
            for run_id, claim in claims.items()
        }

    async def _claim(self, run_ids: Sequence[str], most: int) -> dict[str, Claim]:
        """Claim up to *most* runs, which are held here then."""
        store, lease = self.store, self.lease
        held = lease.hold(run_ids)
        claimed: dict[str, Claim] = {}
        try:
            if held:
                now = self.preparer.clock.time_ns()
                claimed = await self.stored_call(
                    store.claim, held, lease.owner, now, most=most, alive=lease.alive
                )
        except StoreError:
            lease.doubt()
            raise
        finally:
            lease.let_go(run_id for run_id in held if run_id not in claimed)
        return claimed

    async def resume(self, run_id: str) -> Trace:
        """As `ExecutionVM.resume`, of a run that is not driven by a call of `run` here."""
        store, lease = self.store, self.lease
        known = await self.stored_call(store.load, run_id, rows=False)
        if known.status in ENDED:
            return trace_of(await self.stored_call(store.load, run_id), self.system)
        # what is owed to it since the store did not answer
        await self.stored_call(lease.pay)
        taken = await self.claim_and_drive(run_id, known)
        if taken is not None:
            return taken
        owner = (await self.stored_call(store.load, run_id, rows=False)).owner
        if owner not in (None, lease.owner):
            raise VMError(
                f"run {run_id!r} is under way in another process ({owner}); it is given up when "
                f"that one ends"
            )
        # another caller has it here, or somebody held it for a moment
        return await self.follow(run_id, known.fence - (known.status == "running"))

    async def stopped(self, run_id: str) -> Trace:
        """The trace of a run whose cancellation is recorded, once it has ended."""
        store = self.store
        for journal in self.journals:
            if journal.run.run_id == run_id and journal.interruption.task is not None:
                call_in(journal.interruption.task.get_loop(), journal.interruption.stop)
        while True:
            known = await asyncio.to_thread(store.load, run_id, rows=False)
            if known.status != "running" or known.owner not in await asyncio.to_thread(
                living, store, self.system
            ):
                return await self.follow(run_id)
            await self.preparer.clock.sleep(NOTICED_SECONDS / 10)

    async def submit(self, program: Program, trace: Trace) -> None:
        """Store a run that has no owner yet; the same id joins a run that is there."""
        store = self.store
        stored = pending_run(self.preparer, program, trace)
        if not await patiently(self.preparer.clock, lambda again: store.begin(stored, again=again)):
            await self._check_same(trace)

    def close(self) -> None:
        """Give the lease back and close the store; runs under way are left to others, who take a call
        with an effect for under way until this process ends.
        """
        self.lease.end(calling=any(j.interruption.affecting() for j in tuple(self.journals)))
        self.store.close()
