"""`ExecutionVM`: what users call. A program and inputs come in, a `Trace` goes out.

Program and host meet once: flow, checks and plan of a program are made at its first run and kept. A
program that the host's tools or models refuse gives a FAILED trace with the Diagnostics and no step
run; what a run does is decided in `machine`, and `drive` makes its calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from ..errors import Diagnostic, LeaseLost, ProgramError, StoreError, UnknownRun, VMError, summary
from ..language.flow import Flow, FrameGraph
from ..language.messages import has_pictures
from ..language.policy import Budget, Policy, policy_of, tightest
from ..language.program import MODEL_OPTIONS, LLMStep, Program
from ..machine.compile import compile_flow
from ..machine.ledger import Ledger, Limits
from ..machine.machine import FOREVER, Facts, Machine, loaded
from ..machine.plan import Plan
from ..records.trace import Trace, TraceStatus
from ..store.protocol import Append, Claim, Store, open_store
from ..store.records import ENDED, PENDING, SUSPENDED, StoredRun
from ..store.seals import RunSeal, signed
from ..store.signing import SigningKey, public_keys
from ..store.waits import matched
from ..tools.contract import ToolContract, contract
from ..values import UNSET, kind_name
from ..verify.examine import Examined, collector_paused, examine, placed_for
from ..verify.report import Report
from ..verify.trust.proof import by_untrusted
from .batch import BatchResult, run_many
from .driver import Abandoned, Driver, Event
from .host import (
    NAMED_ONLY,
    TOOL_THREADS,
    Host,
    SystemClock,
    Threads,
    adapters_of,
    budget_of,
    prices_of,
)
from .inbox import Inbox, account, presented, usable
from .inputs import RUN_ID, admitted_inputs, names_of, scalar_inputs
from .journal import Journal, Origin
from .lease import LEASE_SECONDS, Lease, living
from .listener import NOTICED_SECONDS, Listener
from .live import REMEMBERED_RUNS, Run, UnderWay, become, call_in, identity_of
from .outbox import Patience, patiently
from .prepare import PREPARED_PROGRAMS, Prepared
from .stored import trace_of
from .worker import (
    GRACE_SECONDS,
    LOOK_AHEAD,
    PASSED_OVER_SECONDS,
    REFILLED_PART,
    RESTING_SECONDS,
    Shelf,
)

T = TypeVar("T")

logger = logging.getLogger("nano_vm")


class ExecutionVM:
    """Runs programs.

    ``llm`` is any object with ``async def complete(messages, **kwargs)``, or a model's name as the
    command line takes it (``"openai/gpt-5-mini"``, ``"local"``, ``"scripted:answers.yaml"``), or a
    dict of them by the names that steps use as ``model``, the first being the default; ``tools``
    are callables by name. ``prices`` are dollars per million tokens, ``{model: (input, output)}``;
    ``programs`` are those that `call` steps name; ``budget`` bounds every run. ``policy`` (a
    `Policy`, a dict, or a file's path) says what programs may do: one that does not provably keep
    to it is refused before any effect. ``approved`` are digests of programs from untrusted sources
    that a person has approved. ``store`` (a database's URL or a `Store`) makes runs durable;
    without one they live in memory. ``roles`` tells which roles a person has who decides an
    approval. A process that gives no sign of life for ``lease_seconds`` loses its runs to others.
    ``signing_key`` (the path of a key's file, see ``nano-vm keys``) signs traces and what is stored
    of runs; stored runs that were begun and not signed by it, or by one of the public keys
    ``trusted_keys``, are not gone on with. ``threads`` bounds the sync tools that run at the same
    time; one that never returns keeps its thread, and those that wait for a thread have no deadline
    but that of the run. One VM serves any number of runs at a time.

    Raises:
        VMError: If an adapter, tool or price can not be one.
    """

    def __init__(
        self,
        llm: Any = None,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        *,
        programs: Mapping[str, Program] | None = None,
        prices: Mapping[str, tuple[Any, Any]] | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
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
    ) -> None:
        self._adapters = adapters_of(llm)
        self._contracts: dict[str, ToolContract] = {}
        self._programs = dict(programs or {})
        self._prices = prices_of(prices, self._adapters)
        self._budget = budget_of(budget)
        self._policy = policy_of(policy)
        self._approved = frozenset(names_of(approved, "approved", "digests of programs"))
        self._limits = limits or Limits()
        self._clock = clock or SystemClock
        if type(threads) is not int or threads < 1:
            raise VMError(f"threads is a whole number of at least 1, not {threads!r}")
        self._threads = Threads(threads)
        self._prepared: OrderedDict[tuple[int, tuple[str, ...]], Prepared] = OrderedDict()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._store = open_store(store) if isinstance(store, str) else store
        self._signer = SigningKey.load(signing_key) if signing_key is not None else None
        trusted = public_keys(trusted_keys) | (
            {self._signer.public} if self._signer is not None else set()
        )
        self._trusted = trusted or None
        self._sign = partial(signed, signer=self._signer) if self._signer is not None else None
        if self._store is not None and self._signer is not None:
            self._store.signer = self._signer
        self._lease = Lease(self._store, lease_seconds) if self._store is not None else None
        self._listener = Listener(self._store) if self._store is not None else None
        self._roles = roles
        self._journals: set[Journal] = set()  # of runs under way here
        self._under_way = UnderWay(self._runs, self._journals)
        # of stored runs, by program digest
        self._documents: dict[str, tuple[Program, dict[str, Program]]] = {}
        for name, function in (tools or {}).items():
            self.register_tool(name, function)

    def register_tool(self, name: str, function: Callable[..., Any]) -> None:
        """Make *function* callable as the tool *name*, in place of any that had it.

        Raises:
            VMError: If it can not be called with keywords.
        """
        self._contracts[name] = contract(name, function)
        self._prepared.clear()

    @property
    def tools(self) -> Mapping[str, ToolContract]:
        """The registered tools and what is known of each."""
        return dict(self._contracts)

    # --- checking ---

    def check(self, program: Program) -> list[Diagnostic]:
        """Every fault that *program* shows for this host, warnings included; an empty list means it
        is ready to run.
        """
        found = self._examine(program, ())[1].report.faults
        return placed_for(program, self._policy, [d for d in found if d.severity != "hint"])

    def plan(self, program: Program) -> Plan:
        """What is executed for *program*; ``plan.explain()`` prints it.

        Raises:
            ProgramError: If the program has faults.
        """
        prepared = self._prepare(program)
        if prepared.plan is None:
            raise ProgramError(placed_for(program, self._policy, prepared.errors))
        return prepared.plan

    def verify(self, program: Program, *, untrusted: Iterable[str] = ()) -> Report:
        """What can be said of every run of *program* for this host, before any: faults, proofs, the
        worst case, flows.

        *untrusted* names inputs whose values come from outside, beside those that the policy names.
        """
        report = self._examine(program, names_of(untrusted))[1].report
        return replace(
            report, diagnostics=tuple(placed_for(program, self._policy, report.diagnostics))
        )

    def _prepare(
        self,
        program: Program,
        untrusted: tuple[str, ...] = (),
        programs: Mapping[str, Program] | None = None,
    ) -> Prepared:
        key = (id(program), untrusted)
        prepared = self._prepared.get(key)
        if prepared is None or prepared.program is not program:
            if not isinstance(program, Program):
                raise VMError(
                    f"a program is a Program, not {kind_name(program)}; see Program.from_dict and "
                    f"from_file"
                )
            prepared = self._prepared[key] = self._meet(program, untrusted, programs)
            if len(self._prepared) > PREPARED_PROGRAMS:
                self._prepared.popitem(last=False)
        return prepared

    @collector_paused()
    def _examine(
        self,
        program: Program,
        untrusted: tuple[str, ...],
        thorough: bool = True,
        programs: Mapping[str, Program] | None = None,
    ) -> tuple[Flow, Examined]:
        """What the static passes say of *program* for this host."""
        if not isinstance(program, Program):
            raise VMError(
                f"a program is a Program, not {kind_name(program)}; see Program.from_dict and "
                f"from_file"
            )
        flow = Flow(program, self._programs if programs is None else programs)
        found = [*program.warnings, *self._check_models(flow)]
        default = self._adapters.get(None)
        examined = examine(
            flow,
            self._contracts,
            policy=self._policy,
            budget=tightest([b for b in (program.budget, self._budget) if b is not None]),
            prices=self._prices,
            default_model=default.model if default is not None else None,
            untrusted=untrusted,
            approved=self._approved,
            more=found,
            thorough=thorough,
        )
        return flow, examined

    @collector_paused()
    def _meet(
        self, program: Program, untrusted: tuple[str, ...], programs: Mapping[str, Program] | None
    ) -> Prepared:
        flow, examined = self._examine(program, untrusted, thorough=False, programs=programs)
        found = examined.report.faults
        errors = tuple(d for d in found if d.severity == "error")
        prepared = Prepared(
            program, found, errors, flow, digest=flow.digest or program, examined=examined
        )
        prepared.limits, prepared.prices, prepared.untrusted = self._limits, self._prices, untrusted
        if not errors:
            prepared.plan = compile_flow(flow, examined.contracts, examined.checks)
        if prepared.plan is not None:
            contracts = [self._contracts[name] for name in prepared.plan.tools]
            prepared.host = Host(
                functions=[c.function for c in contracts],
                how=[c.how for c in contracts],
                adapters=self._adapters,
                threads=self._threads,
                clock=self._clock,
                shortest=prepared.plan.shortest_ns(),
                prices=self._prices,
            )
            budgets = [
                program.budget,
                self._budget,
                *(policy.budget for policy in examined.policies),
            ]
            prepared.budget = tightest([b for b in budgets if b is not None])
            prepared.ledger = Ledger.of(self._limits, prepared.budget)
            default = self._adapters.get(None)
            prepared.default_model = default.model if default is not None else None
        return prepared

    def _check_models(self, flow: Flow) -> list[Diagnostic]:
        """Model steps against the adapters: one is there, it has the model, it takes the
        options.
        """
        found = []
        frames: dict[int, FrameGraph] = {}
        for frame in flow.frames:
            frames.setdefault(id(frame.names), frame)
        for frame in frames.values():
            names = frame.names
            program = names.program
            strange = by_untrusted(frame, self._approved)
            for step, at in names.steps:
                if not isinstance(step, LLMStep):
                    continue
                loc = (*names.loc, *at)
                if not self._adapters:
                    message = f"step {step.id!r} calls a model, and the VM has none"
                    found.append(
                        Diagnostic(
                            "V030", loc, message, "give one by ExecutionVM(llm=...) or --model"
                        )
                    )
                    continue
                declared = step.model or program.defaults.model
                model = program.models.get(declared, declared) if declared is not None else None
                adapter = self._adapters.get(model)
                if adapter is None:
                    if len(self._adapters) > 1 or not self._adapters[None].takes("model"):
                        known = [name for name in self._adapters if name is not None]
                        hint = (
                            f"the VM has {', '.join(map(repr, known))}"
                            if known
                            else "remove it: the adapter has one model"
                        )
                        message = f"step {step.id!r} wants model {model!r}, which no adapter has"
                        found.append(Diagnostic("V031", (*loc, "model"), message, hint))
                        continue
                    adapter = self._adapters[None]
                if strange and (step.options or program.defaults.options):
                    message = (
                        f"step {step.id!r} has options, and its program comes from an "
                        f"untrusted source"
                    )
                    hint = "remove them, or approve the program's digest"
                    found.append(Diagnostic("V034", (*loc, "options"), message, hint))
                if not adapter.images and has_pictures(
                    m for m in step.messages or () if isinstance(m, dict)
                ):
                    message = f"the adapter of step {step.id!r} takes no pictures"
                    hint = "give it an attribute images = True if it does, or remove them"
                    found.append(Diagnostic("V032", (*loc, "messages"), message, hint))
                for option in MODEL_OPTIONS:
                    given = (
                        getattr(step, option) is not None
                        or getattr(program.defaults, option) is not None
                    )
                    if given and not adapter.takes(option):
                        message = f"the adapter of step {step.id!r} takes no {option!r}"
                        either = "" if option in NAMED_ONLY else " or **kwargs"
                        hint = f"let its complete() take {option}{either}, or remove the field"
                        found.append(Diagnostic("V032", (*loc, option), message, hint))
        return found

    # --- running ---

    async def run(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        seed: int | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        untrusted: Iterable[str] = (),
    ) -> Trace:
        """Run *program* on the inputs *context* and give its trace; a failed step is data in it.

        The same *run_id* with the same program and inputs joins the existing run. *seed* decides
        the waits between attempts; without one they follow from the run's id. *budget* bounds this
        run beside those of the program and the VM; the tightest counts. *untrusted* names inputs
        whose values come from outside: what a policy protects, they must not reach.

        Raises:
            VMError: If *run_id* belongs to another program or other inputs. asyncio.CancelledError:
            If the caller's task is cancelled; what was done is undone first.
        """
        if run_id is not None or self._store is not None:
            return await self.start(
                program, context, run_id=run_id, seed=seed, budget=budget, untrusted=untrusted
            ).joined()
        trace, machine = self._begin(program, context, None, seed, budget, untrusted)
        if machine is None:
            return trace
        cancelled = await self._execute(trace, machine, None)
        if cancelled and trace.status is TraceStatus.CANCELLED:
            raise asyncio.CancelledError
        return trace

    def run_sync(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        seed: int | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        untrusted: Iterable[str] = (),
    ) -> Trace:
        """`run` for code without an event loop.

        Raises:
            VMError: If an event loop is running in this thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(
                self.run(
                    program, context, run_id=run_id, seed=seed, budget=budget, untrusted=untrusted
                )
            )
        raise VMError("run_sync() was called inside an event loop; write: await vm.run(...)")

    def start(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        seed: int | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        untrusted: Iterable[str] = (),
    ) -> Run:
        """Begin a run in a task of its own and give a handle to it; needs a running event loop.
        Arguments as `run`.
        """
        trace, machine = self._begin(program, context, run_id, seed, budget, untrusted)
        known = self._runs.get(run_id) if run_id is not None else None
        if known is not None:
            if known.identity != identity_of(trace):
                raise VMError(f"run {run_id!r} exists, with another program or other inputs")
            return known
        execution = None
        if machine is not None:
            kept = self._store is not None
            execution = (
                self._keep(program, trace, machine) if kept else self._execute(trace, machine, None)
            )
        run = Run(trace, execution)
        if run_id is not None:
            run.identity = identity_of(trace)
            self._remember(run)
        return run

    def _remember(self, run: Run) -> None:
        """Keep a run by its id; beyond `REMEMBERED_RUNS` the oldest that has ended is forgotten.
        What a store has is kept while it runs.
        """
        self._runs[run.run_id] = run
        if self._store is not None and run.task is not None:
            run.task.add_done_callback(lambda _: self._runs.pop(run.run_id, None))
        if len(self._runs) > REMEMBERED_RUNS:
            ended = next(
                (
                    known
                    for known, old in self._runs.items()
                    if old.status is not TraceStatus.RUNNING
                ),
                None,
            )
            if ended is not None:
                del self._runs[ended]

    async def stream(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        seed: int | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        untrusted: Iterable[str] = (),
    ) -> AsyncGenerator[Event, None]:
        """Run *program* and give events as they happen, the last one ``run_finished`` with the
        trace.

        Leaving the iteration early cancels the run.
        """
        if run_id is not None and run_id in self._runs:
            raise VMError(f"run {run_id!r} exists; its events are gone, its trace is vm.run(...)")
        trace, machine = self._begin(program, context, run_id, seed, budget, untrusted)
        if machine is None:
            yield Event("run_finished", trace=trace)
            return
        events: asyncio.Queue[Event | None] = asyncio.Queue()

        def sink(kind: str, source: Machine, what: Any) -> None:
            if kind == "step_finished":
                result = trace._result(what)
                events.put_nowait(
                    Event(kind, result.path, result.step_id, result.type, result=result)
                )
            elif kind == "text":
                events.put_nowait(Event(kind, source.path, what[0].step_id, "llm", text=what[1]))
            else:
                events.put_nowait(Event(kind, source.path, what.step_id, what.type))

        kept = self._store is not None
        run = Run(
            trace,
            self._keep(program, trace, machine, sink)
            if kept
            else self._execute(trace, machine, sink),
        )
        if run_id is not None:
            run.identity = identity_of(trace)
            self._remember(run)
        run.task.add_done_callback(lambda _: events.put_nowait(None))  # type: ignore[union-attr]
        try:
            while (event := await events.get()) is not None:
                yield event
            yield Event("run_finished", trace=await run.result())
        finally:
            await run.cancel()

    # --- inside ---

    def _begin(
        self,
        program: Program,
        context: Mapping[str, Any] | None,
        run_id: str | None,
        seed: int | None,
        budget: Budget | Mapping[str, Any] | None,
        untrusted: Iterable[str],
    ) -> tuple[Trace, Machine | None]:
        """The trace of a new run, and its machine, or None where it was refused."""
        prepared = self._prepare(program, names_of(untrusted) if untrusted else ())
        if run_id is not None and (type(run_id) is not str or not RUN_ID.match(run_id)):
            raise VMError(
                f"a run id is a text of 1 to 200 visible ASCII characters, not {run_id!r}"
            )
        if seed is not None and type(seed) is not int:
            raise VMError(f"a seed is a whole number, not {seed!r}")
        clock = self._clock
        now = clock.monotonic_ns()
        identity = os.urandom(16).hex() if run_id is None else run_id
        trace = Trace(
            program.name,
            prepared.digest,
            identity,
            seed,
            now,
            clock.time_ns() - now,
        )
        trace._salt, trace._sign = _salt, self._sign
        trace._about = prepared.about if budget is None else partial(prepared.about, budget)
        plan = prepared.plan
        root = plan.frames[0] if plan is not None else None
        given = plan.given if plan is not None else ()
        texts = (
            scalar_inputs(context, root)
            if root is not None and not given and not prepared.errors
            else None
        )
        faults: list[Diagnostic] = []
        if texts is None:
            trace.inputs, faults = admitted_inputs(
                context, root, prepared.flow.frames[0].names, given
            )
            if plan is not None and prepared.examined is not None:
                faults += prepared.examined.not_covered(trace.inputs)
        errors = prepared.errors
        bound = prepared.budget
        if budget is not None:
            bound = tightest([b for b in (bound, budget_of(budget)) if b is not None])
        if plan is not None and bound is not None and bound.max_cost_usd is not None:
            faults += self._unpriced(plan)
        if errors or faults or plan is None or root is None or prepared.host is None:
            return self._refused(trace, program, [*errors, *faults]), None
        facts = Facts(identity, seed, self._limits, self._prices, prepared.default_model)
        if given:
            facts.given = {name: trace.inputs[name] for name in given}
        if texts is not None:
            trace.set_inputs(root.needed, texts)
            frame = [*texts, *root.blank[len(texts) :]]
        else:
            frame = loaded(root, trace.inputs)
        seconds = bound.max_seconds if bound is not None else None
        deadline = now + int(seconds * 1e9) if seconds is not None else FOREVER
        ledger = prepared.ledger.copy() if budget is None else Ledger.of(self._limits, bound)
        machine = Machine.of_run(root, frame, facts, ledger, deadline)
        trace._records, trace._ops = machine.records, plan.ops
        trace._host = prepared.host
        return trace, machine

    def _refused(self, trace: Trace, program: Program, faults: list[Diagnostic]) -> Trace:
        placed = tuple(placed_for(program, self._policy, faults))
        trace.diagnostics = placed
        trace.status = TraceStatus.FAILED
        trace.error = summary(placed)
        trace.error_kind = "refused"
        trace.finished_ns = trace.started_ns
        return trace

    def _unpriced(self, plan: Plan) -> list[Diagnostic]:
        found = []
        for model in plan.models:
            adapter = self._adapters.get(model) or self._adapters[None]
            name = model or adapter.model
            if name is None or name not in (self._prices or {}):
                message = f"the budget limits cost, and no price is known for model {name!r}"
                found.append(
                    Diagnostic(
                        "V033",
                        ("budget", "max_cost_usd"),
                        message,
                        "give ExecutionVM(prices={model: (input, output)})"
                        if name
                        else "give the adapter an attribute 'model', and its price",
                    )
                )
        return found

    async def _execute(
        self, trace: Trace, machine: Machine, sink: Any, journal: Journal | None = None
    ) -> bool:
        """Drive *machine* to its end and complete *trace*; whether it was cancelled from
        outside.
        """
        plain = sink is None and journal is None
        driver = Driver.of(trace._host) if plain else Driver(trace._host, sink, journal)
        lane = driver.lane(
            machine, trace.started_ns if journal is None else self._clock.monotonic_ns()
        )
        try:
            return await driver.drive(machine, lane, trace.started_ns)
        finally:
            driver.dog.lanes.discard(lane)
            trace._host = None
            trace.status = machine.status
            trace.output = machine.output
            if machine.waiting:
                trace.waiting = machine.waiting
            if machine.error is not None:
                trace.error = machine.error_summary()
                trace.error_kind = machine.error.kind
                if (
                    machine.raised is not None
                    and type(machine.raised).__name__ == machine.error.type
                ):
                    trace._raised = machine.raised
            trace._steps = trace._digest = None  # of one that was looked at while it ran
            trace.finished_ns = self._clock.monotonic_ns()

    def run_many(
        self,
        program: Program,
        inputs: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        concurrency: int = 16,
        ordered: bool = False,
        run_id: Callable[[int], str] | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        untrusted: Iterable[str] = (),
    ) -> AsyncGenerator[BatchResult, None]:
        """Run *program* on each of *inputs* and give the results as they come; see
        `nano_vm.batch.run_many`.
        """
        return run_many(
            self,
            program,
            inputs,
            concurrency=concurrency,
            ordered=ordered,
            run_id=run_id,
            budget=budget,
            untrusted=untrusted,
        )

    # --- durable runs ---

    async def _keep(
        self,
        program: Program,
        trace: Trace,
        machine: Machine,
        sink: Any = None,
        origin: Origin | None = None,
    ) -> bool:
        """Run *machine* durably; where its run id is stored already, join that run."""
        store = self._kept_in()
        lease = await self._leased()
        lapses = lease.lapses
        stored = self._stored(program, trace)
        stored.status, stored.started_ns, stored.owner = (
            "running",
            trace.started_ns + trace._base_ns,
            lease.owner,
        )
        held = lease.hold([trace.run_id])
        begun = False
        try:
            begun = bool(held) and await patiently(
                self._clock, lambda again: store.begin(stored, again=again)
            )
        except StoreError:
            lease.doubt()
            raise
        finally:
            if held and not begun:
                lease.let_go(held)
        if begun:
            seal = RunSeal(stored, store.signer, self._trusted)
            return await self._drive_kept(trace, machine, stored, seal, lapses, sink, origin)
        known = await self._stored_call(store.load, trace.run_id, rows=False)
        if (known.program_digest, known.inputs) != (trace.program_digest, trace.inputs):
            raise VMError(f"run {trace.run_id!r} exists, with another program or other inputs")
        become(trace, await self._follow(trace.run_id))
        return False

    async def _stored_call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """What a function of the store gives, called in a thread; again where the store fails for
        the moment.
        """
        return await patiently(
            self._clock, lambda _: asyncio.to_thread(function, *arguments, **options)
        )

    def _stored(self, program: Program, trace: Trace) -> StoredRun:
        """A new run as it is stored."""
        return StoredRun(
            trace.run_id,
            program.name,
            trace.program_digest,
            self._clock.time_ns(),
            self._prepare(program).document(),
            trace.inputs,
            trace.about,
            trace._seed,
            bytes.fromhex(trace.salt),
            parent=trace.about.get("parent", {}).get("run_id"),
        )

    async def _drive_kept(
        self,
        trace: Trace,
        machine: Machine,
        stored: StoredRun,
        seal: RunSeal,
        lapses: int,
        sink: Any = None,
        origin: Origin | None = None,
    ) -> bool:
        """Drive a run that is ours; where others take it over meanwhile, its trace is what they
        make of it.
        """
        store, lease = self._kept_in(), self._lease
        assert lease is not None
        lost = False
        try:
            journal = Journal(
                store, lease, stored, trace._base_ns, trace._ops, seal, self._clock, lapses, origin
            )
        except BaseException:
            lease.let_go([trace.run_id])
            raise
        self._journals.add(journal)
        assert self._listener is not None
        try:
            with journal.driven():
                self._listener.add(
                    stored.key, partial(call_in, asyncio.get_running_loop(), journal.stop)
                )
                cancelled = await self._execute(trace, machine, sink, journal)
            waiting = journal.entries(machine.waiting)
            trace.waiting = presented(waiting)
            await journal.end(machine, trace, waiting)
        except Abandoned as gone:
            if not isinstance(gone.cause, LeaseLost):
                raise gone.cause from None
            await journal.leave_run()
            if journal.leaving:
                raise asyncio.CancelledError from None
            lost = True
        finally:
            self._journals.discard(journal)
            self._listener.discard(stored.key)
            debt = journal.debt()
            if debt is None:
                lease.let_go([trace.run_id])
            else:
                lease.owe(debt)
        if lost:
            await self._stored_call(lease.pay)  # what its calls gave, before anybody looks
            become(trace, await self._follow(trace.run_id))
            return False
        if trace.status is TraceStatus.SUSPENDED:
            if matched(waiting):  # an event may have come before
                await self._stored_call(store.deliver, self._trusted)
            now = await self._stored_call(store.load, trace.run_id, rows=False)
            if not self._rests(now):
                become(trace, await self._follow(trace.run_id))
        return cancelled

    def _rests(self, run: StoredRun, fence: int = 0) -> bool:
        """Whether nothing becomes of a run before somebody says something, or a time comes: it has
        ended; or it waits, was claimed since it had *fence*, and nobody said anything since that it
        can use.
        """
        assert self._lease is not None
        if run.status != SUSPENDED or self._lease.has(run.run_id):
            return run.status in ENDED
        due = run.wake_ns is not None and run.wake_ns <= self._clock.time_ns()
        new = [message for message in run.inbox if not message.seen]
        return run.fence > fence and not due and not any(usable(m, run.waiting) for m in new)

    async def _follow(self, run_id: str, fence: int = 0) -> Trace:
        """The trace of a stored run once it rests: driven here if nobody has it, else looked at
        until then. With the *fence* that it had, it is gone on with at least once after that, here
        or elsewhere.
        """
        store = self._kept_in()
        pause = 0.02
        while True:
            for rows in (False, True):  # what stood in the header may have changed since
                known = await self._stored_call(store.load, run_id, rows=rows)
                if not self._rests(known, fence):
                    break
            else:
                return trace_of(known)
            taken = await self._take_up(run_id)
            if taken is not None:
                return taken
            await self._clock.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def resume(self, run_id: str) -> Trace:
        """Go on with a stored run, from where its records end, until it has ended or waits again;
        an ended one is left as it is.

        Raises:
            UnknownRun: If there is none.
            VMError: If it is under way in another process, or this host can not run its program.
        """
        store = self._kept_in()
        local = self._runs.get(run_id)
        if local is not None and local.task is not None and not local.task.done():
            trace = await local.joined()
            if trace.status is not TraceStatus.SUSPENDED:  # it may have looked only
                return trace
        known = await self._stored_call(store.load, run_id, rows=False)
        if known.status in ENDED:
            return trace_of(await self._stored_call(store.load, run_id))
        if self._lease is not None:
            # what is owed to it since the store did not answer
            await self._stored_call(self._lease.pay)
        taken = await self._take_up(run_id, known)
        if taken is not None:
            return taken
        lease = await self._leased()
        owner = (await self._stored_call(store.load, run_id, rows=False)).owner
        if owner not in (None, lease.owner):
            raise VMError(
                f"run {run_id!r} is under way in another process ({owner}); it is given up when "
                f"that one ends"
            )
        # another caller has it here, or somebody held it for a moment
        return await self._follow(run_id, known.fence - (known.status == "running"))

    async def _take_up(self, run_id: str, stored: StoredRun | None = None) -> Trace | None:
        """Claim a stored run and drive it; None where another owner is alive. *stored* is its
        header, if that was just read.
        """
        if stored is None:
            stored = await self._stored_call(self._kept_in().load, run_id, rows=False)
        self._fitting(stored)
        lease = await self._leased()
        claimed = await self._claim([run_id], await self._stored_call(lease.spared))
        return await self._go_on(run_id, *claimed[run_id]) if claimed else None

    async def _leased(self) -> Lease:
        """The lease of this VM, so far ahead that calls may be begun."""
        lease = self._lease
        assert lease is not None
        await self._stored_call(lease.begin)
        if not lease.holds():
            await self._stored_call(lease.renew)
        return lease

    def _fitting(self, stored: StoredRun) -> Prepared:
        """The plan of a stored run, where this host can go on with it."""
        prepared = self._prepared_for(stored)
        self._fits(prepared, stored)
        return prepared

    def _fits(self, prepared: Prepared, stored: StoredRun) -> None:
        """Whether this host can go on with a stored run by this plan.

        Raises:
            VMError: If not; the message says why.
        """
        plan = prepared.plan
        errors = prepared.errors
        if plan is not None and prepared.examined is not None:
            errors = (*errors, *prepared.examined.not_covered(stored.inputs))
        if errors or plan is None or prepared.host is None:
            raise ProgramError(errors or prepared.errors)
        self._same_policy(stored)
        missing = [name for name in plan.given if name not in stored.inputs]
        if missing:
            raise VMError(
                f"run {stored.run_id!r}: the policy's checks read input {missing[0]!r}, which the "
                f"run was not given"
            )

    def _same_policy(self, stored: StoredRun) -> None:
        """Refuse a run that was begun under another policy of its host, unless this VM's says that
        it replaces that one.
        """
        begun = stored.about.get("host_policy")
        if begun is None:
            return
        run = f"run {stored.run_id!r} was begun under a policy"
        if self._policy is None:
            raise VMError(f"{run}, and this VM has none; give it one")
        if begun != self._policy.digest and begun not in self._policy.replaces:
            hint = (
                f"resume it under that one, or write replaces: [{begun}] into this one, if it "
                f"may take its place"
            )
            raise VMError(f"{run} that is not this VM's; {hint}")

    async def _go_on(self, run_id: str, claim: Claim, lapses: int) -> Trace | None:
        """Drive a run that was claimed when the lease had run out *lapses* times; None where it is
        lost already.
        """
        store, lease = self._kept_in(), self._lease
        assert lease is not None
        begun = None
        try:
            stored = await self._stored_call(collector_paused()(store.load), run_id)
            # this process stood still between the two, and another has it now
            if stored.fence != claim.fence:
                return None
            try:
                seal = collector_paused()(RunSeal)(stored, store.signer, self._trusted)
                fault = seal.fault(claim.status)
                if fault is not None:
                    raise VMError(f"run {run_id!r} is not resumed: {fault}")
                begun = self._begun(stored)
            except VMError:  # another host may be able to go on with it
                was: dict[str, Any] = {"owner": None, "status": claim.status}
                if claim.status == PENDING:
                    was["started_ns"] = 0
                await store.append(Append(stored.key, claim.fence, (), was))
                raise
        finally:
            if begun is None:
                lease.let_go([run_id])
                lease.doubt()
        trace, machine = begun
        await self._drive_kept(trace, machine, stored, seal, lapses)
        return trace

    def _begun(self, stored: StoredRun) -> tuple[Trace, Machine]:
        """The trace of a stored run, and its machine at its beginning."""
        prepared = self._fitting(stored)
        plan = prepared.plan
        assert plan is not None
        run_id = stored.run_id
        clock = self._clock
        now = clock.monotonic_ns()
        # a run's own time does not go back where the clock was set back since
        told = max([stored.started_ns, *(row.finished_ns or row.started_ns for row in stored.rows)])
        base = max(clock.time_ns(), told) - now
        root = plan.frames[0]
        trace = Trace(
            stored.program_name,
            stored.program_digest,
            run_id,
            stored.seed,
            stored.started_ns - base,
            base,
        )
        trace._salt, trace._sign = (stored.salt or b"").hex(), self._sign
        trace.inputs, trace._about, trace._host = stored.inputs, stored.about, prepared.host
        bound = budget_of(stored.about.get("budget"))
        facts = Facts(run_id, stored.seed, self._limits, self._prices, prepared.default_model)
        facts.given = {name: stored.inputs[name] for name in plan.given}
        seconds = bound.max_seconds if bound is not None else None
        deadline = trace.started_ns + int(seconds * 1e9) if seconds is not None else FOREVER
        ledger = Ledger.of(self._limits, bound)
        machine = Machine.of_run(root, loaded(root, stored.inputs), facts, ledger, deadline)
        trace._records, trace._ops = machine.records, plan.ops
        return trace, machine

    def _prepared_for(self, stored: StoredRun) -> Prepared:
        """The plan of a stored run's program, as it was when the run began."""
        known = self._documents.get(stored.program_digest)
        if known is None:
            program = Program.from_dict(stored.document["program"])
            programs = {
                name: Program.from_dict(other)
                for name, other in stored.document["programs"].items()
            }
            if (Flow(program, programs).digest or program.digest) != stored.program_digest:
                raise VMError(f"run {stored.run_id!r}: its stored program does not fit its digest")
            known = self._documents[stored.program_digest] = program, programs
        return self._prepare(known[0], tuple(stored.about.get("untrusted_here", ())), known[1])

    def _kept_in(self) -> Store:
        if self._store is None:
            raise VMError(
                "this VM keeps no runs; give it a store, for example "
                "ExecutionVM(store='sqlite:///runs.db')"
            )
        return self._store

    async def submit(
        self,
        program: Program,
        context: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        untrusted: Iterable[str] = (),
    ) -> str:
        """Store a run for `work`, here or in another process, and give its id; the same id joins a
        run that is there. Arguments as `run`.

        Raises:
            ProgramError: If it would be refused.
        """
        store = self._kept_in()
        trace, machine = self._begin(program, context, run_id, None, budget, untrusted)
        if machine is None:
            raise ProgramError(trace.diagnostics)
        stored = self._stored(program, trace)
        if not await patiently(self._clock, lambda again: store.begin(stored, again=again)):
            known = await self._stored_call(store.load, trace.run_id, rows=False)
            if known.program_digest != trace.program_digest or known.inputs != trace.inputs:
                raise VMError(f"run {trace.run_id!r} exists, with another program or other inputs")
        return trace.run_id

    async def recover(self) -> list[Trace]:
        """Go on with every run whose process is gone, and give their traces."""
        return await self.work(until_idle=True, only="running")

    async def work(
        self,
        *,
        until_idle: bool = False,
        concurrency: int = 16,
        poll_seconds: float = 0.5,
        only: str | None = None,
        ended: Callable[[Trace], None] | None = None,
    ) -> list[Trace]:
        """Take up runs that nobody drives: submitted, left behind, due, or answered; for ever, or
        until there are none.

        Runs that this host can not go on with are left, and tried again after a minute. *only* is a
        status: ``pending``, ``running`` (left behind) or ``suspended``. The traces are given where
        it ends; *ended* is called with each at once, and none is kept then.
        """
        self._kept_in()
        tasks: dict[str, asyncio.Task[Trace | None]] = {}
        traces: list[Trace] = []
        shelf = Shelf()
        looked, idle = -poll_seconds, False
        outage: Patience | None = None
        try:
            while True:
                now = self._clock.monotonic_ns() / 1e9
                free = concurrency - len(tasks)
                wanted = free >= max(concurrency * REFILLED_PART, 1) and not (tasks and idle)
                if wanted or (free and now >= looked + poll_seconds):
                    looked = now
                    shelf.now = now
                    try:
                        claimed, idle = await self._claim_some(free, only, shelf)
                        outage = None
                    except StoreError as error:
                        outage = self._outage(error, outage, raises=until_idle and not tasks)
                        claimed, idle = {}, False
                    for run_id, (claim, lapses) in claimed.items():
                        tasks[run_id] = asyncio.create_task(self._go_on(run_id, claim, lapses))
                pause = (
                    poll_seconds
                    if idle or not free or outage
                    else min(poll_seconds, PASSED_OVER_SECONDS)
                )
                if not tasks:
                    if until_idle and idle and not (self._lease and self._lease.owes):
                        return traces
                    await self._clock.sleep(pause)
                    continue
                await asyncio.wait(
                    tasks.values(), return_when=asyncio.FIRST_COMPLETED, timeout=pause
                )
                for run_id in [run_id for run_id, task in tasks.items() if task.done()]:
                    trace, fit = self._taken(run_id, tasks.pop(run_id))
                    if trace is not None and ended is not None:
                        ended(trace)
                    elif trace is not None and until_idle:
                        traces.append(trace)
                    if not fit:
                        shelf.runs[run_id] = now + RESTING_SECONDS
        finally:
            if tasks:
                await self._leave(tasks)

    def _outage(self, error: StoreError, since: Patience | None, *, raises: bool) -> Patience:
        """That the store does not answer a worker, which is said once; with *raises* its patience
        ends.
        """
        if not error.passing or (raises and since is not None and since.over):
            raise error
        if since is None:
            logger.warning("no run is taken up, and it is tried again: %s", error)
        return since or Patience(self._clock)

    async def _claim_some(
        self, most: int, only: str | None, shelf: Shelf
    ) -> tuple[dict[str, tuple[Claim, int]], bool]:
        """Claim up to *most* runs that this host can go on with; whether there was none to claim,
        here or elsewhere.
        """
        store = self._kept_in()
        lease = await self._leased()
        spare = await asyncio.to_thread(lease.spared)
        # what a process left that died while it delivered
        await asyncio.to_thread(store.deliver, self._trusted)
        found = await asyncio.to_thread(
            store.claimable, self._clock.time_ns(), most * LOOK_AHEAD, only, spare=spare
        )
        fit = [
            run_id for run_id, digest in found.items() if await self._may_try(run_id, digest, shelf)
        ]
        return await self._claim(fit, spare, most), not fit

    async def _claim(
        self, run_ids: Sequence[str], spare: Sequence[str], most: int = 1
    ) -> dict[str, tuple[Claim, int]]:
        """Claim up to *most* runs that are not driven here; each with how often the lease had run
        out before.
        """
        store, lease = self._kept_in(), self._lease
        assert lease is not None
        held = lease.hold(run_ids)
        claimed: dict[str, Claim] = {}
        lapses = lease.lapses
        try:
            if held:
                now = self._clock.time_ns()
                claimed = await self._stored_call(
                    store.claim, held, lease.owner, now, most=most, spare=spare
                )
        except StoreError:
            lease.doubt()
            raise
        finally:
            lease.let_go(run_id for run_id in held if run_id not in claimed)
        return {run_id: (claim, lapses) for run_id, claim in claimed.items()}

    async def _may_try(self, run_id: str, digest: str, shelf: Shelf) -> bool:
        """Whether this host may try to go on with a run now; the first of a program tells it of
        all.
        """
        if shelf.rests(run_id, digest):
            return False
        if digest not in shelf.known:
            try:
                self._fitting(await asyncio.to_thread(self._kept_in().load, run_id, rows=False))
            except VMError as error:
                if isinstance(error, StoreError) and error.passing:
                    raise
                logger.warning("run %s can not go on here: %s", run_id, error)
                resting = shelf.programs if isinstance(error, ProgramError) else shelf.runs
                resting[digest if isinstance(error, ProgramError) else run_id] = (
                    shelf.now + RESTING_SECONDS
                )
                return False
            shelf.known.add(digest)
        return True

    async def _leave(self, tasks: Mapping[str, asyncio.Task[Any]]) -> None:
        """Stop driving: calls under way have `GRACE_SECONDS` to end, no further one is begun, and
        the runs are left to others.
        """
        for journal in self._journals:
            journal.leaving = journal.leaving or journal.run.run_id in tasks
        _, pending = await asyncio.wait(tasks.values(), timeout=GRACE_SECONDS)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        for run_id, task in tasks.items():
            self._taken(run_id, task)

    def _taken(self, run_id: str, task: asyncio.Task[Trace | None]) -> tuple[Trace | None, bool]:
        """What a worker's task came to, and whether this host can go on with the run; that it can
        not is told.
        """
        try:
            return task.result(), True
        except asyncio.CancelledError:
            return None, True
        except VMError as error:
            if isinstance(error, StoreError) and error.passing:
                logger.warning(
                    "run %s is given back as soon as the store answers: %s", run_id, error
                )
                return None, True
            logger.warning("run %s can not go on here: %s", run_id, error)
        except Exception:  # a fault of ours stops one run, and not the worker
            logger.exception("run %s can not go on here", run_id)
        return None, False

    @property
    def inbox(self) -> Inbox:
        """Where people's words about stored runs are recorded; it needs neither tools nor
        models.
        """
        return Inbox(
            self._kept_in(),
            self._roles,
            self._clock,
            value_bytes=self._limits.value_bytes,
            trusted=self._trusted,
        )

    def waiting(self, run_id: str) -> list[dict[str, Any]]:
        """What a stored run waits for; ``shown`` identifies each request as it stands."""
        return self.inbox.waiting(run_id)

    def approve(
        self, run_id: str, path: str, *, shown: str, by: str, reason: str | None = None
    ) -> None:
        """Record that *by* approves what the run asks at *path*, as identified by *shown*; used
        once, by `resume` or `work`.

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
        """Record that *by* rejects; as `approve`."""
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
            run_id, *event = event  # type: ignore[assignment]
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
    ) -> None:
        """Say what became of a call in doubt: that it is *done* and gave this output, that it may
        be made again, or why it failed.

        *by* is who says so; where it is left out, the account that this process runs under.

        Raises:
            VMError: If nothing is in doubt there (`Changed`), it was resolved before
            (`AlreadyDecided`), or not exactly one of the three
                is said.
        """
        by = account() if by is UNSET else by
        self.inbox.resolve(run_id, path, by=by, done=done, retry=retry, fail=fail)

    async def cancel(self, run_id: str, *, by: str = UNSET) -> Trace:
        """Cancel a stored run, and give its trace once it has ended. *by* is as for `resolve`.

        One that waits is undone here. One that is under way stops before its next step: at once
        where this VM drives it, else within half a second (`listener.NOTICED_SECONDS`). What can be
        cut off without harm is; a call with an effect has five seconds more
        (`durable.EFFECT_GRACE_SECONDS`), and is in doubt then.

        Raises:
            AlreadyDecided: If it is to be cancelled already.
            Expired: If it has ended.
        """
        store, inbox = self._kept_in(), self.inbox
        try:
            await asyncio.to_thread(inbox.cancel, run_id, by=account() if by is UNSET else by)
        except UnknownRun:  # it may be about to be stored
            local = self._runs.get(run_id)
            if local is None:
                raise
            return await local.cancel()
        for journal in self._journals:
            if journal.run.run_id == run_id and journal.task is not None:
                call_in(journal.task.get_loop(), journal.stop)
        while True:
            known = await asyncio.to_thread(store.load, run_id, rows=False)
            if known.status != "running" or known.owner not in await asyncio.to_thread(
                living, store
            ):
                return await self._follow(run_id)
            await self._clock.sleep(NOTICED_SECONDS / 10)

    def load(self, run_id: str) -> Trace:
        """The trace of a stored run, as far as it has come."""
        return trace_of(self._kept_in().load(run_id))

    def close(self) -> None:
        """Give the lease back and close the store; runs under way are left to others."""
        if self._lease is not None:
            self._lease.end()
        if self._store is not None:
            self._store.close()


def _salt() -> str:
    return os.urandom(16).hex()
