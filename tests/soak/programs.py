"""The programs that are run while their processes are killed, their tools and their model.

Every call has a key: the run's id and the path of the step, given as an argument. All outputs
follow from keys, so that a run can be compared with one that nobody disturbed.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

from nano_vm import Completion, LLMUsage, Program, tool

from .effects import World
from .points import Points

DURATION_SECONDS = 0.002  # of a call: long enough that kills fall into it


class Flaky(Exception):
    """A tool's own error at the first attempt: it says that nothing happened."""


class Broken(Exception):
    """A tool's own error, at each attempt."""


def key_of(run_id: str, path: str) -> str:
    """The key of the call at *path* of a run."""
    return f"{run_id}:{path}"


def drawn(key: str, sides: int) -> int:
    """A number below *sides* that follows from *key*."""
    return hashlib.sha256(key.encode()).digest()[0] % sides


def call(id: str, name: str, path: str | None = None, **fields: Any) -> dict[str, Any]:
    """A step that calls a tool with its key."""
    return {
        "id": id,
        "type": "tool",
        "tool": name,
        "args": {"key": f"${{name}}:{path or id}"},
        **fields,
    }


def beside(name: str, path: str) -> dict[str, Any]:
    """The tool of an undo or a reconcile."""
    return {"tool": name, "args": {"key": f"${{name}}:{path}"}}


def classify(id: str, path: str | None = None) -> dict[str, Any]:
    return {
        "id": id,
        "type": "llm",
        "prompt": f"key ${{name}}:{path or id}",
        "allowed_outputs": ["yes", "no"],
    }


NOW = {"delay_seconds": 0.001}

ORDER = {
    "name": "order",
    "steps": [
        call("look", "look"),
        classify("mood"),
        {
            "id": "decide",
            "type": "condition",
            "condition": "$mood.output == 'yes'",
            "then": [
                call(
                    "charge",
                    "charge",
                    "decide/charge",
                    reconcile=beside("find", "decide/charge"),
                    undo=beside("refund", "decide/charge/undo"),
                ),
                call("mail", "mail", "decide/mail"),
            ],
            "otherwise": [call("note", "note", "decide/note", max_retries=3, retry=NOW)],
        },
        {"id": "pause", "type": "wait", "seconds": 0.02},
        {
            "id": "boss",
            "type": "approval",
            "role": "boss",
            "show": {"order": "$name", "mood": "$mood.output"},
            "then": [
                call("book", "book", "boss/book", reconcile=beside("find_slowly", "boss/book"))
            ],
            "otherwise": [call("drop", "put", "boss/drop")],
        },
        call("put", "put"),
    ],
}

FAN = {
    "name": "fan",
    "steps": [
        {"id": "start", "type": "set", "values": {"i": 0, "items": [0, 1, 2]}},
        {
            "id": "each",
            "type": "map",
            "over": "$items",
            "as": "n",
            "max_concurrency": 2,
            "steps": [
                call("read", "look", "each[${n}]/read"),
                call("note", "note", "each[${n}]/note", max_retries=3, retry=NOW),
                call("pay", "charge", "each[${n}]/pay", reconcile=beside("find", "each[${n}]/pay")),
            ],
        },
        {
            "id": "both",
            "type": "parallel",
            "parallel_steps": [
                call("letter", "mail", "both/letter"),
                call("store", "put", "both/store"),
                [classify("judge", "both/judge"), call("lookup", "look", "both/lookup")],
            ],
        },
        {
            "id": "round",
            "type": "loop",
            "max_iterations": 3,
            "until": "$i == 2",
            "steps": [
                {"id": "count", "type": "set", "values": {"i": {"expr": "$i + 1"}}},
                call("send", "mail", "round#${i}/send"),
            ],
        },
    ],
}

FAILS = {
    "name": "fails",
    "steps": [
        call(
            "charge",
            "charge",
            undo=beside("refund", "charge/undo"),
            reconcile=beside("find", "charge"),
        ),
        {
            "id": "both",
            "type": "parallel",
            "parallel_steps": [
                call(
                    "left",
                    "note",
                    "both/left",
                    max_retries=3,
                    retry=NOW,
                    undo=beside("unnote", "both/left/undo"),
                ),
                call("right", "put", "both/right", undo=beside("unnote", "both/right/undo")),
            ],
        },
        call("caught", "broken", catch=[{"errors": ["Broken"], "next": "goon"}]),
        call("never", "put", is_terminal=True),
        call("goon", "look", next="last"),
        call("last", "broken", max_retries=2, retry=NOW),
    ],
}

SUB = {
    "name": "sub",
    "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "steps": [
        classify("ask", "sub/ask"),
        call(
            "pay",
            "charge",
            "sub/pay",
            undo=beside("refund", "sub/pay/undo"),
            reconcile=beside("find", "sub/pay"),
        ),
    ],
}

CALLER = {
    "name": "caller",
    "budget": {"max_llm_calls": 1000, "max_tokens": 1000000},
    "steps": [
        {"id": "sub", "type": "call", "program": "sub", "with": {"name": "$name"}},
        {
            "id": "go",
            "type": "wait",
            "event": "go-$name",
            "output_schema": {
                "type": "object",
                "properties": {"way": {"type": "string"}},
                "required": ["way"],
            },
        },
        {
            "id": "way",
            "type": "switch",
            "on": "$go.output.way",
            "cases": {
                "a": [call("mail", "mail", "way/mail")],
                "b": [call("note", "note", "way/note", on_error="skip")],
            },
        },
        call("book", "book", reconcile=beside("find_slowly", "book"), on_error="skip"),
    ],
}


FRUGAL = {
    "name": "frugal",
    "budget": {"max_llm_calls": 2, "max_tool_calls": 6},
    "steps": [
        call("look", "look"),
        classify("mood"),
        call("put", "put"),
        {
            "id": "both",
            "type": "parallel",
            "parallel_steps": [
                [classify("judge", "both/judge"), call("seen", "look", "both/seen")],
                call("set", "put", "both/set"),
            ],
        },
        call("charge", "charge", reconcile=beside("find", "charge")),
        call("mail", "mail"),
    ],
}
"""Whose calls are counted: as many as it needs, so that what a crash loses uses them up."""


def _program(document: dict[str, Any]) -> Program:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    return Program.from_dict({"inputs": schema, **document})


CALLED = {"sub": _program(SUB)}
PROGRAMS = [_program(document) for document in (ORDER, FAN, FAILS, CALLER, FRUGAL)]


class Model:
    """Answers by the key in the prompt."""

    model = "scripted"

    def __init__(self, world: World, points: Points) -> None:
        self.world, self.points = world, points

    async def complete(self, messages: list[dict[str, str]], **_: Any) -> Completion:
        key = messages[-1]["content"].removeprefix("key ")
        self.points.at("model:before")
        self.world.tell("begin", key, "model")
        await asyncio.sleep(DURATION_SECONDS)
        self.points.at("model:during")
        answer = "yes" if drawn(key, 3) else "no"
        self.world.tell("done", key, answer)
        self.points.at("model:after")
        return Completion(answer, LLMUsage(7, 1, 8), "scripted", "stop")


def tools(world: World, points: Points, frozen: bool = False) -> dict[str, Callable[..., Any]]:
    """The tools, over *world*. Where callers may be *frozen*, one that began and is not done may
    still do it: nobody knows.
    """

    def begin(key: str, name: str, given: str | None = None) -> None:
        points.at("call:before")
        world.tell("begin", key, [name, given])

    def done(key: str, name: str) -> Any:
        points.at("call:during")
        output = {"by": name, "key": key}
        world.tell("done", key, output)
        points.at("call:after")
        return output

    async def slowly(key: str, name: str, given: str | None = None) -> Any:
        begin(key, name, given)
        await asyncio.sleep(DURATION_SECONDS)
        return done(key, name)

    def asked(key: str) -> dict[str, Any]:
        happened, output = world.truth(key)
        if happened:
            return {"done": True, "output": output}
        if frozen and any(line[0] == "begin" for line in world.of(key)):
            raise Broken("it was begun, and may be under way")
        world.tell("cleared", key)
        return {"done": False}

    @tool(effect="read")
    async def look(key: str) -> Any:
        return await slowly(key, "look")

    @tool(effect="idempotent")
    def put(key: str, idempotency_key: str) -> Any:
        begin(key, "put", idempotency_key)
        time.sleep(DURATION_SECONDS)
        return done(key, "put")

    @tool(effect="write")
    async def charge(key: str, idempotency_key: str) -> Any:
        return await slowly(key, "charge", idempotency_key)

    @tool(effect="read")
    async def find(key: str) -> Any:
        return asked(key)

    @tool(effect="write")
    async def refund(key: str, idempotency_key: str) -> Any:
        return await slowly(key, "refund", idempotency_key)

    @tool(effect="irreversible")
    def mail(key: str) -> Any:
        begin(key, "mail")
        time.sleep(DURATION_SECONDS)
        return done(key, "mail")

    async def note(key: str) -> Any:
        begin(key, "note")
        await asyncio.sleep(DURATION_SECONDS)
        if not any(line[0] == "failed" for line in world.of(key)):
            points.at("call:during")
            world.tell("failed", key)
            raise Flaky("the first attempt fails")
        return done(key, "note")

    async def unnote(key: str) -> Any:
        return await slowly(key, "unnote")

    @tool(effect="irreversible")
    async def book(key: str, idempotency_key: str) -> Any:
        return await slowly(key, "book", idempotency_key)

    async def find_slowly(key: str) -> Any:  # its effect is not declared: it may be in doubt itself
        await asyncio.sleep(DURATION_SECONDS)
        return asked(key)

    @tool(effect="idempotent")
    async def broken(key: str) -> Any:
        begin(key, "broken")
        points.at("call:during")
        world.tell("failed", key)
        raise Broken("this tool never works")

    return {
        f.__name__: f
        for f in (look, put, charge, find, refund, mail, note, unnote, book, find_slowly, broken)
    }


EFFECTS = {
    "look": "read", "put": "idempotent", "charge": "write", "find": "read", "refund": "write", "mail": "irreversible",
    "note": "write", "unnote": "write", "book": "irreversible", "find_slowly": "write", "broken": "idempotent",
}  # fmt: skip
