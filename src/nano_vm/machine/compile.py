"""Flow in, Plan out: one op for each node, each edge an object reference, each name a slot.

Everything that can be decided before a run is decided here. The graph is taken as it is: no node is
added, dropped or connected otherwise, since the proofs are about the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any

from ..diagnostics import Loc
from ..errors import ExprError
from ..language.closures import (
    Eval,
    Frame,
    compile_condition,
    compile_expr,
    compile_named,
    compile_value,
)
from ..language.expr import Ref, Template, parse_expr, parse_template, references, value_references
from ..language.flow import Flow, FrameGraph, Names, Node
from ..language.literals import literals_of
from ..language.messages import fault_of
from ..language.operators import described, index
from ..language.policy import ArgRule, CallRule
from ..language.program import (
    DEFAULT_ANSWER_ATTEMPTS,
    MODEL_OPTIONS,
    ApprovalStep,
    AssertStep,
    CallStep,
    ConditionStep,
    FailStep,
    LLMStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Retry,
    SetStep,
    Step,
    SwitchStep,
    ToolStep,
    WaitStep,
)
from ..language.schemas import schema_check
from ..language.semantics import ToolCall, tool_calls
from ..tools.contract import IDEMPOTENCY_KEY, ToolContract
from ..values import UNSET
from .arguments import Shapes, TakeMessages, constant_of, order, single_of
from .bounds import counted, longest
from .demands import Enforce, enforcer
from .plan import (
    ASKED,
    AWAITED,
    END,
    FAIL,
    INLINE,
    KEPT_FOREVER,
    AssertOp,
    BranchOp,
    Calling,
    CloseOp,
    ForkOp,
    FramePlan,
    Handler,
    LoopOp,
    ModelOp,
    Op,
    PauseOp,
    Plan,
    SetOp,
    StopOp,
    SwitchOp,
    TestOp,
    ToolOp,
    WhenOp,
)

TOOL_TIMEOUT_SECONDS = 60.0
"""One attempt of a tool without ``timeout_seconds``: longer than any request that a person would
wait for.
"""

MODEL_TIMEOUT_SECONDS = 120.0
"""One attempt of a model call without ``timeout_seconds``: a long answer of a slow model takes a
minute.
"""


_STRAIGHT = {"async": AWAITED, "inline": INLINE}

Checks = Mapping[Loc, Sequence[CallRule]]
"""By the place of an argument: what is held against its value before the call."""


KEPT_PLANS = 256
"""Plans that are kept for whoever asks for the same again; a process that serves a team has some
dozens of programs.
"""


def plan_of(
    flow: Flow, contracts: Mapping[str, ToolContract], checks: Checks | None = None
) -> Plan:
    """As `compile_flow`: the plan that was made before, where program, facts of tools and checks are
    the same, for whichever host that was.
    """
    known = {name: contracts[name] for name in flow.tools}
    held = checks or {}
    key = (
        flow.digest or flow.program.digest,
        tuple(known[name].key for name in sorted(known)),
        # a rule says in its form all that it is
        repr(sorted(held.items(), key=repr)),
    )
    return _kept(_Made(key, flow, known, held))


@dataclass(frozen=True, slots=True)
class _Made:
    """What a plan is made of, and the ``key`` that is equal where the plan would be."""

    key: tuple[Any, ...]
    flow: Flow = field(compare=False)
    contracts: Mapping[str, ToolContract] = field(compare=False)
    checks: Checks = field(compare=False)


@lru_cache(maxsize=KEPT_PLANS)
def _kept(made: _Made) -> Plan:
    return compile_flow(made.flow, made.contracts, made.checks)


def compile_flow(
    flow: Flow, contracts: Mapping[str, ToolContract], checks: Checks | None = None
) -> Plan:
    """The plan of *flow*, which must have no faults; *contracts* are the tools that it may call."""
    return _Compiler(flow, contracts, checks or {}).plan()


UNREAD = "(unread)"
"""How a plan names the place of what nothing reads."""


class Layout:
    """Where the frames of one program keep its values: each name that something reads has a place,
    in the order of `Names`, and all others have the last in common.
    """

    def __init__(self, names: Names) -> None:
        self.names, self.program = names, names.program
        refs = [ref for step, _ in names.steps for ref, _ in names.all_reads(step)]
        refs += value_references(names.program.output)
        read = sorted({names.load(ref)[0] for ref in refs})
        places = {slot: place for place, slot in enumerate(read)}
        self.last = len(read)
        self.place = [places.get(slot, self.last) for slot in range(names.size)]
        self.keys = {name: self.place[slot] for name, slot in names.keys.items()}
        self.outputs = {step_id: self.place[slot] for step_id, slot in names.outputs.items()}
        self.titles = _titles(names)
        self.shown = [self.titles[slot] for slot in read]
        if self.last < names.size:
            self.shown.append(UNREAD)

    def load(self, ref: Ref) -> tuple[int, tuple[str | int, ...]]:
        """As `expr.Scope.load`, in a frame."""
        slot, path = self.names.load(ref)
        place = self.place[slot]
        assert place < self.last, f"{ref} is not among what the program reads"
        return place, path

    def reads(self, name: str) -> bool:
        """Whether anything reads ``$name``."""
        return self.keys[name] < self.last

    def written_by(self, step: Step) -> tuple[str, ...]:
        """What the end of *step* writes or clears, for people."""
        return tuple([self.titles[slot] for slot in self.names.results(step)])

    def error(self, step_id: str, word: str) -> int:
        """The place of what went wrong in a step; -1 where nothing reads it."""
        slot = self.names.errors.get((step_id, word))
        return -1 if slot is None else self.place[slot]


def _titles(names: Names) -> list[str]:
    """By slot, how the program writes it."""
    result = [""] * names.size
    for name, slot in names.keys.items():
        result[slot] = f"${name}"
    for step_id, slot in names.outputs.items():
        result[slot] = f"${step_id}.output"
    for (step_id, word), slot in names.errors.items():
        result[slot] = f"${step_id}.{word}"
    return result


class _Compiler:
    def __init__(self, flow: Flow, contracts: Mapping[str, ToolContract], checks: Checks) -> None:
        self.flow = flow
        self.contracts = contracts
        self.checks = checks
        self.tools: dict[str, None] = {}
        self.shapes = Shapes()
        self.enforcers: dict[tuple[str, str, int], Enforce] = {}
        self.calls: dict[Calling, int] = {}  # each with its number
        self.ops: list[Op] = []
        self.twice = _entered_twice(flow)
        self.layouts = {id(names): Layout(names) for names in flow.spaces}

    def plan(self) -> Plan:
        flow = self.flow
        frames = [self.frame(frame) for frame in flow.frames]
        self.ops = [self.op(node, frames) for node in flow.nodes]
        for node, op in zip(flow.nodes, self.ops, strict=True):
            op.index, op.frame = node.index, node.frame.index
            self.connect(node, op)
        for node, op in zip(flow.nodes, self.ops, strict=True):
            self.place(node, op)
        for op in self.ops:
            op.brief = op.error < 0 and op.when is None
            op.quick = op.quick and op.brief and _is_free(op)
            if isinstance(op, ModelOp):
                op.plain = op.plain and op.brief and _is_free(op)
        for graph, frame in zip(flow.frames, frames, strict=True):
            frame.entry = self.ops[graph.entry]
            if frame.keeps_last:
                frame.light = _one_call(frame.entry)
        _ceilings(flow, frames)
        models = list(dict.fromkeys(op.model for op in self.ops if isinstance(op, ModelOp)))
        return Plan(
            name=flow.program.name,
            frames=frames,
            ops=self.ops,
            tools=list(self.tools),
            calls=list(self.calls),
            models=models,
            given=tuple(
                dict.fromkeys(
                    name
                    for rules in self.checks.values()
                    for rule in rules
                    if isinstance(rule, ArgRule)
                    for name in rule.reads()
                )
            ),
        )

    def frame(self, graph: FrameGraph) -> FramePlan:
        names, layout = graph.names, self.layouts[id(graph.names)]
        frame = FramePlan(graph.index, graph.name, keeps_last=graph.kind in ("branch", "item"))
        frame.slots = layout.shown
        if graph.kind in ("run", "call"):
            program = names.program
            schema = program.inputs
            frame.budget = program.budget if graph.kind == "call" else None
            frame.timeout_ns = _ns(program.timeout_seconds)
            frame.blank = [UNSET] * len(layout.shown)
            needed = set(names.needed)
            if schema is not None:
                required = set(schema.get("required", []))
                needed = (needed - names.declared) | required
                for name, part in schema.get("properties", {}).items():
                    if isinstance(part, dict) and "default" in part:
                        frame.blank[layout.keys[name]] = part["default"]
                        needed.discard(name)
                frame.check = schema_check(schema)
                frame.declared = tuple(schema.get("properties", {}))
            frame.needed = tuple(name for name in names.keys if name in needed)
            # required by the schema, and read by no step
            frame.needed += tuple(sorted(needed - names.keys.keys()))
            free = names.inputs - needed
            others = [name for name in names.keys if name in free and layout.reads(name)]
            frame.inputs = tuple(
                (name, layout.keys[name]) for name in [*frame.needed, *others] if name in names.keys
            )
            frame.others = tuple(others)
            if [layout.keys.get(n) for n in frame.needed] == list(range(len(frame.needed))):
                frame.take = _taking(frame.needed)
            if program.output is not None:
                frame.output = compile_value(program.output, layout)
        return frame

    # --- ops ---

    def op(self, node: Node, frames: list[FramePlan]) -> Op:
        step, names = node.step, self.layouts[id(node.frame.names)]
        if node.kind in ("end", "fail"):
            return Op(code=END if node.kind == "end" else FAIL, type=node.kind)
        if node.kind == "close":
            op: Op = CloseOp()
        elif node.kind == "test":
            assert isinstance(step, LoopStep)
            until = (
                compile_condition(parse_expr(step.until), names) if step.until is not None else None
            )
            op = TestOp(until=until, text=step.until or "")
        elif node.kind == "when":
            assert step.when is not None
            test = Test(step.when, names)
            op = WhenOp(test=test.holds, capture=test.capture, show=test.show, text=step.when)
        else:
            op = self.step_op(node, step, names, frames)
        op.step_id, op.type = step.id, step.type.value
        op.out = names.outputs[step.id]
        op.key = names.keys[step.output_key] if step.output_key is not None else op.out
        op.error, op.errors = names.error(step.id, "error"), names.error(step.id, "errors")
        op.writes = names.written_by(step)
        if node.kind != "close":
            op.has_default, op.default = (
                step.has_default,
                step.default if step.has_default else None,
            )
        return op

    def step_op(self, node: Node, step: Step, names: Layout, frames: list[FramePlan]) -> Op:
        defaults = names.program.defaults
        timeout = step.timeout_seconds
        match step:
            case ToolStep():
                return self.tool_step(step, names, timeout or defaults.timeout_seconds, node.loc)
            case LLMStep():
                return self.model(step, names, timeout or defaults.timeout_seconds)
            case ConditionStep():
                return condition(step, names)
            case SwitchStep():
                return SwitchOp(on=compile_value(step.on, names))
            case SetStep():
                values = tuple(
                    (name, names.keys[name], compile_value(value, names))
                    for name, value in step.values.items()
                )
                return SetOp(values=values)
            case AssertStep():
                test = Test(step.condition, names)
                return AssertOp(
                    test=test.holds,
                    capture=test.capture,
                    show=test.show,
                    message=_text(step.message or _UNSAID, names),
                    text=step.condition,
                )
            case FailStep():
                return StopOp(named=_text(step.error, names), message=_text(step.message, names))
            case LoopStep():
                return LoopOp(max_iterations=step.max_iterations, timeout_ns=_ns(timeout))
            case ParallelStep() | MapStep() | CallStep():
                children = tuple(frames[graph.index] for graph in node.frames)
                op = ForkOp(kind=step.type.value, frames=children, timeout_ns=_ns(timeout))
                op.goes_on = not isinstance(step, CallStep) and step.on_item_error == "continue"
                if isinstance(step, MapStep):
                    op.over, op.item = compile_value(step.over, names), names.keys[step.item_name]
                    op.max_items, op.max_concurrency = step.max_items, step.max_concurrency
                elif isinstance(step, ParallelStep):
                    op.max_concurrency = step.max_concurrency
                else:
                    op.arguments = compile_named(step.arguments, names)
                return op
            case ApprovalStep():
                asked: dict[str, Any] = {"kind": "approval", "role": step.role}
                late = {"timeout_seconds": timeout} if timeout is not None else {}
                show = compile_value(step.show, names)
                return PauseOp(
                    request=lambda frame: {**asked, "show": show(frame), **late},
                    timeout_ns=_ns(timeout),
                    asks=True,
                    rejects=step.otherwise is None,
                )
            case WaitStep():
                fields = {"seconds": step.seconds, "until": step.until, "event": step.event}
                given = {name: value for name, value in fields.items() if value is not None}
                if timeout is not None:
                    given["timeout_seconds"] = timeout
                asked = (
                    {"output_schema": step.output_schema} if step.output_schema is not None else {}
                )
                waited = compile_value({"kind": "wait", **given}, names)
                matched = (
                    {"match": compile_named(step.match, names)} if step.match is not None else {}
                )
                return PauseOp(
                    request=lambda frame: {
                        **waited(frame),
                        **{n: get(frame) for n, get in matched.items()},
                        **asked,
                    },
                    timeout_ns=_ns(timeout),
                    validate=schema_check(step.output_schema)
                    if step.output_schema is not None
                    else None,
                    with_literals=literals_of(step.output_schema)
                    if step.output_schema is not None
                    else None,
                )
        raise AssertionError(step)

    def tool_step(self, step: ToolStep, names: Layout, timeout: float | None, loc: Loc) -> ToolOp:
        own, *beside = tool_calls(step)
        op = self.tool(own, names, timeout, loc)
        op.attempts, op.retry = step.attempts, step.retry or Retry()
        op.kept_ns = _kept_ns(step)
        op.quick = step.undo is None and not op.takes_key and not op.checks and op.kept_ns is None
        if op.kept_ns is not None:
            op.straight = 0  # what is known is looked for first
        for call in beside:
            other = self.tool(call, names, None, loc)
            other.step_id, other.type = f"{step.id}/{call.use}", "tool"
            other.straight = 0  # what follows its outcome is never simply the next op
            setattr(op, call.use, other)
        return op

    def tool(self, call: ToolCall, names: Layout, timeout: float | None, loc: Loc) -> ToolOp:
        """One of the calls that the step at *loc* makes."""
        tool, args = call.tool, call.args
        contract = self.contracts[tool]
        self.tools[tool] = None
        seconds = timeout or contract.timeout_seconds or TOOL_TIMEOUT_SECONDS
        receives = order(contract, tuple(args))
        # the key is drawn for each call, and a tool may take it by name only
        called = (*receives, IDEMPOTENCY_KEY) if contract.takes_key else receives
        calling = Calling(tool, called, contract.positional[: len(called)] == called)
        take = self.shapes.take(contract, args, names)
        slot, passing = single_of(contract, args, names) or (-1, None)
        return ToolOp(
            tool=tool,
            number=self.calls.setdefault(calling, len(self.calls)),
            names=tuple(args),
            take=take,
            constant=constant_of(take, args),
            slot=slot,
            passing=passing,
            receives=called,
            effect=contract.effect,
            takes_key=contract.takes_key,
            checks=tuple(
                (position, name, rule.text, self.enforcer(tool, name, rule))
                for position, name in enumerate(args)
                for rule in self.checks.get((*loc, *call.at, "args", name), ())
            ),
            timeout_ns=_ns(seconds),
            straight=_STRAIGHT.get(contract.how, 0),
        )

    def enforcer(self, tool: str, name: str, rule: CallRule) -> Enforce:
        """What holds a value against *rule*: made once for all calls, since a check has a copy of
        all that a policy lists.
        """
        key = tool, name, id(rule)
        if key not in self.enforcers:
            self.enforcers[key] = enforcer(tool, name, rule)
        return self.enforcers[key]

    def model(self, step: LLMStep, names: Layout, timeout: float | None) -> ModelOp:
        program = names.program
        defaults = program.defaults
        declared = step.model or defaults.model
        model = program.model_named(declared)
        options: dict[str, Any] = {}
        for name in MODEL_OPTIONS:
            value = (
                getattr(step, name) if getattr(step, name) is not None else getattr(defaults, name)
            )
            if value is not None:
                options[name] = [value] if name == "stop" and isinstance(value, str) else value
        constrained = step.constrained
        messages, take = _messages(step, names, self.shapes)
        plain = take is not None
        return ModelOp(
            messages=messages,
            take=take,
            plain=plain,
            text=not constrained,
            straight=ASKED if plain and not step.cache else 0,
            kept_ns=_kept_ns(step),
            asked={**({"model": model} if model is not None else {}), **options},
            options=options,
            model=model,
            max_tokens=options.get("max_tokens"),
            allowed=tuple(step.allowed_outputs) if step.allowed_outputs is not None else None,
            schema=step.output_schema,
            validate=schema_check(step.output_schema) if step.output_schema is not None else None,
            with_literals=literals_of(step.output_schema)
            if step.output_schema is not None
            else None,
            attempts=step.attempts,
            answer_attempts=max(
                step.attempts,
                DEFAULT_ANSWER_ATTEMPTS if constrained and step.max_retries is None else 1,
            ),
            on_invalid=step.on_invalid,
            has_on_invalid="on_invalid" in step.model_fields_set,
            accepts_cut=step.on_truncated == "accept",
            retry=step.retry or Retry(),
            timeout_ns=_ns(timeout or MODEL_TIMEOUT_SECONDS),
        )

    # --- edges ---

    def connect(self, node: Node, op: Op) -> None:
        ops = self.ops
        handlers = []
        for edge in node.edges:
            target = ops[edge.target]
            label = edge.label
            if label in ("catch", "skip"):
                by = ops[edge.by] if edge.by != node.index else op
                handlers.append(Handler(edge.errors if label == "catch" else None, target, by))
            elif isinstance(op, BranchOp | PauseOp) and label in ("then", "otherwise"):
                setattr(op, label, target)
            elif isinstance(op, SwitchOp) and label.startswith("case:"):
                op.cases[label[5:]] = target
            elif isinstance(op, SwitchOp) and label == "default":
                op.other = target
            elif isinstance(op, TestOp) and label in ("again", "exhausted"):
                setattr(op, label, target)
            elif isinstance(op, WhenOp) and label == "unless":
                op.unless = target
            elif label == "when":
                assert isinstance(op, WhenOp)
                op.next = target
                target.when = op
            elif label in ("until", "next", "holds"):
                op.next = target
                if isinstance(op, PauseOp):
                    op.then = target
        op.handlers = tuple(handlers)
        step = node.step
        if isinstance(op, BranchOp):
            assert isinstance(step, ConditionStep)
            op.missing = (
                step.then is None and isinstance(step.otherwise, str),
                step.otherwise is None and isinstance(step.then, str),
            )
        elif isinstance(op, SwitchOp):
            assert isinstance(step, SwitchStep)
            targets = {**step.cases, "default": step.default}
            op.labels = {
                name: target if isinstance(target, str) else name
                for name, target in targets.items()
            }
        elif isinstance(op, TestOp):
            assert node.of is not None
            loop = ops[node.of.index]
            assert isinstance(loop, LoopOp)
            op.loop = loop

    def place(self, node: Node, op: Op) -> None:
        if node.kind in ("end", "fail"):
            return
        op.owner = self.ops[node.owner.index] if node.owner is not None else None
        if isinstance(op, TestOp):
            op.when = op.loop.when
        op.twice = node.step.id in self.twice and node.kind in ("step", "when")
        ids = [node.step.id]
        dynamic = op.twice
        at = node.owner
        timed = []
        while at is not None:
            around = self.ops[at.index]
            if isinstance(around, LoopOp):
                if around.timeout_ns:
                    timed.append(around)
                if not dynamic:
                    op.loop_around, op.tail = around.index, "/".join(reversed(ids))
                dynamic = True
            ids.append(at.step.id)
            dynamic = dynamic or at.step.id in self.twice
            at = at.owner
        op.timed = tuple(timed)
        if not dynamic:
            op.path, op.rooted = "/".join(reversed(ids)), node.frame.index == 0


def _kept_ns(step: LLMStep | ToolStep) -> int | None:
    """How long an answer may be taken that was given before."""
    if not step.cache:
        return None
    return KEPT_FOREVER if step.cache is True else _ns(step.cache)


def _ns(seconds: float | None) -> int:
    return int(seconds * 1e9) if seconds is not None else 0


def _messages(step: LLMStep, names: Layout, shapes: Shapes) -> tuple[Eval, TakeMessages | None]:
    """What gives the messages of a step, and what takes them where all that they hold is text. A
    content is text, also where it is one reference to something else.
    """
    written: Any = step.messages
    if written is None:
        system = [{"role": "system", "content": step.system}] if step.system is not None else []
        written = [*system, {"role": "user", "content": step.prompt}]
    if isinstance(written, list) and all(
        isinstance(m, dict) and isinstance(m["content"], str) for m in written
    ):
        take = shapes.messages([(m["role"], m["content"]) for m in written], names)
        if take is not None:
            return (lambda frame: take(frame)[0]), take
    items = [_message(item, names) for item in ([written] if isinstance(written, str) else written)]

    def messages(frame: Frame) -> list[Any]:
        found = [message for item in items for message in item(frame)]
        if fault := fault_of(found):
            raise ExprError(f"messages{fault if fault.startswith('[') else f': {fault}'}")
        return found

    return messages, None


def _message(item: Any, names: Layout) -> Eval:
    """What gives the messages that stand for one in the program: itself, or those that it refers
    to.
    """
    if isinstance(item, str):
        value = compile_value(item, names)

        def referred(frame: Frame) -> list[Any]:
            found = value(frame)
            if type(found) is not list:
                raise ExprError(f"{item} is {described(found)}, and must be a list of messages")
            return found

        return referred
    role, content = item["role"], item["content"]
    if isinstance(content, str):
        text = _text(content, names)
        return lambda frame: [{"role": role, "content": text(frame)}]
    parts = [_part(part, names) for part in content]
    return lambda frame: [{"role": role, "content": [part(frame) for part in parts]}]


def _part(part: dict[str, Any], names: Layout) -> Eval:
    if part["type"] == "text":
        text = _text(part["text"], names)
        return lambda frame: {"type": "text", "text": text(frame)}
    if part["type"] == "file":
        file = {name: _text(value, names) for name, value in part["file"].items()}
        return lambda frame: {
            "type": "file",
            "file": {name: value(frame) for name, value in file.items()},
        }
    image = part["image_url"]
    url = _text(image["url"], names)
    return lambda frame: {"type": "image_url", "image_url": {**image, "url": url(frame)}}


_UNSAID = "what it demands does not hold"


def _text(content: str, names: Layout) -> Eval:
    template = parse_template(content)
    return compile_expr(Template(template.parts), names)


class Test:
    """A condition compiled: whether it ``holds``, and what it read, for the record."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, text: str, names: Layout) -> None:
        node = parse_expr(text)
        seen: dict[str, tuple[int, tuple[str | int, ...]]] = {}
        for ref in references(node):
            seen[str(ref)] = names.load(ref)
        self.holds = compile_condition(node, names)
        self.capture = _capturing([slot for slot, _ in seen.values()])
        self.paths = [(name, path) for name, (_, path) in seen.items()]

    def show(self, values: tuple[Any, ...]) -> dict[str, Any]:
        """Each reference with the value that it had, of those *values* that were captured."""
        shown = {}
        for (name, path), value in zip(self.paths, values, strict=True):
            if path:
                value = _inside(value, path)
            if value is not UNSET:  # a branch of `or` that was not needed
                shown[name] = value
        return shown


def _inside(value: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at *path* in *value*; `UNSET` where nothing does."""
    try:
        for part in path:
            value = index(value, part)
    except ExprError:
        return UNSET
    return value


def _taking(needed: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """A closure that takes what inputs must give, in order."""
    if not needed:
        return lambda inputs: ()
    if len(needed) == 1:
        (name,) = needed
        return lambda inputs: (inputs[name],)
    return itemgetter(*needed)


def _capturing(slots: list[int]) -> Callable[[Frame], tuple[Any, ...]]:
    """A closure that takes the values of *slots*."""
    if not slots:
        return lambda frame: ()
    if len(slots) == 1:
        slot = slots[0]
        return lambda frame: (frame[slot],)
    return itemgetter(*slots)


def condition(step: ConditionStep, names: Layout) -> BranchOp:
    """A condition with its test, and what it will show of the values it read."""
    test = Test(step.condition, names)
    then, otherwise = step.then, step.otherwise
    return BranchOp(
        test=test.holds,
        capture=test.capture,
        show=test.show,
        text=step.condition,
        labels=(
            then if isinstance(then, str) else "then",
            otherwise if isinstance(otherwise, str) else "otherwise",
        ),
    )


def _one_call(op: Op) -> ToolOp | None:
    """*op*, if it is a tool step that needs no thread and no look back, and nothing follows."""
    alone = isinstance(op, ToolOp) and op.quick and op.next.code == END and op.path is not None
    return op if isinstance(op, ToolOp) and alone and op.straight else None


def _is_free(op: Op) -> bool:
    """Whether no loop around *op* has a deadline or a `when`; that it held is reported with the first
    record inside the loop.
    """
    around = op.owner
    while around is not None:
        if isinstance(around, LoopOp) and (around.timeout_ns or around.when is not None):
            return False
        around = around.owner
    return True


def _entered_twice(flow: Flow) -> set[str]:
    """Ids of steps that have a node for both ways of entering: their second run in a frame has a
    path of its own.
    """
    modes: dict[str, set[str]] = {}
    for node in flow.nodes:
        if node.kind == "step":
            modes.setdefault(node.step.id, set()).add(node.mode)
    return {step_id for step_id, found in modes.items() if len(found) > 1}


def _ceilings(flow: Flow, frames: list[FramePlan]) -> None:
    """Most steps, model calls and tool calls of one execution of each frame: what a branch may
    reserve at a fork.
    """
    for frame, (steps, models, tools) in zip(frames, longest(flow, 3, counted).totals, strict=True):
        frame.ceiling = (steps, models, tools)
