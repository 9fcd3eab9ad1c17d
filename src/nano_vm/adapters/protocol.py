"""What the outside implements. A user's class needs the method, never an import of ours.

The optional parts of an adapter are found by name: a method ``stream``, ``count_tokens`` or
``ready`` (awaited once before the first call, outside of its time: imports, a model's weights), and
the keyword parameters that ``complete`` names in its signature (``allowed_outputs``, ``output_schema``,
``options``, ``step_id``, ``idempotency_key``): they are handed over only to an adapter that names
them, since one that merely takes ``**kwargs`` would pass them on to a provider that refuses what it
does not know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ..records.usage import LLMUsage

Message = dict[str, Any]
"""``{"role": "system" | "developer" | "user" | "assistant", "content": text}``; to an adapter whose
attribute ``images`` is true also with a list of parts as content, see `nano_vm.language.messages`.
"""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer: its text, what it consumed, which model gave it and why it stopped.

    ``usage`` is None where the provider does not say; a budget then charges the whole reservation.
    ``finish_reason`` is the provider's word: ``stop``, ``length``, ``content_filter``, ...; an
    adapter says ``refusal`` where the model refused, with its words as the text. The VM judges by
    it: an answer that was cut off or filtered is an error of the step, of kind ``truncated`` or
    ``filtered`` (see `nano_vm.language.answers`). ``reasoning`` is what the model thought, where the
    provider hands it over apart: it is recorded beside the answer and is no part of it. ``route`` is
    how a pool came to the answer: its attempts, each with its member, model and usage. ``cached``
    says that no model was asked: the answer was known.

    Examples:
        >>> from nano_vm import Completion, ExecutionVM, LLMUsage, Program
        >>> class Yes:
        ...     async def complete(self, messages, **kwargs):
        ...         return Completion("yes", LLMUsage(9, 1, 10), "yes-1", "stop")
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Is it so?}]")
        >>> trace = ExecutionVM(Yes()).run_sync(program)
        >>> trace.output, trace.total_tokens()
        ('yes', 10)
    """

    text: str
    usage: LLMUsage | None = None
    model: str | None = None
    finish_reason: str | None = None
    reasoning: str | None = None
    route: dict[str, Any] | None = None
    cached: bool = False


@runtime_checkable
class LLMAdapter(Protocol):
    """Calls a model. The one thing that an adapter must have.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> class Parrot:
        ...     async def complete(self, messages, **kwargs):
        ...         return messages[-1]["content"]
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Hello!}]")
        >>> ExecutionVM(Parrot()).run_sync(program).output
        'Hello!'
    """

    async def complete(
        self, messages: list[Message], **kwargs: Any
    ) -> str | tuple[str, dict[str, Any] | None] | Completion:
        """The model's answer to *messages*.

        *kwargs* holds what the step declares: ``model``, ``max_tokens``, ``temperature``,
        ``top_p``, ``stop`` (a list), ``seed``, ``reasoning_effort``. Its ``options``, fields of the
        provider's own, are handed over only as a dict and only to an adapter that names
        ``options``: they belong into the body of the request and nowhere else. Failures are best
        raised as `ModelError`, `RateLimited`, `ModelTimeout` or `FilteredAnswer`, with the
        ``usage`` of a call that is billed all the same; anything else counts as kind ``model``.
        """
        ...


@runtime_checkable
class StreamingAdapter(Protocol):
    """An adapter that can also give its answer piece by piece."""

    def stream(self, messages: list[Message], **kwargs: Any) -> AsyncIterator[str | Completion]:
        """Pieces of text in order; last, if known, one `Completion` with the whole text and its
        usage.
        """
        ...


class Clock(Protocol):
    """The time, for the drivers; the machine is given it and never asks."""

    def time_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; a test's clock returns at once."""
        ...
