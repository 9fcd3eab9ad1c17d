"""``nano-vm store``."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import IO, TYPE_CHECKING, Literal

import click

from ...errors import StoreError
from .. import completion
from ..faults import FAILED, OK, Failure, UsageFault
from ..grammar import (
    Group,
    Options,
    argument,
    command,
    flag,
    only_one,
    option,
    together,
    values,
)
from ..output import OutputFile, emit_json, note, on_terminal, say
from ..parameters import AGE, STORED, file_option, takes_public_keys, takes_signing_key, takes_store
from ..stdin import STDIN, standard_input
from ..text import safe
from ..times import moment

if TYPE_CHECKING:
    from ...store.protocol import Ended


@click.command(cls=Group)
def store() -> None:
    """Look after a store."""


OLD_RUNS = "that ended before: 30d, 12h, ..."

takes_old_runs = together(
    values(
        "--status",
        type=click.Choice(("success", "failed", "cancelled")),
        metavar="STATUS",
        help="only these: success, failed, cancelled; repeat for more",
    ),
    flag("--dry-run", help="only list the runs"),
    flag("--yes", help="do not ask; without a terminal nobody is asked"),
)


@command(footer=STORED)
@option("--older-than", required=True, type=AGE, metavar="AGE", help=OLD_RUNS)
@takes_old_runs
@takes_store
@takes_signing_key
def prune(options: Options) -> int:
    """Delete runs that ended long ago."""
    return _swept(options, "delete", "deleted")


@command(footer=STORED)
@argument(
    "run",
    nargs=-1,
    metavar="[RUN]...",
    help="the runs; default: all",
    shell_complete=completion.run_ids,
)
@file_option("-o", "--output", help="write to FILE, not to stdout")
@takes_store
def export(options: Options) -> int:
    """Write runs as JSON Lines, with all that is needed to verify and replay them."""
    from ..stores import run_id_of, store_of

    with store_of(options, read=True) as store:
        ids = [run_id_of(store, text) for text in options.run]
        names = iter(dict.fromkeys(ids)) if ids else (run.run_id for run in store.runs())
        with _written(options.output) as stream:
            count = store.export(names, stream)
    if options.output is not None and options.output != "-":
        if options.json:
            emit_json({"exported": count, "output": options.output})
        else:
            say(f"wrote {count:,} run{'s' * (count != 1)} to {safe(options.output)}")
    return OK


@command("import", footer=STORED)
@argument("file", help="(- is standard input)", shell_complete=completion.files)
@flag(
    "--unfinished",
    help="import also runs that have not ended: only if the other store is given up",
)
@takes_store
@takes_signing_key
def import_(options: Options) -> int:
    """Import runs that 'store export' wrote, all or nothing."""
    from ..stores import store_of

    try:
        source = standard_input("the file") if options.file == STDIN else open(options.file, "rb")  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise UsageFault(
            f"cannot read {options.file}: {getattr(error, 'strerror', None) or error}"
        ) from None
    try:
        with (
            io.TextIOWrapper(source, encoding="utf-8", newline="\n") as stream,
            store_of(options, there=False) as store,
        ):
            taken = store.import_(stream, unfinished=options.unfinished)
    except StoreError as error:
        hint = ""
        if "as unfinished" in str(error):
            hint = " (--unfinished)"
        raise Failure(f"{options.file}: {error}{hint}; nothing was taken in") from None
    except OSError as error:
        raise UsageFault(
            f"cannot read {options.file}: {error.strerror}; nothing was taken in"
        ) from None
    if options.json:
        emit_json({"imported": taken})
    else:
        say(
            f"took in {len(taken):,} run{'s' * (len(taken) != 1)}"
            + ("" if taken else "; what the file has was there")
        )
    return OK


@command(footer=STORED)
@option(
    "--head",
    metavar="NUMBER:HASH",
    help="what 'store head' printed before: its receipt must still be there",
)
@takes_store
@takes_public_keys
def check(options: Options) -> int:
    """Look for damage: checksums, hashes, references, seals, signatures and receipts."""
    from ..keys import public_keys
    from ..stores import store_of

    keys = public_keys(options.key, "--key") if options.key else None
    if options.head is not None and not _HEAD.match(options.head):
        raise UsageFault(
            f"--head takes what 'store head' prints, NUMBER:HASH, not {options.head!r}"
        )
    with store_of(options, read=True) as store:
        problems = store.check(keys=keys, head=options.head)
        unused = store.unused() if not problems else []
    if options.json:
        emit_json({"problems": problems, "unused": unused})
    else:
        for problem in problems:
            note(safe(problem))
        for line in unused:
            note(safe(f"note: {line}"))
        count = len(problems)
        say("no problem was found" if not count else f"{count:,} problem{'s' * (count != 1)}")
    return FAILED if problems else OK


@command(footer=STORED)
@takes_store
def accept(options: Options) -> int:
    """
    Use a file of SQLite as it is whose log is missing.

    A file of SQLite that was copied without its log while it was in use, or restored from a backup
    that was taken then, is of an earlier moment: going on with its runs would make calls again that
    were made since. So a command that would is refused, until this one says that the file is to be
    used as it is.
    """
    from ..stores import store_of

    with store_of(options, accept=True):
        pass
    if options.json:
        emit_json({"accepted": True})
    else:
        say("the store is used as it is; what was recorded after its last moment is not in it")
    return OK


@command(footer=STORED)
@takes_store
def head(options: Options) -> int:
    """Print number and hash of the newest receipt, to be kept elsewhere."""
    from ..stores import store_of

    with store_of(options, read=True) as store:
        found = store.head()
    if options.json:
        emit_json({"head": found})
    elif found is not None:
        say(found)
    else:
        raise Failure("no run has ended in this store")
    return OK


@command(footer=STORED)
@argument("run", required=False, help="the run's whole id", shell_complete=completion.run_ids)
@option("--older-than", type=AGE, metavar="AGE", help=f"all {OLD_RUNS}")
@takes_old_runs
@takes_store
@takes_signing_key
def erase(options: Options) -> int:
    """
    Erase the values of a run that has ended, or of all that ended long ago; seals still verify.

    Inputs, requests, outputs and labels are erased. What happened when stays, and the seal still
    verifies; values that other runs have too stay with them.
    """
    only_one(options, "run", "--older-than", required=True)
    if options.older_than is not None:
        return _swept(options, "erase", "erased")
    if options.status or options.dry_run or options.yes:
        raise UsageFault("--status, --dry-run and --yes go with --older-than")
    return _erased(options)


def _erased(options: Options) -> int:
    """Erase the values of one run."""
    from ..stores import run_id_of, store_of

    with store_of(options) as store:
        run_id = run_id_of(store, options.run)
        if run_id != options.run:
            raise UsageFault(
                f"what is erased cannot be had again, so the whole id is needed: {run_id}"
            )
        done = store.erase(run_id)
    if options.json:
        emit_json({"run_id": run_id, "erased": done})
    else:
        say(
            f"run {run_id}: its values {'are erased' if done else 'were erased before'}; its seal "
            f"still verifies"
        )
    return OK


def _swept(
    options: Options, verb: Literal["delete", "erase"], done: Literal["deleted", "erased"]
) -> int:
    """Delete runs that ended long ago, or erase their values: listed first, and agreed to."""
    from ...store.records import ENDED
    from ..stores import store_of

    before, statuses = time.time_ns() - int(options.older_than * 1e9), options.status or ENDED
    with store_of(options, read=options.dry_run) as store:
        found = store.prunable(before, statuses, held=verb == "erase")
        if not options.json:
            for line in _listed_lines(found, all_=options.dry_run):
                say(line)
        if options.dry_run:
            if options.json:
                emit_json({f"would_{verb}": len(found), "runs": [run.run_id for run in found]})
            else:
                say(f"would {verb} {_runs(len(found))}; nothing was changed")
            return OK
        asked = not options.yes and not options.json and on_terminal()
        if found and asked and not _agreed(verb, done, len(found)):
            note(f"nothing was {done}")
            return FAILED
        sweep = store.prune if verb == "delete" else store.erase_ended
        count = sweep(before, statuses)
    if options.json:
        emit_json({done: count})
    else:
        say(f"{done} {_runs(count)}")
    return OK


SHOWN_RUNS = 20
"""Runs that are named before something is done to them: what fits a screen."""


def _runs(count: int) -> str:
    return f"{count:,} run{'s' * (count != 1)}"


def _listed_lines(found: list[Ended], *, all_: bool) -> Iterator[str]:
    """Runs that have ended, a line each; unless *all_* are asked for only the first."""
    shown = found if all_ else found[:SHOWN_RUNS]
    for run in shown:
        yield safe(
            f"{run.run_id:<32}  {run.program_name or '-':<20}  {run.status:<9}  ended "
            f"{moment(run.finished_ns)}"
        )
    if len(found) > len(shown):
        yield f"and {len(found) - len(shown):,} more (--dry-run lists all)"


def _agreed(verb: str, done: str, count: int) -> bool:
    """Whether the person at the terminal wants it to be done."""
    note(f"what is {done} cannot be had again; nano-vm store export writes runs to a file first")
    try:
        answer = input(f"{verb} {_runs(count)}? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


@contextmanager
def _written(path: str | None) -> Iterator[IO[str]]:
    """A stream for the export: stdout, or a file that is there when it is whole."""
    if path in (None, "-"):
        sys.stdout.flush()
        # UTF-8 whatever the locale; a stdout that was put in its place may be text alone
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="\n")
        try:
            yield out
        finally:
            out.detach()
        return
    assert path is not None
    with closing(OutputFile(path)) as file:
        try:
            with io.TextIOWrapper(file.stream, encoding="utf-8", newline="\n") as stream:
                yield stream
                stream.flush()
                file.commit()
        except OSError as error:
            raise Failure(file.fault(error)) from None


_HEAD = re.compile(r"[0-9]{1,18}:[0-9a-f]{64}\Z")


@command(footer=STORED)
@takes_store
def upgrade(options: Options) -> int:
    """
    Bring the tables of an older version up to those of this one.

    All steps are made, or none. A process of an older version that has the store open fails from
    then on: stop workers first, and keep a copy.
    """
    from ..stores import store_of

    with store_of(options, upgrade=True) as store:
        version = store.version
    if options.json:
        emit_json({"version": version})
    else:
        say(f"the tables are of version {version}")
    return OK


for made in (prune, export, import_, check, accept, head, erase, upgrade):
    store.add_command(made)
