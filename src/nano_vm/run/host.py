"""What calls go to: functions, models, threads and the clock of a host.

What a user gives is made fit for calls once; what an adapter returns becomes a `Completion`. What a
call means for the run is never decided here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import forking
from ..adapters.protocol import Completion
from ..errors import ModelError, VMError
from ..language.fields import free, remedy
from ..language.messages import has_files, has_pictures, joined
from ..language.policy import Budget
from ..machine.billing import ONE_MODEL, Served
from ..machine.ledger import token_bound
from ..prices import Price, checked_price
from ..records.usage import LLMUsage
from ..values import copied, kind_name, writable

if TYPE_CHECKING:
    from .driver import Driver

logger = logging.getLogger("nano_vm")


class SystemClock:
    """The machine's own time."""

    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(asyncio.sleep)


class Threads(forking.Begins):
    """Daemon threads for sync tools, at most *size*. A tool that never returns holds its thread,
    and not the interpreter's exit.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.after_fork_in_child()
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Begin without threads: those of the parent are not here, and what waits for them is the
        parent's.
        """
        self.work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.count = 0
        self.idle = 0

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Run *call* in a thread as soon as one is free."""
        future: Future[Any] = Future()
        with self.lock:
            if self.idle > 0:
                self.idle -= 1
            elif self.count < self.size:
                self.count += 1
                threading.Thread(
                    target=self.serve, name=f"nano-vm-tool-{self.count}", daemon=True
                ).start()
            self.work.put((future, call))
        return future

    def serve(self) -> None:
        while True:
            future, call = self.work.get()
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001 - handed to the waiter, whatever it is
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, call
            with self.lock:
                # threads that wait for work minus work that waits for threads
                self.idle += 1 if self.work.empty() else 0


NAMED_ONLY = frozenset({"options"})
"""Options that an adapter must name: those of a program may be called as anything, and must not get
among its own arguments.
"""


class Adapter:
    """An LLM adapter and what its ``complete`` takes."""

    def __init__(self, adapter: Any, name: str | None = None) -> None:
        self.adapter = adapter
        self.complete = adapter.complete
        self.stream = getattr(adapter, "stream", None)
        self.count = getattr(adapter, "count_tokens", None)
        self.images = getattr(adapter, "images", False) is True
        self.files = getattr(adapter, "files", False) is True
        model = getattr(adapter, "model", None)
        self.model = name or (model if isinstance(model, str) else None)
        # where it is the adapter's own, as of a model on this machine
        self.price = getattr(adapter, "price", None)
        # of a pool: who may answer
        served = getattr(adapter, "served", None)
        self.served: Served | None = served if isinstance(served, Served) else None
        options = getattr(adapter, "option_names", None)
        self.option_names = None if options is None else frozenset(options)
        try:
            parameters = inspect.signature(adapter.complete).parameters
        except (TypeError, ValueError):
            parameters = None
        several = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        self.named = frozenset(
            name for name, p in (parameters or {}).items() if p.kind not in several
        )
        self.open = parameters is None or any(
            p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
        )

    def tokens(self, messages: list[dict[str, Any]]) -> int:
        """The most tokens that *messages* can have: as the adapter counts them, if it can."""
        if self.count is not None:
            try:
                count = self.count(copied(messages))
            except Exception:
                # its bytes bound them too
                logger.warning("%s cannot count tokens", kind_name(self.adapter), exc_info=True)
            else:
                if type(count) is int and count >= 0:
                    return count
        return token_bound(messages)

    def fitting(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Copies of *messages* in the form that the adapter knows: without parts, unless it says
        that it takes pictures or files.

        Raises:
            ModelError: If there is a picture or a file that it does not take.
        """
        if not any(type(message["content"]) is list for message in messages):
            return copied(messages)  # type: ignore[no-any-return]
        for taken, shown, what in (
            (self.images, has_pictures, "pictures"),
            (self.files, has_files, "files"),
        ):
            if not taken and shown(messages):
                raise ModelError(
                    f"the adapter {kind_name(self.adapter)} takes no {what}", retryable=False
                )
        if self.images or self.files:
            return copied(messages)  # type: ignore[no-any-return]
        return joined(messages)

    def takes(self, name: str) -> bool:
        """Whether the option *name* may be passed."""
        return name in self.named or (self.open and name not in NAMED_ONLY)


@dataclass(slots=True)
class Host:
    """What calls go to: how a tool is called by `ToolOp.number`, adapters by model name (None is
    the default).
    """

    how: list[str]
    adapters: dict[str | None, Adapter]
    threads: Threads
    clock: Any
    shortest: int  # nanoseconds: the shortest deadline in the plan
    driver: Driver | None = None  # of the event loop that was used last
    # by `ModelOp.index`: what is called, and with what beside the messages, where no budget counts
    asking: dict[int, tuple[Callable[..., Any], dict[str, Any]]] = field(default_factory=dict)
    keyed: bool = field(init=False)  # whether an adapter is told of each call's effect key

    def __post_init__(self) -> None:
        adapters = self.adapters.values()
        self.keyed = any("idempotency_key" in adapter.named for adapter in adapters)


def plain_answer(answer: Any) -> tuple[str, LLMUsage | None, None] | None:
    """A text, or a text with a dict of what it consumed; None for all else, which `completed`
    looks at.
    """
    if type(answer) is str:
        return answer, None, None
    if type(answer) is not tuple or len(answer) != 2:
        return None
    text, usage = answer
    if type(text) is not str or type(usage) is not dict or not usage:
        return None
    try:
        return text, LLMUsage.from_dict(usage), None
    except ValueError:
        return None


def completed(answer: Any) -> Completion:
    """An adapter's return value as a `Completion`.

    Raises:
        ModelError: If it is of a kind that an adapter may not return, or its usage is none.
    """
    if isinstance(answer, str):
        return Completion(str(answer))
    if type(answer) is Completion and _is_plain(answer):  # as every adapter of ours gives it
        return answer
    usage: Any = None
    if isinstance(answer, tuple) and len(answer) == 2:
        text, usage = answer
        completion = Completion(text)
    elif isinstance(answer, Completion):
        completion, text, usage = answer, answer.text, answer.usage
    else:
        raise _malformed(
            f"the adapter returned {kind_name(answer)}; it returns a str, (str, usage dict) or a "
            f"Completion"
        )
    if isinstance(usage, dict):
        try:
            usage = LLMUsage.from_dict(usage) if usage else None
        except ValueError as error:
            raise _malformed(f"the adapter's usage is malformed: {error}") from None
    if usage is not None and not isinstance(usage, LLMUsage):
        raise _malformed(f"the adapter's usage is {kind_name(usage)}; it is a dict or LLMUsage")
    if not isinstance(text, str):
        raise _malformed(
            f"the adapter returned {kind_name(text)} for the text of its answer", usage
        )
    return Completion(
        str(text),
        usage,
        _word(completion.model),
        _word(completion.finish_reason),
        completion.reasoning,
    )


def _is_plain(answer: Completion) -> bool:
    """Whether there is nothing to convert in *answer*."""
    words = _is_word(answer.model) and _is_word(answer.finish_reason)
    return words and type(answer.text) is str and type(answer.usage) in _USAGES


def _is_word(given: Any) -> bool:
    return given is None or (type(given) is str and given.isascii())


_USAGES = frozenset({LLMUsage, type(None)})


def _word(given: Any) -> str | None:
    """A name as plain text; of a member of an enum, as SDKs have them, its value or name."""
    if given is None:
        return None
    word = str.__str__(given) if isinstance(given, str) else str(getattr(given, "name", given))
    return writable(word)


def _malformed(message: str, usage: LLMUsage | None = None) -> ModelError:
    return ModelError(message, retryable=False, usage=usage, answered=True)


TOOL_THREADS = 32
"""Threads for sync tools; the number that Python's own default executor has on most machines."""


def adapters_of(llm: Any) -> dict[str | None, Adapter]:
    if llm is None:
        return {}
    named = llm if isinstance(llm, dict) else {None: llm}
    if not named:
        raise VMError(
            "llm is an adapter or a dict of adapters by model name, and the dict is empty"
        )
    result: dict[str | None, Adapter] = {}
    for name, given in named.items():
        adapter = _by_name(given) if isinstance(given, str) else given
        if not callable(getattr(adapter, "complete", None)):
            raise VMError(
                f"{kind_name(adapter)} is no adapter: it has no method complete(messages, **kwargs)"
            )
        result[name] = Adapter(adapter, name)
    result.setdefault(None, next(iter(result.values())))
    return result


def served_of(adapters: Mapping[str | None, Adapter]) -> dict[str | None, Served] | None:
    """Who may answer for each name of a model, where any of them is a pool."""
    if not any(adapter.served for adapter in adapters.values()):
        return None
    return {name: adapter.served or ONE_MODEL for name, adapter in adapters.items()}


def _by_name(name: str) -> Any:
    from ..adapters.names import adapter_named  # late: most hosts bring their own adapter

    try:
        return adapter_named(name)
    except (ValueError, OSError) as error:
        raise VMError(f"model {name!r}: {error}") from None


def prices_of(
    prices: Mapping[str, Any] | None, adapters: Mapping[str | None, Adapter]
) -> dict[str, Price] | None:
    """The host's prices, and over those that adapters say themselves."""
    own = {
        a.model: a.price for a in adapters.values() if a.model is not None and a.price is not None
    }
    if prices is None and not own:
        return None
    return {name: checked_price(name, price) for name, price in {**own, **(prices or {})}.items()}


def budget_of(budget: Any) -> Budget | None:
    if budget is None or isinstance(budget, Budget):
        return budget
    if not isinstance(budget, Mapping):
        raise VMError(f"a budget is a Budget or a dict, not {kind_name(budget)}")
    for key in budget:
        if key not in Budget.model_fields and not (isinstance(key, str) and free(key)):
            raise VMError(f"a budget has no field {key!r}; {remedy(str(key), Budget.model_fields)}")
    try:
        return Budget.model_validate(dict(budget))
    except ValueError as error:
        raise VMError(f"not a budget: {error}") from None
