"""For tests, yours too: models that answer from a script or from a recording. No network, no randomness."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .drive import Adapter, completed
from .errors import ModelError, VMError
from .protocols import Completion, Message
from .trace import LLMUsage
from .values import canonical, short

Answer = str | Completion | BaseException
Rule = Answer | Callable[[list[Message]], Answer]


class ScriptedLLM:
    """Answers from a script.

    A list gives its answers in order, one a call; a dict gives the answer of the first key that occurs in the last
    message; a function gets the messages. An answer that is an exception is raised. ``calls`` keeps what was asked.

        ScriptedLLM(["yes", "Dear customer, ..."])
        ScriptedLLM({"refund": "yes", "": "no"})        # "" occurs in everything
    """

    def __init__(
        self,
        answers: Iterable[Rule] | Mapping[str, Rule] | Callable[[list[Message]], Answer],
        *,
        model: str = "scripted",
    ) -> None:
        self.model = model
        self.calls: list[dict[str, Any]] = []
        self._rules = dict(answers) if isinstance(answers, Mapping) else None
        self._function = answers if callable(answers) else None
        self._answers = list(answers) if self._rules is None and self._function is None else []  # type: ignore[arg-type]

    async def complete(self, messages: list[Message], **kwargs: Any) -> Completion:
        """The scripted answer.

        Raises:
            ModelError: If the script has none.
        """
        number = len(self.calls)
        self.calls.append({"messages": messages, **kwargs})
        answer: Any = self._pick(messages, number)
        if callable(answer) and not isinstance(answer, type):
            answer = answer(messages)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Completion):
            return answer
        words = sum(len(m["content"].split()) for m in messages)
        count = len(answer.split())
        return Completion(answer, LLMUsage(words, count, words + count), self.model, "stop")

    def _pick(self, messages: list[Message], number: int) -> Any:
        if self._function is not None:
            return self._function
        if self._rules is None:
            if number < len(self._answers):
                return self._answers[number]
            raise ModelError(
                f"the script has {len(self._answers)} answers, and this is call {number + 1}", retryable=False
            )
        asked = messages[-1]["content"]
        for key, answer in self._rules.items():
            if key in asked:
                return answer
        raise ModelError(f"the script has no answer for {short(asked)}", retryable=False)


class RecordedLLM:
    """Answers from a recording; with an adapter, asks it for what is not recorded yet and records that.

    The file holds one JSON object a line: the request by which an answer is found (messages and options, by their hash), and
    the answer. Equal requests get equal answers, in whatever order and however often they come.

        RecordedLLM("tests/refund.jsonl", record=OpenAIAdapter("gpt-5"))     # once
        RecordedLLM("tests/refund.jsonl")                                    # from then on

    Raises:
        VMError: If the file can not be read or is no recording.
    """

    def __init__(self, path: str | Path, record: Any = None) -> None:
        self.path = Path(path)
        self.adapter = record
        model = getattr(record, "model", None)
        self.model = model if isinstance(model, str) else None
        self._known: dict[str, Completion] = {}
        if self.path.exists():
            self._load()
        elif record is None:
            raise VMError(f"no recording at {str(self.path)!r}; make one with RecordedLLM(path, record=adapter)")

    def _load(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VMError(f"{self.path}: not a recording: {error}") from None
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                usage = LLMUsage.from_dict(entry["usage"]) if entry["usage"] is not None else None
                if not isinstance(entry["text"], str):
                    raise TypeError("the text is none")
                self._known[entry["key"]] = Completion(entry["text"], usage, entry["model"], entry["finish_reason"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise VMError(f"{self.path}:{number}: not a recorded answer: {error}") from None

    async def complete(
        self,
        messages: list[Message],
        *,
        allowed_outputs: list[str] | None = None,
        output_schema: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The recorded answer to these messages and options.

        Raises:
            ModelError: If it is not recorded, and there is no adapter to ask.
        """
        constraints = {"allowed_outputs": allowed_outputs, "output_schema": output_schema}
        request = {"messages": messages, **kwargs, **{k: v for k, v in constraints.items() if v is not None}}
        key = hashlib.sha256(canonical(request)).hexdigest()
        found = self._known.get(key)
        if found is not None:
            return found
        if self.adapter is None:
            raise ModelError(
                f"not recorded: {short(messages[-1]['content'])}; record it again with record=adapter", retryable=False
            )
        taken = {k: v for k, v in request.items() if k not in constraints or k in Adapter(self.adapter).named}
        answer = completed(await self.adapter.complete(**taken))
        entry = {
            "key": key,
            "request": request,
            "text": answer.text,
            "usage": answer.usage.to_dict() if answer.usage is not None else None,
            "model": answer.model,
            "finish_reason": answer.finish_reason,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._known[key] = answer
        return answer


__all__ = ["Answer", "RecordedLLM", "ScriptedLLM"]
