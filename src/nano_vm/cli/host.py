"""The host of a program as the command line describes it: the one place where a command makes a VM.

Tools, models, prices, rules, keys and the store come in by the names of the options that a command
declares; what it does not declare is not given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..diagnostics import Diagnostic
from ..diagnostics.code import NAMES
from ..diagnostics.register import has
from ..errors import ProgramError
from ..run.vm import ExecutionVM
from . import models, rules, sources, tools
from .faults import UsageFault
from .grammar import Options, typed
from .inputs import untrusted_inputs
from .keys import public_keys, signing_key

if TYPE_CHECKING:
    from ..language.policy import Policy
    from ..language.program import Program
    from ..run.observers import Observer
    from ..store.protocol import Store
    from ..verify.report import Report
    from .sources import Loaded


_HOSTS = ("mcp", "model", "host", "answer")
"""Options, beside ``--tools``, that make a host."""

_OF_A_HOST = ("policy", "approve", "price", "base_url", "trust")
"""Options that say something of a host, and make none."""


def has_host(options: Options) -> bool:
    """Whether *options* name something that a program can call."""
    return options.tools is not None or any(options.get(name) for name in _HOSTS)


def refuse_host(remedy: str, *, whole: bool = False) -> None:
    """Refuse options that say something of a host where there is none; with *whole* also those that
    make one.

    Raises:
        UsageFault: With *remedy*.
    """
    for name in (*_OF_A_HOST, *(("tools", *_HOSTS) if whole else ())):
        if typed(name):
            raise UsageFault(
                f"--{name.replace('_', '-')} is of a host, and there is none here: {remedy}"
            )


def vm_of(
    options: Options,
    *,
    programs: Mapping[str, Program] | None = None,
    policy: Policy | str | None = None,
    budget: Mapping[str, Any] | None = None,
    store: Store | None = None,
    stubs_for: Loaded | None = None,
    observers: Iterable[Observer] = (),
) -> ExecutionVM:
    """The VM that *options* describe.

    With *stubs_for*, a program that is only looked at, tools and models that are not given are
    stubs that take anything.

    Raises:
        UsageFault: If an option is wrong.
    """
    given = options.get
    known: Mapping[str, Any] = {}
    if options.tools is not None:
        known = tools.load_tools(options.tools)
    served = _of_servers(options, known)
    if served:
        known = {**known, **served}
    elif options.tools is None and stubs_for is not None:
        assert not isinstance(policy, str)
        known = tools.stub_tools(stubs_for.program, stubs_for.programs, policy)
    host = models.load_host(given("host"), given("model", ()))
    llm = models.load_models(given("model", ()), given("base_url"), given("answer", ()), host)
    if llm is None and stubs_for is not None:
        llm = models.StubModel()
    if programs is None and stubs_for is not None:
        programs = stubs_for.programs
    vm = ExecutionVM(
        llm=llm,
        tools=known,
        programs=programs,
        prices=rules.read_prices(given("price", ())),
        budget=rules.tighter(budget, host.budget if host is not None else None),
        budgets=host.budgets if host is not None else None,
        policy=policy,
        approved=rules.read_digests(given("approve", ())),
        store=store,
        signing_key=signing_key(options) if "signing_key" in options else None,
        trusted_keys=public_keys(given("trust", ()), "--trust"),
        observers=observers,
    )
    for observer in vm.observers:
        if callable(watch := getattr(observer, "watch", None)):
            watch(vm.pools)  # which are made with the VM, and metrics before it
    return vm


def _of_servers(options: Options, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tools of the MCP servers that a command takes."""
    if "mcp" not in options:
        return {}
    servers = models.project(options.get("host")).servers
    if not options.mcp and not servers:
        return {}
    from .servers import load_servers  # late: few commands have one

    return load_servers(options.mcp, servers, known)


def not_given(options: Options) -> list[str]:
    """What of tools and models is a stub in a VM that was made with *stubs_for*."""
    servers = options.get("mcp") or models.project(options.get("host")).servers
    given = {"tools": options.tools is not None or bool(servers)}
    given["models"] = bool(
        options.get("model") or options.get("answer") or models.project(options.get("host")).models
    )
    return [name for name, there in given.items() if not there]


def program_of(options: Options) -> tuple[Loaded, Policy | None]:
    """The program that a command is to run, and the policy for it.

    Raises:
        UsageFault: If a file cannot be read.
        ProgramError: With every fault of both.
    """
    policy, faults = rules.read_policy(options.policy)
    loaded = sources.load(options.program, options.program_file)
    if faults:
        raise ProgramError([*faults, *misnamed(loaded, policy, options)])
    models.require_asked(options.get("answer", ()), loaded.program, loaded.programs)
    return loaded, policy


def examined(loaded: Loaded, policy: Policy | None, options: Options) -> Report:
    """What is found out about a program that is only looked at."""
    vm = vm_of(options, policy=policy, stubs_for=loaded)
    untrusted = untrusted_inputs(options.untrusted, loaded.program, loaded.programs)
    return vm.verify(loaded.program, untrusted=untrusted)


def misnamed(loaded: Loaded, policy: Policy | None, options: Options) -> list[Diagnostic]:
    """What a policy that has faults of its own names besides, and this host and program have not.

    What else it demands can only be said of a whole one.
    """
    if policy is None:
        return []
    return [d for d in examined(loaded, policy, options).diagnostics if has(d.code, NAMES)]
