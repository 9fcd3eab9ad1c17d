"""The worst case of a program: the most steps, calls, tokens and money that any run of it can use.

A `Flow` without faults comes in; a `Ceiling` goes out, and Diagnostics where it is over a budget.
Nothing is run.

Theory. The amounts are longest paths, see `bounds`: each has its own path, loops count by their
bound, forks by the sum of their children, calls by their attempts. So for every amount A and every
run r of the machine, A(r) <= ceiling.A. What stands in for what a run decides is always the larger:
any branch may be taken, any call may fail, any map may have ``max_items`` items.

Calls. A step makes at most its attempts (`Step.most_calls`), corrections included. ``tools``
counts two more: its ``undo``, once for each time that the step can finish, and its ``reconcile``,
once for each attempt of a tool whose effect can be in doubt. Budgets do not count these two, and
neither does ``tool_calls``.

Tokens. A prompt has at most one token for each UTF-8 byte (`ledger.token_bound`), `MESSAGE_TOKENS`
for each message, and its schema, which some providers put into it. How long the text can get is the
matter of `sizes`. An answer has at most ``max_tokens``; a step that declares none is held to
`DEFAULT_MAX_TOKENS` only in a run whose budget limits tokens or cost, since only then is it
sent to the adapter; elsewhere it has no bound. From the second attempt on, a constrained step may show
the model its last answer and what was wrong with it. Where there is no bound the amount is None,
and never a guess: the limit of one value (16 MB) says nothing of the program, and counts only for a
caller who gives ``limits``.

Money. ``prices`` are dollars per million tokens, exact. Where the price of a model is not known, or
its tokens have no bound, the cost is an interval that is open above: what is known is its lower
end.

Assumed: inputs are no larger than was said; adapters hold ``max_tokens`` and make no more calls
than they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

from ...diagnostics import Diagnostic, Loc
from ...errors import InvalidAnswer
from ...language.answers import allowed_answer, correction
from ...language.expr import Ref, parse_template
from ...language.flow import Flow, FrameGraph, Names, Node
from ...language.policy import Budget
from ...language.program import LLMStep, Step
from ...machine.billing import Served, unpriced
from ...machine.bounds import (
    LLM_CALLS,
    STEPS,
    TOOL_CALLS,
    Gain,
    Longest,
    capped,
    counted,
    longest,
    step_of,
)
from ...machine.ledger import (
    DEFAULT_MAX_TOKENS,
    FILE_TOKENS,
    MESSAGE_TOKENS,
    Limits,
    tokens_beside,
)
from ...prices import Price, highest_of, priced_name
from ...tools.contract import ToolContract
from ...values import canonical
from .sizes import DEFAULT_INPUT_BYTES, TOKEN_BYTES, Sizes

__all__ = ["DEFAULT_INPUT_BYTES", "Ceiling", "Interval", "ceiling", "over_budget"]

Prices = Mapping[str, Price]

DEFAULT_MODEL = "default"
"""How a step that names no model is reported in `Ceiling.models`."""

PROMPT, COMPLETION, TOKENS, COST, OPEN_PROMPT, OPEN_COMPLETION, OPEN_COST = range(3, 10)
_TRACED = {
    "steps": STEPS,
    "llm_calls": LLM_CALLS,
    "tool_calls": TOOL_CALLS,
    "tokens": TOKENS,
    "cost_usd": COST,
}
_FIRST = 10  # amounts from here on: calls by tool, then by model

SHOWN_BYTES = 4 * 4000 + 3
"""Of an invalid answer that is shown to the model again: 4,000 characters of at most four bytes,
and an ellipsis.
"""

FAULT_BYTES = 4 * 10_000 + 3
"""Of what was wrong with it: an error's message is cut at 10,000 characters."""

QUOTED_CHARS = 60
"""Of an invalid answer that its message quotes, see `values.short`."""

MESSAGE_BYTES = len(b'{"type":"text","text":""}')
"""The minimum of a message, or of a part of one, as JSON."""

FILE_BYTES = len(b'{"type":"file","file":{"file_data":"data:application/pdf;base64,A"}}')
"""The minimum of a file as JSON. A picture, the other part that is no text, has fewer tokens for its
bytes.
"""

PATH_SHOWN = 12
"""Steps of a path that a message names: one line of text."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``; None where no upper bound is known."""

    low: int | Decimal
    high: int | Decimal | None

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low}"
        return str(self.high) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a run can use; None where nothing bounds it.

    ``steps``, ``llm_calls`` and ``tool_calls`` are what a budget counts. ``tools`` are the calls of
    each tool with those for undo and reconcile, ``models`` those of each model, ``default`` where a
    step names none; both sorted by name. ``cost_usd`` is from what is priced to the whole. ``open``
    says why an amount has no bound.
    """

    steps: int
    llm_calls: int
    tool_calls: int
    tools: dict[str, int]
    models: dict[str, int]
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens: int | None
    cost: Interval
    open: tuple[str, ...] = ()
    _longest: Longest | None = field(default=None, compare=False, repr=False)

    @property
    def cost_usd(self) -> Decimal | None:
        """The most dollars; None where a price or a bound is not known."""
        return Decimal(self.cost.high) if self.cost.high is not None else None

    @property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """For each amount that is not nothing, the ids of the steps on the path that has the most
        of it.
        """
        found = ((name, self.path_of(name)) for name in _TRACED)
        return {name: path for name, path in found if path}

    @property
    def path(self) -> tuple[str, ...]:
        """The path that costs most: in money, else in tokens, else in steps."""
        return next(
            (path for name in ("cost_usd", "tokens", "steps") if (path := self.path_of(name))), ()
        )

    def path_of(self, amount: str) -> tuple[str, ...]:
        """The one of `paths` for *amount*; empty where no run uses any."""
        found = self._longest
        if found is None or not found.totals[0][_TRACED[amount]]:
            return ()
        return found.path(list(_TRACED).index(amount))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; amounts of money are strings, since a float is not exact."""
        return {
            "steps": self.steps,
            "llm_calls": self.llm_calls,
            "tool_calls": self.tool_calls,
            "tools": dict(self.tools),
            "models": dict(self.models),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens": self.tokens,
            "cost_usd": {
                "low": f"{self.cost.low:f}",
                "high": f"{self.cost.high:f}" if self.cost.high is not None else None,
            },
            "paths": {name: list(path) for name, path in self.paths.items()},
            "open": list(self.open),
        }

    def __str__(self) -> str:
        lines = [f"at most: {_count(self.steps, 'step')}, {_count(self.llm_calls, 'model call')}, "]
        lines[0] += _count(self.tool_calls, "tool call")
        for title, calls in (("tools", self.tools), ("models", self.models)):
            if calls:
                lines.append(
                    f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in calls.items())
                )
        if self.llm_calls:
            known = [
                f"{title} {amount:,}" if amount is not None else f"{title} without bound"
                for title, amount in (
                    ("prompt", self.prompt_tokens),
                    ("completion", self.completion_tokens),
                )
            ]
            whole = f"{self.tokens:,}" if self.tokens is not None else "no bound known"
            lines.append(f"  tokens: {whole} ({', '.join(known)})")
            lines.append(f"  cost: {_dollars(self.cost)}")
            lines += [f"    {reason}" for reason in self.open]
        lines.append(f"  path: {_shown(self.path)}")
        return "\n".join(lines)


def ceiling(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    *,
    prices: Prices | None = None,
    default_model: str | None = None,
    input_bytes: int | Mapping[str, int] = DEFAULT_INPUT_BYTES,
    budget: Budget | None = None,
    limits: Limits | None = None,
    served: Mapping[str | None, Served] | None = None,
) -> Ceiling:
    """The worst case of *flow*, which must have no faults.

    *prices* are dollars per million tokens of prompt and answer; *default_model* is what a step
    without one is priced as. *input_bytes* is the most of each input, or of those that it names, as
    JSON. *budget* is what a run will be held to: it caps no amount, but where it limits tokens or
    cost, answers have at most `DEFAULT_MAX_TOKENS`. With *limits*, a value without any other bound
    has that of one value. *served* are the pools behind names of models: every attempt of a call
    is counted, at the price of the dearest member.

    Raises:
        VMError: If steps run in a circle.
    """
    return _Counting(
        flow, contracts, prices or {}, default_model, input_bytes, budget, limits, served
    ).ceiling()


class _Counting:
    def __init__(
        self,
        flow: Flow,
        contracts: Mapping[str, ToolContract],
        prices: Prices,
        default_model: str | None,
        input_bytes: int | Mapping[str, int],
        budget: Budget | None,
        limits: Limits | None,
        served: Mapping[str | None, Served] | None,
    ) -> None:
        self.flow = flow
        self.contracts = contracts
        self.exponent = _exponent(prices)
        self.units = {
            name: tuple(_units(part, self.exponent + 6) for part in highest_of(price))
            for name, price in prices.items()
        }
        self.default_model = default_model
        self.served = served or {}
        self.prices = prices
        self.value_bytes = limits.value_bytes if limits is not None else None
        self.open: dict[str, None] = {}
        # of calls by tool or model, in order of first sight
        self.amounts: dict[tuple[str, str], int] = {}
        self.answers: dict[tuple[int, str], Gain] = {}
        # by names: whether a budget that limits tokens or cost holds
        self.reserving: dict[int, bool] = {}
        for frame in flow.frames:
            at = id(frame.names)
            if at not in self.reserving:
                outer = frame.owner is not None and self.reserving[id(frame.owner.frame.names)]
                held = [frame.names.program.budget, *([budget] if frame.owner is None else [])]
                self.reserving[at] = outer or any(_reserves(each) for each in held)
        self.sizes = Sizes(flow, input_bytes, partial(_completion, self.reserving))

    def ceiling(self) -> Ceiling:
        for each in self.flow.spaces:
            for step, _ in each.steps:
                for called in self.called(step, each):
                    self.amounts.setdefault(called, _FIRST + len(self.amounts))
        found = longest(
            self.flow,
            _FIRST + len(self.amounts),
            self.gain,
            self.cap,
            tuple(_TRACED.values()),
        )
        total = found.totals[0]
        calls: dict[str, dict[str, int]] = {"tool": {}, "model": {}}
        for (kind, name), amount in sorted(self.amounts.items()):
            if total[amount]:
                calls[kind][name] = total[amount]
        low = _money(total[COST], self.exponent)
        prompt = None if total[OPEN_PROMPT] else total[PROMPT]
        completion = None if total[OPEN_COMPLETION] else total[COMPLETION]
        known = prompt is not None and completion is not None
        return Ceiling(
            steps=total[STEPS],
            llm_calls=total[LLM_CALLS],
            tool_calls=total[TOOL_CALLS],
            tools=calls["tool"],
            models=calls["model"],
            prompt_tokens=prompt,
            completion_tokens=completion,
            tokens=total[TOKENS] if known else None,
            cost=Interval(low, None if total[OPEN_COST] else low),
            open=tuple(self.open),
            _longest=found,
        )

    # --- what a step adds ---

    @staticmethod
    def called(step: Step, names: Names) -> Sequence[tuple[str, str]]:
        if isinstance(step, LLMStep):
            return (("model", _model(step, names) or DEFAULT_MODEL),)
        return [("tool", call.tool) for call in names.calls.get(step.id, ())]

    def gain(self, node: Node) -> Gain:
        step = node.step
        if node.kind == "when":
            return step_of(node)
        calls = node.calls
        if calls:
            contract = self.contracts.get(calls[0].tool)
            gain = [*counted(node)]
            for call in calls:
                if call.use != "reconcile" or contract is None or contract.unsafe:
                    times = 1 if call.use == "undo" else step.most_calls
                    gain.append((self.amounts["tool", call.tool], times))
            return gain
        if isinstance(step, LLMStep):
            at = (id(node.frame.names), step.id)
            found = self.answers.get(at)
            if found is None:
                found = self.answers[at] = tuple(self.asked(step, node.frame.names))
            return found
        return counted(node)

    def asked(self, step: LLMStep, names: Names) -> Iterable[tuple[int, int]]:
        """Calls, tokens and money of all attempts of a model step."""
        attempts = step.most_calls
        name = _model(step, names)
        pool = self.served.get(name) or self.served.get(None)
        tries = 1 if pool is None else pool.attempts
        if step.when is None:
            yield STEPS, 1
        yield LLM_CALLS, attempts
        yield self.amounts["model", name or DEFAULT_MODEL], attempts
        prompt = self.prompt(step, names)
        completion = _completion(self.reserving, step, names)
        price = self.price(name or self.default_model or "", pool)
        if prompt is None:
            self.because(step, names, "its prompt has no bound")
            yield OPEN_PROMPT, 1
        else:
            prompt = tries * (attempts * prompt + (attempts - 1) * self.corrected(step, names))
            yield PROMPT, prompt
        if completion is None:
            self.because(
                step, names, "it declares no max_tokens, and no budget limits tokens or cost"
            )
            yield OPEN_COMPLETION, 1
        else:
            completion = tries * attempts * completion
            yield COMPLETION, completion
        yield TOKENS, (prompt or 0) + (completion or 0)
        if price is None:
            self.because(
                step,
                names,
                "no price is known for "
                + unpriced(name or self.default_model or DEFAULT_MODEL, pool, self.prices),
            )
            yield OPEN_COST, 1
            return
        of_prompt, of_answer = price
        yield COST, of_prompt * (prompt or 0) + of_answer * (completion or 0)
        if (prompt is None and of_prompt) or (completion is None and of_answer):
            yield OPEN_COST, 1

    def price(self, name: str, pool: Served | None) -> tuple[int, ...] | None:
        """The most units of money for a token of prompt and of answer, of whoever may answer."""
        if pool is None or not pool.members:
            return self.units.get(name)
        names = [priced_name(None, member, self.units) for member in pool.members]
        if None in names:
            return None
        known = [self.units[str(one)] for one in names]
        return tuple(max(amounts) for amounts in zip(*known, strict=True))

    def prompt(self, step: LLMStep, names: Names) -> int | None:
        """The most tokens of the messages of a first attempt."""
        written: Any = step.messages
        if written is None:
            written = [{"content": text} for text in (step.system, step.prompt) if text is not None]
        total: int | None = 0
        around = 0  # tokens that are no text: of roles and separators, of pictures
        for item in [written] if isinstance(written, str) else written:
            if isinstance(item, str):
                size = self.referred(item, names)
                around += self.around(item, names, size)
            else:
                size, beside = self.message(item["content"], names)
                around += beside
            total = total + size if total is not None and size is not None else None
        if self.value_bytes is not None:  # the messages together are one value
            total = min(total, self.value_bytes) if total is not None else self.value_bytes
        if total is None:
            return None
        schema = canonical(step.output_schema or step.allowed_outputs) if step.constrained else b""
        return total + len(schema) + around

    def message(self, content: Any, names: Names) -> tuple[int | None, int]:
        """The most bytes of the text of a message, and its tokens that are no text."""
        if isinstance(content, str):
            return self.sizes.text(content, names), MESSAGE_TOKENS
        sizes = [self.sizes.text(part["text"], names) for part in content if part["type"] == "text"]
        beside = sum(tokens_beside(part) for part in content if part["type"] != "text")
        total = sum(size or 0 for size in sizes) if None not in sizes else None
        return total, MESSAGE_TOKENS * (1 + len(sizes)) + beside

    def referred(self, reference: str, names: Names) -> int | None:
        """The most bytes of messages that are referred to; as JSON they have at least as many as
        their strings.
        """
        size = self.sizes.json(reference, names)
        return self.value_bytes if size is None else size

    def around(self, reference: str, names: Names, size: int | None) -> int:
        """The most tokens that are no text, of messages of *size* bytes that are referred to."""
        if size is None:
            return 0
        files = 0 if texts_only(reference, names) else size // FILE_BYTES
        return MESSAGE_TOKENS * (size // MESSAGE_BYTES + 1) + FILE_TOKENS * files

    def corrected(self, step: LLMStep, names: Names) -> int:
        """The most tokens that showing a model its invalid answer adds to the prompt."""
        if not step.constrained:
            return 0
        fault = FAULT_BYTES
        if step.allowed_outputs is not None:
            fault = min(fault, _refusal_bytes(step.allowed_outputs))
        answer = _completion(self.reserving, step, names)
        shown = SHOWN_BYTES if answer is None else min(SHOWN_BYTES, answer * TOKEN_BYTES)
        around = sum(
            len(message["content"].encode()) + MESSAGE_TOKENS for message in correction("", "")
        )
        return around + shown + fault

    def because(self, step: LLMStep, names: Names, reason: str) -> None:
        where = f"{'/'.join(str(part) for part in names.loc)}: " if names.loc else ""
        self.open.setdefault(f"{where}step {step.id!r}: {reason}")

    def cap(self, frame: FrameGraph, total: list[int]) -> None:
        """A called program keeps to its own budget."""
        capped(frame, total)
        budget = frame.names.program.budget if frame.kind == "call" else None
        if budget is None:
            return
        if budget.max_tokens is not None:
            closed = not (total[OPEN_PROMPT] or total[OPEN_COMPLETION])
            total[TOKENS] = min(total[TOKENS], budget.max_tokens) if closed else budget.max_tokens
            for amount, flag in ((PROMPT, OPEN_PROMPT), (COMPLETION, OPEN_COMPLETION)):
                total[amount] = (
                    min(total[amount], budget.max_tokens) if not total[flag] else budget.max_tokens
                )
                total[flag] = 0
        if budget.max_cost_usd is not None:
            most = _units(Decimal(str(budget.max_cost_usd)), self.exponent)
            total[COST] = min(total[COST], most) if not total[OPEN_COST] else most
            total[OPEN_COST] = 0


def _completion(reserving: Mapping[int, bool], step: LLMStep, names: Names) -> int | None:
    """The most tokens of one answer; *reserving* says by names whether a budget holds that limits
    tokens or cost.
    """
    declared = step.max_tokens if step.max_tokens is not None else names.program.defaults.max_tokens
    if declared is not None:
        return declared
    return DEFAULT_MAX_TOKENS if reserving[id(names)] else None


def texts_only(reference: str, names: Names) -> bool:
    """Whether the messages behind *reference* are an input whose schema lets no picture through."""
    template = parse_template(reference)
    ref = template.parts[0] if template.typed else None
    if not isinstance(ref, Ref) or ref.path or ref.name in names.written:
        return False
    at: Any = names.program.inputs
    for part in ("properties", ref.name, "items", "properties", "content", "type"):
        at = at.get(part) if isinstance(at, dict) else None
    return bool(at == "string")


def _refusal_bytes(allowed: Sequence[str]) -> int:
    """The longest message about an answer that is none of *allowed*."""
    try:
        allowed_answer("x" * (4 * max(map(len, allowed)) + 1), tuple(allowed))
    except InvalidAnswer as error:
        return len(str(error).encode()) + 4 * QUOTED_CHARS
    raise AssertionError(allowed)


def _model(step: LLMStep, names: Names) -> str | None:
    declared = step.model or names.program.defaults.model
    return names.program.model_named(declared)


def _reserves(budget: Budget | None) -> bool:
    return budget is not None and (budget.max_tokens is not None or budget.max_cost_usd is not None)


def _exponent(prices: Prices) -> int:
    """The power of ten of which every price of one token is a whole multiple: so sums of money are
    sums of integers.
    """
    lowest = 0
    for pair in prices.values():
        for price in pair:
            exponent = price.as_tuple().exponent
            lowest = min(lowest, exponent) if isinstance(exponent, int) else lowest
    return lowest - 6


def _money(units: int, exponent: int) -> Decimal:
    """The inverse of `_units`; exact, which arithmetic of Decimals is not beyond 28 digits."""
    digits = str(units)
    kept = digits.rstrip("0") or "0"
    zeros = min(len(digits) - len(kept), -exponent)
    return Decimal(f"{digits[: len(digits) - zeros]}E{exponent + zeros}")


def _units(money: Decimal, exponent: int) -> int:
    """*money* in units of ten to the power of *exponent*, rounded up."""
    _, digits, own = money.as_tuple()
    assert isinstance(own, int)
    whole = int("".join(map(str, digits)))
    power: int = 10 ** abs(own - exponent)
    return whole * power if own >= exponent else -(-whole // power)


# --- budgets --------------------------------------------------------------------------------------

_FIELDS: tuple[tuple[str, str, str, Callable[[Ceiling], int | Decimal | None]], ...] = (
    ("V070", "max_steps", "steps", lambda c: c.steps),
    ("V071", "max_llm_calls", "llm_calls", lambda c: c.llm_calls),
    ("V072", "max_tool_calls", "tool_calls", lambda c: c.tool_calls),
    ("V073", "max_tokens", "tokens", lambda c: c.tokens),
    ("V074", "max_cost_usd", "cost_usd", lambda c: c.cost_usd),
)
_WORDS = {
    "steps": "take {} steps",
    "llm_calls": "make {} model calls",
    "tool_calls": "make {} tool calls",
    "tokens": "use {} tokens",
    "cost_usd": "cost ${}",
}


_BOUNDS = "what the path uses: bounds of loops and maps, max_retries"
_LEVERS = dict.fromkeys(
    ("tokens", "cost_usd"),
    "what its model steps may use: their max_tokens (of the answer), max_retries, and what a "
    "prompt shows, a token for "
    "each byte; maxLength in 'inputs' bounds an input",
)


def over_budget(ceiling: Ceiling, budget: Budget, loc: Loc = ("budget",)) -> list[Diagnostic]:
    """The fields of *budget* that the worst case exceeds, each with by how much and on which path;
    *loc* is where it stands.

    An amount without a bound is a warning: the budget then holds while the program runs, and may
    stop it. What is known to be more is an error all the same.
    """
    found = []
    for code, name, amount, value in _FIELDS:
        most = getattr(budget, name)
        if most is None:
            continue
        limit = Decimal(str(most)) if amount == "cost_usd" else most
        worst = value(ceiling)
        known: int | Decimal = (
            worst if worst is not None else ceiling.cost.low if amount == "cost_usd" else 0
        )
        if known > limit:
            words = _WORDS[amount].format(
                f"{known:,f}" if isinstance(known, Decimal) else f"{known:,}"
            )
            over = f"{known - limit:f}" if isinstance(known, Decimal) else f"{known - limit:,}"
            message = (
                f"a run can {words}, {over} more than the {name} of {limit:,}: "
                f"{_shown(ceiling.path_of(amount))}"
            )
            hint = (
                f"raise {'.'.join(map(str, loc))}.{name}, or lower {_LEVERS.get(amount, _BOUNDS)}"
            )
            found.append(Diagnostic(code, (*loc, name), message, hint))
        elif worst is None:
            reason = ceiling.open[0] if ceiling.open else "no bound is known"
            message = (
                f"whether a run keeps to the {name} of {limit:,} is known only when it "
                f"runs: {reason}"
            )
            hint = (
                "declare max_tokens, bound what the prompt shows (allowed_outputs, "
                "output_schema), give prices"
            )
            found.append(Diagnostic("V075", (*loc, name), message, hint, "warning"))
    return found


def _shown(path: tuple[str, ...]) -> str:
    if len(path) > PATH_SHOWN:
        left = PATH_SHOWN - 2
        return " -> ".join((*path[:left], f"... {len(path) - PATH_SHOWN + 1:,} more ...", path[-1]))
    return " -> ".join(path)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _dollars(cost: Interval) -> str:
    if cost.high is not None:
        return f"${cost.high:f}"
    return f"${cost.low:f} and what is not known" if cost.low else "not known"
