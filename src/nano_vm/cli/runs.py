"""Durable runs from the command line: what there is, how it stands, going on with it, and what
people and the outside say to it.

What answers a run is only recorded here; `work` and `resume` go on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import StoreError
from ..records.trace import Trace, TraceStatus
from ..values import parse_json, short
from .decide import asked_lines, begun, waiting_lines
from .faults import Failure, UsageFault
from .grammar import Options
from .run import _only_json, exit_code, summary_lines
from .stores import age, given_url, is_driven, moment, named, opened, run_id_of, standing, store_of
from .stores import on_terminal as _on_terminal
from .text import (
    FAILED,
    OK,
    complain,
    diagnostic_lines,
    dollars,
    emit_json,
    note,
    safe,
    safe_json,
    safe_lines,
    say,
    shown,
)
from .traces import DETAIL_CHARS, _table

if TYPE_CHECKING:
    from ..run.inbox import Inbox
    from ..run.vm import ExecutionVM
    from ..store.records import StoredRun
    from ..store.sql.store import SqlStore

Result = TypeVar("Result")

SHORT_ID = 12
"""Of an id that was made up, what a table shows: enough to name a run among millions."""

# --- looking --------------------------------------------------------------------------------------


def runs(options: Options) -> int:
    """List runs, the newest first."""
    from ..run.inbox import presented
    from ..run.lease import living

    filters = {
        "status": ["suspended"] if options.waiting else options.status or None,
        "program": options.program_name,
        "since_ns": options.since,
        "until_ns": options.until,
        "min_cost_usd": options.min_cost,
        "limit": options.limit,
    }
    with store_of(options, read=True) as store:
        owners = living(store)
        damaged: list[str] = []
        found = store.runs(damaged=damaged, **filters)
        if options.json and options.waiting:
            emit_json([_header(run, owners) | {"waiting": presented(run.waiting)} for run in found])
        elif options.json:
            emit_json([_header(run, owners) for run in found])
        elif options.waiting:
            for run in found:
                say("  ".join(_cells(run, owners)).rstrip())
                try:
                    whole = store.load(run.run_id)
                except StoreError as error:
                    damaged.append(str(error))
                    continue
                for line in _standing_lines(whole, owners, options):
                    say(line)
        elif sys.stdout.isatty():
            _print_table(list(found), owners)
        else:
            for run in found:
                say("  ".join(_cells(run, owners)).rstrip())
    for problem in damaged:
        complain(problem)
    return FAILED if damaged else OK


def _header(run: StoredRun, owners: Any) -> dict[str, Any]:
    """A run in a list, as JSON."""
    return {
        "run_id": run.run_id,
        "program": run.program_name,
        "program_digest": run.program_digest,
        "status": run.status,
        "waiting": [
            {key: entry.get(key) for key in ("path", "kind", "role", "event") if key in entry}
            for entry in run.waiting
        ]
        if run.status == "suspended"
        else [],
        "driven": is_driven(run, owners),
        "created": moment(run.created_ns),
        "created_ns": run.created_ns,
        "finished_ns": run.finished_ns or None,
        "due_ns": run.wake_ns,
        "steps": run.steps,
        "tokens": run.tokens,
        "cost_usd": run.cost_usd,
        "error": run.error if type(run.error) is str else None,
        "parent": run.parent,
        "erased": run.salt is None,
    }


def _cells(run: StoredRun, owners: Any) -> tuple[str, ...]:
    cost = dollars(Decimal(run.cost_usd)) if run.cost_usd is not None else "-"
    count = f"{run.steps} step{'s' * (run.steps != 1)}"
    error = f"{safe(run.error)}" if run.status == "failed" and type(run.error) is str else ""
    if run.parent is not None:
        error = f"from {run.parent}{'; ' * bool(error)}{error}"
    standing_ = safe(standing(run, owners))
    return (
        f"{run.run_id:<32}",
        f"{safe(run.program_name or '-'):<20}",
        f"{standing_:<20}",
        f"{age(run.created_ns):>5}",
        f"{count:>9}",
        f"{cost:>8}",
        error[:200],
    )


STYLES = {
    "success": "green",
    "failed": "red",
    "cancelled": "yellow",
    "suspended": "cyan",
    "running": "bold",
}


def _print_table(found: list[StoredRun], owners: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("run", "program", "status"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("age", "steps", "cost"):
        table.add_column(name, no_wrap=True, justify="right")
    for run in found:
        cells = [cell.strip() for cell in _cells(run, owners)]
        made = len(run.run_id) == 32 and all(c in "0123456789abcdef" for c in run.run_id)
        cells[0] = run.run_id[:SHORT_ID] if made else run.run_id
        cells[4] = str(run.steps)
        status = Text(
            cells[2], style="bold red" if "in doubt" in cells[2] else STYLES.get(run.status, "")
        )
        table.add_row(
            Text(cells[0], style="bold"),
            Text(cells[1]),
            status,
            *(Text(cell) for cell in cells[3:6]),
        )
    console = Console()
    if found:
        console.print(table)
    else:
        console.print("no runs", style="dim")


def show(options: Options) -> int:
    """Show a run: its steps as far as they have come, what it waits for, and the commands that
    answer it.
    """
    from ..run.lease import living

    with store_of(options, read=True) as store:
        run = store.load(run_id_of(store, options.run))
        owners = living(store)
    erased = run.salt is None
    if erased:
        run.inputs, run.about = {}, {}
    from ..run.inbox import presented
    from ..run.stored import trace_of
    from ..store.records import ENDED

    trace = trace_of(run)
    if options.json:
        waiting = presented(run.waiting) if run.status == "suspended" else []
        told = _header(run, owners) | {
            "waiting": waiting,
            "inbox": [_message(message) for message in run.inbox],
        }
        emit_json(told | {"trace": None if erased else trace.to_dict(), "seal": run.seal})
        return OK
    say(safe(f"{run.program_name}, run {run.run_id}, {moment(run.created_ns)}"))
    say(safe(f"program {run.program_digest}"))
    if run.parent is not None:
        say(safe(f"made from run {run.parent}"))
    for name, value in run.inputs.items():
        say(f"input {safe(name)}: {shown(value, DETAIL_CHARS)}")
    _table(trace)
    for line in diagnostic_lines(trace.diagnostics):
        say(line)
    if type(run.error) is str and not trace.diagnostics:
        say(f"error: {safe(run.error)}")
    for line in _standing_lines(run, owners, options):
        say(line)
    if erased:
        say(f"{run.status}; its values were erased, and its seal still covers what they were")
    elif run.finished_ns:
        for line in summary_lines(trace):
            say(line)
    if run.status in ENDED:
        say(safe(f"seal {run.seal}"))
    return OK


def _message(message: Any) -> dict[str, Any]:
    return {
        "kind": message.kind,
        "name": message.name,
        **message.body,
        "by": message.by,
        "at": moment(message.created_ns),
    }


def _standing_lines(run: StoredRun, owners: Any, options: Options) -> Iterator[str]:
    """What an unfinished run waits for, and what was said to it meanwhile; also what came after it
    had ended.
    """
    from ..run.inbox import presented
    from ..store.records import late_outcomes

    url = given_url(options)
    if run.status == "pending":
        yield f"it has not begun: nano-vm work --tools ... begins it{url and f', with{url}'}"
    elif run.status == "running":
        if is_driven(run, owners):
            yield safe(f"under way in {run.owner}")
        else:
            yield safe(f"its process is gone: nano-vm resume {run.run_id} --tools ...{url}")
        yield from _under_way(run)
    elif run.status == "suspended":
        answered = {m.name for m in run.inbox if m.kind in ("approve", "reject", "resolve")}
        open_ = [entry for entry in run.waiting if entry["path"] not in answered]
        yield from waiting_lines(run.run_id, presented(open_), url, run.wake_ns)
    late = late_outcomes(run)
    for message in late:
        gave = message.body.get("output", message.body.get("error"))
        yield safe(
            f"late: {message.name} ended {moment(message.created_ns)}, when its run had another "
            f"owner; it gave:"
        )
        yield f"  {shown(gave)}"
    if late:
        yield "what the run says of these calls is not what happened"
    for message in run.inbox:
        if message in late:
            continue
        by = f" by {message.by}" if message.by else ""
        name = f" {message.name}" if message.name else ""
        yield safe(f"recorded: {message.kind}{name}{by}, {moment(message.created_ns)}")
    if run.status == "suspended" and run.inbox:
        yield safe(f"it goes on by nano-vm work, or nano-vm resume {run.run_id} --tools ...{url}")


def _under_way(run: StoredRun) -> Iterator[str]:
    """Calls that were begun and have no outcome yet."""
    from ..language.semantics import CALLS
    from ..run.inbox import process_of
    from ..run.stored import begun_calls

    for path, call in begun_calls(run.rows).items():
        if call.type in CALLS:
            process = process_of(call.owner) if call.owner is not None else None
            yield safe(f"  {path}: {begun(call.began_ns, process)}; its outcome is not recorded")


# --- saying ---------------------------------------------------------------------------------------


@contextmanager
def _speaking(options: Options) -> Iterator[tuple[Inbox, SqlStore, str]]:
    """Where words are recorded, the store, and the id of the run that they are about."""
    from ..run.inbox import Inbox

    with store_of(options) as store:
        yield Inbox(store, None, time), store, run_id_of(store, options.run)


def _recorded(
    options: Options, run_id: str, what: str, name: str = "", how: str | None = None
) -> int:
    if options.json:
        by = getattr(options, "by", None)
        emit_json(
            {
                "run_id": run_id,
                "recorded": what,
                "name": name,
                **({"by": by} if by is not None else {}),
            }
        )
        return OK
    at = f" {name}" if name else ""
    say(safe(f"recorded: {what}{at}, for run {run_id}"))
    say(
        safe(
            how
            or f"it goes on by nano-vm work, or nano-vm resume {run_id} --tools "
            f"...{given_url(options)}"
        )
    )
    return OK


def approve(options: Options) -> int:
    """Record an approval; on a terminal the request is shown and asked about, unless its digest is
    given.
    """
    with _speaking(options) as (inbox, _, run_id):
        asks = options.shown is None and not options.json and _on_terminal()
        if options.shown is None and not asks:
            raise UsageFault(
                f"the following arguments are required: --shown DIGEST, as nano-vm show {run_id} "
                f"prints it; "
                "on a terminal it can be left out, and the request is shown and asked about"
            )
        options.by = _principal(options)
        entry = _asked_at(inbox, run_id, options.path)
        if asks and not _agreed(run_id, entry, options.by):
            note("nothing was recorded")
            return FAILED
        shown = entry["shown"] if asks else options.shown
        inbox.approve(run_id, entry["path"], shown=shown, by=options.by, reason=options.reason)
    return _recorded(options, run_id, "approve", entry["path"])


def reject(options: Options) -> int:
    """Record a rejection."""
    with _speaking(options) as (inbox, _, run_id):
        options.by = _principal(options)
        path = _asked_at(inbox, run_id, options.path)["path"]
        inbox.reject(run_id, path, shown=options.shown, by=options.by, reason=options.reason)
    return _recorded(options, run_id, "reject", path)


def _principal(options: Options) -> str:
    """Who decides: whoever is named; on a terminal, the account of who sits there."""
    from ..run.inbox import account

    if options.by is not None:
        return str(options.by)
    if not _on_terminal():
        raise UsageFault("the following arguments are required: --by NAME, who decides")
    return account()


def _asked_at(inbox: Inbox, run_id: str, path: str | None) -> dict[str, Any]:
    """What is asked at *path*, or the one thing that is; where nothing is, only the path: what is
    wrong is for the inbox to say.
    """
    asked = [entry for entry in inbox.waiting(run_id) if entry["kind"] == "approval"]
    if path is not None:
        return next((entry for entry in asked if entry["path"] == path), {"path": path})
    if len(asked) == 1:
        return asked[0]
    if asked:
        paths = ", ".join(entry["path"] for entry in asked)
        raise UsageFault(f"run {run_id!r} asks at several places: {paths}; name one")
    raise Failure(f"run {run_id!r} asks no approval; nano-vm show {run_id} says how it stands")


def _agreed(run_id: str, entry: dict[str, Any], by: str) -> bool:
    """Show what is asked, all of it, and ask whether it is approved."""
    if "kind" not in entry:
        raise Failure(
            f"run {run_id!r} asks no approval at {entry['path']!r}; nano-vm show {run_id} says "
            f"how it stands"
        )
    lines, whole = asked_lines(entry)
    for line in lines:
        say(line)
    if not whole:
        raise Failure(
            f"it is too much for a screen: read all of it with nano-vm show {run_id} --json, and "
            f"approve it by --shown"
        )
    print(f"approve it, as {safe(by)}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def event(options: Options) -> int:
    """Record an event, for a run or for the one that waits for its values."""
    words = list(options.words)
    usage = "nano-vm event RUN NAME [JSON], or nano-vm event --match NAME JSON"
    if not (len(words) == 2 if options.match else 2 <= len(words) <= 3):
        raise UsageFault(f"an event is sent by {usage}")
    options.run = None if options.match else words.pop(0)
    payload = _payload(words[1] if len(words) > 1 else None, "the payload")
    with store_of(options) as store:
        from ..run.inbox import Inbox

        run_id = None if options.run is None else run_id_of(store, options.run)
        if run_id is not None:
            run = store.load(run_id, rows=False)
            if run.status in ("pending", "running", "suspended"):
                _known_event(run, words[0])
        recorded = Inbox(store, None, time).send_event(
            words[0], payload, run_id=run_id, id=options.id
        )
    if not recorded and not options.json:
        say(safe(f"event {words[0]} of id {options.id} was recorded before; nothing was changed"))
        return OK
    if run_id is not None:
        return _recorded(options, run_id, "event", words[0])
    if options.json:
        emit_json({"recorded": "event" if recorded else None, "name": words[0]})
    else:
        say(
            safe(f"recorded: event {words[0]}, for the run that waits for its values, now or later")
        )
        say(safe(f"it goes on by nano-vm work{given_url(options)}"))
    return OK


def _known_event(run: StoredRun, name: str) -> None:
    """Raises if no step of the run's program can ever wait for *name*: it would be kept for
    nothing.
    """
    names = list(_events(run.document))
    if name not in names and not any("$" in other for other in names):
        known = (
            f"it waits for {', '.join(map(repr, names))}"
            if names
            else "it has no step that waits for an event"
        )
        raise Failure(f"the program of run {run.run_id!r} waits for no event {name!r}; {known}")


def _events(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        if document.get("type") == "wait" and isinstance(document.get("event"), str):
            yield document["event"]
        for value in document.values():
            yield from _events(value)
    elif isinstance(document, list):
        for value in document:
            yield from _events(value)


def resolve(options: Options) -> int:
    """Record what became of a call in doubt."""
    from ..run.inbox import account
    from ..values import UNSET

    done = _payload(options.done, "--done") if options.done is not None else UNSET
    options.by = options.by if options.by is not None else account()
    with _speaking(options) as (inbox, _, run_id):
        inbox.resolve(
            run_id, options.path, done=done, retry=options.retry, fail=options.fail, by=options.by
        )
    said = "done" if done is not UNSET else "retry" if options.retry else "fail"
    return _recorded(options, run_id, f"resolve ({said})", options.path)


def _payload(text: str | None, what: str) -> Any:
    """JSON, or ``@FILE`` that holds it."""
    from .host import _text_of

    if text is None:
        return None
    if text.startswith("@"):
        text = _text_of(text[1:], what)
    try:
        return parse_json(text)
    except ValueError as error:
        raise UsageFault(
            f"{what} is JSON, not {short(text)}: {error}; a text has quotes: '\"text\"'"
        ) from None


def cancel(options: Options) -> int:
    """Cancel a run: at once where its tools are given, else when a worker takes it up."""
    from ..run.inbox import account
    from ..run.lease import living

    by = options.by = options.by if options.by is not None else account()
    if options.tools is not None or options.model:
        return _driven(options, lambda vm, run_id: vm.cancel(run_id, by=by), "cancel")
    with _speaking(options) as (inbox, store, run_id):
        inbox.cancel(run_id, by=by)
        run = store.load(run_id, rows=False)
        driven = is_driven(run, living(store))
    if driven:
        how = f"it is under way in {run.owner}, and stops before its next step"
    else:
        how = (
            f"nano-vm work does it, or at once: nano-vm cancel {run.run_id} --tools "
            f"...{given_url(options)}"
        )
    return _recorded(options, run.run_id, "cancel", how=how)


# --- going on -------------------------------------------------------------------------------------


def resume(options: Options) -> int:
    """Go on with a run, and show how far it came."""
    return _driven(options, lambda vm, run_id: vm.resume(run_id), "resume")


def _driven(options: Options, drive: Any, what: str) -> int:
    from ..store.records import ENDED

    with _only_json(options.json) as to_stdout, _host(options) as (vm, store):
        run_id = run_id_of(store, options.run)
        before = store.load(run_id, rows=False)
        if before.status in ENDED:
            raise Failure(f"run {run_id!r} has ended ({before.status}); there is nothing to {what}")
        trace, signalled = asyncio.run(_signalled(drive(vm, run_id)))
        code = exit_code(trace, signalled)
        if what == "cancel" and trace.status is TraceStatus.CANCELLED:
            code = OK
        if options.json:
            to_stdout(safe_json(trace.to_json(indent=2)) + "\n")
        else:
            wake = store.load(run_id, rows=False).wake_ns
            _print_driven(trace, options, wake)
    return code


def _print_driven(trace: Trace, options: Options, wake_ns: int | None) -> None:
    _table(trace)
    if trace.error is not None:
        note(f"error: {safe(trace.error)}")
    for line in waiting_lines(trace.run_id, trace.waiting, given_url(options), wake_ns):
        say(line)
    for line in summary_lines(trace):
        say(line)


async def _signalled(work: Coroutine[Any, Any, Trace]) -> tuple[Trace, int | None]:
    """The trace of a run that is driven here; a signal cancels it, a second one stops at once."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    received: list[int] = []

    def on_signal(number: int, _: Any) -> None:
        if received:
            os.write(2, b"nano-vm: stopped at once; nano-vm resume goes on with what is recorded\n")
            os._exit(128 + number)
        received.append(number)
        loop.call_soon_threadsafe(task.cancel)

    with _signals(on_signal):
        await asyncio.wait([task])
    if task.cancelled():
        raise KeyboardInterrupt
    return task.result(), received[0] if received else None


@contextmanager
def _signals(handler: Any) -> Iterator[None]:
    # one that the parent process had ignored (nohup, a job in the background) stays ignored
    numbers = [
        n
        for n in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(n) not in (signal.SIG_IGN, None)
    ]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def _host(options: Options) -> Iterator[tuple[ExecutionVM, SqlStore]]:
    """A VM with tools, models and rules, and its store."""
    from ..cli import host
    from .keys import public_keys, signing_key

    url = named(options.store)
    key, trusted = signing_key(options), public_keys(options.trust, "--trust")
    prices = host.read_prices(options.price)
    policy = host.load_policy(options.policy)
    tools = host.load_tools(options.tools) if options.tools is not None else {}
    llm = host.load_models(options.model, options.base_url, options.answer)

    from ..run.vm import ExecutionVM

    store = opened(url, there=True)
    vm = ExecutionVM(
        llm=llm,
        tools=tools,
        prices=prices,
        policy=policy,
        approved=options.approve,
        store=store,
        signing_key=key,
        trusted_keys=trusted,
    )
    try:
        yield vm, store
    finally:
        vm.close()


def work(options: Options) -> int:
    """Take up runs that nobody drives, and tell of each how far it came."""
    with _lines(apart=options.json) as line, _host(options) as (vm, _):
        return asyncio.run(_working(vm, options, line))


@contextmanager
def _lines(*, apart: bool) -> Iterator[Callable[[str], None]]:
    """What prints a line to stdout; with *apart* nothing else gets there: what tools print goes to
    stderr.
    """
    if not apart:
        yield say
        return
    own, kept = sys.stdout, -1
    own.flush()
    with suppress(OSError, ValueError):
        if own.fileno() == 1:
            kept = os.dup(1)
            os.dup2(2, 1)
    with redirect_stdout(sys.stderr), ExitStack() as stack:
        stream: Any = own
        if kept >= 0:
            stream = stack.enter_context(
                open(kept, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
            )
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 1)
        yield lambda text: print(text, file=stream, flush=True)


async def _working(vm: ExecutionVM, options: Options, say_line: Callable[[str], None]) -> int:
    loop = asyncio.get_running_loop()
    counts: dict[str, int] = {}
    gone = False

    def ended(trace: Trace) -> None:
        nonlocal gone
        counts[trace.status.value] = counts.get(trace.status.value, 0) + 1
        try:
            if not gone:
                say_line(
                    safe_json(json.dumps(trace.summary(), ensure_ascii=False))
                    if options.json
                    else _line(trace)
                )
        except OSError:  # nobody reads any more: no reason to stop
            gone = True

    received: list[int] = []

    def on_signal(number: int, _: Any) -> None:
        if received:
            os.write(2, b"nano-vm: stopped at once; calls that were under way are in doubt\n")
            os._exit(128 + number)
        received.append(number)
        os.write(
            2, b"stopping: calls under way have ten seconds to end; Ctrl-C again stops at once\n"
        )
        loop.call_soon_threadsafe(task.cancel)

    with _signals(on_signal), _warnings() as warnings:
        task = loop.create_task(
            vm.work(until_idle=options.until_idle, concurrency=options.concurrency, ended=ended)
        )
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    if options.until_idle and not options.json:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        if warnings:
            told += f"{', ' * bool(told)}{len(warnings)} could not go on here"
        note(told or "there was nothing to do")
    if received:
        return OK if not options.until_idle else 128 + received[0]
    return FAILED if counts.get("failed") or warnings else OK


def _line(trace: Trace) -> str:
    if trace.status is TraceStatus.SUSPENDED:
        what = "waits for " + ", ".join(
            f"{entry['kind']} at {entry['path']}" for entry in trace.waiting
        )
    elif trace.error is not None:
        what = trace.error
    else:
        what = f"output {shown(trace.final_output, 200)}"
    return f"{trace.run_id}  {safe(trace.program_name or '-')}  {trace.status.value}  {safe(what)}"


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Show what the VM warns of; a list of it."""
    told: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            note(f"nano-vm: {safe_lines(told[-1])}")

    logger, handler = logging.getLogger("nano_vm"), Handler(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)
