"""A program as one host runs it: its diagnostics, its plan and where its calls go, made once."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..adapters.contract import Adapter
from ..collector import collector_paused
from ..diagnostics import Diagnostic, Loc, summary
from ..errors import ProgramError, ToolError, VMError
from ..language.flow import Flow
from ..language.policy import Budget, Policy, tightest
from ..language.program import Program
from ..language.programs import program_given
from ..machine.billing import unpriced
from ..machine.compile import plan_of
from ..machine.faults import WORDING
from ..machine.ledger import Limits
from ..machine.plan import Plan
from ..machine.terms import DEFAULT_TERMS, RunTerms
from ..prices import Price
from ..store.records import StoredRun
from ..store.shared_budget import SharedBudget
from ..tools.contract import BIND, ToolContract, contract
from ..values import canonical
from ..verify.examine import Examined, examine, untrusted_by
from .host import Host, Threads, budget_of, served_of
from .models import Pools, model_faults
from .shared import costly, covering

PREPARED_PROGRAMS = 1024
"""Programs whose plan is kept; the oldest goes first."""


@dataclass(slots=True)
class Prepared:
    """A program as this host runs it: its plan and where calls go, or why not."""

    program: Program
    diagnostics: tuple[Diagnostic, ...]
    errors: tuple[Diagnostic, ...]
    flow: Flow
    plan: Plan | None = None
    host: Host | None = None
    terms: RunTerms = DEFAULT_TERMS
    examined: Examined | None = None
    # of program and called programs, or the program, which is asked for it when somebody looks
    digest: Any = None
    untrusted: tuple[str, ...] = ()
    _known: dict[str, Any] | None = None
    _document: dict[str, Any] | None = None
    _bounded: tuple[Budget, RunTerms] | None = None
    # `about`, of which every recording has the same
    told: Callable[[], dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.told = self.about

    def within(self, budget: Budget | Mapping[str, Any] | None) -> RunTerms:
        """The terms of a run with a *budget* of its own; those of the one that was given last are
        kept, since most give the same again.
        """
        kept = self._bounded
        if kept is not None and kept[0] is budget:  # a budget never changes
            return kept[1]
        own = budget_of(budget)
        terms = self.terms.within(own)
        if own is not None and own is budget:
            self._bounded = own, terms
        return terms

    def document(self) -> dict[str, Any]:
        """The program and those that it calls, as they are stored; nobody changes it."""
        if self._document is None:
            self._document = self.flow.document()
        return self._document

    def about(self, budget: Any = None, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """As `Trace.about`; *budget* is the run's own, and *said* what its caller says of it."""
        if self._known is None:
            self._known = self._host_facts()
        if budget is None:
            return {**self._known, **said} if said else self._known
        return {**self._known, **self.within(budget).to_dict(), **(said or {})}

    def _host_facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"wording": WORDING} if WORDING != 1 else {}
        if self.plan is None or self.examined is None:
            return facts
        contracts = {name: self.examined.contracts[name] for name in sorted(self.plan.tools)}
        if contracts:
            facts["tools"] = {
                name: {"effect": c.effect, **({"key": True} if c.takes_key else {})}
                for name, c in contracts.items()
            }
            facts["contracts"] = digest_of({name: c.to_dict() for name, c in contracts.items()})
        facts |= self.terms.to_dict()
        if any(policy.source for policy in self.examined.policies):
            facts["policy"] = digest_of([policy.to_dict() for policy in self.examined.policies])
            facts["proofs"] = self.examined.report.proofs_digest
        if self.examined.policies[0].source:
            facts["host_policy"] = self.examined.policies[0].digest
        if levels := self.examined.levels():
            facts["secrecy"] = dict(levels)
        untrusted = sorted(
            {
                *self.untrusted,
                *(n for p in self.examined.policies for n in untrusted_by(p, self.flow)),
            }
        )
        if untrusted:
            facts["untrusted"] = untrusted
        if self.untrusted:
            facts["untrusted_here"] = list(self.untrusted)  # those that the run itself named
        return facts


@dataclass(slots=True)
class Preparer:
    """Programs as one host runs them: examined and compiled at their first run, and kept."""

    adapters: dict[str | None, Adapter]
    contracts: dict[str, ToolContract]
    functions: dict[str, Callable[..., Any]]  # the tools that the contracts are of
    programs: dict[str, Program]
    prices: dict[str, Price] | None
    budget: Budget | None
    policy: Policy | None
    approved: frozenset[str]
    limits: Limits
    threads: Threads
    clock: Any
    budgets: Mapping[str, SharedBudget] = field(default_factory=dict)
    _kept: OrderedDict[tuple[int, tuple[str, ...]], Prepared] = field(
        default_factory=OrderedDict, init=False
    )
    price_sources: dict[str, str] | None = field(default=None, init=False)
    _made_pools: Pools | None = field(default=None, init=False)
    # of stored runs, by program digest
    _documents: dict[str, tuple[Program, dict[str, Program]]] = field(
        default_factory=dict, init=False
    )

    def beside(self) -> Preparer:
        """The same for another host, which may change: it knows what is prepared here already."""
        other = replace(self, contracts=dict(self.contracts), functions=dict(self.functions))
        other._kept.update(self._kept)
        other._documents.update(self._documents)
        other.price_sources = self.price_sources
        return other

    def forget(self) -> None:
        """Prepare each program anew: what the host has changed."""
        self._kept.clear()

    def prepare(
        self,
        program: Program,
        untrusted: tuple[str, ...] = (),
        programs: Mapping[str, Program] | None = None,
    ) -> Prepared:
        key = (id(program), untrusted)
        prepared = self._kept.get(key)
        if prepared is None or prepared.program is not program:
            prepared = self._kept[key] = self._made(program, untrusted, programs)
            if len(self._kept) > PREPARED_PROGRAMS:
                self._kept.popitem(last=False)
        return prepared

    @collector_paused()
    def examine(
        self,
        program: Program,
        untrusted: tuple[str, ...],
        thorough: bool = True,
        programs: Mapping[str, Program] | None = None,
    ) -> tuple[Flow, Examined]:
        """What the static passes say of *program* for this host."""
        flow = Flow(program_given(program), self.programs if programs is None else programs)
        adapters, faults = self._pools().of(flow)
        found = [*program.warnings, *faults, *model_faults(flow, adapters, self.approved)]
        default = adapters.get(None)
        examined = examine(
            flow,
            self.contracts,
            policy=self.policy,
            budget=tightest([b for b in (program.budget, self.budget) if b is not None]),
            prices=self.prices,
            default_model=default.model if default is not None else None,
            served=served_of(adapters),
            tags={name: adapter.tags for name, adapter in adapters.items()},
            untrusted=untrusted,
            approved=self.approved,
            more=found,
            thorough=thorough,
        )
        return flow, examined

    @collector_paused()
    def _made(
        self, program: Program, untrusted: tuple[str, ...], programs: Mapping[str, Program] | None
    ) -> Prepared:
        flow, examined = self.examine(program, untrusted, thorough=False, programs=programs)
        found = examined.report.faults
        errors = tuple(d for d in found if d.severity == "error")
        prepared = Prepared(
            program, found, errors, flow, digest=flow.digest or program, examined=examined
        )
        prepared.untrusted = untrusted
        if not errors:
            prepared.plan = plan_of(flow, examined.contracts, examined.checks)
        if prepared.plan is not None:
            adapters, _ = self._pools().of(flow)
            prepared.host = Host(
                functions=prepared.plan.bound(self._functions(prepared, programs)),
                how=[self.contracts[calling.tool].how for calling in prepared.plan.calls],
                adapters=adapters,
                threads=self.threads,
                clock=self.clock,
                shortest=prepared.plan.shortest_ns(),
                keeps=prepared.plan.keeps,
            )
            budgets = [
                program.budget,
                self.budget,
                *(policy.budget for policy in examined.policies),
            ]
            default = adapters.get(None)
            prepared.terms = RunTerms(
                self.limits,
                tightest([b for b in budgets if b is not None]),
                self.prices,
                default.model if default is not None else None,
                counting(adapters) if any(a.count for a in adapters.values()) else None,
                served_of(adapters),
                self.price_sources,
            )
        return prepared

    def _functions(
        self, prepared: Prepared, programs: Mapping[str, Program] | None
    ) -> dict[str, Callable[..., Any]]:
        """What the program of *prepared* calls, by the names of tools."""
        assert prepared.plan is not None
        functions = {}
        for name in {calling.tool for calling in prepared.plan.calls}:
            function = self.functions[name]
            bind = getattr(function, BIND, None)
            if bind is not None:
                function = bind(partial(self._recheck, prepared, programs, name))
            functions[name] = function
        return functions

    async def _recheck(
        self,
        prepared: Prepared,
        programs: Mapping[str, Program] | None,
        name: str,
        function: Callable[..., Any],
    ) -> None:
        """Check the program of *prepared* again, whose tool *name* has become *function*.

        Raises:
            ToolError: If it is refused, or what is known of calls under way would be wrong.
        """
        changed = f"the contract of tool {name!r} has changed since the run was checked"
        try:
            found = contract(name, function)
        except VMError as error:
            raise ToolError(f"{changed}: {error}", retryable=False) from None
        before = self.contracts[name]
        if found.effect != before.effect:
            raise ToolError(
                f"{changed}: its effect was {before.effect!r} and is {found.effect!r}; begin a "
                f"new run, on a VM that is given the tool anew",
                retryable=False,
            )
        other = self.beside()
        other.contracts[name] = found
        examining = partial(other.examine, prepared.program, prepared.untrusted, False, programs)
        _, examined = await asyncio.wrap_future(self.threads.submit(examining))
        errors = [fault for fault in examined.report.faults if fault.severity == "error"]
        if errors:
            raise ToolError(
                f"{changed}, and the program is refused: {summary(errors)}", retryable=False
            )

    def _pools(self) -> Pools:
        if self._made_pools is None:
            self._made_pools = Pools(self.adapters, self.prices, self.clock)
        return self._made_pools

    def unpriced(
        self, prepared: Prepared, budget: str = "the budget", at: Loc = ("budget", "max_cost_usd")
    ) -> list[Diagnostic]:
        """What may answer in a run and has no price, for a *budget* that limits cost."""
        found = []
        plan, host = prepared.plan, prepared.host
        assert plan is not None
        assert host is not None
        adapters = host.adapters
        prices, served = self.prices or {}, served_of(adapters) or {}
        for model in plan.models:
            adapter = adapters.get(model) or adapters[None]
            name = model or adapter.model
            pool = served.get(model, served.get(None))
            if pool is not None and pool.members:
                if not pool.unpriced(prices):
                    continue
                who = unpriced(name, pool, prices)
                hint = "give ExecutionVM(prices={member: (input, output)})"
            elif name is None:
                who, hint = (
                    f"model {name!r}",
                    "give the adapter an attribute 'model', and its price",
                )
            elif name in prices:
                continue
            else:
                who = f"model {name!r}"
                hint = "give ExecutionVM(prices={model: (input, output)})"
            message = f"{budget} limits cost, and no price is known for {who}"
            found.append(Diagnostic("V033", at, message, hint))
        return found

    def unpriced_shared(self, prepared: Prepared, project: str) -> list[Diagnostic]:
        """The same for the budgets that runs share."""
        name = costly(covering(self.budgets, prepared.program.name, project))
        if name is None:
            return []
        return self.unpriced(prepared, f"budget {name!r}", ("budgets", name, "max_cost_usd"))

    def fitting(self, stored: StoredRun) -> Prepared:
        """The plan of a stored run, where this host can resume it."""
        prepared = self.of_stored(stored)
        self.fits(prepared, stored)
        return prepared

    def fits(self, prepared: Prepared, stored: StoredRun) -> None:
        """Whether this host can resume a stored run by this plan.

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
        if self.policy is None:
            raise VMError(f"{run}, and this VM has none; give it one")
        if begun != self.policy.digest and begun not in self.policy.replaces:
            hint = (
                f"resume it under that one, or write replaces: [{begun}] into this one, if it "
                f"may take its place"
            )
            raise VMError(f"{run} that is not this VM's; {hint}")

    def of_stored(self, stored: StoredRun) -> Prepared:
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
        return self.prepare(known[0], tuple(stored.about.get("untrusted_here", ())), known[1])


def counting(
    adapters: Mapping[str | None, Adapter],
) -> Callable[[str | None, list[dict[str, Any]]], int]:
    """The most tokens that messages can have for the adapter of a model."""
    return lambda model, messages: (adapters.get(model) or adapters[None]).tokens(messages)


def digest_of(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()
