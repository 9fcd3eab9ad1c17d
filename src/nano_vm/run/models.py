"""Model steps against the adapters of a host: what a run of them would fail of, said before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..adapters.contract import NAMED_ONLY, Adapter
from ..diagnostics import Diagnostic
from ..language.flow import Flow, FrameGraph
from ..language.messages import has_files, has_pictures
from ..language.program import MODEL_OPTIONS, LLMStep, Program
from ..verify.trust.proof import by_untrusted

Adapters = Mapping[str | None, Adapter]
Loc = tuple[str | int, ...]


def model_faults(flow: Flow, adapters: Adapters, approved: frozenset[str]) -> Iterator[Diagnostic]:
    """Of each model step: no adapter has its model, or takes what it asks for. Options are sent on
    as they stand, so a program from an untrusted source has them if it is *approved*.
    """
    frames: dict[int, FrameGraph] = {}
    for frame in flow.frames:
        frames.setdefault(id(frame.names), frame)
    for frame in frames.values():
        names = frame.names
        program = names.program
        strange = by_untrusted(frame, approved)
        for step, at in names.steps:
            if not isinstance(step, LLMStep):
                continue
            loc = (*names.loc, *at)
            adapter = adapter_of(step, program, adapters)
            if adapter is None:
                yield _without_adapter(step, program, adapters, loc)
                continue
            if strange and (step.options or program.defaults.options):
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
    return program.models.get(declared, declared) if declared is not None else None


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
