"""Who can drive runs: the workers that have said what they can do, and are alive; a host that checks
programs as each of them would.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ..diagnostics import Diagnostic
from ..errors import ProgramError, VMError
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


class Hosts:
    """The hosts of a store; *own* is the server's, if it was started with tools or models."""

    def __init__(self, store: TableStore, own: ExecutionVM | None) -> None:
        self.store = store
        self.own = own
        self._made: OrderedDict[str, ExecutionVM] = OrderedDict()
        # hosts by themselves and a program that they can drive; each is kept, so its id is its own
        self._fit: dict[tuple[int, str], ExecutionVM] = {}
        self._lock = threading.Lock()

    def workers(self) -> list[Worker]:
        """All that have announced themselves and did not leave."""
        alive = living(self.store)
        found = []
        for said in self.store.announced():
            document: Any = {}
            fault = None
            try:
                document = parse_json(said.document)
                self._host(said.document)
            except (ValueError, VMError) as error:
                fault = str(error)
            shown = document if isinstance(document, dict) else {}
            found.append(Worker(said, said.owner in alive, shown, fault))
        return found

    def able(self) -> list[tuple[str, ExecutionVM]]:
        """The hosts that runs can be driven by now, each once, with a name of one that is so."""
        found: dict[str, tuple[str, ExecutionVM]] = {}
        if self.own is not None:
            found[""] = "server", self.own
        for worker in self.workers():
            if worker.alive and worker.fault is None:
                text = worker.said.document
                found.setdefault(_key(text), (worker.said.name, self._host(text)))
        return list(found.values())

    def for_program(self, program: Program) -> ExecutionVM:
        """A host that can drive runs of *program*.

        Raises:
            ProgramError: If none can: what is wrong with it for the one that it is the least for.
            Problem: If there is no host.
        """
        refusals: list[tuple[int, list[Diagnostic]]] = []
        for _, vm in self.able():
            known = id(vm), program.digest
            if known in self._fit:
                return vm
            errors = [found for found in vm.check(program) if found.severity == "error"]
            if not errors:
                self._fit[known] = vm
                if len(self._fit) > MOST_VERDICTS:
                    self._fit.pop(next(iter(self._fit)), None)
                return vm
            refusals.append((len(errors), errors))
        if not refusals:
            raise Problem(
                409,
                "no-host",
                "no worker has said which tools and models it has, so no program can be checked; "
                "start nano-vm work on this store",
            )
        raise ProgramError(min(refusals, key=lambda refusal: refusal[0])[1])

    def _host(self, document: str) -> ExecutionVM:
        key = _key(document)
        with self._lock:
            vm = self._made.get(key)
            if vm is None:
                vm = self._made[key] = host_of(parse_json(document))
                if len(self._made) > MOST_HOSTS:
                    self._made.popitem(last=False)
            return vm


def _key(document: str) -> str:
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()
