"""``nano-vm run``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, aclosing, closing, suppress
from typing import TYPE_CHECKING, Any

from ...visible import safe_json
from ..faults import FAILED, UsageFault
from ..grammar import Options, command, flag, option
from ..output import OutputFile, complain, json_text, note, only_ours, say
from ..parameters import (
    STORE,
    begins_on_cluster,
    file_option,
    keeps_in_store,
    takes_budget,
    takes_cluster,
    takes_host,
    takes_inputs,
    takes_keys,
    takes_policy,
    takes_price,
    takes_program,
    takes_said,
    takes_server,
    takes_telemetry,
)
from ..text import diagnostic_lines, safe, shown

if TYPE_CHECKING:
    from ...diagnostics import Diagnostic
    from ...records.trace import Trace
    from ...run.vm import ExecutionVM
    from ...store.protocol import Store
    from ..sources import Loaded

EXAMPLES = """\
nano-vm run refund.yaml --tools refund.py:tools --model local -i user_input="It arrived broken"
nano-vm run report.yaml --model ollama/llama3.2 -i text=@mail.txt --budget max_tokens=5000
nano-vm run refund.yaml --tools refund.py:tools --model local --json | jq .digest
"""


@command(examples=EXAMPLES)
@takes_program
@takes_inputs("an input; repeat for more")
@flag("--json", help="print the trace as JSON, and nothing else")
@file_option("--trace", help="write the trace to FILE")
@option("--seed", type=int, metavar="N", help="seed of the waits between attempts")
@takes_host
@takes_policy
@takes_budget("a limit: max_steps, max_tokens, max_seconds, ...")
@takes_price("for max_cost_usd")
@keeps_in_store("the run")
@option(
    "--run-id",
    metavar="ID",
    help="the run's id; with --store, one that is there is joined",
    section=STORE,
)
@takes_said
@takes_keys
@takes_telemetry
@takes_server
@takes_cluster
@begins_on_cluster
def run(options: Options) -> int:
    """
    Run a program and show its steps as they happen.

    inputs:
      -i name=text        the value is the text; where the program declares another type than a
                          string, the text is JSON: -i amount=30 -i again=false
      -i name:=json       the value is JSON whatever is declared: -i amount:=30 -i tags:='["a", "b"]'
      -i name=@FILE       the text of a file (@- is standard input); name:=@FILE reads JSON
      --input-file FILE   an object of inputs, in JSON or YAML; -i goes over it

    tools:
      --tools refund.py:tools      object 'tools' of a file
      --tools package.module:obj   object of a module, found from the current folder
      The object is a dict of callables, a list of functions, or whatever holds functions marked
      with @tool. Without ':object' it is the module's 'tools', else its functions marked with
      @tool.

    models:
      local, local:FILE.gguf              in this process        pip install 'llm-nano-vm[local]'
      openai/NAME, groq/NAME, ollama/NAME, openrouter/NAME, together/NAME, vllm/NAME,
      llamacpp/NAME                       key from OPENAI_API_KEY, GROQ_API_KEY, ...
                                                                 pip install 'llm-nano-vm[openai]'
      anthropic/NAME                      key from ANTHROPIC_API_KEY
                                                                 pip install 'llm-nano-vm[anthropic]'
      NAME with --base-url URL            any OpenAI-compatible server
      litellm:NAME                        what LiteLLM knows     pip install 'llm-nano-vm[litellm]'
      Several models: --model fast=groq/NAME --model good=openai/NAME, for steps with 'model: fast'.

    called programs:
      A 'call' may name a file, relative to the file that it stands in, inside the program's folder.
      Any other is given as --program name=FILE.
    """
    from ..places import is_cluster, server_of

    if is_cluster(options):
        return _on_cluster(options)
    url = server_of(options)
    with only_ours(options.json) as line:
        with ExitStack() as stack:
            if url is None:
                code, trace = _run(options, stack)
            else:
                code, trace = _on_server(url, options, stack)
        if options.json:
            line(json_text({**trace.summary(), "trace": trace.to_dict()}))
    return code


def _on_cluster(options: Options) -> int:
    """Run on a Temporal cluster, until the run has ended or waits."""
    from .. import cluster, connection
    from ..submission import submission_of

    connection.refuse(options)
    with ExitStack() as stack:
        begun = submission_of(options)
        if begun.vm is not None:
            stack.callback(begun.vm.close)
        file = _trace_file(options, stack)
        if options.run_id is not None:
            cluster.joined(options)
        trace = connection.on_cluster(
            options,
            lambda runs: runs.run(
                begun.program, begun.inputs, programs=begun.programs, **begun.options
            ),
            begun.vm,
            connection.telemetry_of(options, stack),
        )
        fault = _write(trace, file) if file is not None else None
    code = cluster.finished(trace, options)
    if fault:
        complain(fault)
        return code or FAILED
    return code


def _on_server(url: str, options: Options, stack: ExitStack) -> tuple[int, Trace]:
    """Run on a server, until the run has ended or waits."""
    from ..sending import begun_on, followed
    from ..summary import exit_code

    file = _trace_file(options, stack)
    with begun_on(url, options) as begun:
        trace = followed(begun, silent=options.json)
        place = begun.place
    code = exit_code(trace, None)
    fault = _write(trace, file) if file is not None else None
    _print_end(trace, begun.loaded, options, place.given, keyed=place.keyed)
    if fault:
        complain(fault)
        code = code or FAILED
    return code, trace


def _run(options: Options, stack: ExitStack) -> tuple[int, Trace]:
    import asyncio

    from .. import host, inputs, rules, stores, telemetry
    from ..said import said_of
    from ..summary import exit_code

    budget = rules.read_budget(options.budget)
    loaded, policy = host.program_of(options)
    given = inputs.read_inputs(options.input, options.input_file, loaded.program)
    options.untrusted = inputs.untrusted_inputs(options.untrusted, loaded.program, loaded.programs)
    store = stores.store_if_named(options)
    options.said = said_of(options, kept=store is not None)
    observers = telemetry.observers_of(options, store, stack)
    vm = host.vm_of(
        options, programs=loaded.programs, policy=policy, store=store, observers=observers
    )
    stack.callback(vm.close)
    file = _trace_file(options, stack)
    for line in diagnostic_lines([*loaded.warnings(), *_warnings(vm, loaded)]):
        note(line)
    for line in inputs.misread_inputs(options.input, loaded.program):
        note(safe(f"nano-vm: {line}"))
    if store is not None and options.run_id is not None:
        _joined(store, options.run_id)
    with asyncio.Runner() as runner:
        following = _followed(vm, loaded, given, budget, options, stack.close)
        trace, signalled = runner.run(following)
    code = exit_code(trace, signalled)
    # before anything is printed: a reader may be gone
    fault = _write(trace, file) if file is not None else None
    where = stores.given_url(options) if store is not None else None
    _print_end(trace, loaded, options, where)
    if fault:
        complain(fault)
        code = code or FAILED
    return code, trace


def _trace_file(options: Options, stack: ExitStack) -> OutputFile | None:
    """Where the trace goes; that it can be written is made sure of before anything runs."""
    if options.trace is None:
        return None
    if options.trace == "-":
        raise UsageFault("--trace takes a file; for stdout there is --json")
    return stack.enter_context(closing(OutputFile(options.trace, "--trace: ")))


def _write(trace: Trace, file: OutputFile) -> str | None:
    """Write the trace; what went wrong, if something did."""
    try:
        file.stream.write(f"{safe_json(trace.to_json())}\n".encode())
        file.commit()
    except OSError as error:
        return file.fault(error)
    return None


def _warnings(vm: ExecutionVM, loaded: Loaded) -> list[Diagnostic]:
    return loaded.placed([d for d in vm.check(loaded.program) if d.severity != "error"])


async def _followed(
    vm: ExecutionVM,
    loaded: Loaded,
    inputs: dict[str, Any],
    budget: dict[str, Any] | None,
    options: Options,
    leave: Callable[[], None],
) -> tuple[Trace, int | None]:
    """The trace of the run, and the signal that stopped it, if one did; *leave* tidies up before a
    sudden end.
    """
    import asyncio
    import os

    from ..signals import stopped_by_signals
    from ..view import open_view

    program = loaded.program
    run_id = options.run_id or os.urandom(16).hex()
    named = {"run_id": run_id, "untrusted": options.untrusted, **options.said}
    stopping: list[asyncio.Task[Trace]] = []
    begun = False
    shows = True
    view = open_view(silent=options.json)

    def stop() -> None:
        if begun and not stopping:  # the id joins the run that the stream began
            cancelling = vm.start(program, inputs, **named).cancel()
            stopping.append(asyncio.ensure_future(cancelling))

    def end() -> None:
        view.close()
        leave()

    farewell = "what was under way is unknown"
    with closing(view), stopped_by_signals(stop, farewell=farewell, leave=end) as received:
        stream = vm.stream(program, inputs, seed=options.seed, budget=budget, **named)
        async with aclosing(stream) as events:
            async for event in events:
                if event.kind == "run_finished":
                    assert event.trace is not None
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


def _joined(store: Store, run_id: str) -> None:
    """Tell that a run is there already; what is printed then is what it came to, and its steps are
    not made again.
    """
    from ...errors import UnknownRun

    with suppress(UnknownRun):
        known = store.load(run_id, rows=False)
        note(f"nano-vm: run {run_id} is there already ({known.status})")


def _print_end(
    trace: Trace, loaded: Loaded, options: Options, given: str | None, *, keyed: bool = False
) -> None:
    """How it ended: what is wrong to stderr, the rest to stdout. *given* is the option that names
    where the run is kept, if it is; *keyed* says that who decides is known there by a key.
    """
    from ...records.secrecy import shown_to
    from ..summary import doubt_lines, summary_lines

    trace = shown_to("show", trace)
    if trace.diagnostics:
        for line in diagnostic_lines(loaded.placed(trace.diagnostics)):
            note(line)
        note("refused: no step was run")
    elif trace.error is not None:
        note(f"error: {safe(trace.error)}")
    for line in doubt_lines(trace):
        note(line)
    if trace.waiting and given is None:
        note("it waits, and was not kept: only with --store URL can it go on")
    if options.json:
        return
    if given is not None:
        from ..decide import waiting_lines

        if not trace.diagnostics:
            say(safe(f"run {trace.run_id}"))
        for line in waiting_lines(trace.run_id, trace.waiting, given, keyed=keyed):
            say(line)
    else:
        for waiting in trace.waiting:
            say(f"waiting: {shown(waiting, 300)}")
    for line in summary_lines(trace):
        say(line)
