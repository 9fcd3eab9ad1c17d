"""Drives a `Machine` with outcomes that are given instead of made: no call, no await, no clock.

What asks "what would happen if" stands on it: the search for counterexamples, the all-paths test,
replay. The outcomes come from a *feed*, which is given the machine and its request and hands the
machine an outcome (``send``, ``answer``, ``fail``, ``expire``, ``cancel``). Children of a fork run
one by one, in the order that is asked for: what comes out does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .machine import Machine
from .outcome import Joined, Suspended
from .plan import DOUBT, END, FORK, Op

Feed = Callable[[Machine, Op], Op]
Order = Callable[[Machine, Op], Iterable[int]]


def simulate(machine: Machine, feed: Feed, order: Order | None = None) -> None:
    """Drive *machine*, and the children of its forks, to the end; times stand still unless the feed
    moves ``machine.now``.
    """
    op = machine.start(machine.now)
    while op.code != END:
        if op.code == FORK:
            numbers = range(machine.fork.size) if order is None else order(machine, op)
            for number in in_lanes(machine, numbers):
                if not machine.fork.ready(number):
                    continue
                child = machine.child(number)
                child.now = machine.now
                simulate(child, feed, order)
                machine.now = max(machine.now, child.now)
            op = machine.resume(Joined(), machine.now)
        elif op.code == DOUBT:  # nobody is there to say
            op = machine.resume(Suspended(), machine.now)
        else:
            op = feed(machine, op)


def in_lanes(machine: Machine, numbers: Iterable[int]) -> Iterator[int]:
    """The children of the requested fork in the order of *numbers*, but for that those of one lane
    come one after the other.
    """
    lanes = [
        iter(range(lane, machine.fork.size, machine.fork.lanes))
        for lane in range(machine.fork.lanes)
    ]
    return (next(lanes[number % machine.fork.lanes]) for number in numbers)
