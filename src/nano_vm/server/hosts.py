"""Who can drive runs: the workers that have said what they can do, and are alive; a host that checks
programs as each of them would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from weakref import ref

from ..diagnostics import Diagnostic
from ..errors import ProgramError, VMError
from ..language.flow import Flow
from ..language.policy import Policy
from ..language.program import Program
from ..newest import Newest
from ..run.durable.lease import living
from ..run.elsewhere import host_of
from ..run.vm import ExecutionVM
from ..store.protocol import Announced, TableStore
from ..values import parse_json
from .problems import Problem

MOST_HOSTS = 32
"""Kinds of hosts whose checks are kept; workers that were started alike are one kind."""


MOST_DIGESTS = 1024
"""Programs of which it is known what digest they have with those that they call on a host."""

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
        self._made: Newest[str, ExecutionVM] = Newest(MOST_HOSTS)
        # of hosts, none of which is kept by this: a reference to one that is gone equals no other
        self._digests: Newest[tuple[ref[ExecutionVM], str], str] = Newest(MOST_DIGESTS)
        # a program without errors on a host, and the policy that it was checked under, if any
        self._fit: Newest[tuple[ref[ExecutionVM], str, str | None], bool] = Newest(MOST_VERDICTS)

    def workers(self) -> list[Worker]:
        """All that have announced themselves, and neither left nor were forgotten."""
        return [self._worker(said, alive) for said, alive in announced(self.store)]

    def able(self) -> Iterator[Able]:
        """The hosts that runs can be driven by now, each kind once. Workers are asked for only by
        whom the server's own does not suffice.
        """
        return self.able_of(self._alive())

    def _alive(self) -> Iterator[Announced]:
        yield from (said for said, alive in announced(self.store) if alive)

    def able_of(self, announcements: Iterable[Announced]) -> Iterator[Able]:
        """As `able`, by what the workers that are alive have said; without those of a fault."""
        if self.own is not None:
            yield Able("server", self.own)
        found: set[str] = set()
        for said in announcements:
            key = _key(said.document)
            if key not in found:
                found.add(key)
                with suppress(ValueError, VMError):  # `workers` says which
                    yield Able(said.name, self._host(key, said.document))

    def judge(self, program: Program, able: Iterable[Able]) -> Verdict:
        """The first of *able* that can drive runs of *program*, or what each objects to."""
        refusals = []
        for host in able:
            errors = self._errors(host.vm, program)
            if not errors:
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
            errors = [] if policy is None else self._errors(verdict.vm, program, policy)
            if errors:
                raise ProgramError(errors)
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

    def digests(self, program: Program) -> list[str]:
        """The digests that *program* has together with those that it calls by name, by each host
        that runs can be driven by now; none where it calls none.
        """
        found = [
            self._digests.of((ref(host.vm), program.digest), partial(_digest, program, host.vm))
            for host in self.able()
        ]
        return [digest for digest in found if digest]

    def _errors(
        self, vm: ExecutionVM, program: Program, policy: Policy | None = None
    ) -> list[Diagnostic]:
        """Those of *program* on *vm*, under *policy* if one is given; known where there were none."""
        known = ref(vm), program.digest, None if policy is None else policy.digest
        if self._fit.get(known):
            return []
        host = vm if policy is None else under(vm, policy)
        errors = [found for found in host.check(program) if found.severity == "error"]
        if not errors:
            self._fit.of(known, lambda: True)
        return errors

    def _worker(self, said: Announced, alive: bool) -> Worker:
        document: Any = {}
        fault = None
        try:
            document = parse_json(said.document)
            self._host(_key(said.document), said.document)
        except (ValueError, VMError) as error:
            fault = str(error)
        return Worker(said, alive, document if isinstance(document, dict) else {}, fault)

    def _host(self, key: str, document: str) -> ExecutionVM:
        """The host of an announcement, by its hash; the text is parsed where it is a new one."""
        return self._made.of(key, lambda: host_of(parse_json(document)))


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


def _digest(program: Program, vm: ExecutionVM) -> str:
    """That of *program* with those that it calls by name on a host; empty where it calls none."""
    return Flow(program, vm.preparer.programs).digest or ""


def _key(document: str) -> str:
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()
