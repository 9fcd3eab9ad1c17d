"""A model that answers from a script: in go messages, out comes what was written for them. No
network, no randomness."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import (
    FilteredAnswer,
    ModelError,
    ModelTimeout,
    ProgramError,
    RateLimited,
    TruncatedAnswer,
    VMError,
)
from ..given import by_name
from ..language.messages import text_of
from ..language.reader import MAX_PROGRAM_BYTES, read_text
from ..records.usage import LLMUsage
from ..values import canonical, short
from .protocol import Completion, Message

Answer = str | Completion | BaseException
Rule = Answer | Callable[[list[Message]], Answer]

FREE = (Decimal(0), Decimal(0))
"""The price of what runs here and nobody bills."""


class ScriptedLLM:
    """Answers from a script.

    A list gives its answers in order, one a call; a dict gives the answer of the first key that
    occurs in the last message; a function gets the messages. *steps* comes before all of them: what
    it has for a step's id answers each call of that step, a list one call after the other. An
    answer that is an exception is raised. ``calls`` keeps what was asked. *price*, in dollars per
    million tokens, is used where the VM is given none for *model*.

        ScriptedLLM(["yes", "Dear customer, ..."])
        ScriptedLLM({"refund": "yes", "": "no"})        # "" occurs in everything
        ScriptedLLM(steps={"judge": "yes", "draft": ["Dear Sir", "Dear Madam"]})

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> from nano_vm.testing import ScriptedLLM
        >>> program = Program.from_yaml("steps: [{id: judge, type: llm, prompt: Is it so?}]")
        >>> ExecutionVM(ScriptedLLM(steps={"judge": "yes"})).run_sync(program).output
        'yes'
    """

    images = True

    def __init__(
        self,
        answers: Iterable[Rule] | Mapping[str, Rule] | Callable[[list[Message]], Answer] = (),
        *,
        steps: Mapping[str, Rule | list[Rule]] | None = None,
        model: str = "scripted",
        price: tuple[Decimal, Decimal] | None = None,
    ) -> None:
        self.model = model
        self.price = price
        self.calls: list[dict[str, Any]] = []
        self._steps = {
            step: list(found) if isinstance(found, list) else found
            for step, found in by_name(steps, "steps", "write steps={'judge': 'yes'}").items()
        }
        self._asked: dict[str, int] = {}
        self._rules: dict[str, Rule] | None = None
        self._function: Callable[[list[Message]], Answer] | None = None
        self._answers: list[Rule] = []
        if isinstance(answers, Mapping):
            self._rules = dict(answers)
        elif callable(answers):
            self._function = answers
        elif isinstance(answers, Iterable):
            self._answers = list(answers)
        else:
            raise VMError(
                f"answers are a list, a dict or a function, not {short(answers)}; write "
                f"ScriptedLLM(['yes'])"
            )
        self._given = 0

    def knows(self, step_id: str | None) -> bool:
        """Whether the script has answers of its own for the step."""
        return step_id in self._steps

    async def complete(
        self,
        messages: list[Message],
        *,
        step_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The scripted answer.

        Raises:
            ModelError: If the script has none.
        """
        told = {} if options is None else {"options": options}
        self.calls.append({"messages": messages, **kwargs, **told})
        answer: Any = self._pick(messages, step_id)
        if callable(answer) and not isinstance(answer, type):
            answer = answer(messages)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Completion):
            return answer
        if not isinstance(answer, str):
            raise ModelError(
                f"the script answers {short(answer)}; an answer is a string, a Completion or an "
                f"exception; of JSON it is the text, json.dumps(...)",
                retryable=False,
            )
        return counted(answer, messages, self.model)

    async def stream(
        self, messages: list[Message], **kwargs: Any
    ) -> AsyncIterator[str | Completion]:
        """As `complete`, word by word; last, the `Completion`."""
        completion: Any = await self.complete(messages, **kwargs)
        text = completion.text if isinstance(completion, Completion) else completion
        for piece in re.findall(r"\s*\S+|\s+\Z", text):
            yield piece
        yield completion if isinstance(completion, Completion) else Completion(text)

    def _pick(self, messages: list[Message], step_id: str | None) -> Any:
        if step_id is not None and step_id in self._steps:
            found = self._steps[step_id]
            if not isinstance(found, list):
                return found
            number = self._asked[step_id] = self._asked.get(step_id, 0) + 1
            if number <= len(found):
                return found[number - 1]
            raise ModelError(
                f"the script has {len(found)} answers for step {step_id!r}, and this is call "
                f"{number}",
                retryable=False,
            )
        if self._function is not None:
            return self._function
        if self._rules is None:
            self._given += 1
            if self._given <= len(self._answers):
                return self._answers[self._given - 1]
            if self._steps and not self._answers:
                known = ", ".join(map(repr, self._steps))
                raise ModelError(
                    f"the script has no answer for step {step_id!r}; it has {known}",
                    retryable=False,
                )
            raise ModelError(
                f"the script has {len(self._answers)} answers, and this is call {self._given}",
                retryable=False,
            )
        asked = text_of(messages[-1])
        for key, answer in self._rules.items():
            if key in asked:
                return answer
        raise ModelError(f"the script has no answer for {short(asked)}", retryable=False)


def counted(answer: str, messages: list[Message], model: str) -> Completion:
    """*answer* as a script's model gives it: a word is a token."""
    words = sum(len(text_of(message).split()) for message in messages)
    count = len(answer.split())
    return Completion(answer, LLMUsage(words, count, words + count), model, "stop")


class Overlaid:
    """Another adapter, but for the steps that *script* answers."""

    def __init__(self, script: ScriptedLLM, adapter: Any) -> None:
        self._script = script
        self._adapter = adapter
        own = inspect.signature(adapter.complete)
        self._told = "step_id" in own.parameters
        # asked for all the same; whatever else the adapter takes it is given as before
        if not self._told:
            step = inspect.Parameter("step_id", inspect.Parameter.KEYWORD_ONLY, default=None)
            *rest, last = [*own.parameters.values()]
            rest += [step, last] if last.kind is inspect.Parameter.VAR_KEYWORD else [last, step]
            own = own.replace(parameters=rest)
        self.complete = self._signed(self._complete, own)
        if getattr(adapter, "stream", None) is not None:
            self.stream = self._stream

    @staticmethod
    def _signed(function: Any, signature: inspect.Signature) -> Any:
        async def complete(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        complete.__signature__ = signature  # type: ignore[attr-defined]
        return complete

    async def _complete(
        self, messages: list[Message], *, step_id: str | None = None, **kwargs: Any
    ) -> Any:
        if self._script.knows(step_id):
            return await self._script.complete(messages, step_id=step_id, **kwargs)
        answer = self._adapter.complete(
            messages, **kwargs, **({"step_id": step_id} if self._told else {})
        )
        return await answer if inspect.isawaitable(answer) else answer

    async def _stream(
        self, messages: list[Message], *, step_id: str | None = None, **kwargs: Any
    ) -> AsyncIterator[str | Completion]:
        source = self._script if self._script.knows(step_id) else self._adapter
        told = {"step_id": step_id} if source is self._script or self._told else {}
        async for piece in source.stream(messages, **kwargs, **told):
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


# --- scripts in files -----------------------------------------------------------------------------

SECTIONS = frozenset({"steps", "patterns", "answers"})
ERRORS: dict[str, Callable[[str], ModelError]] = {
    "model": ModelError,
    "rate_limit": RateLimited,
    "timeout": ModelTimeout,
    "truncated": TruncatedAnswer,
    "filtered": FilteredAnswer,
}
SCRIPT_FORM = (
    "a list of answers in order, an object of them by step id, or {steps: ..., "
    "patterns: ..., answers: ...}"
)


def read_script(path: str) -> ScriptedLLM:
    """The model that answers from the script in a YAML or JSON file.

    A list gives its answers in order; an object gives them by step id. Both, and answers by a part
    of the last message, stand together as ``{steps: {judge: yes}, patterns: {refund: ...}, answers:
    [...]}``; the first that fits answers. An answer is a string, for every call, or a list of them,
    for one call each; in place of a string may stand ``{json: VALUE}``, ``{text: ..., finish_reason:
    ..., reasoning: ..., usage: {prompt_tokens: 1, completion_tokens: 2}}`` or ``{error: rate_limit,
    message: ...}``.

    Raises:
        VMError: If it cannot be read or is no script, with the place.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_PROGRAM_BYTES + 4)  # and no more: /dev/zero has no end
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise VMError(f"cannot read the script {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise VMError(f"the script {path} is not UTF-8: byte {error.start}") from None
    try:
        found = read_text(text, file=path, format="json" if path.endswith(".json") else "yaml")
    except ProgramError as error:
        raise VMError(str(error.diagnostics[0])) from None
    try:
        return script_of(found)
    except ValueError as error:
        raise VMError(f"{path}: {error}") from None


def script_of(data: Any) -> ScriptedLLM:
    """The model for a script as plain data, see `read_script`.

    Raises:
        ValueError: If it is no script, with the place.
    """
    if isinstance(data, list):
        data = {"answers": data}
    if not isinstance(data, dict) or not data:
        raise ValueError(f"a script is {SCRIPT_FORM}, not {short(data)}")
    if not data.keys() <= SECTIONS:
        data = {"steps": data}
    if "patterns" in data and "answers" in data:
        raise ValueError(
            "'patterns' and 'answers' exclude each other: both are for what no step's entry answers"
        )
    steps = _entries(data.get("steps", {}), "steps")
    patterns = _entries(data["patterns"], "patterns") if "patterns" in data else None
    if patterns is not None:
        for key, found in patterns.items():
            if isinstance(found, list):
                raise ValueError(
                    f"patterns.{key}: one answer, not a list: which call comes first is not known"
                )
    answers = data.get("answers", [])
    if not isinstance(answers, list):
        raise ValueError(f"answers: a list of answers in order, not {short(answers)}")
    order = [answer_of(answer, f"answers[{i}]") for i, answer in enumerate(answers)]
    return ScriptedLLM(patterns if patterns is not None else order, steps=steps, price=FREE)


def _entries(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{where}: an object of answers, not {short(data)}")
    return {
        str(name): [answer_of(part, f"{where}.{name}[{i}]") for i, part in enumerate(found)]
        if isinstance(found, list)
        else answer_of(found, f"{where}.{name}")
        for name, found in data.items()
    }


def answer_of(data: Any, where: str) -> Answer:
    """One answer of a script, see `read_script`; *where* it stands.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(data, str):
        return data
    if data is None or isinstance(data, (bool, int, float)):  # unquoted in YAML
        return canonical(data).decode()
    if isinstance(data, dict):
        if data.keys() == {"json"}:
            return canonical(data["json"]).decode()
        if "error" in data and data.keys() <= {"error", "message"}:
            if data["error"] not in ERRORS:
                raise ValueError(
                    f"{where}.error: one of {', '.join(ERRORS)}, not {short(data['error'])}"
                )
            return ERRORS[data["error"]](str(data.get("message", "as the script says")))
        if isinstance(data.get("text"), str) and data.keys() <= {
            "text",
            "finish_reason",
            "reasoning",
            "usage",
        }:
            try:
                usage = LLMUsage.from_dict(data["usage"]) if data.get("usage") is not None else None
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{where}.usage: {error}") from None
            return Completion(
                data["text"],
                usage,
                "scripted",
                data.get("finish_reason", "stop"),
                data.get("reasoning"),
            )
    raise ValueError(
        f"{where}: an answer is a string, {{json: ...}}, {{text: ..., ...}} or {{error: ...}}, not "
        f"{short(data)}"
    )
