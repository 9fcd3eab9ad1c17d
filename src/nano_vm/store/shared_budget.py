"""Budgets that many runs share, as hosts write them: of a program, of a project, of a day, or of all
there is. Each gives the account in which a call counts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..language.fields import Part
from .accounts import LIMITS, Account, picodollars

if TYPE_CHECKING:
    from typing import Self

MOST_DOLLARS = 1_000_000
"""The highest limit of money: what a database keeps as a number of picodollars is nine times that.
"""

Apart = Literal["program", "project", "day"]
"""What an account can be counted apart by. A day is that of the call, in UTC."""

Count = Annotated[int, Field(strict=True, ge=0, le=10**15)]


class SharedBudget(Part):
    """What the model calls of many runs may use together. ``per`` says what is counted apart: each
    program, project or day has the whole amount. With ``program`` or ``project`` only runs of that
    one count. What is absent is not limited.
    """

    per: tuple[Apart, ...] = ()
    program: str | None = None
    project: str | None = None
    max_llm_calls: Count | None = None
    max_tokens: Count | None = None
    max_cost_usd: Annotated[Decimal, Field(ge=0, le=MOST_DOLLARS)] | None = None

    @field_validator("per", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        several = (given,) if isinstance(given, str) else given
        if isinstance(several, list | tuple) and len(set(map(str, several))) < len(several):
            raise ValueError("each of program, project and day stands there once")
        return tuple(several) if isinstance(several, list) else several

    @field_validator("max_cost_usd", mode="before")
    @classmethod
    def _exact(cls, given: Any) -> Any:
        if isinstance(given, bool):
            raise ValueError("it is an amount of dollars")
        return Decimal(str(given)) if isinstance(given, float) else given

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.limits == (None, None, None):
            raise ValueError(f"it limits nothing; write one of {', '.join(LIMITS)}")
        return self

    @property
    def limits(self) -> tuple[int | None, int | None, int | None]:
        """Of calls, tokens and picodollars; None where there is none."""
        cost = self.max_cost_usd
        return self.max_llm_calls, self.max_tokens, None if cost is None else picodollars(cost)

    def covers(self, program: str, project: str) -> bool:
        """Whether runs of *program* in *project* count."""
        return self.program in (None, program) and self.project in (None, project)

    def account(self, name: str, program: str, project: str, day: str) -> Account:
        """Where a call counts."""
        of = {"program": program, "project": project, "day": day}
        return Account(name, tuple((apart, of[apart]) for apart in self.per), self.limits)
