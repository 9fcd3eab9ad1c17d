"""A program as one host runs it: its diagnostics, its plan and where its calls go, made once."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from ..errors import Diagnostic
from ..language.flow import Flow
from ..language.policy import Budget, tightest
from ..language.program import Program
from ..machine.ledger import DEFAULT_LIMITS, Ledger, Limits
from ..machine.plan import Plan
from ..values import canonical
from ..verify.examine import Examined, untrusted_by
from .host import Host, budget_of

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
    default_model: str | None = None
    budget: Budget | None = None
    # what a run of it may use, to be copied
    ledger: Ledger = field(default_factory=lambda: Ledger(0))
    examined: Examined | None = None
    # of program and called programs, or the program, which is asked for it when somebody looks
    digest: Any = None
    limits: Limits = DEFAULT_LIMITS
    prices: dict[str, tuple[Decimal, Decimal]] | None = None
    untrusted: tuple[str, ...] = ()
    _known: dict[str, Any] | None = None
    _document: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """The program and those that it calls, as they are stored; nobody changes it."""
        if self._document is None:
            called = {name: program.to_dict() for name, program in self.flow.called.items()}
            self._document = {"program": self.program.to_dict(), "programs": called}
        return self._document

    def about(self, budget: Any = None) -> dict[str, Any]:
        """As `Trace.about`; *budget* is the run's own."""
        if self._known is None:
            self._known = self._told()
        if budget is None:
            return self._known
        bound = tightest([b for b in (self.budget, budget_of(budget)) if b is not None])
        return {
            **self._known,
            "budget": bound.model_dump(exclude_none=True) if bound is not None else {},
        }

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self.plan is None or self.examined is None:
            return told
        contracts = {name: self.examined.contracts[name] for name in sorted(self.plan.tools)}
        if contracts:
            told["tools"] = {
                name: {"effect": c.effect, **({"key": True} if c.takes_key else {})}
                for name, c in contracts.items()
            }
            told["contracts"] = digest_of({name: c.to_dict() for name, c in contracts.items()})
        if self.budget is not None:
            told["budget"] = self.budget.model_dump(exclude_none=True)
        if self.limits != DEFAULT_LIMITS:
            told["limits"] = asdict(self.limits)
        if self.default_model is not None:
            told["default_model"] = self.default_model
        if self.prices:
            told["prices"] = {
                name: [str(a), str(b)] for name, (a, b) in sorted(self.prices.items())
            }
        if any(policy.source for policy in self.examined.policies):
            told["policy"] = digest_of([policy.to_dict() for policy in self.examined.policies])
            told["proofs"] = self.examined.report.proofs_digest
        if self.examined.policies[0].source:
            told["host_policy"] = self.examined.policies[0].digest
        untrusted = sorted(
            {
                *self.untrusted,
                *(n for p in self.examined.policies for n in untrusted_by(p, self.flow)),
            }
        )
        if untrusted:
            told["untrusted"] = untrusted
        if self.untrusted:
            told["untrusted_here"] = list(self.untrusted)  # those that the run itself named
        return told


def digest_of(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()
