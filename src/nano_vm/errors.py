"""The exception tree.

Nothing in the package raises an exception of ours that is not declared here. A failed step is not
an exception but data (`StepError` in a trace); `RunFailed` is for those who ask for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .diagnostics import Diagnostic, summary


class VMError(Exception):
    """Base of every exception that this package raises.

    Examples:
        >>> from nano_vm import ExecutionVM, VMError
        >>> try:
        ...     ExecutionVM(tools={"pay": 5})
        ... except VMError as error:
        ...     print(error)
        tool 'pay' is int, which cannot be called
    """


class ProgramError(VMError, ValueError):
    """A malformed program; ``diagnostics`` holds every fault found, in document order.

    Examples:
        >>> from nano_vm import Program, ProgramError
        >>> try:
        ...     Program.from_yaml("steps: [{id: a, type: llm}]")
        ... except ProgramError as error:
        ...     print(error.diagnostics[0].message)
        llm step 'a' needs a 'prompt' or 'messages'
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(summary(self.diagnostics))

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.diagnostics,))


class StepFault(VMError):
    """Why a step failed, while it travels to the machine; ``kind`` is what `catch` and `retry.on`
    match.
    """

    kind = "value"
    retryable = True


class ExprError(StepFault):
    """An expression or template that is malformed, or that met values it has no meaning for."""


class ValueRefused(StepFault):
    """A value that is not JSON and has no exact JSON form, or one that exceeds a limit."""


class PolicyRefused(StepFault):
    """An argument that the host's policy does not allow; the call was not made."""

    kind = "refused"
    retryable = False


class LimitExceeded(StepFault):
    """A limit of the host was reached: size of a value, number of items or iterations."""

    kind = "limit"


class BudgetExceeded(StepFault):
    """The budget does not cover what the step would reserve. Never skipped."""

    kind = "budget"
    retryable = False


class InvalidAnswer(StepFault):
    """A model's answer that is not one of ``allowed_outputs``, or does not fit
    ``output_schema``.
    """

    kind = "invalid_answer"


class ToolError(StepFault):
    """A tool that failed; a tool may raise it itself to set ``retryable``.

    Examples:
        >>> from nano_vm import ExecutionVM, Program, ToolError
        >>> def pay():
        ...     raise ToolError("the bank is closed")
        >>> program = Program.from_yaml("steps: [{id: a, type: tool, tool: pay}]")
        >>> ExecutionVM(tools={"pay": pay}).run_sync(program).error
        "Step 'a' failed: ToolError: the bank is closed"
    """

    kind = "tool"

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class OutcomeUnknown(StepFault):
    """Raised by a tool that does not know whether its effect took place: the step is *in doubt*.

    Examples:
        >>> from nano_vm import ExecutionVM, OutcomeUnknown, Program, tool
        >>> @tool(effect="write")
        ... def pay():
        ...     raise OutcomeUnknown("the bank closed the connection")
        >>> program = Program.from_yaml("steps: [{id: a, type: tool, tool: pay, max_retries: 3}]")
        >>> trace = ExecutionVM(tools={"pay": pay}).run_sync(program)
        >>> trace.status.value, trace.waiting[0]["kind"]
        ('suspended', 'in_doubt')
    """

    kind = "in_doubt"
    retryable = False


class ModelError(StepFault):
    """A model call that failed; an adapter raises it, yours too.

    ``retryable`` is false where the same request cannot succeed later (bad request, bad key,
    unknown model); ``status`` is the HTTP status, where there was one; ``retry_after_seconds`` how
    long the provider asks to wait.

    ``usage`` is what the call consumed although it failed, an `LLMUsage` or a dict of its fields:
    it is billed, and counts in trace, cost and budget. Without it, a call that the provider refused
    (a status of 4xx or 5xx, or one that is not ``retryable``) has consumed nothing, unless it was
    ``answered``: what that or a lost call consumed nobody knows, its cost is None, and a budget
    charges all that was reserved for it.

    Examples:
        >>> from nano_vm import ExecutionVM, ModelError, Program
        >>> class Down:
        ...     async def complete(self, messages, **kwargs):
        ...         raise ModelError("the key is not known", status=401, retryable=False)
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Hello!}]")
        >>> ExecutionVM(Down()).run_sync(program).error_kind
        'model'
    """

    kind = "model"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = True,
        retry_after_seconds: float | None = None,
        usage: Any = None,
        answered: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage
        self.answered = answered
        self.route: dict[str, Any] | None = None
        """Of a pool: every attempt that it made, as a trace has them."""


class RateLimited(ModelError):
    """The provider asks to wait; ``retry_after_seconds`` is how long, where it said so.

    Examples:
        >>> from nano_vm import RateLimited
        >>> error = RateLimited("the provider is busy", status=429, retry_after_seconds=3)
        >>> error.retryable, error.retry_after_seconds
        (True, 3)
    """

    kind = "rate_limit"

    def __init__(
        self,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        status: int | None = 429,
        usage: Any = None,
    ) -> None:
        super().__init__(
            message, status=status, retry_after_seconds=retry_after_seconds, usage=usage
        )


class ModelTimeout(ModelError):
    """The provider or the connection gave no answer in time."""

    kind = "timeout"


class TruncatedAnswer(ModelError):
    """An answer that was cut off, at ``max_tokens`` or at the model's own limit; retried only where
    ``retry.on`` names it.

    The VM makes it of a `Completion` whose ``finish_reason`` says so; an adapter that has no text
    to give may raise it.

    Examples:
        >>> from nano_vm import Completion, ExecutionVM, Program
        >>> class Short:
        ...     async def complete(self, messages, **kwargs):
        ...         return Completion("Dear customer, we", finish_reason="length")
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Write a letter.}]")
        >>> ExecutionVM(Short()).run_sync(program).error_kind
        'truncated'
    """

    kind = "truncated"

    def __init__(self, message: str, *, usage: Any = None) -> None:
        super().__init__(message, retryable=False, usage=usage, answered=True)


class FilteredAnswer(ModelError):
    """An answer that the model refused or a content filter stopped; retried only where ``retry.on``
    names it.

    The VM makes it of a `Completion` whose ``finish_reason`` says so. An adapter raises it where
    the provider answers with an error instead: ``status`` is that of a filter which refused the
    prompt, so that nothing was consumed.

    Examples:
        >>> from nano_vm import ExecutionVM, FilteredAnswer, Program
        >>> class Filtered:
        ...     async def complete(self, messages, **kwargs):
        ...         raise FilteredAnswer("the prompt was filtered", status=400)
        >>> program = Program.from_yaml("steps: [{id: a, type: llm, prompt: Hello!}]")
        >>> ExecutionVM(Filtered()).run_sync(program).error_kind
        'filtered'
    """

    kind = "filtered"

    def __init__(self, message: str, *, status: int | None = None, usage: Any = None) -> None:
        super().__init__(
            message, status=status, retryable=False, usage=usage, answered=status is None
        )


class EmptyAnswer(ModelError):
    """A model ended well and said nothing: of kind ``model``, tried again like a failure that passes,
    and billed.
    """

    def __init__(self, message: str, *, usage: Any = None) -> None:
        super().__init__(message, usage=usage, answered=True)


class StoreError(VMError):
    """The store could not do what was asked; nothing was changed by it. ``passing`` where another
    attempt may succeed: it is locked, full or away.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class LeaseLost(StoreError):
    """Another owner has taken the run over."""


class UnknownRun(StoreError):
    """There is no such run in the store."""


class NotPermitted(VMError):
    """Who decides is nobody (``by`` names none), or lacks the ``role`` that is asked for."""

    def __init__(self, message: str, *, by: Any = None, role: str | None = None) -> None:
        super().__init__(message)
        self.by = by
        self.role = role


class AlreadyDecided(VMError):
    """Somebody was first: ``decision`` (``approve``, ``reject``, ``resolve`` or ``cancel``; or the
    ``outcome`` of the call itself), ``by`` whom, and when.
    """

    def __init__(
        self,
        message: str,
        *,
        decision: str = "",
        by: str | None = None,
        decided_ns: int | None = None,
    ) -> None:
        super().__init__(message)
        self.decision = decision
        self.by = by
        self.decided_ns = decided_ns


class Expired(VMError):
    """Too late: the deadline has passed (``deadline_ns``, since the epoch, where it is known), or
    the run has ended.
    """

    def __init__(self, message: str, *, deadline_ns: int | None = None) -> None:
        super().__init__(message)
        self.deadline_ns = deadline_ns


class Changed(VMError):
    """What was shown is not what is asked now; look at it again."""


class IllegalOutcome(VMError):
    """A driver gave the machine an outcome that its request cannot have: a fault of the driver."""


class TraceError(VMError, ValueError):
    """A string that is not a trace, or one that was changed."""


class RunFailed(VMError):
    """Raised by `Trace.raise_for_status`; ``trace`` is the trace of the run.

    Examples:
        >>> from nano_vm import ExecutionVM, Program, RunFailed
        >>> program = Program.from_yaml("steps: [{id: a, type: fail, error: Closed, message: not today}]")
        >>> try:
        ...     ExecutionVM().run_sync(program).raise_for_status()
        ... except RunFailed as error:
        ...     print(error)
        unnamed: failed: Step 'a' failed: Closed: not today
    """

    def __init__(self, message: str, trace: Any) -> None:
        super().__init__(message)
        self.trace = trace


class PlannerError(VMError):
    """There is no program for an intent: the model failed, or what it wrote is no program or does
    not pass.

    ``reply`` is what the model wrote, None where it gave no answer; ``diagnostics`` are the faults
    of the program in it, and ``counterexamples`` the runs that would break a demand, as text.

    Examples:
        >>> import asyncio
        >>> from nano_vm import Planner, PlannerError
        >>> from nano_vm.testing import ScriptedLLM
        >>> planner = Planner(ScriptedLLM(["I would rather not."]), tools={"pay": lambda: "paid"})
        >>> try:
        ...     asyncio.run(planner.generate("pay the customer"))
        ... except PlannerError as error:
        ...     print(error.reply)
        I would rather not.
    """

    def __init__(
        self,
        message: str,
        reply: str | None = None,
        diagnostics: Iterable[Diagnostic] = (),
        counterexamples: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.reply = reply
        self.diagnostics = tuple(diagnostics)
        self.counterexamples = tuple(counterexamples)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str(self), self.reply, self.diagnostics, self.counterexamples))


class MissingExtra(VMError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra: pip install 'llm-nano-vm[{extra}]'")
        self.extra = extra
