"""Who can drive runs: the workers that have said what they can do, and are alive; a host that checks
programs as each of them would.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..diagnostics import Diagnostic
from ..errors import ProgramError, VMError
from ..language.policy import Policy
from ..language.program import Program
from ..run.durable.lease import living
from ..run.elsewhere import host_of
from ..run.vm import ExecutionVM
from ..store.protocol import Announced, TableStore
from ..values import parse_json
from .problems import Problem

MOST_HOSTS = 32
"""Kinds of hosts whose checks are kept; workers that were started alike are one kind."""


MOST_VERDICTS = 1024
"""Programs that were found to be fit for a host, and are not checked anew at each start."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it was announced; ``fault`` says why its announcement cannot be read."""

    said: Announced
    alive: bool
    document: dict[str, Any]
    fault: str | None


class Able(NamedTuple):
    """A host that can drive runs now, with the name of a worker that is of its kind."""

    name: str
    vm: ExecutionVM


class Verdict(NamedTuple):
    """Which host can drive runs of a program; if none, what each objects to, by its name."""

    vm: ExecutionVM | None
    refusals: list[tuple[str, list[Diagnostic]]]


class Hosts:
    """The hosts of a store; *own* is the server's, if it was started with tools or models."""

    def __init__(self, store: TableStore, own: ExecutionVM | None) -> None:
        self.store = store
        self.own = own
        self._made: OrderedDict[str, ExecutionVM] = OrderedDict()
        # hosts by themselves and a program that they can drive; each is kept, so its id is its own
        self._fit: OrderedDict[tuple[int, str], ExecutionVM] = OrderedDict()
        # programs that keep to a policy, by its digest, on a host
        self._kept: OrderedDict[tuple[int, str, str], ExecutionVM] = OrderedDict()
        self._lock = threading.Lock()

    def workers(self) -> list[Worker]:
        """All that have announced themselves, and neither left nor were forgotten."""
        return [self._worker(said, alive) for said, alive in announced(self.store)]

    def able(self) -> list[Able]:
        """The hosts that runs can be driven by now, each kind once."""
        return self.able_of(
            self._worker(said, True) for said, alive in announced(self.store) if alive
        )

    def able_of(self, workers: Iterable[Worker]) -> list[Able]:
        """As `able`, where the workers are known already."""
        found: dict[str, Able] = {}
        if self.own is not None:
            found[""] = Able("server", self.own)
        for worker in workers:
            if worker.alive and worker.fault is None:
                text = worker.said.document
                found.setdefault(_key(text), Able(worker.said.name, self._host(text)))
        return list(found.values())

    def judge(self, program: Program, able: Iterable[Able]) -> Verdict:
        """The first of *able* that can drive runs of *program*, or what each objects to."""
        refusals = []
        for host in able:
            known = id(host.vm), program.digest
            with self._lock:
                fit = known in self._fit
            if fit:
                return Verdict(host.vm, [])
            errors = [found for found in host.vm.check(program) if found.severity == "error"]
            if not errors:
                with self._lock:
                    self._fit[known] = host.vm
                    if len(self._fit) > MOST_VERDICTS:
                        self._fit.popitem(last=False)
                return Verdict(host.vm, [])
            refusals.append((host.name, errors))
        return Verdict(None, refusals)

    def for_program(self, program: Program, policy: Policy | None) -> ExecutionVM:
        """A host that can drive runs of *program*, which keeps to *policy*, its project's.

        Raises:
            ProgramError: If none can: what is wrong with it for the one that it is the least for;
                or that it is not proved to keep to *policy*.
            Problem: If there is no host.
        """
        verdict = self.judge(program, self.able())
        if verdict.vm is not None:
            if policy is not None:
                self._demand(program, policy, verdict.vm)
            return verdict.vm
        if not verdict.refusals:
            raise Problem(
                409,
                "no-host",
                "no worker has said which tools and models it has, so no program can be checked; "
                "start nano-vm work on this store",
            )
        _, errors = min(verdict.refusals, key=lambda refusal: len(refusal[1]))
        raise ProgramError(errors)

    def _demand(self, program: Program, policy: Policy, vm: ExecutionVM) -> None:
        known = id(vm), program.digest, policy.digest
        with self._lock:
            kept = known in self._kept
        if kept:
            return
        errors = [d for d in under(vm, policy).check(program) if d.severity == "error"]
        if errors:
            raise ProgramError(errors)
        with self._lock:
            self._kept[known] = vm
            if len(self._kept) > MOST_VERDICTS:
                self._kept.popitem(last=False)

    def _worker(self, said: Announced, alive: bool) -> Worker:
        document: Any = {}
        fault = None
        try:
            document = parse_json(said.document)
            self._host(said.document)
        except (ValueError, VMError) as error:
            fault = str(error)
        return Worker(said, alive, document if isinstance(document, dict) else {}, fault)

    def _host(self, document: str) -> ExecutionVM:
        key = _key(document)
        with self._lock:
            vm = self._made.get(key)
            if vm is None:
                vm = self._made[key] = host_of(parse_json(document))
                if len(self._made) > MOST_HOSTS:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return vm


def announced(store: TableStore) -> list[tuple[Announced, bool]]:
    """All announcements in *store*, each with whether who made it is alive."""
    found = store.announced()
    alive = living(store)  # asked second: who has announced itself was alive before
    return [(said, said.owner in alive) for said in found]


def under(vm: ExecutionVM, policy: Policy) -> ExecutionVM:
    """The same host under *policy*, to check programs by."""
    other = vm.with_()
    other.preparer.policy = policy
    other.preparer.forget()
    return other


def _key(document: str) -> str:
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()
