"""Answers that are kept: what shapes an answer goes in, and the model is asked where none is known.

A hit has consumed nothing and says that it is one (`Completion.cached`), so that trace, costs and
metrics tell hits from calls. Only answers that a step would take are kept: one that was cut off,
refused, is none of ``allowed_outputs`` or does not fit the schema is asked for again.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import TruncatedAnswer, VMError
from ..language.answers import ending, read_answer
from ..language.schemas import schema_check
from ..records.usage import LLMUsage
from ..values import canonical, short
from .contract import Adapter, completed
from .protocol import Completion, Message

logger = logging.getLogger("nano_vm")

MOST = 10_000
"""Answers that are kept unless it is said otherwise: some ten megabytes of short ones."""

PRUNED_EVERY = 500
"""Answers that are written to a file between two looks at how many it has."""

NOTHING = LLMUsage(0, 0, 0, Decimal(0))
"""What a hit has consumed."""

_FORMAT = 1  # of what a file keeps: answers of another are not read
_JUDGED_BY = ("allowed_outputs", "output_schema")
_OF_THE_CALL = frozenset({"step_id", "idempotency_key"})  # which shape no answer


class Cached:
    """An adapter that asks *adapter* (one, or a model's name) only what it was not asked before:
    ``Cached("openai/gpt-5-mini", "answers.db", seconds=86400)``.

    Equal calls are those with the same model, messages and options. Answers are kept for *seconds*,
    or until *most* others came after them: in memory, or in the file at *path*, where other
    processes find them. Equal calls at the same time wait for the first of them. Answers are not
    streamed. *now* gives the time in seconds.

    Raises:
        VMError: If an argument cannot be one, or the file is none that this has written.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> from nano_vm.adapters import Cached
        >>> from nano_vm.testing import ScriptedLLM
        >>> vm = ExecutionVM(Cached(ScriptedLLM(["yes"])))  # it answers once
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Is it so?}]")
        >>> vm.run_sync(program).output, vm.run_sync(program).output
        ('yes', 'yes')
    """

    stream = None  # an answer that may be known already is not had in pieces

    def __init__(
        self,
        adapter: Any,
        path: str | Path | None = None,
        *,
        seconds: float | None = None,
        most: int = MOST,
        now: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(adapter, str):
            from .names import adapter_named

            try:
                adapter = adapter_named(adapter)
            except (ValueError, OSError) as error:
                raise VMError(f"model {adapter!r}: {error}") from None
        if not callable(getattr(adapter, "complete", None)):
            raise VMError(f"{short(adapter)} is no adapter: it has no method complete()")
        if seconds is not None and (type(seconds) not in (int, float) or not seconds > 0):
            raise VMError(f"seconds is a number above 0, not {seconds!r}")
        if type(most) is not int or most < 1:
            raise VMError(f"most is a positive integer, not {most!r}")
        self.adapter = adapter
        self._inner = Adapter(adapter)
        self._seconds, self._now = seconds, now
        self._answers: _Memory | _File = _Memory(most) if path is None else _File(path, most)
        self._flying: dict[tuple[int, str], asyncio.Future[None]] = {}
        self.hits = 0
        self.misses = 0

        async def complete(messages: list[Message], **keywords: Any) -> Completion:
            return await self._complete(messages, keywords)

        signature = _signature(adapter.complete)
        if signature is not None:
            complete.__signature__ = signature  # type: ignore[attr-defined]
        self.complete = complete

    def __getattr__(self, name: str) -> Any:
        # what else is asked of an adapter, its model's name and price for example, is the inner one's
        if name == "adapter":
            raise AttributeError(name)
        return getattr(self.adapter, name)

    async def _complete(self, messages: list[Message], keywords: dict[str, Any]) -> Completion:
        """The answer, as it was or as the adapter gives it."""
        key = self._key(messages, keywords)
        flight = id(asyncio.get_running_loop()), key
        while True:
            found = self._found(key)
            if found is not None:
                return found
            flying = self._flying.get(flight)
            if flying is None:
                break
            await asyncio.wait([flying])
        self._flying[flight] = done = asyncio.get_running_loop().create_future()
        try:
            return await self._asked(key, messages, keywords)
        finally:
            del self._flying[flight]
            done.set_result(None)

    def close(self) -> None:
        """Close the file."""
        self._answers.close()

    async def _asked(
        self, key: str, messages: list[Message], keywords: dict[str, Any]
    ) -> Completion:
        """The adapter's answer, kept where it is good."""
        self.misses += 1
        named = self._inner.named
        told = {k: v for k, v in keywords.items() if k not in _JUDGED_BY or k in named}
        answer = self._inner.complete(messages, **told)
        if inspect.isawaitable(answer):
            answer = await answer
        completion = completed(answer)
        if _good(completion, *map(keywords.get, _JUDGED_BY)):
            self._answers.put(key, _written(completion), self._now())
        return completion

    def _key(self, messages: list[Message], keywords: Mapping[str, Any]) -> str:
        said = {k: v for k, v in keywords.items() if k not in _OF_THE_CALL and v is not None}
        whole = [_FORMAT, self._inner.model, messages, said]
        return hashlib.sha256(canonical(whole)).hexdigest()

    def _found(self, key: str) -> Completion | None:
        kept = self._answers.get(key)
        if kept is None:
            return None
        text, at = kept
        if self._seconds is not None and not at <= self._now() < at + self._seconds:
            return None
        self.hits += 1
        return replace(Completion(**json.loads(text)), usage=NOTHING, cached=True)


class _Memory:
    """Answers of this process; the one that was not asked for longest is forgotten first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.answers: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: str) -> tuple[str, float] | None:
        with self.lock:
            found = self.answers.get(key)
            if found is not None:
                self.answers.move_to_end(key)
            return found

    def put(self, key: str, answer: str, at: float) -> None:
        with self.lock:
            self.answers[key] = answer, at
            self.answers.move_to_end(key)
            while len(self.answers) > self.most:
                self.answers.popitem(last=False)

    def close(self) -> None:
        """Nothing to close."""


class _File:
    """Answers in a file of SQLite. One that cannot be read or written while runs are under way costs
    calls, and no run.
    """

    def __init__(self, path: str | Path, most: int) -> None:
        self.most, self.written = most, 0
        self.lock = threading.Lock()
        try:
            self.connection = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS nano_answers "
                "(key TEXT PRIMARY KEY, answer TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID"
            )
            self.connection.commit()
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise VMError(f"answers cannot be kept in {short(path)}: {error}") from None

    def get(self, key: str) -> tuple[str, float] | None:
        try:
            with self.lock:
                row = self.connection.execute(
                    "SELECT answer, at FROM nano_answers WHERE key = ?", (key,)
                ).fetchone()
        except sqlite3.Error as error:
            logger.warning("kept answers cannot be read: %s", error)
            return None
        return None if row is None else (row[0], row[1])

    def put(self, key: str, answer: str, at: float) -> None:
        try:
            with self.lock, self.connection:
                self.connection.execute(
                    "INSERT OR REPLACE INTO nano_answers VALUES (?, ?, ?)", (key, answer, at)
                )
                if self.written % PRUNED_EVERY == 0:
                    self.connection.execute(
                        "DELETE FROM nano_answers WHERE key IN (SELECT key FROM nano_answers "
                        "ORDER BY at DESC LIMIT -1 OFFSET ?)",
                        (self.most,),
                    )
                self.written += 1
        except sqlite3.Error as error:
            logger.warning("an answer cannot be kept: %s", error)

    def close(self) -> None:
        with self.lock:
            self.connection.close()


def _signature(complete: Any) -> inspect.Signature | None:
    """That of an adapter's ``complete``, by which the VM knows what may be passed, with what answers
    are judged by.
    """
    try:
        signature = inspect.signature(complete)
    except (TypeError, ValueError):
        return None
    kind = inspect.Parameter.KEYWORD_ONLY
    own = list(signature.parameters.values())
    more = [
        inspect.Parameter(name, kind, default=None)
        for name in _JUDGED_BY
        if name not in signature.parameters
    ]
    at = len(own) - (bool(own) and own[-1].kind is inspect.Parameter.VAR_KEYWORD)
    return signature.replace(parameters=[*own[:at], *more, *own[at:]])


def _good(completion: Completion, allowed: list[str] | None, schema: dict[str, Any] | None) -> bool:
    """Whether a step would take the answer."""
    if ending(completion.finish_reason) is not None:
        return False
    check = schema_check(schema) if schema is not None and allowed is None else None
    try:
        read_answer(
            completion.text,
            allowed=tuple(allowed) if allowed is not None else None,
            check=check,
        )
    except (VMError, TruncatedAnswer):
        return False
    return True


def _written(completion: Completion) -> str:
    """What is kept of an answer: not what it has consumed, nor which way it came."""
    kept = {
        "text": completion.text,
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "reasoning": completion.reasoning,
    }
    return json.dumps(kept)
