"""What a run may still use: limits of the host and budgets of program, host and run, as one ledger
a frame.

Amounts are reserved before a call and settled after it; at a fork what a child may use is known
before it begins, so that what is refused does not depend on who finished first (`Shares`). Nothing
here decides what a refusal leads to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from ..given import positive_integer
from ..language.policy import Budget
from ..language.program import MAX_STEPS
from ..values import MAX_VALUE_BYTES

UNLIMITED = 1 << 62

DEFAULT_MAX_TOKENS = 1024
"""Reserved for an answer whose step declares no ``max_tokens``, and then also asked of the adapter;
chat answers rarely need more.
"""

MESSAGE_TOKENS = 16
"""Added to the UTF-8 bytes of each message: role and separators; chat formats in use take 3 to 8
tokens.
"""

IMAGE_TOKENS = 50_000
"""Of one picture. Of the models that say what they count, gpt-4o-mini counts the most: 2,833 and
5,667 for each of 8 tiles.
"""


FILE_TOKENS = 1_000_000
"""Of one file: what it holds may be packed, and the longest context that models have is this."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the host bounds, whatever a program says.

    Examples:
        >>> from nano_vm import ExecutionVM, Limits, Program
        >>> program = Program.from_yaml("steps: [{id: a, type: set, values: {text: $text}}]")
        >>> vm = ExecutionVM(limits=Limits(value_bytes=1_000))
        >>> vm.run_sync(program, {"text": 2_000 * "x"}).status.value
        'failed'
    """

    steps: int = MAX_STEPS
    """Executed steps of a run: as many as a program may have."""
    value_bytes: int = MAX_VALUE_BYTES
    """Size of one value."""
    state_bytes: int = 256 * 1024 * 1024
    """Size of all values of a run together: sixteen of the largest."""

    def __post_init__(self) -> None:
        for field in fields(self):
            positive_integer(getattr(self, field.name), f"Limits.{field.name}")


DEFAULT_LIMITS = Limits()


class Ledger:
    """What a frame may still use; `UNLIMITED` or None where nothing bounds it."""

    __slots__ = ("cost", "llm_calls", "state", "steps", "tokens", "tool_calls")

    def __init__(
        self,
        steps: int,
        llm_calls: int = UNLIMITED,
        tool_calls: int = UNLIMITED,
        tokens: int = UNLIMITED,
        cost: Decimal | None = None,
        state: int = UNLIMITED,
    ) -> None:
        self.steps = steps
        self.llm_calls = llm_calls
        self.tool_calls = tool_calls
        self.tokens = tokens
        self.cost = cost
        self.state = state

    @classmethod
    def of(cls, limits: Limits, budget: Budget | None) -> Ledger:
        """What a run may use under *budget*."""
        if budget is None:
            return cls(limits.steps, state=limits.state_bytes)
        return cls(
            min(limits.steps, _or_unlimited(budget.max_steps)),
            _or_unlimited(budget.max_llm_calls),
            _or_unlimited(budget.max_tool_calls),
            _or_unlimited(budget.max_tokens),
            Decimal(str(budget.max_cost_usd)) if budget.max_cost_usd is not None else None,
            limits.state_bytes,
        )

    def take_tool_calls(self, count: int = 1) -> bool:
        """Spend so many; False where fewer were left, and then none is."""
        left = self.tool_calls
        self.tool_calls = _without(left, count)
        return left >= count

    def take_llm_calls(self, count: int = 1) -> bool:
        """As `take_tool_calls`."""
        left = self.llm_calls
        self.llm_calls = _without(left, count)
        return left >= count

    def tighten(self, other: Ledger) -> None:
        """The lesser of both, amount by amount."""
        self.steps = min(self.steps, other.steps)
        self.llm_calls = min(self.llm_calls, other.llm_calls)
        self.tool_calls = min(self.tool_calls, other.tool_calls)
        self.tokens = min(self.tokens, other.tokens)
        self.state = min(self.state, other.state)
        if other.cost is not None:
            self.cost = other.cost if self.cost is None else min(self.cost, other.cost)

    def settle(self, granted: Ledger, left: Ledger) -> None:
        """Charge what a child used of its share."""
        self.steps -= granted.steps - left.steps
        if self.llm_calls < UNLIMITED:
            self.llm_calls = max(self.llm_calls - granted.llm_calls + left.llm_calls, 0)
        if self.tool_calls < UNLIMITED:
            self.tool_calls = max(self.tool_calls - granted.tool_calls + left.tool_calls, 0)
        self.tokens -= granted.tokens - left.tokens
        self.state -= granted.state - left.state
        if self.cost is not None and granted.cost is not None and left.cost is not None:
            self.cost -= granted.cost - left.cost

    def copy(self) -> Ledger:
        """The same amounts."""
        other = _new(Ledger)  # each run copies one: half the time of a call of the class
        other.steps, other.llm_calls, other.tool_calls = self.steps, self.llm_calls, self.tool_calls
        other.tokens, other.cost, other.state = self.tokens, self.cost, self.state
        return other


_new = object.__new__


def _or_unlimited(value: int | None) -> int:
    return UNLIMITED if value is None else value


def _without(have: int, count: int) -> int:
    return have if have >= UNLIMITED else max(have - count, 0)


class Shares:
    """What the children of a fork may use of a ledger, of which at most *at_once* run at a time.
    Unspent amounts return by `settle`.

    Of an amount that suffices for all, each child has its ceiling. Any other is scarce: the
    children have equal shares of it, in declared order. Where fewer may run at a time than there
    are, child n comes after child n - *at_once*, as in lanes, and the children of a lane have their
    shares in common: each may use what those before it in its lane left. So one that runs alone has
    all there is, and nothing depends on the order in which lanes go forward.

    What remains of calls beside the ceilings is shared too, by those who call: a call that is lost
    in a crash and made again is one more than the ceiling. Tokens and money have no ceiling before
    the call is made: where they are limited they are scarce, among those who call models.
    """

    __slots__ = ("_amounts", "_callers", "_cost", "_each", "_ledger", "_one", "_scarce", "lanes")

    def __init__(
        self, ledger: Ledger, ceilings: Sequence[tuple[int, int, int]], at_once: int
    ) -> None:
        count = len(ceilings)
        scarce = []
        amounts: dict[str, list[int]] = {}
        for i, name in enumerate(("steps", "llm_calls", "tool_calls")):
            have = getattr(ledger, name)
            if have >= UNLIMITED:
                continue
            own = amounts[name] = [ceiling[i] for ceiling in ceilings]
            spare = have - sum(own)
            if spare < 0:
                scarce.append(name)
                amounts[name] = _equal(have, count)
            elif name != "steps":
                more = iter(_equal(spare, sum(amount > 0 for amount in own)))
                amounts[name] = [amount + next(more) if amount else 0 for amount in own]
        callers = self._callers = [bool(ceiling[1]) for ceiling in ceilings]
        if ledger.tokens < UNLIMITED:
            scarce.append("tokens")
            equal = iter(_equal(ledger.tokens, sum(callers)))
            amounts["tokens"] = [next(equal) if calls else 0 for calls in callers]
        self._ledger, self._amounts = ledger.copy(), amounts
        self._scarce, self._cost = scarce, ledger.cost
        common = at_once < count and bool(scarce or ledger.cost is not None)
        self.lanes = at_once if common else count
        """Child n begins when child n - *lanes* has ended."""
        self._one: bool | None = None  # whether all may use the same, once somebody asks
        self._each: Ledger | None = None  # what each of them may use then

    @property
    def ample(self) -> bool:
        """Whether nothing is scarce, so that each child may have its ceiling."""
        return not self._scarce and self._cost is None

    def granted(self, number: int, left: Ledger | None) -> Ledger:
        """What child *number* may use, which nobody changes: children that may use the same have
        one ledger between them. *left* is what the one before it in its lane did not use, None for
        the first one.
        """
        if self._each is not None:
            return self._each
        if self._one is None:
            self._one = self.ample and all(len(set(own)) == 1 for own in self._amounts.values())
        share = self._ledger.copy()
        for name, amounts in self._amounts.items():
            setattr(share, name, amounts[number])
        for name in self._scarce:
            lane = self._amounts[name][number :: self.lanes]
            setattr(share, name, sum(lane) if left is None else getattr(left, name))
        if self._cost is not None and left is not None:
            share.cost = left.cost
        elif self._cost is not None:
            # the factor first: all of it is then all there is, to the last digit
            share.cost = (
                self._cost * sum(self._callers[number :: self.lanes]) / max(sum(self._callers), 1)
            )
        if self._one:
            self._each = share
        return share


def _equal(have: int, count: int) -> list[int]:
    have = max(have, 0)
    return [have // count + (1 if i < have % count else 0) for i in range(count)]


def token_bound(messages: list[dict[str, Any]]) -> int:
    """An upper bound of the tokens of *messages*: no tokenizer in use makes more than one of a
    byte.
    """
    return sum(_content_bound(message["content"]) + MESSAGE_TOKENS for message in messages)


def _content_bound(content: Any) -> int:
    if isinstance(content, str):
        return len(content.encode())
    return sum(
        len(part["text"].encode()) + MESSAGE_TOKENS
        if part["type"] == "text"
        else tokens_beside(part)
        for part in content
    )


def tokens_beside(part: dict[str, Any]) -> int:
    """The most tokens of a part that is no text."""
    return IMAGE_TOKENS if part["type"] == "image_url" else FILE_TOKENS
