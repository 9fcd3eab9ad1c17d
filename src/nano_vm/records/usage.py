"""What model calls consumed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Any

MAX_COUNT = 10**9
"""Tokens of one call: a hundred times what any model takes. A count above is a mistake, and as money
it would not fit into a store.
"""


@dataclass(frozen=True, slots=True, init=False)
class LLMUsage:
    """What model calls consumed. ``cost_usd`` is None where it is not known, never 0 for that.

    Of the prompt's tokens, ``cached_tokens`` were read from the provider's cache and
    ``cache_write_tokens`` were written to it; of the completion's, ``reasoning_tokens`` were thought
    and not said. They decide what a call costs and are no part of a digest: the same answer may be
    cached today and not tomorrow.

    Examples:
        >>> from decimal import Decimal
        >>> from nano_vm import LLMUsage
        >>> usage = LLMUsage(9, 1, 10, Decimal("0.0002"))
        >>> usage.total_tokens, usage.cost_usd
        (10, Decimal('0.0002'))
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost_usd: Decimal | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __init__(
        self,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        total_tokens: int = 0,
        cost_usd: Decimal | None = None,
        cached_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> None:
        # by the slots themselves: a third of what the names cost a frozen dataclass
        _set_prompt(self, prompt_tokens)
        _set_completion(self, completion_tokens)
        _set_total(self, total_tokens)
        _set_cost(self, cost_usd)
        _set_cached(self, cached_tokens)
        _set_written(self, cache_write_tokens)
        _set_thought(self, reasoning_tokens)

    def __str__(self) -> str:
        cost = f", cost=${self.cost_usd:.6f}" if self.cost_usd is not None else ""
        return f"tokens={self.total_tokens}{cost}"

    @property
    def plausible(self) -> bool:
        """Whether one call can have used that, see `MAX_COUNT`."""
        # each by its name: a loop over them takes more than twice as long, at every model step
        prompt, completion, total = self.prompt_tokens, self.completion_tokens, self.total_tokens
        cached, written = self.cached_tokens, self.cache_write_tokens
        thought = self.reasoning_tokens
        return (
            type(prompt) is type(completion) is type(total) is int
            and type(cached) is type(written) is type(thought) is int
            and 0 <= prompt <= MAX_COUNT
            and 0 <= completion <= MAX_COUNT
            and 0 <= total <= MAX_COUNT
            and 0 <= cached <= MAX_COUNT
            and 0 <= written <= MAX_COUNT
            and 0 <= thought <= MAX_COUNT
        )

    def counts(self) -> list[int]:
        """Tokens of prompt and completion, and all."""
        return [self.prompt_tokens, self.completion_tokens, self.total_tokens]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; cost is a decimal string."""
        told: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }
        if self.cached_tokens or self.cache_write_tokens or self.reasoning_tokens:
            told |= self.parts()
        if self.cost_usd is not None:
            told["cost_usd"] = str(self.cost_usd)
        return told

    def parts(self) -> dict[str, int]:
        """Those of the tokens that are distinguished, by name; what is none is left out."""
        counts = self.cached_tokens, self.cache_write_tokens, self.reasoning_tokens
        if counts == _NO_PARTS:
            return {}
        return {name: count for name, count in zip(_PARTS, counts, strict=True) if count}

    def whole(self) -> LLMUsage:
        """The same without `parts`."""
        if not self.parts():
            return self
        return LLMUsage(
            self.prompt_tokens, self.completion_tokens, self.total_tokens, self.cost_usd
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LLMUsage:
        """From an adapter's or a trace's dict; missing counts are 0, the total is their sum unless
        given.

        Raises:
            ValueError: If a count is not a whole number of at least 0, a part is more than the
                whole, or the cost is not a finite amount.
        """
        prompt, completion, total = map(data.get, _COUNTS)
        if len(data) == len(_COUNTS) and type(prompt) is type(completion) is type(total) is int:
            if prompt >= 0 and completion >= 0 and total >= 0:
                return cls(prompt, completion, total)  # as it mostly is
        parts = [data.get(name) or 0 for name in _PARTS]
        for count in (prompt, completion, total, *parts):
            if (type(count) is not int or count < 0) and count is not None:
                raise ValueError(f"a token count is a whole number of at least 0, not {count!r}")
        prompt, completion = prompt or 0, completion or 0
        cached, written, thought = parts
        if cached + written > prompt:
            raise ValueError(
                f"{cached + written} cached tokens are more than the prompt's {prompt}"
            )
        if thought > completion:
            raise ValueError(f"{thought} reasoning tokens are more than the answer's {completion}")
        cost = data.get("cost_usd")
        if cost is not None:
            try:
                amount = Decimal(str(cost))
            except InvalidOperation:
                raise ValueError(f"cost_usd is an amount in dollars, not {cost!r}") from None
            if not amount.is_finite() or amount < 0:
                raise ValueError(f"cost_usd is an amount of at least 0, not {cost!r}")
            cost = amount
        total = total if total is not None else prompt + completion
        return cls(prompt, completion, total, cost, *parts)

    def __add__(self, other: LLMUsage) -> LLMUsage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return LLMUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cost_usd + other.cost_usd if known else None,  # type: ignore[operator]
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )

    def __sub__(self, other: LLMUsage) -> LLMUsage:
        """What is left of a sum of usages without one of them."""
        known = self.cost_usd is not None and other.cost_usd is not None
        return LLMUsage(
            self.prompt_tokens - other.prompt_tokens,
            self.completion_tokens - other.completion_tokens,
            self.total_tokens - other.total_tokens,
            self.cost_usd - other.cost_usd if known else None,  # type: ignore[operator]
            self.cached_tokens - other.cached_tokens,
            self.cache_write_tokens - other.cache_write_tokens,
            self.reasoning_tokens - other.reasoning_tokens,
        )


_set_prompt, _set_completion, _set_total, _set_cost, _set_cached, _set_written, _set_thought = (
    vars(LLMUsage)[slot.name].__set__ for slot in fields(LLMUsage)
)

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_PARTS = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")
_NO_PARTS = (0, 0, 0)
