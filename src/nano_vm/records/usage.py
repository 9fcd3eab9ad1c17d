"""What model calls consumed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any


@dataclass(frozen=True, slots=True)
class LLMUsage:
    """What model calls consumed. ``cost_usd`` is None where it is not known, never 0 for that."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cost_usd: Decimal | None = None

    def __str__(self) -> str:
        cost = f", cost=${self.cost_usd:.6f}" if self.cost_usd is not None else ""
        return f"tokens={self.total_tokens}{cost}"

    def counts(self) -> list[int]:
        """Tokens of prompt and completion, and all."""
        return [self.prompt_tokens, self.completion_tokens, self.total_tokens]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; cost is a decimal string."""
        counts = dict(zip(_COUNTS, self.counts(), strict=True))
        return counts if self.cost_usd is None else {**counts, "cost_usd": str(self.cost_usd)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LLMUsage:
        """From an adapter's or a trace's dict; missing counts are 0, the total is their sum unless
        given.

        Raises:
            ValueError: If a count is not a whole number of at least 0, or the cost is not a finite
            amount.
        """
        prompt, completion, total = map(data.get, _COUNTS)
        for count in (prompt, completion, total):
            if (type(count) is not int or count < 0) and count is not None:
                raise ValueError(f"a token count is a whole number of at least 0, not {count!r}")
        prompt, completion = prompt or 0, completion or 0
        cost = data.get("cost_usd")
        if cost is not None:
            try:
                amount = Decimal(str(cost))
            except InvalidOperation:
                raise ValueError(f"cost_usd is an amount in dollars, not {cost!r}") from None
            if not amount.is_finite() or amount < 0:
                raise ValueError(f"cost_usd is an amount of at least 0, not {cost!r}")
            cost = amount
        return cls(prompt, completion, total if total is not None else prompt + completion, cost)

    def __add__(self, other: LLMUsage) -> LLMUsage:
        known = self.cost_usd is not None and other.cost_usd is not None
        return LLMUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cost_usd + other.cost_usd if known else None,  # type: ignore[operator]
        )


_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
