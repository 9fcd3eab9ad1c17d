"""What an adapter takes and what it returns: any object with ``complete`` comes in, and what its
signature and attributes say of it is looked at once; its answers become a `Completion`.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

from ..errors import ModelError
from ..language.messages import has_files, has_parts, has_pictures, joined
from ..machine.billing import Served
from ..machine.ledger import DEFAULT_MAX_TOKENS, token_bound
from ..machine.plan import ModelOp
from ..records.record import MAX_WORD
from ..records.usage import MAX_COUNT, LLMUsage
from ..values import copied, kind_name, printable, short, writable
from .protocol import Completion

logger = logging.getLogger("nano_vm")

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
        ready = getattr(adapter, "ready", None)
        # what is awaited once, before the first call; None where nothing is, or it was
        self.ready = ready if inspect.iscoroutinefunction(ready) else None
        self.images = getattr(adapter, "images", False) is True
        self.files = getattr(adapter, "files", False) is True
        model = getattr(adapter, "model", None)
        self.model = name or (model if isinstance(model, str) else None)
        # where it is the adapter's own, as of a model on this machine
        self.price = getattr(adapter, "price", None)
        # the task queue of the workers of a Temporal cluster that have it
        queue = getattr(adapter, "queue", None)
        self.queue = queue if isinstance(queue, str) else None
        # of a pool: who may answer
        served = getattr(adapter, "served", None)
        self.served: Served | None = served if isinstance(served, Served) else None
        # of a pool, whose members differ
        self._takes = getattr(adapter, "takes", None) if self.served is not None else None
        # words that can be said of whoever answers
        self.tags: frozenset[str] = (
            frozenset() if self.served is None else getattr(adapter, "tags", frozenset())
        )
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

    async def wake(self) -> None:
        """Do what a first call would have to wait for; that it failed says the call."""
        if self.ready is not None:
            try:
                await self.ready()
            except Exception:
                logger.debug("%s is not ready", kind_name(self.adapter), exc_info=True)
            self.ready = None

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
        if not has_parts(messages):  # of texts, which nobody can change
            return [message.copy() for message in messages]
        for taken, shown, what in (
            (self.images, has_pictures, "pictures"),
            (self.files, has_files, "files"),
        ):
            if not taken and shown(messages):
                raise ModelError(
                    f"the adapter {kind_name(self.adapter)} takes no {what}", retryable=False
                )
        if self.images or self.files:
            return copied(messages)
        return joined(messages)

    def takes(self, name: str) -> bool:
        """Whether the option *name* may be passed."""
        if self._takes is not None:
            return bool(self._takes(name))
        return name in self.named or (self.open and name not in NAMED_ONLY)

    def keywords(self, op: ModelOp, key: str, *, named: bool, bounded: bool) -> dict[str, Any]:
        """The keywords of ``complete`` for a call of *op* with the effect key *key*: what the step
        declares, and what only an adapter that names it gets. *named* is whether the adapter stands
        under the name of the step's model, *bounded* whether a budget counts the call's tokens.
        """
        keywords = dict(op.options)
        if op.model is not None and not named:
            keywords["model"] = op.model
        if bounded and "max_tokens" not in keywords and self.takes("max_tokens"):
            keywords["max_tokens"] = DEFAULT_MAX_TOKENS
        if op.allowed is not None and "allowed_outputs" in self.named:
            keywords["allowed_outputs"] = list(op.allowed)
        if op.schema is not None and "output_schema" in self.named:
            keywords["output_schema"] = op.schema
        if "step_id" in self.named:
            keywords["step_id"] = op.step_id
        if "idempotency_key" in self.named:
            keywords["idempotency_key"] = key
        return keywords


def plain_answer(answer: Any) -> tuple[str, LLMUsage | None, None] | None:
    """A string, or a string with a dict of what it consumed; None for all else, which `completed`
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
        used = LLMUsage.from_dict(usage)
    except ValueError:
        return None
    return (text, used, None) if used.plausible else None


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
    if usage is not None and not usage.plausible:
        raise _malformed(
            f"the adapter's usage is malformed: each count of one call is a whole number from 0 to "
            f"{MAX_COUNT:,}, and these are not: {short(usage.to_dict())}"
        )
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
        completion.route,
        completion.cached is True,
    )


def _is_plain(answer: Completion) -> bool:
    """Whether there is nothing to convert in *answer*."""
    words = _is_word(answer.model) and _is_word(answer.finish_reason)
    usage = answer.usage
    used = usage is None or (type(usage) is LLMUsage and usage.plausible)
    return words and used and type(answer.text) is str


def _is_word(given: Any) -> bool:
    return given is None or (
        type(given) is str and len(given) <= MAX_WORD and given.isascii() and given.isprintable()
    )


def _word(given: Any) -> str | None:
    """A name as plain text that every store takes; of a member of an enum, as SDKs have them, its
    value or name.
    """
    if given is None:
        return None
    word = str.__str__(given) if isinstance(given, str) else str(getattr(given, "name", given))
    return printable(writable(word)[:MAX_WORD])


def _malformed(message: str, usage: LLMUsage | None = None) -> ModelError:
    return ModelError(message, retryable=False, usage=usage, answered=True)


def answer_parts(answer: Completion) -> tuple[str, LLMUsage | None, dict[str, Any] | None]:
    """The text, the usage, and what is recorded beside them."""
    told = {
        "model": answer.model,
        "finish_reason": answer.finish_reason,
        "reasoning": answer.reasoning,
        "route": answer.route,
        "cached": answer.cached or None,
    }
    known = {name: value for name, value in told.items() if value is not None}
    return answer.text, answer.usage, known or None
