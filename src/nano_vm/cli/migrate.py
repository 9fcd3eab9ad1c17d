"""``nano-vm migrate``: which runs in flight may go on with a changed program."""

from __future__ import annotations

from ..errors import ProgramError
from .faults import UsageFault
from .grammar import Options
from .text import FAILED, OK, emit_json, safe, say


def migrate(options: Options) -> int:
    """One line for each unfinished run; the exit code says whether all of them may."""
    from ..cli import host, sources, stores
    from ..replay.migrate import migrations
    from ..run.vm import ExecutionVM

    if not options.dry_run:
        raise UsageFault(
            "moving runs is not built yet; --dry-run says which may go on with the new program"
        )
    loaded = sources.load(options.program, options.program_file)
    policy = host.load_policy(options.policy)
    if options.tools is not None:
        tools = host.load_tools(options.tools)
    else:
        tools = host.stub_tools(loaded.program, loaded.programs, policy)
    llm = host.load_models(options.model, options.base_url, options.answer) or host.StubModel()
    store = stores.opened(stores.named(options.store), there=True, read=True)
    try:
        vm = ExecutionVM(
            llm=llm,
            tools=tools,
            programs=loaded.programs,
            store=store,
            policy=policy,
            approved=options.approve,
        )
        found = list(migrations(vm, loaded.program, name=options.of))
    except ProgramError as error:
        raise ProgramError(loaded.placed(error.diagnostics)) from None
    finally:
        store.close()
    may = sum(one.reason is None for one in found)
    if options.json:
        emit_json({"ok": may == len(found), "runs": [one.to_dict() for one in found]})
        return OK if may == len(found) else FAILED
    for one in found:
        say(
            safe(
                f"{one.run_id}  {one.status}  "
                f"{'may move' if one.reason is None else f'stays: {one.reason}'}"
            )
        )
    name = options.of or loaded.program.name
    say(safe(f"{len(found)} unfinished runs of {name!r}: {may} may go on with {options.program}"))
    return OK if may == len(found) else FAILED
