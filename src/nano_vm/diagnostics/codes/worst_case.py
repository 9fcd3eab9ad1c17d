"""Codes of budgets beside the worst case."""

from __future__ import annotations

from typing import Final

from ..code import BUDGET, PLANNER, Code


def _over(
    code: str, field: str, what: str, traits: tuple[str, ...] = (BUDGET,), policy: str = ""
) -> Code:
    return Code(
        code,
        f"More {what} than the budget allows",
        f"The longest path takes more {what} than `{field}`: some run would be stopped by its "
        f"budget.",
        "Raise the budget, or bound the loops and maps on the path that is shown.",
        policy=policy,
        traits=traits,
    )


_COUNTED = (BUDGET, PLANNER)
CODES: Final = (
    _over("V070", "max_steps", "steps", _COUNTED, "budget: {max_steps: 2}\n"),
    _over("V071", "max_llm_calls", "model calls", _COUNTED, "budget: {max_llm_calls: 1}\n"),
    _over("V072", "max_tool_calls", "tool calls", _COUNTED),
    _over("V073", "max_tokens", "tokens"),
    _over("V074", "max_cost_usd", "dollars"),
    Code(
        "V075",
        "A budget that the size of inputs may break",
        "No bound is known for what is sent, or only the largest inputs would be over it. The "
        "budget is enforced while the program runs.",
        "Bound the inputs by `maxLength` and `maxItems`, or leave it to the run.",
        "warning",
        traits=(BUDGET,),
    ),
)
