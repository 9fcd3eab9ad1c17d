"""Model steps against the adapters of a host: what a run of them would fail of, said before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial, wraps
from typing import Any

from ..adapters.contract import NAMED_ONLY, Adapter
from ..adapters.pool import Member, Pool
from ..diagnostics import Diagnostic
from ..errors import VMError
from ..language.flow import Flow
from ..language.messages import has_files, has_pictures
from ..language.program import MODEL_OPTIONS, LLMStep, ModelPool, Program
from ..machine.billing import Prices
from ..values import canonical
from ..verify.trust.proof import by_untrusted

Adapters = Mapping[str | None, Adapter]
Loc = tuple[str | int, ...]


class Pools:
    """The pools that programs make of a host's models. A model has its limits once, and a pool its
    standing, whatever number of programs use them.
    """

    def __init__(self, adapters: Adapters, prices: Prices | None, clock: Any) -> None:
        self._adapters = adapters
        self._prices = prices
        self._clock = clock
        self._stub = any(getattr(a.adapter, "stub", False) is True for a in adapters.values())
        self._members: dict[str, Member] = {}
        self._known: dict[bytes, Adapter] = {}

    def of(self, flow: Flow) -> tuple[dict[str | None, Adapter], list[Diagnostic]]:
        """The host's adapters with the pools of the programs of *flow*, and what is wrong with
        these. A name that the host has is the host's.
        """
        adapters, faults = dict(self._adapters), list[Diagnostic]()
        made: dict[str, bytes] = {}
        for frame in flow.roots:
            program, loc = frame.names.program, frame.names.loc
            for name, given in program.models.items():
                if not isinstance(given, ModelPool) or name in self._adapters:
                    continue
                at = (*loc, "models", name)
                form = canonical([name, _resolved(program, given), given.model_dump(mode="json")])
                if made.setdefault(name, form) != form:
                    message = f"two programs of this run mean different pools by {name!r}"
                    faults.append(Diagnostic("V035", at, message, "rename one of them"))
                    continue
                try:
                    adapters[name] = self._known.get(form) or self._made(name, program, given)
                except VMError as error:
                    hint = f"the VM has {', '.join(repr(n) for n in self._adapters if n)}"
                    faults.append(Diagnostic("V035", at, str(error), hint))
                else:
                    self._known[form] = adapters[name]
        return adapters, faults

    def _made(self, name: str, program: Program, given: ModelPool) -> Adapter:
        members = [self._member(name, model) for model in _resolved(program, given)]
        pool = Pool(
            members,
            given.strategy,
            name=name,
            # of one that only stands in for models nothing is known
            require=() if self._stub else given.require,
            attempts=given.attempts,
            hedge_after=given.hedge_after_seconds,
            clock=self._clock,
        )
        if self._prices is not None:
            pool.use_prices(self._prices)
        return Adapter(pool, name)

    def _member(self, pool: str, model: str) -> Member:
        adapter = self._adapters.get(model)
        only = self._adapters.get(None) if len(self._adapters) == 1 else None
        if adapter is None and only is not None and only.takes("model"):
            adapter = Adapter(_OneModel(only, model), model)
        if adapter is None:
            raise VMError(f"pool {pool!r} has model {model!r}, which no adapter has")
        if model not in self._members:
            inner = adapter.adapter
            if isinstance(inner, Pool) and len(inner.members) > 1:
                raise VMError(f"pool {pool!r}: {model!r} is a pool, and a pool has no pools in it")
            single = inner.members[0] if isinstance(inner, Pool) else None
            self._members[model] = single or Member(inner, name=model)
        return self._members[model]


class _OneModel:
    """One model of an adapter that has many."""

    def __init__(self, adapter: Adapter, model: str) -> None:
        self.model = model
        self.images, self.files = adapter.images, adapter.files
        self.option_names = adapter.option_names
        self.complete = wraps(adapter.complete)(partial(adapter.complete, model=model))
        if adapter.stream is not None:
            self.stream = partial(adapter.stream, model=model)
        if adapter.count is not None:
            self.count_tokens = adapter.count


def _resolved(program: Program, given: ModelPool) -> list[str]:
    """The names of the host's models in a pool."""
    return [program.model_named(member) or member for member in given.pool]


def model_faults(flow: Flow, adapters: Adapters, approved: frozenset[str]) -> Iterator[Diagnostic]:
    """Of each model step: no adapter has its model, or takes what it asks for. Options are sent on
    as they stand, so a program from an untrusted source has them if it is *approved*.
    """
    untrusted = by_untrusted(flow, approved)
    for names in flow.spaces:
        program = names.program
        for step, at in names.steps:
            if not isinstance(step, LLMStep):
                continue
            loc = (*names.loc, *at)
            adapter = adapter_of(step, program, adapters)
            if adapter is None:
                yield _without_adapter(step, program, adapters, loc)
                continue
            if untrusted[id(names)] and (step.options or program.defaults.options):
                message = (
                    f"step {step.id!r} has options, and its program comes from an untrusted source"
                )
                hint = "remove them, or approve the program's digest"
                yield Diagnostic("V034", (*loc, "options"), message, hint)
            yield from _not_taken(step, program, adapter, loc)


def adapter_of(step: LLMStep, program: Program, adapters: Adapters) -> Adapter | None:
    """The one that answers *step*: by the name of its model, else the default one if that takes
    any.
    """
    model = _model_of(step, program)
    found = adapters.get(model)
    if found is None and len(adapters) == 1 and adapters[None].takes("model"):
        return adapters[None]
    return found


def _model_of(step: LLMStep, program: Program) -> str | None:
    declared = step.model or program.defaults.model
    return program.model_named(declared)


def _without_adapter(step: LLMStep, program: Program, adapters: Adapters, loc: Loc) -> Diagnostic:
    if not adapters:
        message = f"step {step.id!r} calls a model, and the VM has none"
        return Diagnostic("V030", loc, message, "give one by ExecutionVM(llm=...) or --model")
    known = [name for name in adapters if name is not None]
    hint = "remove it: the adapter has one model"
    if known:
        hint = f"the VM has {', '.join(map(repr, known))}"
    message = f"step {step.id!r} wants model {_model_of(step, program)!r}, which no adapter has"
    return Diagnostic("V031", (*loc, "model"), message, hint)


def _not_taken(step: LLMStep, program: Program, adapter: Adapter, loc: Loc) -> Iterator[Diagnostic]:
    """What *step* asks for and *adapter* does not take."""
    written = [message for message in step.messages or () if isinstance(message, dict)]
    for taken, shown, what, attribute in (
        (adapter.images, has_pictures, "pictures", "images"),
        (adapter.files, has_files, "files", "files"),
    ):
        if not taken and shown(written):
            message = f"the adapter of step {step.id!r} takes no {what}"
            hint = f"give it an attribute {attribute} = True if it does, or remove them"
            yield Diagnostic("V032", (*loc, "messages"), message, hint)
    if adapter.option_names is not None:
        for name in {**(program.defaults.options or {}), **(step.options or {})}:
            if name not in adapter.option_names:
                message = f"the adapter of step {step.id!r} takes no option {name!r}"
                known = ", ".join(sorted(adapter.option_names))
                yield Diagnostic("V032", (*loc, "options", name), message, f"it takes {known}")
    for option in MODEL_OPTIONS:
        given = getattr(step, option), getattr(program.defaults, option)
        if given != (None, None) and not adapter.takes(option):
            message = f"the adapter of step {step.id!r} takes no {option!r}"
            either = "" if option in NAMED_ONLY else " or **kwargs"
            hint = f"let its complete() take {option}{either}, or remove the field"
            yield Diagnostic("V032", (*loc, option), message, hint)
