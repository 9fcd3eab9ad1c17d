"""The models that the command line names. Anything wrong is a `UsageFault`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import VMError
from .faults import UsageFault
from .inputs import text_of

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


def load_models(specs: Sequence[str], base_url: str | None, answers: Sequence[str] = ()) -> Any:
    """What ``ExecutionVM(llm=...)`` takes: None, an adapter, or adapters by name where *specs* hold
    ``name=MODEL``.

    *answers* are those of ``--answer``: the steps that they name ask no model.
    """
    if base_url is not None and not specs:
        raise UsageFault("--base-url needs --model: the model's name on that server")
    adapters: dict[str | None, Any] = {}
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
    if answers:
        from ..adapters.scripted import FREE, Overlaid, ScriptedLLM

        script = ScriptedLLM(steps=_answers(answers), price=FREE)
        adapters = {name: Overlaid(script, adapter) for name, adapter in adapters.items()} or {
            None: script
        }
    if not adapters:
        return None
    return adapters[None] if list(adapters) == [None] else adapters


def _answers(given: Sequence[str]) -> dict[str, Any]:
    """``step=text`` and ``step=@file`` by step; of a step that is given several times, the answers
    in order.
    """
    found: dict[str, list[str]] = {}
    for entry in given:
        step, separator, text = entry.partition("=")
        if not separator or not step:
            raise UsageFault(f"--answer takes STEP=TEXT or STEP=@FILE, not {entry!r}")
        found.setdefault(step, []).append(
            text_of(text[1:], f"--answer {step}") if text.startswith("@") else text
        )
    return {step: texts if len(texts) > 1 else texts[0] for step, texts in found.items()}


def _adapter(model: str, base_url: str | None) -> Any:
    from ..adapters.names import adapter_named

    try:
        return adapter_named(model, base_url)
    except (VMError, ValueError) as error:
        if str(error).startswith("unknown model"):
            raise UsageFault(f"{error}, or any name with --base-url URL") from None
        raise UsageFault(f"--model {model}: {error}") from None
