"""Runs on a Temporal cluster, for commands that are given ``--engine temporal``."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import UnknownRun, VMError
from ..visible import safe_json
from .decide import asked_lines, waiting_lines
from .faults import FAILED, OK, Failure, UsageFault
from .grammar import Options
from .inbox import payload, principal
from .output import emit_json, json_line, note, on_terminal, say
from .summary import exit_code, print_steps, summary_lines
from .text import diagnostic_lines, safe, shown

if TYPE_CHECKING:
    from temporalio.client import Client

    from ..records.trace import Trace
    from ..run.vm import ExecutionVM
    from ..temporal import TemporalRuns

T = TypeVar("T")


async def connected(options: Options) -> Client:
    """A client of the cluster that *options* name.

    Raises:
        UsageFault: If an option is wrong.
        VMError: If no server answers.
    """
    from ..temporal import connect

    return await connect(
        options.address,
        namespace=options.namespace,
        tls=_tls(options),
        api_key=_secret(options, "api_key_env"),
        payloads=options.payloads,
        encryption=_encryption(options),
    )


def _secret(options: Options, name: str) -> str | None:
    """What the environment variable holds that an option names."""
    variable = getattr(options, name)
    if variable is None:
        return None
    found = os.environ.get(variable)
    if not found:
        raise UsageFault(f"--{name.replace('_', '-')}: the variable {variable} is not set")
    return found


def _encryption(options: Options) -> Any:
    key = _secret(options, "encryption_key_env")
    if key is None:
        return None
    from ..temporal.encryption import Encryption, key_of, named

    try:
        return Encryption(named([key_of(key)]))
    except VMError as error:
        raise UsageFault(f"--encryption-key-env: {error}") from None


def _tls(options: Options) -> Any:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageFault("--tls-cert and --tls-key go together")
    files = {
        "server_root_ca_cert": options.tls_ca,
        "client_cert": options.tls_cert,
        "client_private_key": options.tls_key,
    }
    given = {name: _bytes(path) for name, path in files.items() if path is not None}
    if not given:
        return options.tls or options.api_key_env is not None
    from temporalio.service import TLSConfig

    return TLSConfig(**given)  # type: ignore[arg-type]


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from None


def given(options: Options) -> str:
    """The options that name the cluster, for a command that is shown."""
    told = " --engine temporal"
    for name, usual in (("address", "127.0.0.1:7233"), ("namespace", "default")):
        value = getattr(options, name)
        if value != usual:
            told += f" --{name} {shlex.quote(value)}"
    return told


def on_cluster(
    options: Options,
    job: Callable[[TemporalRuns], Awaitable[T]],
    vm: ExecutionVM | None = None,
) -> T:
    """What *job* gives, over the cluster that *options* name."""

    async def done() -> T:
        from ..temporal import TemporalRuns

        return await job(TemporalRuns(await connected(options), options.queue, vm=vm))

    return asyncio.run(done())


# --- commands -------------------------------------------------------------------------------------


def show(options: Options) -> int:
    """As ``nano-vm show``."""

    async def found(runs: TemporalRuns) -> tuple[Trace | None, list[dict[str, Any]]]:
        return await runs.trace(options.run), await runs.waiting(options.run)

    trace, waiting = on_cluster(options, found)
    if options.json:
        told = None if trace is None else trace.to_dict()
        status = "pending" if trace is None else trace.status.value
        emit_json({"run_id": options.run, "status": status, "waiting": waiting, "trace": told})
        return OK
    if trace is None:
        say(safe(f"run {options.run} has not begun: no worker has taken it yet"))
        return OK
    say(safe(f"{trace.program_name}, run {trace.run_id}"))
    printed(trace, options)
    return OK


def printed(trace: Trace, options: Options) -> None:
    """A run as it stands, and the commands that answer what it waits for."""
    print_steps(trace)
    for line in diagnostic_lines(trace.diagnostics):
        note(line)
    if trace.error is not None and not trace.diagnostics:
        note(f"error: {safe(trace.error)}")
    for line in waiting_lines(trace.run_id, trace.waiting, given(options)):
        say(line)
    for line in summary_lines(trace):
        say(line)


def approve(options: Options) -> int:
    """As ``nano-vm approve``."""
    asks = options.shown is None and not options.json and on_terminal()
    if options.shown is None and not asks:
        raise UsageFault(
            f"the following arguments are required: --shown DIGEST, as nano-vm show {options.run} "
            f"prints it"
        )
    options.by = principal(options)

    async def decide(runs: TemporalRuns) -> str | None:
        entry = _asked(await runs.waiting(options.run), options)
        if asks and not _agreed(entry, options):
            return None
        digest = entry["shown"] if asks else options.shown
        path = str(entry["path"])
        await runs.approve(options.run, path, shown=digest, by=options.by, reason=options.reason)
        return path

    path = on_cluster(options, decide)
    if path is None:
        note("nothing was recorded")
        return FAILED
    return recorded(options, "approve", path)


def _agreed(entry: Mapping[str, Any], options: Options) -> bool:
    lines, whole = asked_lines(entry)
    for line in lines:
        say(line)
    if not whole:
        raise Failure("it is too much for a screen: read all of it with --json, then give --shown")
    answer = input(f"approve it, as {safe(options.by)}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")


def _asked(waiting: list[dict[str, Any]], options: Options) -> dict[str, Any]:
    """The approval that is asked at the path that is named, or the only one."""
    asked = [entry for entry in waiting if entry["kind"] == "approval"]
    if options.path is not None:
        found = [entry for entry in asked if entry["path"] == options.path]
        return found[0] if found else {"path": options.path}
    if len(asked) != 1:
        paths = ", ".join(entry["path"] for entry in asked)
        if asked:
            raise UsageFault(f"run {options.run!r} asks at several places: {paths}; name one")
        raise Failure(f"run {options.run!r} asks no approval")
    return asked[0]


def reject(options: Options) -> int:
    """As ``nano-vm reject``."""
    options.by = principal(options)

    async def decide(runs: TemporalRuns) -> str:
        path = str(_asked(await runs.waiting(options.run), options)["path"])
        await runs.reject(
            options.run, path, shown=options.shown, by=options.by, reason=options.reason
        )
        return path

    return recorded(options, "reject", on_cluster(options, decide))


def event(options: Options, run_id: str, name: str, text: str | None) -> int:
    """As ``nano-vm event``, to one run."""
    brings = payload(text, "the payload")
    options.run = run_id
    is_new = on_cluster(options, lambda runs: runs.send_event(run_id, name, brings, id=options.id))
    if not is_new and not options.json:
        say(safe(f"event {name} of id {options.id} was recorded before; nothing was changed"))
        return OK
    return recorded(options, "event", name)


def resolve(options: Options, done: Any, by: str) -> int:
    """As ``nano-vm resolve``."""
    options.by = by
    on_cluster(
        options,
        lambda runs: runs.resolve(
            options.run, options.path, done=done, retry=options.retry, fail=options.fail, by=by
        ),
    )
    return recorded(options, "resolve", options.path)


def cancel(options: Options) -> int:
    """As ``nano-vm cancel``: waits until what was done is undone."""
    trace = on_cluster(options, lambda runs: runs.cancel(options.run))
    if options.json:
        emit_json(trace.to_dict())
    else:
        printed(trace, options)
    return OK if trace.status.value == "cancelled" else FAILED


def recorded(options: Options, what: str, name: str) -> int:
    """Say that a word was recorded."""
    if options.json:
        by = options.get("by")
        said = {"by": by} if by is not None else {}
        emit_json({"run_id": options.run, "recorded": what, "name": name, **said})
    else:
        say(safe(f"recorded: {what} {name}, for run {options.run}"))
    return OK


def finished(trace: Trace, options: Options) -> int:
    """Print how a run ended, or stands; the exit code."""
    if options.json:
        say(safe_json(json_line({**trace.summary(), "trace": trace.to_dict()})))
    else:
        say(safe(f"run {trace.run_id}"))
        printed(trace, options)
    return exit_code(trace, None)


def joined(options: Options) -> None:
    """Say that a run is there already; its steps are not made again."""

    async def look(runs: TemporalRuns) -> str | None:
        try:
            trace = await runs.trace(options.run_id)
        except UnknownRun:
            return None
        return "pending" if trace is None else trace.status.value

    status = on_cluster(options, look)
    if status is not None:
        note(safe(f"nano-vm: run {options.run_id} is there already ({status})"))


async def working(vm: ExecutionVM, options: Options) -> int:
    """Work on the cluster until a signal; calls under way have ten seconds to end."""
    from ..temporal import worker
    from .signals import stopped_by_signals

    client = await connected(options)
    stop = asyncio.Event()

    def stopping() -> None:
        note("stopping: calls under way have ten seconds to end; Ctrl-C again stops at once")
        stop.set()

    farewell = "calls that were under way are in doubt, or made again by another worker"
    with stopped_by_signals(stopping, farewell=farewell):
        async with worker(
            client, vm, options.queue, max_concurrent_activities=vm.preparer.threads.size
        ):
            note(f"working on queue {shown(options.queue)} of {safe(options.address)}")
            await stop.wait()
    return OK
