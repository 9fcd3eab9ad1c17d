"""What clients, workflow and activities say to each other, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from .tape import Tape
from .words import Words

WORKFLOW = "NanoProgram"
ADMIT, CALL_TOOL, CALL_MODEL, KEEP = "nano.admit", "nano.tool", "nano.model", "nano.keep"
"""The names of the workflow and of the activities, as they stand in histories."""

STANDING, TRACE = "standing", "trace"
DECIDE, EVENT, RESOLVE, SETTLED = "decide", "event", "resolve", "settled"
"""The names of queries and updates."""

FAULT = "NanoVMFault"
"""The type of the failure of a fault of this package, which another attempt would not mend."""

NOT_MADE = "NotMade"
"""The type of the failure of a call that its worker surely has not made, and will not."""

ENDED, WAITS = "ended", "waits"
"""The answers to `SETTLED`."""

ADMIT_SECONDS = 600.0
"""How long a worker may take to prove a program, or to make its plan."""

QUEUE_SECONDS = 600.0
"""How long a call that goes to a task queue of its own waits there for a worker: longer than the
workers of that queue take to be replaced by newer ones.
"""

HEARTBEAT_SECONDS = 3.0
"""After so long without a sign of life a worker's calls are lost."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message whose JSON form has the fields that are not as they are when left out."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        told = {}
        for one in fields(self):
            value = getattr(self, one.name)
            usual = one.default_factory() if callable(one.default_factory) else one.default
            if type(value) is not type(usual) or value != usual:
                told[one.name] = value
        return told

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; what a later version says beside it is left out."""
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in known})


@dataclass(frozen=True, slots=True)
class Admission(Message):
    """What a worker says of a program and its inputs: the facts that bind the run, or why it is
    refused.

    ``contracts`` are facts of tools by name, ``checked`` the indexes of the ops before whose calls
    the worker's policy checks a value, ``given`` the inputs that those checks read.
    """

    digest: str
    inputs: list[str]  # those that the program reads
    about: dict[str, Any]
    programs: dict[str, Any] = field(default_factory=dict)
    contracts: dict[str, dict[str, Any]] = field(default_factory=dict)
    checked: list[int] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    queues: dict[str, str] = field(default_factory=dict)  # by the names of tools and models
    queue_seconds: float = QUEUE_SECONDS
    keeps: bool = False  # whether the worker has a store, for runs that have ended
    payload_bytes: int = 0  # the most that a payload may have; 0 where large ones are stored
    refused: dict[str, Any] | None = None  # the JSON form of the refused run's trace


INTERPRETER = 2
"""The version of the workflow: raise it with each change after which an older worker could not go on
with a run that a newer one began.
"""

TELLS_WAITS = ADMITS_HERE = 2
"""The versions since which the lists of a cluster say of a run that it waits, and a program is
admitted by the worker that drives its run.
"""


@dataclass(frozen=True, slots=True)
class Start(Message):
    """What a run is begun with; ``admission`` and what follows are there where it continues."""

    program: dict[str, Any]
    inputs: dict[str, Any]
    programs: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    budget: dict[str, Any] | None = None
    untrusted: list[str] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    admission: dict[str, Any] | None = None
    began_ns: int = 0
    salt: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)  # that no step has taken yet
    decided: dict[str, Any] = field(
        default_factory=dict
    )  # words that no step has taken yet, by path
    used: list[Any] = field(default_factory=list)  # names and ids of events that were recorded
    cancelled: bool = False
    interpreter: int = 1  # the version of the workflow that began the run
    indexed: bool = False  # whether the run has search attributes, of which one is its status
    segments: int = 0  # how many of what follows are segments of the tape; the rest are its values

    def tape(self, parts: Sequence[Any]) -> Tape:
        """The tape that was sent along."""
        return Tape(parts[: self.segments], parts[self.segments :])

    def with_tape(self, tape: Tape) -> list[Any]:
        """What is sent to go on with *tape*: this, its segments and its large values, each by
        itself.
        """
        segments, values = tape.parts()
        return [replace(self, segments=len(segments)).to_dict(), *segments, *values]

    def continued(self, admission: dict[str, Any], began_ns: int, salt: str) -> Start:
        """The same for the executions that follow, which need no other admission."""
        return replace(self, admission=admission, began_ns=began_ns, salt=salt)

    def left(self, words: Words, *, cancelled: bool) -> Start:
        """The same with what was said and not used."""
        return replace(
            self,
            events=words.events,
            decided=words.decided,
            used=sorted(map(list, words.known)),
            cancelled=cancelled,
        )


@dataclass(frozen=True, slots=True)
class ToolCall(Message):
    """A call of a tool: ``arguments`` as the program gives them, ``written`` as it writes those of
    them that an error may speak of.
    """

    tool: str
    arguments: dict[str, Any]  # null where it is large, and sent by itself
    effect: str
    path: str
    seconds: float = 0.0  # how long it may take; 0 for ever
    key: str = ""  # the call's effect key, where it is not that of the path
    takes_key: bool = False
    side: str | None = None  # "undo", "reconcile"
    written: dict[str, Any] = field(default_factory=dict)
    # of a call before which a policy checks a value: program, op, and the inputs that checks read
    program: str = ""
    op: int = -1
    given: dict[str, Any] = field(default_factory=dict)
    document: dict[str, Any] | None = None  # the program, for a worker that does not know it
    large: list[str] = field(default_factory=list)  # arguments that are sent by themselves
    untrusted: list[str] = field(default_factory=list)  # inputs that the run calls so


@dataclass(frozen=True, slots=True)
class ModelCall(Message):
    """A call of a model: what the step asks of it, and the messages."""

    messages: list[dict[str, Any]]
    step_id: str
    path: str
    seconds: float = 0.0
    model: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    allowed: list[str] | None = None
    schema: dict[str, Any] | None = None
    bounded: bool = False  # whether a budget counts its tokens
    program_name: str = ""  # by which budgets that runs share know the run, and its project
    project: str = ""
    # of a model that is a pool of the program's own
    program: str = ""
    document: dict[str, Any] | None = None  # the program, for a worker that does not know it
    untrusted: list[str] = field(default_factory=list)  # inputs that the run calls so


UNKNOWN_PROGRAM = "unknown program"
"""What the worker of a checked call answers that does not know the program: nothing was called."""
