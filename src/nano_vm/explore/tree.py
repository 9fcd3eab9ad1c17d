"""Every run of a plan under chosen outcomes: the tree of choices, what a run took of the graph, and
a run as people read it.

A plan, its flow and the contracts of its tools come in. `Choices` lists what may come back from
each call: values, errors, a timeout, a cancellation; `Runner` executes the real `Machine` along one
list of choices; `Edges` reads off the records which edges of the `Flow` it took. No tool is called,
no model asked; time counts outcomes and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

from ..errors import VMError
from ..language.answers import read_answer
from ..language.correlation import fitted
from ..language.flow import Flow, Node
from ..language.policy import Budget
from ..language.program import ERROR_KINDS
from ..language.semantics import Chooses, External, output
from ..machine.faults import NOTHING_USED, UNSKIPPABLE, lost, matches
from ..machine.machine import Machine, loaded, machine_of
from ..machine.outcome import Answer, Arrived, Cancelled, Decided, Failed, TimedOut, Value
from ..machine.plan import (
    CLOSE,
    END,
    FOREVER,
    LOOP,
    TEST,
    TOOL,
    WHEN,
    CallOp,
    ForkOp,
    LoopOp,
    ModelOp,
    Op,
    PauseOp,
    Plan,
    ToolOp,
    WhenOp,
)
from ..machine.simulate import simulate
from ..machine.terms import RunTerms
from ..prices import Price
from ..records.record import (
    BRIEF,
    Record,
    StepError,
    bases_of,
    edge_of,
    flattened,
    full,
)
from ..records.recording import Recording
from ..records.status import StepStatus
from ..records.trace import Trace
from ..tools.contract import IDEMPOTENCY_KEY, ToolContract, contract
from ..values import UNSET, canonical, short
from .samples import (
    NOTHING,
    OTHER_TEXT,
    TEXT,
    Asked,
    Checks,
    Questions,
    Source,
    returned,
    samples,
    texts,
)

RUN_ID = "explored"
"""Of every explored run: its effect keys are the same each time."""

GRAIN_NS = 1_000_000
"""What lies below it in a time counts the outcomes of the run so far: no run has a million."""

INVALID_ANSWER = "\N{REPLACEMENT CHARACTER} none of these"
"""An answer that is no allowed output and no JSON."""

Kind = Literal[
    "value",
    "answer",
    "error",
    "timeout",
    "cancel",
    "order",
    "input",
    "approved",
    "rejected",
    "arrived",
]


@dataclass(slots=True, eq=False)
class Outcome:
    """One thing that may come back: what ``value`` is depends on ``kind``. ``every`` says that all
    further attempts fail alike.
    """

    kind: Kind
    value: Any = None
    every: bool = True
    plain: bool = False  # a tool's value: handed over without further question

    def __str__(self) -> str:
        attempts = "" if self.every else ", the first attempt only"
        match self.kind:
            case "value" | "input":
                return "is not given" if self.value is UNSET else f"returns {short(self.value)}"
            case "answer":
                return f"answers {short(self.value)}{attempts}"
            case "error":
                return f"fails: {self.value}{attempts}"
            case "timeout":
                return f"times out{attempts}"
            case "cancel":
                return "the run is cancelled " + (
                    "during this call" if self.value else "before this call"
                )
            case "approved" | "rejected":
                return f"is {self.kind}"
            case "arrived":
                return "has come" if self.value is None else f"has come with {short(self.value)}"
        return f"children run in the order {self.value}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        data: dict[str, Any] = {"kind": self.kind}
        if self.kind == "error":
            data["error"] = self.value.to_dict()
        elif self.kind == "cancel":
            data["called"] = self.value
        elif self.kind in ("value", "answer", "order", "arrived"):
            data["value"] = self.value
        return data if self.every else {**data, "attempts": 1}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of `to_dict`."""
        kind: Kind = data["kind"]
        value = data.get("called") if kind == "cancel" else data.get("value")
        if kind == "error":
            value = StepError.from_dict(data["error"])
        return cls(kind, value, every="attempts" not in data)


@dataclass(slots=True, eq=False)
class Site:
    """A place where something is chosen: a call, an input, the order of a fork's children."""

    name: str
    outcomes: list[Outcome]
    source: Source | None = None
    node: int = -1
    retry: Site | None = None  # what may come of another attempt, after one that failed
    tried: int = 1  # bits: choices that a run was made for, or will be


# --- what may come back ---------------------------------------------------------------------------


class Choices:
    """The sites of a plan that was compiled with *checks*; *errors* injects failures, *cancels*
    cancellations, *orders* other orders of a fork's children.
    """

    def __init__(
        self,
        plan: Plan,
        flow: Flow,
        contracts: Mapping[str, ToolContract],
        *,
        checks: Checks | None = None,
        errors: bool = True,
        cancels: bool = False,
        orders: bool = False,
    ) -> None:
        self.plan = plan
        self.flow = flow
        self.contracts = contracts
        self.questions = Questions(flow, contracts, checks)
        self.errors, self.cancels = errors, cancels
        self.notes: list[str] = []  # what could not be made up
        self.calls: dict[Op, Site] = {}
        self.forks: dict[Op, dict[int, Site]] | None = {} if orders else None
        for node, op in zip(flow.nodes, plan.ops, strict=True):
            if isinstance(op, (ToolOp, ModelOp, PauseOp)):
                self._add(node, op)

    def _add(self, node: Node, op: Op) -> None:
        source = (self._scope(node), "step", node.step.id)
        asked = self.questions.asked.get(source, NOTHING)
        good: list[Outcome] = []
        bad: list[Outcome] = []
        attempts = 1
        if isinstance(op, ToolOp):
            attempts = op.attempts
            good = [Outcome("value", value, plain=True) for value in self._returns(op, asked)]
            bad = self._tool_errors(op, self._told(node))
            for beside in (op.undo, op.reconcile):
                if beside is not None:
                    self._add_beside(node, beside, op, good)
        elif isinstance(op, ModelOp):
            attempts = max(op.attempts, op.answer_attempts)
            good = self._answers(op, asked, node.step.id)
            bad = self._model_errors(op, self._told(node))
            if op.allowed is not None or op.validate is not None:
                bad.append(Outcome("answer", INVALID_ANSWER))
        elif isinstance(op, PauseOp):
            good = self._decisions(op, node, asked)
        if not self.errors and good:
            bad = []
        # of a call that fails; an invalid answer has its own
        tries = op.attempts if isinstance(op, CallOp) else 1
        again = [
            outcome
            for outcome in bad
            if (attempts if outcome.kind == "answer" else tries) > 1 and good
        ]
        once = [Outcome(outcome.kind, outcome.value, every=False) for outcome in again]
        site = Site(node.step.id, self._cancelling([*good, *bad, *once]), source, node.index)
        if attempts > 1:
            site.retry = Site(node.step.id, self._cancelling(good or bad), source, node.index)
        self.calls[op] = site

    def _add_beside(self, node: Node, beside: ToolOp, op: ToolOp, good: Sequence[Outcome]) -> None:
        """The undo or reconcile call of a step."""
        failed = Outcome("error", StepError("tool", "Exception", f"injected into {beside.tool!r}"))
        if beside is op.reconcile:
            outcomes = [
                Outcome("value", {"done": True, "output": outcome.value}, plain=True)
                for outcome in good
            ]
            outcomes.append(Outcome("value", {"done": False}, plain=True))
        else:
            outcomes = [Outcome("value", plain=True)]
        if self.errors:
            outcomes.append(failed)
        if beside is op.reconcile:
            outcomes = self._cancelling(outcomes)
        self.calls[beside] = Site(beside.step_id, outcomes, node=node.index)

    def _cancelling(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return (
            [*outcomes, Outcome("cancel", False), Outcome("cancel", True)]
            if self.cancels
            else list(outcomes)
        )

    def _scope(self, node: Node) -> int:
        return self.questions.scopes[id(node.frame.names)].index

    def _returns(self, op: ToolOp, asked: Asked) -> list[Any]:
        known = self.contracts.get(op.tool)
        schema = returned(known) if known is not None else None
        found = samples(asked, schema)
        if not found:
            self.notes.append(
                f"no value could be made up for what tool {op.tool!r} returns; any is taken"
            )
            found = samples(asked)
        return found

    def _answers(self, op: ModelOp, asked: Asked, step_id: str) -> list[Outcome]:
        if op.allowed is not None:
            found = list(op.allowed)
        elif op.validate is not None:
            found = []
            for value in samples(asked, op.schema):
                text = canonical(value).decode()
                try:
                    read_answer(text, check=op.validate)
                except VMError:
                    continue
                found.append(text)
            if not found:
                self.notes.append(
                    f"no answer could be made up for the schema of step {step_id!r}; it is always "
                    f"invalid"
                )
        else:
            found = texts(asked)
        return [Outcome("answer", text) for text in found]

    def _told(self, node: Node) -> Asked:
        """What is asked of the step's error by those that read it."""
        return self.questions.of(node.frame.names, "error", node.step.id)

    def _tool_errors(self, op: ToolOp, told: Asked) -> list[Outcome]:
        plain = StepError("tool", "Exception", f"injected into {op.tool!r}")
        names = [*_named(op, _TOOL_KINDS), *_asked_names(told, _TOOL_KINDS)]
        named = [
            _injected("tool", name, f"injected into {op.tool!r}") for name in dict.fromkeys(names)
        ]
        named += [StepError("tool", "Exception", text) for text in _asked_messages(told)]
        named = [
            replace(error, kind="in_doubt", retryable=False)
            if op.unsafe and lost((error.type, *error.bases))
            else error
            for error in named
        ]
        found = [Outcome("error", error) for error in [plain, *named]]
        return [*found[:1], Outcome("timeout"), *found[1:]]

    def _model_errors(self, op: ModelOp, told: Asked) -> list[Outcome]:
        plain = _injected("model", "ModelError", "injected into the model call")
        others = [_injected("rate_limit", "RateLimited", "injected into the model call")]
        named = list(dict.fromkeys([*_named(op, _MODEL_KINDS), *_asked_names(told, _MODEL_KINDS)]))
        others += [_injected("model", name, "injected into the model call") for name in named]
        others += [
            _injected(kind, name, "injected into the model call") for kind, name in _UNFINISHED
        ]
        if not told.anything:
            others = [
                error for error in others if error.type in named or not _led_alike(op, plain, error)
            ]
        others += [_injected("model", "ModelError", text) for text in _asked_messages(told)]
        return [
            Outcome("error", plain),
            Outcome("timeout"),
            *(Outcome("error", error) for error in others),
        ]

    def _decisions(self, op: PauseOp, node: Node, asked: Asked) -> list[Outcome]:
        """What may become of an approval or a wait."""
        late = [Outcome("timeout")] if op.timeout_ns or _ends_by(node) else []
        if op.asks:
            return [Outcome("approved"), Outcome("rejected"), *late]
        if any(isinstance(term, External) and term.by == "event" for term in output(node.step)):
            return [*(Outcome("arrived", value) for value in samples(asked)), *late]
        return [Outcome("arrived"), *late]

    def inputs(self, given: Mapping[str, Any] | None) -> tuple[dict[str, Any], list[Site]]:
        """Inputs that are always the same, and a site for each that is chosen: those *given*, else
        made up.
        """
        root = self.plan.frames[0]
        names = self.flow.frames[0].names
        if given is not None:
            return dict(given), []
        fixed: dict[str, Any] = {}
        sites: list[Site] = []
        properties = (names.program.inputs or {}).get("properties", {})
        for name in dict.fromkeys([*root.needed, *root.others, *self.plan.given]):
            optional = name not in root.needed and name not in self.plan.given
            if optional and not names.takes(name):
                continue  # something else writes it
            asked = self.questions.of(names, "input", name)
            declared = properties.get(name)
            values = samples(asked, declared) or samples(asked)
            if optional:
                values = [UNSET, *values] if asked.anything else [UNSET]
            if len(values) == 1:
                if values[0] is not UNSET:
                    fixed[name] = values[0]
                continue
            source = (0, "input", name)
            outcomes = [Outcome("input", value) for value in values]
            sites.append(Site(name, outcomes, source))
        return fixed, sites

    def order(self, op: ForkOp, size: int) -> Site | None:
        """In which order the children of a fork run: as declared, the other way round, and each one
        first.
        """
        if self.forks is None or op.at_once(size) < 2:
            return None
        sites = self.forks.setdefault(op, {})
        if size not in sites:
            declared = list(range(size))
            orders = {tuple(declared): None, tuple(reversed(declared)): None}
            if size <= 4:
                orders |= {
                    (first, *(n for n in declared if n != first)): None for first in declared
                }
            outcomes = [Outcome("order", list(order)) for order in orders]
            sites[size] = Site(op.step_id, outcomes, node=op.index)
        return sites[size]


_UNFINISHED = (("truncated", "TruncatedAnswer"), ("filtered", "FilteredAnswer"))
_TOOL_KINDS = frozenset({"tool", "timeout", "Exception", "TimeoutError"})
_MODEL_KINDS = frozenset(
    {
        "model",
        "timeout",
        "rate_limit",
        "invalid_answer",
        "ModelError",
        "RateLimited",
        "TimeoutError",
    }
    | {word for both in _UNFINISHED for word in both}
)
_OTHER_KINDS = frozenset({*ERROR_KINDS, "cancelled", "in_doubt", "BaseException"})


def _ends_by(node: Node) -> bool:
    """Whether something around *node* has a deadline that waiting does not move."""
    at: Node | None = node
    while at is not None:
        frame = at.frame
        if frame.kind in ("run", "call") and frame.names.program.timeout_seconds is not None:
            return True
        at = at.owner or frame.owner
        # an approval's is that of its own decision, and not of the blocks behind it
        timed = at is not None and at.step.timeout_seconds is not None
        if timed and not isinstance(at.control, Chooses):  # type: ignore[union-attr]
            return True
    return False


def _named(op: CallOp, known: frozenset[str]) -> list[str]:
    """Class names that a ``catch`` or ``retry.on`` of the step names, and that no other injected
    error has.
    """
    patterns = [name for handler in op.handlers for name in handler.errors or ()] + list(
        op.retry.on or ()
    )
    skipped = known | _OTHER_KINDS
    return [name for name in dict.fromkeys(patterns) if name not in skipped]


def _asked_names(told: Asked, known: frozenset[str]) -> list[str]:
    """Class names with which a program compares `$step.error.type`, and that no other injected
    error has.
    """
    asked = told.fields.get("type", NOTHING).equal.values()
    return [name for name in asked if type(name) is str and name and name not in known]


def _asked_messages(told: Asked) -> list[str]:
    """Messages that a program asks for in `$step.error.message`."""
    asked = told.fields.get("message", NOTHING)
    return (
        [text for text in texts(asked) if text not in (TEXT, OTHER_TEXT)] if asked.anything else []
    )


def _injected(kind: str, name: str, message: str) -> StepError:
    """An error of the class with this *name*, with the base classes that it has where it is
    Python's own or ours.
    """
    work = [BaseException]
    for at in work:  # grows as it is walked
        if at.__name__ == name and at.__module__ in ("builtins", VMError.__module__):
            return StepError(kind, name, message, bases=bases_of(at))
        work += at.__subclasses__()
    return StepError(kind, name, message)


def _led_alike(op: CallOp, one: StepError, two: StepError) -> bool:
    """Whether both errors go the same way: to the same handler, after the same retries."""
    on = op.retry.on
    retried = on is None or matches(one, tuple(on)) == matches(two, tuple(on))
    return retried and _handler(op, one) == _handler(op, two)


def _handler(op: Op, error: StepError) -> int | None:
    """The number of the handler that takes *error*."""
    for number, handler in enumerate(op.handlers):
        if handler.errors is None:
            if error.kind not in UNSKIPPABLE:
                return number
        elif matches(error, handler.errors):
            return number
    return None


def assumed(flow: Flow, contracts: Mapping[str, ToolContract]) -> dict[str, ToolContract]:
    """*contracts*, and for each other tool that the flow calls one that takes anything and says
    nothing.
    """
    unknown = [tool for tool in flow.tools if tool not in contracts]
    return {**contracts, **{tool: contract(tool, lambda **_: None) for tool in unknown}}


# --- running --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Given:
    """One outcome of a run: where, what was asked, what came back."""

    path: str
    asked: str
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.path}: {self.asked} {self.outcome}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"path": self.path, "asked": self.asked, **self.outcome.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Given:
        """The inverse of `to_dict`."""
        return cls(data["path"], data["asked"], Outcome.from_dict(data))


class Runner:
    """Executes a plan along lists of choices. After `run`: ``root`` is the ended machine, ``taken``
    the choices, ``sites`` theirs.
    """

    def __init__(
        self, choices: Choices, given: Mapping[str, Any] | None = None, budget: Budget | None = None
    ) -> None:
        self.choices = choices
        self.plan = choices.plan
        self.frame_plan = choices.plan.frames[0]
        self.fixed, self.inputs = choices.inputs(given)
        self.fix(self.fixed)
        self.slots = dict(self.frame_plan.inputs)
        self.budget = budget if budget is not None else choices.flow.program.budget
        self.terms = terms_of(self.budget)
        self.root: Machine = None  # type: ignore[assignment]
        self.taken: list[int] = []
        self.sites: list[Site] = []
        # records of the root before the prefix's last choice: those of a run that was made before
        self.fresh = 0
        self.log: list[Given] | None = None
        self.cancelled = False

    def fix(self, inputs: Mapping[str, Any]) -> None:
        """Give each run these *inputs*, of those that are always the same."""
        self.fixed = dict(inputs)
        self.blank = loaded(self.frame_plan, self.fixed)

    def run(self, prefix: Sequence[int]) -> Machine:
        """Execute with the choices *prefix*, and the first of each site after it."""
        script = iter(prefix)
        taken: list[int] = []
        sites: list[Site] = []
        self.taken, self.sites, self.fresh, self.cancelled = taken, sites, 0, False
        frame = self.blank.copy()
        for site in self.inputs:
            choice = next(script, 0)
            taken.append(choice)
            sites.append(site)
            value = site.outcomes[choice].value
            if value is not UNSET and site.name in self.slots:
                frame[self.slots[site.name]] = value
        root = self.root = self.machine(frame)
        records = root.records
        calls, log = self.choices.calls, self.log
        cancels = self.choices.cancels
        took, noted, chosen = taken.append, sites.append, len(taken)

        def feed(machine: Machine, op: Op) -> Op:
            if cancels and self.cancelled and machine.side_call is None:
                return machine.resume(Cancelled(called=False), machine.now)
            site = calls[op]
            if site.retry is not None and machine.retrying:
                site = site.retry
            choice = next(script, 0)
            took(choice)
            noted(site)
            if choice:
                self.fresh = len(records)
            outcome = site.outcomes[choice]
            now = machine.now
            machine.now = (
                len(taken) - chosen
                if now < GRAIN_NS
                else now - now % GRAIN_NS + len(taken) - chosen
            )
            if log is not None:
                log.append(Given(machine.path, asked(machine, op), outcome))
            if outcome.plain:
                return machine.steps.send(outcome.value)
            if outcome.kind == "cancel":
                self.cancelled = True
            return applied(machine, op, outcome)

        def order(machine: Machine, op: Op) -> Iterable[int]:
            assert isinstance(op, ForkOp)
            site = self.choices.order(op, machine.fork.size)
            if site is None:
                return beside(machine, op, range(machine.fork.size))
            choice = next(script, 0)
            took(choice)
            noted(site)
            if choice:
                self.fresh = len(records)
            outcome = site.outcomes[choice]
            if log is not None:
                log.append(Given(machine.path, op.type, outcome))
            return beside(machine, op, outcome.value)

        simulate(root, feed, order)
        return root

    def machine(self, frame: list[Any]) -> Machine:
        """A new machine for the root frame, at time 0."""
        inputs = self.used if self.plan.given else {}
        machine = machine_of(self.plan, inputs, self.terms, run_id=RUN_ID, seed=0, frame=frame)
        machine.now = 0
        return machine

    @property
    def used(self) -> dict[str, Any]:
        """The inputs of the run."""
        chosen = zip(self.inputs, self.taken, strict=False)
        values = {site.name: site.outcomes[choice].value for site, choice in chosen}
        return self.fixed | {name: value for name, value in values.items() if value is not UNSET}

    def fits(self) -> bool:
        """Whether the run's inputs fit the program's schema together."""
        check = self.frame_plan.check
        return check is None or check(self.used) is None

    def recorded(self, taken: Sequence[int]) -> list[Given]:
        """The outcomes of the run with the choices *taken*, which is made once more."""
        kept = self.root, self.taken, self.sites, self.fresh, self.cancelled
        self.log = []
        try:
            self.run(taken)
            return self.log
        finally:
            self.log = None
            self.root, self.taken, self.sites, self.fresh, self.cancelled = kept


class _Free(dict[str, Price]):
    """Prices of explored runs: of no model's cost anything is known, so none costs anything."""

    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: str) -> Price:
        return Decimal(0), Decimal(0)

    def get(self, *_: Any) -> Price:
        return Decimal(0), Decimal(0)


def terms_of(budget: Budget | None) -> RunTerms:
    """The terms of explored runs."""
    return RunTerms(budget=budget, prices=_Free(), default_model="explored")


def beside(machine: Machine, op: ForkOp, order: Iterable[int]) -> Iterator[int]:
    """The numbers of children in the *order* in which they are run, with the clock set so that they
    run at the same time.
    """
    started = latest = machine.now
    for number in order:
        if op.at_once(machine.fork.size) > 1:
            machine.now = started
        yield number
        latest = max(latest, machine.now)
    machine.now = latest


def replay(
    plan: Plan, inputs: Mapping[str, Any], given: Sequence[Given], budget: Budget | None = None
) -> Machine:
    """The ended machine of a run of *plan* on *inputs* whose calls have the outcomes *given*, in
    order.

    *budget* is the program's own.

    Raises:
        VMError: If the run asks at another place than where an outcome was given: it is another
        program.
    """
    rest = list(reversed(given))
    cancelled = False

    def feed(machine: Machine, op: Op) -> Op:
        nonlocal cancelled
        if cancelled and machine.side_call is None:
            return machine.resume(Cancelled(called=False), machine.now)
        path = machine.path
        if not rest or rest[-1].path != path:
            found = (
                f"the next outcome is for {rest[-1].path!r}"
                if rest
                else "there are no more outcomes"
            )
            raise VMError(
                f"the run asks at {path!r}, and {found}; it is of another program, or of other "
                f"inputs"
            )
        outcome = rest.pop().outcome
        now = machine.now
        machine.now = now - now % GRAIN_NS + (len(given) - len(rest))
        cancelled = cancelled or outcome.kind == "cancel"
        return applied(machine, op, outcome)

    def order(machine: Machine, op: Op) -> Iterable[int]:
        assert isinstance(op, ForkOp)
        if rest and rest[-1].outcome.kind == "order" and rest[-1].path == machine.path:
            return beside(machine, op, rest.pop().outcome.value)
        return beside(machine, op, range(machine.fork.size))

    root = machine_of(plan, inputs, terms_of(budget), run_id=RUN_ID, seed=0)
    root.now = 0
    simulate(root, feed, order)
    return root


def applied(machine: Machine, op: Op, outcome: Outcome) -> Op:
    """The request after *outcome*; one that holds for every attempt is given to each."""
    while True:
        now = machine.now
        match outcome.kind:
            case "value":
                return machine.resume(Value(outcome.value), now)
            case "answer":
                following = machine.resume(Answer(outcome.value), now)
            case "error":
                following = machine.resume(
                    Failed(
                        outcome.value, NOTHING_USED if outcome.value.kind == "rate_limit" else None
                    ),
                    now,
                )
            case "approved" | "rejected":
                return machine.resume(Decided(outcome.kind == "approved"), now)
            case "arrived":
                return machine.resume(
                    Arrived(fitted(outcome.value, machine.request.get("match"))), now
                )
            case "timeout":
                assert isinstance(op, (CallOp, PauseOp))
                passed(
                    machine,
                    min(now + op.timeout_ns if op.timeout_ns else FOREVER, machine.deadline),
                )
                following = machine.resume(TimedOut(), machine.now)
            case "cancel":
                return machine.resume(Cancelled(called=outcome.value), now)
            case _:
                raise AssertionError(outcome.kind)
        if machine.delay_seconds and following.code != END:
            due = now + int(machine.delay_seconds * 1e9)
            machine.delay_seconds = 0.0
            passed(machine, min(due, machine.deadline))
            # the wait before another attempt ends by the deadline around it
            if due >= machine.deadline:
                return machine.resume(TimedOut(called=False), machine.now)
        if not (outcome.every and following is op and machine.retrying):
            return following


def passed(machine: Machine, due: int) -> None:
    """Set the clock to *due*, rounded up so that what is below `GRAIN_NS` still counts outcomes."""
    machine.now = max(machine.now, -(-due // GRAIN_NS) * GRAIN_NS + machine.now % GRAIN_NS)


def asked(machine: Machine, op: Op) -> str:
    """What a request asks for, in words."""
    if isinstance(op, ToolOp):
        arguments = (
            f"{name}={short(value)}"
            for name, value in machine.keywords.items()
            if name != IDEMPOTENCY_KEY
        )
        return f"{op.tool}({', '.join(arguments)})"
    return "the model" if isinstance(op, ModelOp) else op.type


# --- what a run took of the graph -----------------------------------------------------------------

Edge = tuple[int, int]
"""Index of a node, and of one of its edges."""


@dataclass(slots=True, eq=False)
class Took:
    """An edge that a run took, when, and by which record; ``edge`` is -1 where the step was reached
    and the run stopped in it.
    """

    node: int
    edge: int
    label: str
    at: int
    record: Any = None


_SILENT = {CLOSE: "next", LOOP: "next", TEST: "again", WHEN: "when"}
"""Ops that leave no record of their own where they go on by this edge."""


class Edges:
    """Reads the edges of a flow off the records of a machine of its plan."""

    def __init__(self, plan: Plan, flow: Flow) -> None:
        self.ops = plan.ops
        self.flow = flow
        self.labels: list[dict[str, int]] = []
        self.handlers: list[list[int]] = []
        for node in flow.nodes:
            self.labels.append({edge.label: i for i, edge in reversed(list(enumerate(node.edges)))})
            self.handlers.append(
                [i for i, edge in enumerate(node.edges) if edge.label in ("catch", "skip")]
            )

    def of(self, machine: Machine, fresh: int = 0) -> Iterator[Took]:
        """The edges in the order of the records, those of a fork's children before it; *fresh*
        leaves out what earlier records say.
        """
        records = machine.records
        start = max(fresh - 1, 0)
        at: Op | None = machine.frame_plan.entry
        if start:
            before = full(records[start], self.ops).step
            at = before if before.index >= 0 and before.code != LOOP else None
            if at is None:
                start, at = 0, machine.frame_plan.entry
        yield from self._frame(records[start:], at)

    def _frame(self, records: Sequence[Any], at: Op | None) -> Iterator[Took]:
        labels, nodes, ops = self.labels, self.flow.nodes, self.ops
        when = 0
        for record in records:
            if len(record) == BRIEF:
                op, when = ops[record[0]], record[4]
            else:
                op, when = record[0], record[7]
            # an undo or reconcile; a loop that ended by what failed inside it
            if op.index < 0 or op.code == LOOP:
                continue
            if at is not op:
                yield from self._way(at, op, when)
            extra = None if len(record) == BRIEF else record[10]
            if isinstance(op, ForkOp) and extra is not None and "children" in extra:
                forks = [i for i, edge in enumerate(nodes[op.index].edges) if edge.label == "fork"]
                for number, child in enumerate(extra["children"]):
                    which = 0 if op.kind == "map" else number
                    yield Took(op.index, forks[which], "fork", record[6])
                    yield from self._frame(child, op.frames[which].entry)
            edge = labels[op.index]["next"] if len(record) == BRIEF else self._edge(op, record)
            if edge is None:
                yield Took(op.index, -1, "", when, record)
                return
            yield Took(op.index, edge, nodes[op.index].edges[edge].label, when, record)
            at = ops[nodes[op.index].edges[edge].target]
        yield from self._way(at, None, when)

    def _way(self, at: Op | None, to: Op | None, when: int) -> Iterator[Took]:
        """The edges of ends of blocks and iterations between *at* and *to*, which leave no
        record.
        """
        while at is not None and at is not to and at.code in _SILENT:
            if at.code == TEST and to is None:
                return  # the run ended in between
            label = _SILENT[at.code]
            edge = self.labels[at.index][label]
            yield Took(at.index, edge, label, when)
            at = self.ops[self.flow.nodes[at.index].edges[edge].target]

    def _edge(self, op: Op, record: Any) -> int | None:
        """The edge behind a record; None where its frame stops there."""
        labels = self.labels[op.index]
        status, error, extra = record[2], record[4], record[10]
        if status is StepStatus.SUCCESS:
            if type(extra) is tuple:
                return labels[extra[0]]
            if op.code == TEST:
                return labels["exhausted" if extra["exhausted"] else "until"]
            branch = extra.get("branch") if type(extra) is dict else None
            if branch is not None:
                return labels.get(f"case:{branch}", labels.get(branch))
            return labels.get("next", labels.get("then"))
        if status is StepStatus.SKIPPED and error is None:
            return labels["unless"]
        if status not in (StepStatus.FAILED, StepStatus.SKIPPED) or error is None:
            return None
        number = _handler(op, error)
        return labels.get("error") if number is None else self.handlers[op.index][number]


def held_before(op: Op, path: str, extra: Any, seen: set[str]) -> Iterator[WhenOp]:
    """Each `when` that held immediately before the step of a record, those of the loops around it
    first.

    A loop is recorded at its end, or not at all if it is left by a jump, so that it began is reported
    by the first record inside it. *seen* are the paths of the loops that it has reported.
    """
    found: list[tuple[str, WhenOp]] = []
    around, inside = op.owner, path
    while around is not None:
        inside = inside.rpartition("/")[0]
        if isinstance(around, LoopOp) and around.when is not None:
            found.append((inside.rpartition("#")[0], around.when))
        around = around.owner
    for at, when in reversed(found):
        if at not in seen:
            seen.add(at)
            yield when
    if op.when is not None and type(extra) is dict and "when" in extra and path not in seen:
        yield op.when


# --- a run as people read it ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool: its arguments, and what came of it. ``attempts`` counts those made; each
    may have had its effect.
    """

    path: str
    step_id: str
    tool: str
    args: dict[str, Any]
    status: str
    attempts: int
    output: Any = None
    error_kind: str | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch that was taken: ``references`` are the values it was decided by, ``after`` is how
    many outcomes the run had before.
    """

    path: str
    branch: str
    references: dict[str, Any]
    after: int = 0

    def __str__(self) -> str:
        values = ", ".join(f"{name} = {short(value)}" for name, value in self.references.items())
        return f"{self.path} -> {self.branch}" + (f" ({values})" if values else "")

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "path": self.path,
            "branch": self.branch,
            "references": self.references,
            "after": self.after,
        }


class ExploredRun:
    """A run under chosen outcomes: ``inputs``, ``given`` (what each call got), ``branches``,
    ``calls``, ``trace``.

    What a property sees. All but the machine is made lazily.
    """

    def __init__(self, runner: Runner) -> None:
        self.machine = runner.root
        self._runner = runner
        self._taken = runner.taken
        self._inputs: dict[str, Any] | None = None
        self._given: list[Given] | None = None

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run was given."""
        chosen = zip(self._runner.inputs, self._taken, strict=False)
        values = {site.name: site.outcomes[choice].value for site, choice in chosen}
        return self._runner.fixed | {
            name: value for name, value in values.items() if value is not UNSET
        }

    @property
    def given(self) -> list[Given]:
        """What came back from each call, in the order in which they were made."""
        if self._given is None:
            self._given = self._runner.recorded(self._taken)
        return self._given

    @property
    def status(self) -> str:
        """How the run ended."""
        return self.machine.status.value

    @property
    def trace(self) -> Trace:
        """The trace, as `ExecutionVM.run` gives it for these outcomes; its times mean nothing."""
        machine, flow = self.machine, self._runner.choices.flow
        plan = self._runner.plan
        recording = Recording(
            plan.name,
            flow.digest or flow.program,
            RUN_ID,
            0,
            0,
            records=machine.records,
            ops=plan.ops,
            salt="00" * 16,
        )
        read = {**dict(self._runner.frame_plan.inputs), **dict.fromkeys(plan.given)}
        declared = self._runner.frame_plan.check is not None
        given = self.inputs
        recording.inputs = (
            given if declared else {name: given[name] for name in read if name in given}
        )
        machine.fill(recording)
        recording.finished_ns = machine.now
        return Trace(recording)

    @property
    def calls(self) -> list[ToolCall]:
        """Every tool call that was made, undo and reconcile calls too, in the order in which they
        ended.
        """
        found = [
            (record.finished_ns % GRAIN_NS, record)
            for record in self.records
            if record.step.code == TOOL and record.request is not None
        ]
        found.sort(key=lambda entry: entry[0])
        return [_call(record) for _, record in found]

    @property
    def tree(self) -> list[Record]:
        """The records; those of a fork's children stand in its
        ``extra["children"]``.
        """
        return [full(record, self._runner.plan.ops) for record in self.machine.records]

    @property
    def records(self) -> list[Record]:
        """The records, those of a fork's children before it."""
        return flattened(self.tree)

    @property
    def length(self) -> int:
        """How many outcomes the run had."""
        return len(self._taken)

    @property
    def branches(self) -> list[Branch]:
        """Every branch that was taken, with the values that decided it."""
        found = []
        for record in self.records:
            path, extra = record.path, record.extra
            began, ended = record.started_ns % GRAIN_NS, record.finished_ns % GRAIN_NS
            if type(extra) is dict and "when" in extra:
                found.append(Branch(path, "when", extra["when"], began))
            label = edge_of(extra)
            if label is None:
                continue
            said = record.beside
            if "exhausted" in said:
                values = {"iterations": said["iterations"]}
            else:
                values = said.get("references", {})
            found.append(Branch(path, label, values, ended))
        return found

    def replay(self, plan: Plan | None = None) -> Machine:
        """The ended machine of the same run, made again from its outcomes, on *plan* if it is
        given.
        """
        return replay(plan or self._runner.plan, self.inputs, self.given, self._runner.budget)

    def lines(self) -> Iterator[str]:
        """The run for people, a line each: inputs, what happened in its order, its end."""
        for name, value in self.inputs.items():
            yield f"input {name} = {short(value)}"
        outcomes = [(number, str(entry)) for number, entry in enumerate(self.given, 1)]
        branches = [(branch.after, str(branch)) for branch in self.branches]
        # a branch stands behind the outcome that it is decided after; the sort keeps what is equal
        for _, line in sorted([*outcomes, *branches], key=lambda event: event[0]):
            yield line
        error = self.machine.error_summary()
        yield f"run: {self.status}" + (f": {error}" if error else "")

    def text(self) -> str:
        """`lines` in one text."""
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "inputs": self.inputs,
            "outcomes": [entry.to_dict() for entry in self.given],
            "branches": [branch.to_dict() for branch in self.branches],
            "status": self.status,
            "error": self.machine.error_summary(),
        }


def _call(record: Record) -> ToolCall:
    error = record.error
    return ToolCall(
        record.path,
        record.step.step_id,
        record.step.tool,
        record.asked(),
        record.status.value,
        len(record.attempts or ()) + 1,
        record.output,
        error.kind if error is not None else None,
    )
