"""Plans of the runs of one worker process: made once for each program and its facts.

A workflow task may not take longer than two seconds, and a program of 10,000 steps takes about that.
So plans are made in a thread of their own, and a task that waits too long for its plan ends with
`PlanNotReady`: the server gives it again, and then the plan is there.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

from ..collector import collector_paused
from ..errors import VMError
from ..language.flow import Flow
from ..language.program import ModelPool, Program
from ..machine.compile import plan_of
from ..machine.plan import Op, Plan, ToolOp
from ..tools.contract import ToolContract
from ..values import canonical

WAIT_SECONDS = 1.5
"""How long a workflow task waits for a plan: the SDK takes one of two seconds for a deadlock."""

KEPT = 256
"""Plans that are kept; the one that was used least recently goes first."""


class PlanNotReady(Exception):
    """The plan is still being made; the same task finds it a little later."""


PLAN_NOT_READY = PlanNotReady.__name__
"""The type of the failure of such a task."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A program as a workflow runs it."""

    flow: Flow
    plan: Plan
    # by the id of an op that calls: the index of its step's, which it may be an undo or reconcile of
    places: dict[int, int]

    pools: frozenset[str]  # names of models that are pools of the programs' own

    @property
    def digest(self) -> str:
        """That of the program together with those that it calls."""
        return self.flow.digest or self.flow.program.digest


def facts_of(contract: ToolContract) -> dict[str, Any]:
    """What a workflow has to know of a tool, as JSON."""
    facts: dict[str, Any] = {"effect": contract.effect}
    if contract.takes_key:
        facts["key"] = True
    if contract.timeout_seconds is not None:
        facts["timeout_seconds"] = contract.timeout_seconds
    if contract.how == "inline":
        facts["inline"] = True
    return facts


def contract_of(name: str, facts: Mapping[str, Any]) -> ToolContract:
    """A tool that takes any arguments: they are checked and converted where it is called."""
    return ToolContract(
        name,
        {},
        open=True,
        effect=facts["effect"],
        takes_key=facts.get("key") is True,
        how="inline" if facts.get("inline") else "async",
        timeout_seconds=facts.get("timeout_seconds"),
    )


class Plans:
    """Plans by what they are made of."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Future[Planned]] = OrderedDict()
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(1, "nano-vm-plans")

    def of(
        self,
        program: Mapping[str, Any],
        programs: Mapping[str, Any],
        contracts: Mapping[str, Mapping[str, Any]],
        seconds: float = WAIT_SECONDS,
    ) -> Planned:
        """The plan of *program*, whose tools have the facts *contracts*.

        Raises:
            PlanNotReady: If it is not made within *seconds*.
            VMError: If the program cannot be read.
        """
        key = hashlib.sha256(canonical([program, programs, contracts])).hexdigest()
        with self._lock:
            future = self._made.get(key)
            if future is None:
                future = self._threads.submit(_made, program, programs, contracts)
                self._made[key] = future
                if len(self._made) > KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
        try:
            return future.result(seconds)
        except TimeoutError:
            raise PlanNotReady(f"the plan is not made within {seconds:g} s") from None
        except VMError:
            with self._lock:
                self._made.pop(key, None)
            raise


@collector_paused()
def _made(
    program: Mapping[str, Any],
    programs: Mapping[str, Any],
    contracts: Mapping[str, Mapping[str, Any]],
) -> Planned:
    flow = Flow(
        Program.from_dict(dict(program)),
        {name: Program.from_dict(dict(other)) for name, other in programs.items()},
    )
    known = {name: contract_of(name, facts) for name, facts in contracts.items()}
    plan = plan_of(flow, known)
    places = {id(call): op.index for op in plan.ops for call in (op, *calls_of(op))}
    return Planned(flow, plan, places, frozenset(_pools(flow)))


def _pools(flow: Flow) -> Iterator[str]:
    for frame in flow.roots:
        for name, model in frame.names.program.models.items():
            if isinstance(model, ModelPool):
                yield name


def calls_of(op: Op) -> list[ToolOp]:
    """The calls of tools that a step makes by *op*, its own first."""
    if not isinstance(op, ToolOp):
        return []
    return [op, *(call for call in (op.undo, op.reconcile) if call is not None)]


PLANS = Plans()
"""Those of this process."""
