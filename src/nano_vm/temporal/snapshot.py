"""A run as it stands: computed anew from its tape, with nobody there to answer what it waits for."""

from __future__ import annotations

from ..machine.machine import Machine
from ..machine.outcome import Joined, Suspended
from ..machine.plan import DOUBT, END, FORK, PAUSE
from ..machine.simulate import in_lanes
from ..records.status import TraceStatus
from .computed import BEGAN
from .tape import Tape, fed


def snapshot(machine: Machine, tape: Tape) -> int:
    """Take *machine*, which has not started, to where *tape* ends, and give its time there. Where
    the run waits it is suspended, as in a store; where a call is under way it is left running.
    """
    entries = tape.of(machine.frame_name)
    if not entries:  # it has not begun
        return BEGAN
    now, at = entries[0][0], 1
    op, standing = machine.start(now), False
    while op.code != END or at < len(entries):
        if op.code == FORK:
            now, standing = _children(machine, tape, now)
        if at < len(entries):
            now = max(now, entries[at][0])
            op = fed(machine, op, entries[at])
            at += 1
        elif op.code in (PAUSE, DOUBT):
            op = machine.resume(Suspended(), now)
        elif op.code == FORK and standing:
            op = machine.resume(Joined(), now)
        else:
            break
    return now


def _children(machine: Machine, tape: Tape, now: int) -> tuple[int, bool]:
    """Take the children of the requested fork as far as they came; the time there, and whether none
    of them is under way.
    """
    standing = True
    for number in in_lanes(machine, range(machine.fork.size)):
        if not machine.fork.ready(number):  # behind one that waits
            continue
        child = machine.child(number)
        now = max(now, snapshot(child, tape))
        standing = standing and child.status is not TraceStatus.RUNNING
    return now, standing
