"""The models that the command line names. Anything wrong is a `UsageFault`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import VMError
from ..language.flow import Flow
from ..language.program import LLMStep, Program
from ..spelling import meant
from .faults import UsageFault
from .inputs import text_of

if TYPE_CHECKING:
    from ..adapters.hostfile import HostFile, Project

_NAMED_MODEL = re.compile(r"([\w.-]+)=(.+)\Z", re.DOTALL)


class StubModel:
    """For looking at a program without its model: takes any model and any option."""

    images = True
    files = True
    stub = True

    async def complete(
        self, messages: list[dict[str, str]], options: Any = None, **kwargs: Any
    ) -> str:
        """Never called."""
        raise AssertionError("a stub is never called")


def host_file(given: str | None, specs: Sequence[str]) -> str | None:
    """The host file to read: the *given* one, else that of the current folder, unless models are
    named by *specs*.
    """
    from ..adapters.hostfile import HOST_FILE

    if given is None and not specs and Path(HOST_FILE).is_file():
        return HOST_FILE
    return given


def project(given: str | None) -> Project:
    """What the *given* host file, or that of the current folder, says of tools and policy; read
    once in a command, since several of its options ask.

    Raises:
        UsageFault: If it cannot be read.
    """
    ctx = click.get_current_context(silent=True)
    kept: dict[str | None, Project] = (
        ctx.find_root().meta.setdefault(f"{__name__}.projects", {}) if ctx is not None else {}
    )
    if given not in kept:
        kept[given] = _project(given)
    return kept[given]


def _project(given: str | None) -> Project:
    from ..adapters.hostfile import HOST_FILE, Project, read_project

    if given is None and not Path(HOST_FILE).is_file():
        return Project()
    try:
        return read_project(given or HOST_FILE)
    except VMError as error:
        raise UsageFault(f"--host: {error}") from None


def load_host(given: str | None, specs: Sequence[str]) -> HostFile | None:
    """What the host file says, if there is one."""
    path = host_file(given, specs)
    if path is None:
        return None
    from ..adapters.hostfile import read_host

    try:
        return read_host(path)
    except VMError as error:
        raise UsageFault(f"--host: {error}") from None


def load_models(
    specs: Sequence[str],
    base_url: str | None,
    answers: Sequence[str] = (),
    host: HostFile | None = None,
) -> Any:
    """What ``ExecutionVM(llm=...)`` takes: None, an adapter, or adapters by name where *specs* hold
    ``name=MODEL``; over those of the *host* file.

    *answers* are those of ``--answer``: the steps that they name ask no model.
    """
    if base_url is not None and not specs:
        raise UsageFault("--base-url needs --model: the model's name on that server")
    adapters: dict[str | None, Any] = {}
    named: dict[Any, Any] = {} if host is None else dict(host.models)
    for spec in specs:
        match = _NAMED_MODEL.match(spec)
        name, wanted = match.groups() if match else (None, spec)
        if name in adapters:
            raise UsageFault(
                f"--model gives {name!r} twice"
                if name
                else "--model is given twice; name them: fast=MODEL"
            )
        adapters[name] = _adapter(wanted, base_url)
    adapters = {**adapters, **{n: a for n, a in named.items() if n not in adapters}}
    if answers:
        from ..adapters.scripted import FREE, Overlaid, ScriptedLLM

        script = ScriptedLLM(steps=_answers(answers), price=FREE)
        adapters = {name: Overlaid(script, adapter) for name, adapter in adapters.items()} or {
            None: script
        }
    if not adapters:
        return None
    return adapters[None] if list(adapters) == [None] else adapters


def require_asked(
    answers: Sequence[str], program: Program, programs: Mapping[str, Program]
) -> None:
    """Refuse one of *answers* whose step asks no model: it would be missing where the step that is
    meant is reached, after the calls before it.
    """
    if not answers:
        return
    nodes = Flow(program, programs).nodes
    asked = [*dict.fromkeys(node.step.id for node in nodes if isinstance(node.step, LLMStep))]
    for step, _ in map(_named_answer, answers):
        if step not in asked:
            hint = meant(step, asked, otherwise=f"these do: {', '.join(asked) or 'none'}")
            raise UsageFault(f"--answer: no step {step!r} of the program asks a model; {hint}")


def _answers(given: Sequence[str]) -> dict[str, Any]:
    """``step=text`` and ``step=@file`` by step, the files read; of a step that is given several
    times, the answers in order.
    """
    found: dict[str, list[str]] = {}
    for step, text in map(_named_answer, given):
        found.setdefault(step, []).append(
            text_of(text[1:], f"--answer {step}") if text.startswith("@") else text
        )
    return {step: texts if len(texts) > 1 else texts[0] for step, texts in found.items()}


def _named_answer(entry: str) -> tuple[str, str]:
    """The step of one ``--answer``, and its text or ``@file``, which is not read here: standard
    input and a pipe can be read once.
    """
    step, separator, text = entry.partition("=")
    if not separator or not step:
        raise UsageFault(f"--answer takes STEP=TEXT or STEP=@FILE, not {entry!r}")
    return step, text


def _adapter(model: str, base_url: str | None) -> Any:
    from ..adapters.names import adapter_named

    try:
        return adapter_named(model, base_url)
    except (VMError, ValueError) as error:
        if str(error).startswith("unknown model"):
            raise UsageFault(f"{error}, or any name with --base-url URL") from None
        raise UsageFault(f"--model {model}: {error}") from None
