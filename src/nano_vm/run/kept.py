"""Steps with `cache`, as the driver of one run sees them: an answer that is known is not asked for,
and equal calls at the same time are one.

What cannot be read or kept costs calls, and no run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from ..adapters.contract import Adapter
from ..adapters.pool import Pool
from ..adapters.protocol import Clock, Completion
from ..errors import StoreError, TruncatedAnswer, VMError
from ..language.answers import ending, read_answer
from ..machine.faults import NOTHING_USED
from ..machine.machine import Machine
from ..machine.plan import KEPT_FOREVER, ModelOp, ToolOp
from ..records.recording import Recording
from ..store.kept import KeepsAnswers, KeptAnswer, key_of
from ..store.records import DEFAULT_PROJECT
from ..values import admit
from .durable.later import Later

logger = logging.getLogger("nano_vm")

END_OF_TIME_NS = 2**62
"""Until when an answer is kept that has no lifetime."""


class Kept:
    """The kept answers that one run asks for; *flights* are the calls under way of all runs of a
    host, by what they ask.
    """

    def __init__(
        self,
        answers: KeepsAnswers,
        recording: Recording,
        clock: Clock,
        flights: dict[tuple[int, str], asyncio.Future[None]],
    ) -> None:
        self._answers, self._clock, self._flights = answers, clock, flights
        self._run_id = recording.run_id
        about = recording.about
        self._project = str(about.get("project", DEFAULT_PROJECT))
        self._contracts = about.get("contracts")
        self._later = Later(clock, "run %s: an answer cannot be kept: %s")

    def of_model(self, adapter: Adapter, machine: Machine, op: ModelOp) -> str:
        """By what the answer to the requested call of a model is kept."""
        return key_of(
            "llm",
            self._project,
            identity_of(adapter),
            op.model,
            machine.messages,
            op.options,
            None if op.allowed is None else list(op.allowed),
            op.schema,
        )

    def of_tool(self, machine: Machine, op: ToolOp) -> str:
        """The same of a tool: its arguments, and the contracts of the program's tools."""
        arguments = dict(zip(op.names, machine.request, strict=True))
        return key_of("tool", self._project, self._contracts, op.tool, arguments)

    async def find(self, key: str, lasts_ns: int) -> Any:
        """What is kept under *key*, as JSON. Where it is None the caller makes the call, and then
        says that it has `landed`: others that ask the same meanwhile wait for that.
        """
        loop = asyncio.get_running_loop()
        flight = id(loop), key
        while (flying := self._flights.get(flight)) is not None:
            await asyncio.wait([flying])
        self._flights[flight] = loop.create_future()
        found = None
        try:
            found = await self._found(key, lasts_ns)
        except BaseException:
            self.landed(key)
            raise
        if found is not None:
            self.landed(key)
        return found

    def landed(self, key: str) -> None:
        """The call that was begun for *key* has ended."""
        self._flights.pop((id(asyncio.get_running_loop()), key)).set_result(None)

    async def _found(self, key: str, lasts_ns: int) -> Any:
        since = 0 if lasts_ns >= KEPT_FOREVER else self._clock.time_ns() - lasts_ns
        try:
            body = await self._answers.kept(key, since)
        except StoreError as error:
            logger.warning("run %s: kept answers cannot be read: %s", self._run_id, error)
            return None
        return None if body is None else json.loads(body)

    def keep_value(self, key: str, lasts_ns: int, value: Any) -> None:
        """Keep what a tool returned, if a step can take it."""
        try:
            plain, _ = admit(value)
        except VMError:
            return
        self._keep(key, lasts_ns, {"value": plain})

    def keep_answer(self, key: str, lasts_ns: int, op: ModelOp, answer: Completion) -> None:
        """Keep what a model answered, if the step takes it: not what it has consumed, nor which way
        it came.
        """
        if answer.cached or not _good(op, answer):
            return
        body = {
            "text": answer.text,
            "model": answer.model,
            "finish_reason": answer.finish_reason,
            "reasoning": answer.reasoning,
        }
        self._keep(key, lasts_ns, body)

    def _keep(self, key: str, lasts_ns: int, body: Mapping[str, Any]) -> None:
        now = self._clock.time_ns()
        until = END_OF_TIME_NS if lasts_ns >= KEPT_FOREVER else now + lasts_ns
        answer = KeptAnswer(key, self._run_id, json.dumps(body), now, until)
        self._later.give(self._run_id, lambda: self._answers.keep(answer))

    async def end(self) -> None:
        """Wait until all that was kept is stored."""
        await self._later.done()


def known_answer(found: Mapping[str, Any]) -> Completion:
    """A model's answer as it is kept: it has consumed nothing."""
    return Completion(**found, usage=NOTHING_USED, cached=True)


def identity_of(adapter: Adapter) -> Any:
    """What is known of who answers: an adapter's class and the public settings that shape what it
    asks, of a pool those of each member. No key and no address with a password is among them, since
    it is only hashed.
    """
    inner = adapter.adapter
    if isinstance(inner, Pool):
        members = [[member.name, identity_of(member.adapter)] for member in inner.members]
        return [inner.strategy, members]
    settings = ("model", "base_url", "temperature", "max_tokens", "seed", "fallbacks")
    found = {name: getattr(inner, name, None) for name in settings}
    known = {n: v for n, v in found.items() if type(v) in (str, int, float, list)}
    return [type(inner).__name__, known]


def _good(op: ModelOp, answer: Completion) -> bool:
    """Whether the step takes the answer."""
    if ending(answer.finish_reason) is not None:
        return False
    try:
        read_answer(answer.text, allowed=op.allowed, check=op.validate)
    except (VMError, TruncatedAnswer):
        return False
    return True
