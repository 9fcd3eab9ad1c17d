"""The programs of simulated worlds: those of the kill campaigns, with deadlines that are sooner over,
so that a call that never answers keeps a world for seconds and not for minutes.
"""

from __future__ import annotations

from typing import Any

from soak.programs import CALLER, EFFECTS, FAILS, FAN, FRUGAL, ORDER, SUB, beside, call

from nano_vm import Program

DEADLINE_SECONDS = 4

EFFECTS = {**EFFECTS, "wire": "write"}
"""Of the tools, by name."""

_INPUTS = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def program(document: dict[str, Any]) -> Program:
    """A program whose calls end soon."""
    return Program.from_dict(
        {"inputs": _INPUTS, "defaults": {"timeout_seconds": DEADLINE_SECONDS}, **document}
    )


PARCEL = {
    "name": "parcel",
    "steps": [
        call("look", "look"),
        {"id": "paid", "type": "wait", "event": "paid", "match": {"order": "$name"}},
        call("charge", "charge", reconcile=beside("find", "charge")),
        {"id": "pause", "type": "wait", "seconds": 0.5},
        call("put", "put"),
        call("mail", "mail"),
    ],
}
"""Which takes an event that is addressed to no run."""

HURRY = {
    "name": "hurry",
    "steps": [
        call(
            "charge",
            "charge",
            undo=beside("refund", "charge/undo"),
            reconcile=beside("find", "charge"),
        ),
        {
            "id": "ask",
            "type": "approval",
            "role": "boss",
            "show": {"order": "$name"},
            "timeout_seconds": 2,
            "then": [call("book", "book", "ask/book", reconcile=beside("find", "ask/book"))],
            "otherwise": [call("drop", "put", "ask/drop")],
        },
        {
            "id": "more",
            "type": "wait",
            "event": "more-$name",
            "timeout_seconds": 3,
            "on_error": "skip",
        },
        call("last", "broken", max_retries=2, retry={"delay_seconds": 0.2}),
    ],
}
"""Whose decisions have deadlines, and which fails at its end."""

RETRIED = {
    "name": "retried",
    "steps": [
        call("note", "note", max_retries=3, retry={"delay_seconds": 0.8}),
        call("look", "look"),
        {
            "id": "both",
            "type": "parallel",
            "parallel_steps": [
                call("left", "note", "both/left", max_retries=3, retry={"delay_seconds": 0.5}),
                call("right", "mail", "both/right"),
            ],
        },
        {
            "id": "boss",
            "type": "approval",
            "role": "boss",
            "show": {"order": "$name"},
            "then": [call("pay", "charge", "boss/pay", reconcile=beside("find", "boss/pay"))],
            "otherwise": [call("drop", "put", "boss/drop")],
        },
        {"id": "start", "type": "set", "values": {"i": 0}},
        {
            "id": "twice",
            "type": "loop",
            "max_iterations": 2,
            "until": "$i == 2",
            "steps": [
                {"id": "count", "type": "set", "values": {"i": {"expr": "$i + 1"}}},
                {"id": "tick", "type": "wait", "event": "tick-$name"},
            ],
        },
        call(
            "last",
            "charge",
            undo=beside("refund", "last/undo"),
            reconcile=beside("find", "last"),
        ),
    ],
}
"""Whose calls wait before they are made again, which takes two events of the same name, and whose
last step can be undone.
"""

WIRED = {
    "name": "wired",
    "steps": [
        {
            "id": "both",
            "type": "parallel",
            "parallel_steps": [
                call(
                    "wire",
                    "wire",
                    "both/wire",
                    timeout_seconds=0.2,
                    reconcile=beside("find", "both/wire"),
                ),
                [
                    {"id": f"pause{n}", "type": "wait", "seconds": seconds}
                    for n, seconds in enumerate((0.1, 0.3, 0.6))
                ],
            ],
        },
        call("mail", "mail"),
    ],
}
"""Which gives a call up that a thread makes on, and is resumed meanwhile."""

EARLY = {
    "name": "early",
    "steps": [
        call("look", "look"),
        call("put", "put"),
        {
            "id": "both",
            "type": "parallel",
            "parallel_steps": [
                {
                    "id": "word",
                    "type": "wait",
                    "event": "word-$name",
                    "timeout_seconds": 3,
                    "on_error": "skip",
                },
                [{"id": f"pause{n}", "type": "wait", "seconds": 0.3} for n in range(9)],
            ],
        },
        call("mail", "mail"),
    ],
}
"""Which takes an event that comes before it is asked for, and is resumed again and again until it
comes or its time is over.
"""

SURVEY = {
    "name": "survey",
    "steps": [
        call("put", "put"),
        {
            "id": "each",
            "type": "map",
            "over": list(range(12)),
            "as": "n",
            "max_concurrency": 1,
            "steps": [call("read", "look", "each[${n}]/read")],
        },
        call("mail", "mail"),
    ],
}
"""Which reads for long, and needs no store for that."""

CALLED = {"sub": program(SUB)}
CALLED_NEXT = {"sub": program({**SUB, "steps": [call("peek", "look", "sub/peek"), *SUB["steps"]]})}
"""What is called by name: as it was when the world began, and in the next version."""

PROGRAMS = [
    program(document) for document in (ORDER, FAN, FAILS, CALLER, FRUGAL, PARCEL, HURRY, RETRIED)
]

FOCUSED = [program(document) for document in (WIRED, EARLY, SURVEY)]
"""For what is rare in the others."""

DEADLINES = {("hurry", "ask"): 2, ("hurry", "more"): 3, ("early", "both/word"): 3}
"""By program and path: how many seconds after it began what is waited for is over."""

UNDONE = {
    "order": ("decide/charge",),
    "fails": ("charge", "both/left", "both/right"),
    "caller": ("sub/pay",),
    "hurry": ("charge",),
    "retried": ("last",),
}
"""By program: the steps that are undone where their run fails or is cancelled."""
