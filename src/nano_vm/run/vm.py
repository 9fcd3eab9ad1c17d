"""`ExecutionVM`: what users call. A program and inputs come in, a `Trace` goes out.

Program and host meet once: flow, checks and plan of a program are made at its first run and kept. A
program that the host's tools or models refuse gives a FAILED trace with the Diagnostics and no step
run; what a run does is decided in `machine`, and `driver` makes its calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, Unpack, overload

from ..adapters.pool import Pool
from ..diagnostics import Diagnostic, summary
from ..errors import ProgramError, UnknownRun, VMError
from ..given import (
    by_name,
    instance,
    positive_integer,
    seconds,
    string,
    strings,
    with_methods,
)
from ..language.policy import Budget, Policy, policy_of, tightest
from ..language.program import Program
from ..language.programs import programs_given
from ..machine.ledger import Limits
from ..machine.machine import Machine, machine_of
from ..machine.plan import Plan
from ..records.recording import Recording
from ..records.status import TraceStatus
from ..records.trace import Trace
from ..store.accounts import Account, Books, Standing
from ..store.kept import KeptHere
from ..store.protocol import ALL_RUNS, RunFilter, RunPage, Store, open_store
from ..store.records import DEFAULT_PROJECT, StoredRun
from ..store.seals import signed
from ..store.shared_budget import SharedBudget
from ..store.signing import SigningKey, public_keys
from ..tools.contract import ToolContract, contract
from ..values import UNSET, Unset, short
from ..verify.examine import placed_for
from ..verify.report import Report
from .aio import AsyncReads
from .announced import announced
from .batch.runs import BatchResult, run_many
from .counting import Counting
from .driver import Driver
from .driver import Journal as DriverJournal
from .durable.journal import Origin
from .durable.lease import LEASE_SECONDS, MAX_LEASE_SECONDS
from .durable.resume import Durable, pending_run
from .durable.stored import said_of, trace_of
from .durable.worker import Worker
from .host import (
    TOOL_THREADS,
    Host,
    SystemClock,
    adapters_of,
    budget_of,
    host_of,
    prices_of,
    sources_of,
)
from .inbox import Inbox, account
from .inputs import admitted_inputs, is_run_id, names_of, scalar_inputs
from .kept import Kept
from .live import Begun, LiveRuns, Run, execute, identity_of, observed
from .observers import Event, Notifier, Observer, observers_of
from .options import RUN_OPTIONS, RunOptions, SharedOptions, unknown_options
from .prepare import Prepared, Preparer
from .shared import Shared, Whose, shared_budgets, standings
from .system import SYSTEM, System

_TOOLS = "write tools={'search': search}"
_STORES = "write store='sqlite:///runs.db', or give what open_store() gives"

RUNS_SHOWN = 50
"""Runs of a page, unless another number is asked for: what a screen shows and a person reads."""


class ExecutionVM:
    """Runs programs: any number of them, any number at a time.

    Args:
        llm: A model: an object with ``async def complete(messages, **kwargs)``, or a name as the
            command line takes it (``"openai/gpt-5-mini"``, ``"local"``,
            ``"scripted:answers.yaml"``). Or several, in a dict by the names that steps use as
            ``model``, the first being the default. Or the name of a host file
            (``"nano-vm.toml"``), which gives models, prices and budgets.
        tools: Callables by name.
        programs: What `call` steps name.
        prices: Dollars per million tokens, ``{model: (input, output)}``.
        budget: The limit of each run.
        budgets: What runs use together, each by its name: ``{"daily": {"per": ["project", "day"],
            "max_cost_usd": 5}}``, see `SharedBudget`. They count over all processes that share the
            store.
        policy: What programs may do: a `Policy`, a dict, or a file's path. A program that does not
            provably keep to it is refused before any effect.
        approved: Digests of programs from untrusted sources that a person has approved.
        store: The database that makes runs durable: its URL, or a `Store`. Without one runs live
            in memory.
        roles: A function that gives the roles of a person, by name, who decides an approval.
        signing_key: The path of a key's file, see ``nano-vm keys``. It signs traces and what is
            stored of runs. Stored runs that were begun and not signed by it, or by one of
            *trusted_keys*, are not resumed.
        trusted_keys: Public keys whose signatures count too.
        lease_seconds: A process that gives no sign of life for so long loses its runs to others.
        limits: What bounds a run, whatever a program says.
        threads: How many sync tools run at the same time. One that never returns keeps its thread,
            and those that wait for a thread have no deadline but that of the run.
        clock: What time is taken from; a simulation has its own.
        system: What threads and random numbers are taken from; likewise.
        observers: What sees every run that this VM drives, see `Observer`.

    Raises:
        VMError: If an adapter, tool or price cannot be one.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> vm = ExecutionVM(tools={"double": lambda number: 2 * number})
        >>> program = Program.from_yaml(
        ...     "steps: [{id: a, type: tool, tool: double, args: {number: $n}}]"
        ... )
        >>> vm.run_sync(program, {"n": 21}).output
        42
    """

    def __init__(
        self,
        llm: Any = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        *,
        programs: Mapping[str, Program] | None = None,
        prices: Mapping[str, Any] | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        budgets: Mapping[str, SharedBudget | Mapping[str, Any]] | None = None,
        policy: Policy | Mapping[str, Any] | str | Path | None = None,
        approved: Iterable[str] = (),
        store: Store | str | None = None,
        roles: Callable[[str], Iterable[str]] | None = None,
        signing_key: str | Path | bytes | SigningKey | None = None,
        trusted_keys: Iterable[str] = (),
        lease_seconds: float = LEASE_SECONDS,
        limits: Limits | None = None,
        threads: int = TOOL_THREADS,
        clock: Any = None,
        system: System = SYSTEM,
        observers: Iterable[Observer] = (),
    ) -> None:
        positive_integer(threads, "threads")
        models, bounds = host_of(llm)
        adapters = adapters_of(models)
        if limits is not None:
            instance(limits, Limits, "limits", "write limits=Limits(steps=...)")
        if roles is not None and not callable(roles):
            raise VMError(
                f"roles is a function that gives the roles of a name, not {short(roles)}; write "
                f"roles=lambda name: [...]"
            )
        if clock is not None:
            with_methods(clock, ("time_ns", "monotonic_ns", "sleep"), "clock", "see Clock")
        with_methods(system, ("tool_threads", "run_id"), "system", "see nano_vm.run.system")
        self._limits = limits or Limits()
        self.system = system
        self._salt = lambda: system.random_bytes(16).hex()
        self.preparer = Preparer(
            adapters,
            {},
            {},
            programs_given(programs),
            prices_of(prices, adapters),
            tightest([one for one in (budget_of(budget), bounds.budget) if one is not None]),
            policy_of(policy),
            frozenset(names_of(approved, "approved", "digests of programs")),
            self._limits,
            system.tool_threads(threads),
            clock or SystemClock,
            {**bounds.budgets, **shared_budgets(budgets)},
        )
        # of runs that no store keeps: accounts of shared budgets, and answers of steps with `cache`
        self._books, self._answers = Books(), KeptHere()
        self._flights: dict[tuple[int, str], asyncio.Future[None]] = {}
        self.preparer.price_sources = sources_of(prices, adapters)
        signer = SigningKey.load(signing_key) if signing_key is not None else None
        trusted = public_keys(_trusted_keys(trusted_keys)) | (
            {signer.public} if signer is not None else set()
        )
        self._trusted = trusted or None
        self._sign = partial(signed, signer=signer) if signer is not None else None
        self._roles = roles
        self.observers = observers_of(observers)
        self._signer, self._lease_seconds = signer, lease_seconds
        self._durable: Durable | None = None
        seconds(lease_seconds, "lease_seconds", MAX_LEASE_SECONDS)
        if store is not None:
            self._durable = self._durable_over(store)
        self._runs = LiveRuns(stored=self._durable is not None)
        for name, function in by_name(tools, "tools", _TOOLS).items():
            self.register_tool(name, function)

    def _durable_over(self, store: Store | str) -> Durable:
        opened = open_store(store) if isinstance(store, str) else store
        with_methods(opened, ("append", "load", "page"), "a store", _STORES)
        if self._signer is not None:
            opened.signer = self._signer
        return Durable(
            opened,
            self.preparer,
            lease_seconds=self._lease_seconds,
            trusted=self._trusted,
            sign=self._sign,
            observers=self.observers,
            system=self.system,
        )

    def register_tool(self, name: str, function: Callable[..., Any]) -> None:
        """Make *function* callable as the tool *name*, in place of any that had it.

        Raises:
            VMError: If it cannot be called with keywords.
        """
        self.preparer.contracts[name] = contract(name, function)
        self.preparer.functions[name] = function
        self.preparer.forget()

    @property
    def tools(self) -> Mapping[str, ToolContract]:
        """The registered tools and what is known of each."""
        return dict(self.preparer.contracts)

    # --- checking ---

    def check(self, program: Program) -> list[Diagnostic]:
        """Every fault that *program* shows for this host, warnings included; an empty list means it
        is ready to run.
        """
        found = self.preparer.examine(program, ())[1].report.faults
        return placed_for(program, self.preparer.policy, [d for d in found if d.severity != "hint"])

    def plan(self, program: Program) -> Plan:
        """What is executed for *program*; ``plan.explain()`` prints it.

        Raises:
            ProgramError: If the program has faults.
        """
        prepared = self.preparer.prepare(program)
        if prepared.plan is None:
            raise ProgramError(placed_for(program, self.preparer.policy, prepared.errors))
        return prepared.plan

    def verify(self, program: Program, *, untrusted: Iterable[str] = ()) -> Report:
        """What can be said of every run of *program* for this host, before any: faults, proofs, the
        worst case, flows.

        *untrusted* names inputs whose values come from outside, beside those that the policy names.
        """
        report = self.preparer.examine(program, names_of(untrusted))[1].report
        return replace(
            report,
            diagnostics=tuple(placed_for(program, self.preparer.policy, report.diagnostics)),
        )

    # --- running ---

    async def run(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> Trace:
        """Run *program* on the inputs *context* and give its trace; a failed step is data in it.

        *options* are those of `RunOptions`: the same ``run_id`` with the same program and inputs
        joins the existing run; ``seed`` decides the waits between attempts, which follow from the
        run's id without one; ``budget`` bounds this run beside those of the program and the VM;
        ``untrusted`` names inputs whose values come from outside: what a policy protects, they must
        not reach.

        Raises:
            VMError: If ``run_id`` belongs to another program or other inputs.
            asyncio.CancelledError: If the caller's task is cancelled; what was done is undone
                first.
        """
        if self._durable is not None or (options and options.get("run_id") is not None):
            return await self.start(program, context, **options).joined()
        trace, machine, host = self._begun(
            program, context, _chosen(options) if options else _NOTHING
        )
        del options  # which would be held as long as the run waits
        if machine is None or host is None:
            self._tell_refused(trace)
            return trace
        if self.observers or self.preparer.budgets or host.keeps:
            cancelled = await self.execution(Begun(program, trace, machine, host))
        else:  # as `execute`, without a coroutine between
            driver, recording = Driver.of(host), trace.recording
            lane = driver.lane(machine, recording.started_ns)
            try:
                cancelled = await driver.drive(machine, lane, recording.started_ns)
            finally:
                driver.left(machine, lane, recording)
        if cancelled and trace.status is TraceStatus.CANCELLED:
            raise asyncio.CancelledError
        return trace

    def run_sync(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> Trace:
        """Run *program* as `run` does, for code without an event loop, with the same arguments.

        Raises:
            VMError: If an event loop is running in this thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run(program, context, **options))
        raise VMError("run_sync() was called inside an event loop; write: await vm.run(...)")

    def start(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> Run:
        """Begin a run in a task of its own and give a handle to it; needs a running event loop.
        Arguments as `run`.
        """
        chosen = _chosen(options) if options else _NOTHING
        begun = Begun(program, *self._begun(program, context, chosen))
        known = self._runs.get(chosen.run_id) if chosen.run_id is not None else None
        if known is not None:
            if identity_of(known.trace) != identity_of(begun.trace):
                raise VMError(f"run {known.run_id!r} exists, with another program or other inputs")
            return known
        return self._live(begun, named=chosen.run_id is not None)

    def _live(self, begun: Begun, *, named: bool, stream: _Stream | None = None) -> Run:
        """The handle of a run that goes on in a task of its own; one that its caller *named* is
        found again by its id.
        """
        execution = None
        if begun.machine is not None:
            execution = self.execution(begun, stream=stream)
        else:
            self._tell_refused(begun.trace)
        run = Run(begun.trace, execution)
        if named:
            self._runs.remember(run)
        return run

    async def stream(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> AsyncGenerator[Event, None]:
        """Run *program* and give events as they happen, the last one ``run_finished`` with the
        trace.

        Leaving the iteration early cancels the run.
        """
        run_id = options.get("run_id")
        if run_id is not None and self._runs.get(run_id) is not None:
            raise VMError(f"run {run_id!r} exists; its events are gone, its trace is vm.run(...)")
        begun = self.begin(program, context, **options)
        trace = begun.trace
        if begun.machine is None:
            self._tell_refused(trace)
            yield Event("run_finished", trace=trace, run_id=trace.run_id)
            return
        stream = _Stream()
        run = self._live(begun, named=run_id is not None, stream=stream)
        events = stream.events
        assert run.task is not None
        run.task.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            yield Event("run_finished", trace=await run.result(), run_id=trace.run_id)
        finally:
            await run.cancel()

    # --- for what is built on a VM ---

    def begin(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> Begun:
        """A new run before its first step; `execution` drives it."""
        chosen = _chosen(options) if options else _NOTHING
        return Begun(program, *self._begun(program, context, chosen))

    def _begun(
        self, program: Program, context: Any, chosen: _Chosen
    ) -> tuple[Trace, Machine | None, Host | None]:
        """What `Begun` has."""
        prepared = self.preparer.prepare(program, chosen.untrusted)
        plan, budget = prepared.plan, chosen.budget
        terms = prepared.terms if budget is None else prepared.within(budget)
        frame: list[Any] | None = None
        names: Sequence[str] = ()
        values = None if plan is None else scalar_inputs(context, plan)
        if plan is not None and values is not None:
            root = plan.frames[0]
            names, frame = root.needed, root.blank.copy()  # no longer than it must be
            frame[: len(values)] = values
        recording = self._recording(prepared, chosen, values, names)
        trace = Trace(recording)
        faults: list[Diagnostic] = []
        if frame is None:
            recording.inputs, faults = self._admitted(prepared, context)
        if plan is not None and terms.budget is not None and terms.budget.max_cost_usd is not None:
            faults += self.preparer.unpriced(prepared)
        if plan is not None and self.preparer.budgets:
            project = (chosen.said or {}).get("project", DEFAULT_PROJECT)
            faults += self.preparer.unpriced_shared(prepared, project)
        if faults or plan is None:
            self._refuse(recording, program, [*prepared.errors, *faults])
            return trace, None, None
        machine = machine_of(
            plan,
            recording.inputs if frame is None else _NO_INPUTS,
            terms,
            recording.started_ns,
            run_id=recording.run_id,
            seed=chosen.seed,
            frame=frame,
        )
        recording.records, recording.ops = machine.records, plan.ops
        return trace, machine, prepared.host

    def _recording(
        self,
        prepared: Prepared,
        chosen: _Chosen,
        inputs: tuple[Any, ...] | None,
        names: Sequence[str],
    ) -> Recording:
        """That of a new run; it has *inputs* that were taken already, by their *names*."""
        clock = self.preparer.clock
        now = clock.monotonic_ns()
        plain = chosen.budget is None and not chosen.said
        about = prepared.told if plain else partial(prepared.about, chosen.budget, chosen.said)
        return Recording(
            prepared.program.name,
            prepared.digest,
            self.system.run_id() if chosen.run_id is None else chosen.run_id,
            chosen.seed,
            now,
            clock.time_ns() - now,
            self._salt,
            about,
            self._sign,
            (),
            (),
            inputs,
            names,
        )

    def _admitted(
        self, prepared: Prepared, context: Any
    ) -> tuple[dict[str, Any], list[Diagnostic]]:
        """Inputs as plain data, and what is wrong with them."""
        plan, names = prepared.plan, prepared.flow.frames[0].names
        if plan is None:
            return admitted_inputs(context, None, names)
        inputs, faults = admitted_inputs(context, plan.frames[0], names, plan.given)
        if prepared.examined is not None:
            faults += prepared.examined.not_covered(inputs)
        return inputs, faults

    def execution(
        self,
        begun: Begun,
        *,
        stream: Observer | None = None,
        journal: DriverJournal | None = None,
        origin: Origin | None = None,
    ) -> Coroutine[Any, Any, bool]:
        """What drives a run that was not refused to its end; *stream* sees it beside the observers
        of the VM. *origin* is for one that is stored, and *journal* for one that is not.
        """
        trace, machine, host = begun.trace, begun.machine, begun.host
        assert machine is not None
        assert host is not None
        observers = self.observers if stream is None else (*self.observers, stream)
        notifier = Notifier(trace, observers, host, text=stream is not None) if observers else None
        if self._durable is not None:
            return self._durable.run(begun, notifier, origin)
        recording, budgets = trace.recording, self.preparer.budgets
        # of a run that no store keeps: its accounts, and the kept answers
        shared = kept = None
        if budgets:
            whose, own = Whose.of(recording), self.system.run_id()
            shared = Shared(budgets, self._books, whose, self.clock, own)
        if host.keeps:
            kept = Kept(self._answers, recording, self.clock, self._flights)
        if notifier is not None:
            return observed(host, recording, machine, notifier, journal, shared, kept)
        return execute(host, recording, machine, None, journal, shared, kept)

    def _tell_refused(self, trace: Trace) -> None:
        if self.observers:
            Notifier(trace, self.observers).run_left()

    def with_(
        self,
        *,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        programs: Mapping[str, Program] | None = None,
        store: Store | str | Unset | None = UNSET,
    ) -> ExecutionVM:
        """The same host with *tools* and *programs* beside its own, or in their place; with
        ``store=None`` its runs are not stored, with another *store* they are stored there.
        """
        other = copy(self)
        other.preparer = self.preparer.beside()
        more = programs_given(programs)
        if more:
            other.preparer.programs = {**self.preparer.programs, **more}
            other.preparer.forget()
        if store is None:
            other._durable = None
        elif not isinstance(store, Unset):
            other._durable = other._durable_over(store)
        elif self._durable is not None:
            other._durable = self._durable.with_preparer(other.preparer)
        other._runs = LiveRuns(stored=other._durable is not None)
        for name, function in by_name(tools, "tools", _TOOLS).items():
            other.register_tool(name, function)
        return other

    def _refuse(self, recording: Recording, program: Program, faults: list[Diagnostic]) -> None:
        placed = tuple(placed_for(program, self.preparer.policy, faults))
        recording.diagnostics = placed
        recording.status = TraceStatus.FAILED
        recording.error, recording.error_kind = summary(placed), "refused"
        recording.finished_ns = recording.started_ns

    def run_many(
        self,
        program: Program,
        inputs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        concurrency: int = 16,
        ordered: bool = False,
        run_id: Callable[[int], str] | None = None,
        **options: Unpack[SharedOptions],
    ) -> AsyncGenerator[BatchResult, None]:
        """Run *program* on each of *inputs*, and give each result as its run ends.

        Memory does not grow with the number of inputs.

        Args:
            program: The program.
            inputs: The inputs of each run; an async iterable is read as runs need it.
            concurrency: How many runs are under way at a time.
            ordered: Give the results in the order of the inputs.
            run_id: A function that gives the id of the run of each input, by its number from 0.
            **options: Options that the runs share, as `run` takes them.
        """
        return run_many(
            self,
            program,
            inputs,
            concurrency=concurrency,
            ordered=ordered,
            run_id=run_id,
            **options,
        )

    # --- durable runs ---

    async def resume(self, run_id: str) -> Trace:
        """Resume a stored run from where its records end, until it has ended or waits again;
        an ended one is left as it is.

        Raises:
            UnknownRun: If there is none.
            VMError: If it is under way in another process, or this host cannot run its program.
        """
        durable = self._require_durable()
        local = self._runs.get(string(run_id, "a run id"))
        if local is not None:
            trace = await local.joined()
            if trace.status is not TraceStatus.SUSPENDED:  # it may have looked only
                return trace
        return await durable.resume(run_id)

    @property
    def clock(self) -> Any:
        """What tells the time to runs."""
        return self.preparer.clock

    @property
    def store(self) -> Store | None:
        """Where runs are stored, if the VM has a store."""
        return self._durable.store if self._durable is not None else None

    @property
    def counting(self) -> Counting:
        """What counts calls of models that another engine's worker makes with this host."""
        return Counting(self.preparer, self._durable)

    def require_store(self) -> Store:
        """Where runs are stored.

        Raises:
            VMError: If this VM has no store.
        """
        return self._require_durable().store

    def _require_durable(self) -> Durable:
        if self._durable is None:
            raise VMError(
                "this VM keeps no runs; give it a store, for example "
                "ExecutionVM(store='sqlite:///runs.db')"
            )
        return self._durable

    async def submit(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> str:
        """Store a run for `work`, here or in another process, and give its id; the same id joins a
        run that is there. Arguments as `run`.

        Raises:
            ProgramError: If it would be refused.
        """
        durable = self._require_durable()
        begun = self.begin(program, context, **options)
        if begun.machine is None:
            raise ProgramError(begun.trace.diagnostics)
        await durable.submit(program, begun.trace)
        return begun.trace.run_id

    def pending(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        **options: Unpack[RunOptions],
    ) -> StoredRun:
        """The run that `submit` would store, for who stores it himself. Arguments as `run`.

        Raises:
            ProgramError: If it would be refused.
        """
        begun = self.begin(program, context, **options)
        if begun.machine is None:
            raise ProgramError(begun.trace.diagnostics)
        return pending_run(self.preparer, program, begun.trace)

    async def recover(self) -> list[Trace]:
        """Resume every run whose process is gone, and give their traces."""
        return await self.work(until_idle=True, only="running")

    async def work(
        self,
        *,
        until_idle: bool = False,
        concurrency: int = 16,
        poll_seconds: float = 0.5,
        only: str | None = None,
        ended: Callable[[Trace], None] | None = None,
        name: str | None = None,
    ) -> list[Trace]:
        """Claim and drive runs that have no owner: submitted, left behind, due, or answered; for
        ever, or until there are none.

        Runs that this host cannot resume are left, and tried again after a minute.

        Args:
            until_idle: End when there is nothing to do, and give the traces.
            concurrency: How many runs are under way at a time.
            poll_seconds: How long to wait where there is nothing to do.
            only: A status: ``pending``, ``running`` (left behind) or ``suspended``.
            ended: Called with each trace at once; then none is kept.
            name: A name under which the host says in the store what it can do, as long as it works:
                a server checks programs by that.
        """
        durable = self._require_durable()
        worker = Worker(durable, concurrency=concurrency, poll_seconds=poll_seconds, only=only)
        traces: list[Trace] = []
        async with AsyncExitStack() as stack:
            if name is not None:
                await stack.enter_async_context(announced(durable, name, concurrency))
            await worker.work(ended or traces.append, until_idle=until_idle)
        return traces

    @property
    def inbox(self) -> Inbox:
        """Where people's words about stored runs are recorded; it needs neither tools nor
        models.
        """
        return Inbox(
            self.require_store(),
            self._roles,
            self.clock,
            value_bytes=self._limits.value_bytes,
            trusted=self._trusted,
            system=self.system,
        )

    def waiting(self, run_id: str) -> list[dict[str, Any]]:
        """What a stored run waits for; ``shown`` identifies each request as it stands."""
        return self.inbox.waiting(run_id)

    def approve(
        self, run_id: str, path: str, *, shown: str, by: str, reason: str | None = None
    ) -> None:
        """Record that a person approves what the run asks; used once, by `resume` or `work`.

        Args:
            run_id: The run.
            path: Where it asks.
            shown: The digest of what the person saw, as `waiting` gives it.
            by: Who decides.
            reason: A comment. It is the step's output, and untrusted.

        Raises:
            Changed: If the run asks nothing there, or something else by now.
            NotPermitted: If *by* is nobody, or lacks the role.
            AlreadyDecided: If somebody was first, or the run is to be cancelled.
            Expired: If its deadline has passed, or the run has ended.
            UnknownRun: If there is no such run.
        """
        self.inbox.approve(run_id, path, shown=shown, by=by, reason=reason)

    def reject(
        self,
        run_id: str,
        path: str,
        *,
        by: str,
        shown: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Record that a person rejects what the run asks; the rest is as for `approve`.
        *shown* may be left out.
        """
        self.inbox.reject(run_id, path, by=by, shown=shown, reason=reason)

    @overload
    def send_event(
        self, run_id: str, name: str, payload: Any = None, /, *, id: str | None = None
    ) -> bool: ...

    @overload
    def send_event(
        self, name: str, payload: Any = None, /, *, run_id: str | None = None, id: str | None = None
    ) -> bool: ...

    def send_event(self, *event: Any, run_id: str | None = None, id: str | None = None) -> bool:
        """Record an event, to be used once: ``send_event(run_id, name, payload)`` for a run, for a
        `wait` that it stands at or the next that asks for it; ``send_event(name, payload)``, with
        an object, for the first run whose `wait` has a ``match`` that it fits, now or later.

        Whether it was recorded: an event of this name and *id* that was recorded before is not
        recorded again.

        Raises:
            Expired: If the run has ended, or it waits for this event and its deadline has passed.
            VMError: If the payload does not fit the schema of the wait that it is for.
        """
        # what goes by its values is an object
        if run_id is None and len(event) > 1 and isinstance(event[1], str):
            run_id, event = event[0], event[1:]
        if not 1 <= len(event) <= 2:
            raise VMError(
                "send_event takes a run's id, a name and a payload, or a name and a payload"
            )
        return self.inbox.send_event(*event, run_id=run_id, id=id)

    def resolve(
        self,
        run_id: str,
        path: str,
        *,
        done: Any = UNSET,
        retry: bool = False,
        fail: str | None = None,
        by: str = UNSET,
        shown: str | None = None,
    ) -> None:
        """Say what became of a call in doubt: exactly one of *done*, *retry* and *fail*.

        Args:
            run_id: The run.
            path: Where the call is in doubt.
            done: The call took place, and gave this output.
            retry: It did not take place, and is to be made.
            fail: It failed, for this reason.
            by: Who says so; without it, the account that this process runs under.
            shown: The digest of the call that was seen, of `waiting`. What is said late, when
                another call is in doubt there, does not count for that one.

        Raises:
            VMError: If nothing, or not what was seen, is in doubt there (`Changed`), it was
                resolved before (`AlreadyDecided`), or not exactly one of the three is said.
        """
        by = account() if by is UNSET else by
        self.inbox.resolve(run_id, path, by=by, done=done, retry=retry, fail=fail, shown=shown)

    async def cancel(self, run_id: str, *, by: str = UNSET) -> Trace:
        """Cancel a stored run, and give its trace once it has ended. *by* is as for `resolve`.

        One that waits is undone here. One that is under way stops before its next step: at once
        where this VM drives it, else within half a second (`listener.NOTICED_SECONDS`). What can be
        cut off without harm is; a call with an effect has five seconds more
        (`interruption.EFFECT_GRACE_SECONDS`), and is in doubt then.

        Raises:
            AlreadyDecided: If it is to be cancelled already.
            Expired: If it has ended.
        """
        durable, inbox = self._require_durable(), self.inbox
        try:
            await asyncio.to_thread(inbox.cancel, run_id, by=account() if by is UNSET else by)
        except UnknownRun:  # it may be about to be stored
            local = self._runs.get(run_id)
            if local is None:
                raise
            return await local.cancel()
        return await durable.stopped(run_id)

    def runs(
        self, filter: RunFilter = ALL_RUNS, *, size: int = RUNS_SHOWN, after: str | None = None
    ) -> RunPage:
        """Stored runs that fit *filter*, newest first: up to *size* of them, which follow *after*,
        the ``after`` of the page before. Their headers only; `load` gives the trace of one.

        Raises:
            VMError: If there is no such page, or this VM has no store.
        """
        store = self.require_store()
        positive_integer(size, "size")
        instance(filter, RunFilter, "filter", "write RunFilter(status=..., project=...)")
        if after is not None:
            string(after, "after")
        try:
            return store.page(filter, size=size, after=after)
        except ValueError as error:
            raise VMError(str(error)) from None

    def load(self, run_id: str) -> Trace:
        """The trace of a stored run, as far as it has come."""
        return trace_of(self.require_store().load(run_id), self.system)

    @property
    def pools(self) -> list[Pool]:
        """The pools of this host, each once; those that programs make of its models are not among
        them.
        """
        found = [adapter.adapter for adapter in self.preparer.adapters.values()]
        return list({id(one): one for one in found if isinstance(one, Pool)}.values())

    def accounts(self) -> list[tuple[Account, Standing]]:
        """How the accounts of shared budgets stand: of those in the store, or of this VM's; with
        the limits of today of the budgets that this VM has.
        """
        kept = self._books if self._durable is None else self._durable.store
        return standings(self.preparer.budgets, kept.accounts())

    @property
    def aio(self) -> AsyncReads:
        """`load` and `runs` for code in an event loop, which awaits them; for people's words see
        ``inbox.aio``.
        """
        return AsyncReads(self)

    def close(self) -> None:
        """Give the lease back and close the store; runs under way are left to others. ``with`` and
        ``async with`` do it at the end of their block.
        """
        if self._durable is not None:
            self._durable.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)  # it waits for the store


def _trusted_keys(given: Iterable[str]) -> tuple[str, ...]:
    return strings(given, "trusted_keys", "write the hexadecimal digits or the file of each key")


class _Stream:
    """Holds the events of one run until its stream gives them."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    def observe(self, event: Event) -> None:
        """Keep what tells of a step; the end of the run is reported with its trace, by the stream."""
        if event.path:
            self.events.put_nowait(event)


@dataclass(slots=True)
class _Chosen:
    """The options of a run, each of which is one that a run can have; nobody changes them."""

    run_id: str | None = None
    seed: int | None = None
    budget: Budget | Mapping[str, Any] | None = None
    untrusted: tuple[str, ...] = ()
    said: Mapping[str, Any] | None = None


_NOTHING = _Chosen()
_NO_INPUTS: Mapping[str, Any] = MappingProxyType({})


def _chosen(options: RunOptions) -> _Chosen:
    run_id = options.get("run_id")
    if len(options) == 1 and is_run_id(run_id):
        return _Chosen(run_id)
    seed = options.get("seed")
    if not options.keys() <= RUN_OPTIONS:
        raise unknown_options(options)
    if run_id is not None and not is_run_id(run_id):
        raise VMError(f"a run id is a string of 1 to 200 visible ASCII characters, not {run_id!r}")
    if seed is not None and type(seed) is not int:
        raise VMError(f"a seed is an integer, not {seed!r}")
    untrusted = options.get("untrusted")
    said = said_of(options.get("project"), options.get("submitter"), options.get("labels"))
    return _Chosen(
        run_id,
        seed,
        options.get("budget"),
        names_of(untrusted) if untrusted is not None else (),
        said,
    )
