"""``nano-vm run``: one program, its steps as they happen, and how it ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..records.trace import Trace, TraceStatus
from .faults import UsageFault
from .grammar import Options
from .text import (
    FAILED,
    OK,
    SHOWN_OUTPUT_CHARS,
    SUSPENDED,
    complain,
    diagnostic_lines,
    dollars,
    emit,
    note,
    safe,
    safe_json,
    say,
    seconds,
    shown,
)

if TYPE_CHECKING:
    from ..errors import Diagnostic
    from ..language.program import Program
    from ..run.vm import ExecutionVM
    from ..store.protocol import Store
    from .sources import Loaded
    from .view import View


def run(options: Options) -> int:
    """Run a program; the exit code says how it ended."""
    with _only_json(options.json) as to_stdout:
        with ExitStack() as stack:
            code, trace = _run(options, stack)
        if options.json:
            told = {**trace.summary(), "trace": trace.to_dict()}
            to_stdout(safe_json(json.dumps(told, ensure_ascii=False, indent=2)) + "\n")
    return code


def _run(options: Options, stack: ExitStack) -> tuple[int, Trace]:
    from ..cli import host
    from ..errors import ProgramError
    from .inspect import misnamed
    from .sources import load

    inputs = host.read_inputs(options.input, options.input_file)
    budget, prices = host.read_budget(options.budget), host.read_prices(options.price)
    approved = host.read_digests(options.approve)
    policy, faults = host.read_policy(options.policy)
    loaded = load(options.program, options.program_file)
    if faults:
        raise ProgramError([*faults, *misnamed(loaded, policy, options)])
    options.untrusted = host.untrusted_inputs(options.untrusted, loaded.program, loaded.programs)
    tools = host.load_tools(options.tools) if options.tools is not None else {}
    llm = host.load_models(options.model, options.base_url, options.answer)

    from ..run.vm import ExecutionVM
    from .keys import public_keys, signing_key
    from .stores import VARIABLE, opened

    url = options.store or os.environ.get(VARIABLE)
    store = opened(url) if url else None
    vm = ExecutionVM(
        llm=llm,
        tools=tools,
        programs=loaded.programs,
        prices=prices,
        policy=policy,
        approved=approved,
        store=store,
        signing_key=signing_key(options),
        trusted_keys=public_keys(options.trust, "--trust"),
    )
    stack.callback(vm.close)
    file = _open_trace(options.trace) if options.trace is not None else None
    if file is not None:
        stack.callback(file.close)
    for line in diagnostic_lines([*loaded.warnings(), *_warnings(vm, loaded)]):
        note(line)
    if store is not None and options.run_id is not None:
        _joined(store, options.run_id)
    trace, signalled = _executed(vm, loaded.program, inputs, budget, options, stack.close)
    code = exit_code(trace, signalled)
    # before anything is printed: a reader may be gone
    fault = file.write(trace) if file is not None else None
    _print_end(trace, loaded, options, kept=store is not None)
    if fault:
        complain(fault)
        code = code or FAILED
    return code, trace


def _joined(store: Store, run_id: str) -> None:
    """Tell that a run is there already; what is printed then is what it came to, and its steps are
    not made again.
    """
    from ..errors import UnknownRun

    with suppress(UnknownRun):
        known = store.load(run_id, rows=False)
        note(f"nano-vm: run {run_id} is there already ({known.status})")


def _warnings(vm: ExecutionVM, loaded: Loaded) -> list[Diagnostic]:
    return loaded.placed([d for d in vm.check(loaded.program) if d.severity != "error"])


def exit_code(trace: Trace, signalled: int | None) -> int:
    """0 success, 1 failed, 3 suspended, 130 interrupted (128 and the number of the signal)."""
    if signalled is not None and trace.status is TraceStatus.CANCELLED:
        return 128 + signalled
    return {TraceStatus.SUCCESS: OK, TraceStatus.SUSPENDED: SUSPENDED}.get(trace.status, FAILED)


# --- the run itself -------------------------------------------------------------------------------


def _executed(
    vm: ExecutionVM,
    program: Program,
    inputs: dict[str, Any],
    budget: dict[str, Any] | None,
    options: Options,
    leave: Callable[[], None],
) -> tuple[Trace, int | None]:
    from .view import open_view

    view = open_view(silent=options.json)
    try:
        with asyncio.Runner() as runner:
            return runner.run(_followed(vm, program, inputs, budget, options, view, leave))
    finally:
        view.close()


async def _followed(
    vm: ExecutionVM,
    program: Program,
    inputs: dict[str, Any],
    budget: dict[str, Any] | None,
    options: Options,
    view: View,
    leave: Callable[[], None],
) -> tuple[Trace, int | None]:
    """The trace of the run, and the signal that stopped it, if one did; *leave* tidies up before a
    sudden end.
    """
    loop = asyncio.get_running_loop()
    run_id = options.run_id or os.urandom(16).hex()
    untrusted = options.untrusted
    received: list[int] = []
    stopping: list[asyncio.Task[Trace]] = []
    begun = False
    shows = True

    def stop() -> None:
        if begun and not stopping:  # the id joins the run that the stream began
            stopping.append(
                loop.create_task(
                    vm.start(program, inputs, run_id=run_id, untrusted=untrusted).cancel()
                )
            )

    def on_signal(number: int, _: Any) -> None:
        if received:  # the second time: something does not let itself be cancelled
            view.close()
            leave()
            note("nano-vm: stopped at once; what was under way is unknown")
            os._exit(128 + number)
        received.append(number)
        loop.call_soon_threadsafe(stop)

    # one that the parent process had ignored (nohup, a job in the background) stays ignored
    numbers = [
        n
        for n in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(n) not in (signal.SIG_IGN, None)
    ]
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        stream = vm.stream(
            program, inputs, run_id=run_id, seed=options.seed, budget=budget, untrusted=untrusted
        )
        async with aclosing(stream) as events:
            async for event in events:
                if event.kind == "run_finished":
                    return event.trace, received[0] if received else None
                begun = True
                if received:
                    stop()
                if shows:
                    try:
                        view.event(event)
                    except (OSError, ValueError):
                        # nobody reads any more, or the disk is full: no reason to stop a run
                        shows = False
        raise AssertionError("a stream ends with run_finished")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- what is printed ------------------------------------------------------------------------------


def _print_end(trace: Trace, loaded: Loaded, options: Options, *, kept: bool) -> None:
    """How it ended: what is wrong to stderr, the rest to stdout."""
    if trace.diagnostics:
        for line in diagnostic_lines(loaded.placed(trace.diagnostics)):
            note(line)
        for key in _mistyped(trace.diagnostics, options.input):
            note(
                f"-i {key}=... gives a string; for a number, a list, true or null write -i "
                f"{key}:=..."
            )
        note("refused: no step was run")
    elif trace.error is not None:
        note(f"error: {safe(trace.error)}")
    if trace.waiting and not kept:
        note("it waits, and was not kept: only with --store URL can it go on")
    if options.json:
        return
    if kept:
        from .decide import waiting_lines
        from .stores import given_url

        if not trace.diagnostics:
            say(safe(f"run {trace.run_id}"))
        for line in waiting_lines(trace.run_id, trace.waiting, given_url(options)):
            say(line)
    else:
        for waiting in trace.waiting:
            say(f"waiting: {shown(waiting, 300)}")
    for line in summary_lines(trace):
        say(line)


def _mistyped(diagnostics: Sequence[Diagnostic], given: Sequence[str]) -> Iterator[str]:
    """The inputs that were given as strings, and that a schema wants to be something else."""
    for entry in given or ():
        key, _, _ = entry.partition("=")
        wrong = f"['{key}']"
        if not key.endswith(":") and any(
            d.code == "V041" and wrong in d.message and "is not of type" in d.message
            for d in diagnostics
        ):
            yield key


def summary_lines(trace: Trace) -> Sequence[str]:
    """How a run ended: its output, and a line with status, steps, tokens, cost, duration and
    digest.
    """
    lines = []
    if trace.final_output is not None:
        lines.append(f"output: {shown(trace.final_output, SHOWN_OUTPUT_CHARS)}")
    usage = trace.usage()
    count = len(trace.steps)
    parts = [trace.status.value, f"{count} step{'s' * (count != 1)}"]
    if any(step.type == "llm" for step in trace.steps):
        parts += [f"{usage.total_tokens} tokens", dollars(usage.cost_usd)]
    parts += [seconds(trace.duration_ms), f"digest {trace.digest}"]
    lines.append(", ".join(parts))
    return lines


# --- where it goes --------------------------------------------------------------------------------


@contextmanager
def _only_json(wanted: bool) -> Generator[Callable[[str], None]]:
    """With ``--json``, what tools and libraries print goes to stderr: in Python, and below it."""
    if not wanted:
        yield emit
        return
    sys.stdout.flush()
    kept = -1
    try:
        own = sys.stdout.fileno()
    except (OSError, ValueError):
        own = -1
    if own == 1:
        kept = os.dup(1)
        os.dup2(2, 1)
    chunks: list[str] = []
    try:
        with redirect_stdout(sys.stderr):
            yield chunks.append
    finally:
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)
    emit("".join(chunks))


@dataclass(slots=True)
class _TraceFile:
    """Where the trace goes: a stream, or a temporary file that takes the place of *target* when
    whole.
    """

    path: str
    target: Path
    stream: IO[bytes]
    temporary: str | None = None
    mode: int = 0

    def write(self, trace: Trace) -> str | None:
        """Write it; what went wrong, if something did."""
        try:
            self.stream.write(f"{safe_json(trace.to_json())}\n".encode())
            self.stream.flush()
            if self.temporary is not None:
                os.fsync(self.stream.fileno())
                os.chmod(self.temporary, self.mode)
                os.replace(self.temporary, self.target)
                self.temporary = None
        except OSError as error:
            return f"--trace: can not write {self.path}: {error.strerror}"
        return None

    def close(self) -> None:
        """Leave nothing behind."""
        try:
            self.stream.close()
        except OSError:  # told when it was written
            pass
        if self.temporary is not None:
            os.unlink(self.temporary)


def _open_trace(path: str) -> _TraceFile:
    """Makes sure, before anything runs, that the trace can be written."""
    if path == "-":
        raise UsageFault("--trace takes a file; for stdout there is --json")
    try:
        target = Path(os.path.realpath(path))
        found = target.stat() if target.exists() else None
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise UsageFault(f"--trace: {path} is a folder")
        if found is not None and not os.access(target, os.W_OK):
            raise UsageFault(f"--trace: can not write {path}: it is write-protected")
        if found is not None and not stat.S_ISREG(found.st_mode):  # a pipe or a device
            return _TraceFile(path, target, open(target, "wb"))
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:50]}.", dir=target.parent)
    except (OSError, ValueError) as error:
        raise UsageFault(
            f"--trace: can not write {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    mode = stat.S_IMODE(found.st_mode) if found is not None else 0o666 & ~_umask()
    return _TraceFile(path, target, open(descriptor, "wb"), name, mode)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
