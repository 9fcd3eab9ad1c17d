"""``nano-vm ui``."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from .. import completion
from ..faults import OK, UsageFault
from ..grammar import Options, argument, command, flag, option, values
from ..output import note, say
from ..parameters import PORT, STORE, STORED, takes_host, takes_price, takes_rules
from ..stores import VARIABLE, opened

if TYPE_CHECKING:
    from ...run.vm import ExecutionVM
    from ...ui.asking import Answers
    from ...ui.forks import Forks
    from ...ui.library import Library

EXAMPLES = """\
nano-vm ui sqlite:///runs.db
nano-vm ui sqlite:///runs.db --as mia
nano-vm ui sqlite:///runs.db --as mia --tools refund.py:tools --model local --with-worker
nano-vm ui run.json --program refund.yaml
nano-vm ui --port 8643 --no-browser   (of the store that NANO_VM_STORE names)
"""


@command(examples=EXAMPLES, footer=STORED)
@argument(
    "what",
    help="a store by its URL, or files: traces, exported runs; default: the store",
    nargs=-1,
    shell_complete=completion.files,
)
@option("--port", type=PORT, default="0", metavar="N", help="default: one that is free")
@option(
    "--as",
    "decides_as",
    metavar="NAME",
    help="decide as NAME what runs ask, and fork runs; without it, nothing is changed",
)
@flag("--with-worker", help="run what is forked, answered or submitted in this process too")
@flag("--no-browser", help="only print the address")
@values(
    "--program",
    "program_file",
    metavar="FILE",
    help="the program of traces; NAME=FILE for one that it calls by name",
    shell_complete=completion.programs,
)
@takes_host
@takes_rules
@takes_price("for max_cost_usd")
@option("--store", metavar="URL", help="the database of runs", section=STORE)
def ui(options: Options) -> int:
    """
    Show runs in the browser: a list that follows the store, each run on the graph of its program,
    two runs compared.

    For you alone: it listens on 127.0.0.1 and its address holds a random token. With --as NAME
    approvals and calls in doubt can be decided there, and with the tools and model of a run (--tools,
    --model) it can be forked. What is decided or forked goes on in 'work' or 'resume', or here with
    --with-worker. Ctrl-C ends it.
    """
    import webbrowser

    from ...ui.library import Programs
    from ...ui.local import LocalServer
    from ..recorded import program_named

    loaded = program_named(options)
    programs = Programs() if loaded is None else Programs(loaded.program, loaded.programs)
    with ExitStack() as stack:
        url, library = _library(options, stack)
        answers, forks = _deciding(options, url, stack)
        try:
            server = stack.enter_context(
                LocalServer(library, programs, options.port, answers, forks)
            )
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise UsageFault(
                f"--port: {options.port} cannot be used: {error.strerror}; without --port a free "
                f"one is taken"
            ) from None
        if options.with_worker and forks is not None:
            stack.enter_context(_working(forks.vm))
        say(server.address)
        if not options.no_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass  # how it is ended
    return OK


def _deciding(
    options: Options, url: str | None, stack: ExitStack
) -> tuple[Answers | None, Forks | None]:
    """What records decisions and makes forks, if somebody decides: the store is opened to be written
    only then.

    Raises:
        UsageFault: If there is nothing to decide, or a host of nobody.
    """
    import time

    from ...run.inbox import principal
    from ...ui.asking import Answers
    from ...ui.forks import Forks
    from ...ui.library import StoreLibrary
    from ..host import has_host, refuse_host, vm_of
    from ..keys import signing_key
    from ..rules import load_policy

    if options.decides_as is None:
        if options.with_worker:
            raise UsageFault("--with-worker changes runs: add --as NAME, and its tools or model")
        refuse_host("add --as NAME, who forks and decides; without it nothing changes", whole=True)
        return None, None
    if url is None:
        raise UsageFault("--as decides what runs of a store ask; files take no answers")
    principal(options.decides_as)
    store = opened(url, there=True)
    store.signer = signing_key(options)
    stack.callback(store.close)
    answers = Answers(store, options.decides_as, time)
    if not has_host(options):
        if options.with_worker:
            raise UsageFault("--with-worker needs what it works with: add --tools, or --model")
        refuse_host("add --tools, or --model, by which forks are checked")
        return answers, None
    vm = vm_of(options, policy=load_policy(options.policy), store=store)
    stack.callback(vm.close)
    return answers, Forks(StoreLibrary(store), vm, options.decides_as)


@contextmanager
def _working(vm: ExecutionVM) -> Iterator[None]:
    """Drive what is to be driven meanwhile, in a thread of its own. At the end calls under way have
    a while to end, and the runs are left to others.
    """
    import asyncio
    import threading

    loop = asyncio.new_event_loop()
    work = loop.create_task(vm.work(ended=lambda _: None, name="ui"))

    def until_cancelled() -> None:
        loop.run_until_complete(asyncio.wait([work]))
        if not work.cancelled() and (fault := work.exception()) is not None:
            note(f"the worker in this process has stopped: {fault}")

    thread = threading.Thread(target=until_cancelled)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(work.cancel)
        thread.join()
        loop.close()


def _library(options: Options, stack: ExitStack) -> tuple[str | None, Library]:
    """The runs that are named: those of one store, with its URL, or of files.

    Raises:
        UsageFault: If they are neither.
    """
    from ...ui.library import FileLibrary, StoreLibrary
    from ..recorded import load_runs

    urls = [name for name in options.what if "://" in name]
    files = [name for name in options.what if name not in urls]
    if options.store:
        urls.append(options.store)
    if len(urls) > 1 or (urls and files):
        raise UsageFault("name one store, or files; each nano-vm ui shows one of them")
    if files:
        return None, FileLibrary([run for name in files for run in load_runs(name, options)])
    url = urls[0] if urls else os.environ.get(VARIABLE)
    if not url:
        raise UsageFault(
            f"which runs? Name a store (nano-vm ui sqlite:///runs.db), files, or set {VARIABLE}"
        )
    store = opened(url, there=True, read=True)
    stack.callback(store.close)
    return url, StoreLibrary(store)
