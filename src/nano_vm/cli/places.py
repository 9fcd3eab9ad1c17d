"""Where runs are kept, as commands ask it: a store, or a server that has one. What a command prints
is made of the same facts in either case.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import click

from ..run.durable.facts import Brief, Facts, Header, brief, facts_of, header_of
from ..run.durable.lease import living
from ..run.inbox import Inbox, account
from ..store.spending import spent_in, summed, summed_by_columns
from . import stores
from .faults import UsageFault
from .grammar import Options, only_one, typed
from .inbox import principal

if TYPE_CHECKING:
    from ..prices import Price
    from ..store.accounts import Account, Standing
    from ..store.protocol import Archive, Cost, RunFilter
    from ..store.shared_budget import SharedBudget

VARIABLE = "NANO_VM_SERVER"

WHERE = frozenset({"server", "json"})
"""Options that every command honours on a server."""


class Summed(NamedTuple):
    """What model calls have cost, and would have by other prices; *notes* say of which runs alone
    that is, and why.
    """

    found: list[Cost]
    would: list[Cost]
    notes: list[str]


class Place(Protocol):
    """Where runs are kept."""

    given: str
    """The option that names it, for a command that is shown; empty where the environment does."""
    keyed: bool
    """Whether a key says who decides."""

    def goes_on(self, run_id: str) -> str:
        """How a run goes on that has been answered."""
        ...

    def begins(self) -> str:
        """How a run begins that is pending."""
        ...

    def left(self, run_id: str) -> str:
        """How a run goes on whose process is gone."""
        ...

    def undone(self, run_id: str) -> str:
        """How a run that has no owner is undone once it is to be cancelled."""
        ...

    def runs(self, filter: RunFilter, limit: int, damaged: list[str]) -> list[Brief]:
        """The newest runs; *damaged* takes what is wrong with those that cannot be read."""
        ...

    def run(self, text: str) -> Facts:
        """The run that *text* is the id of, or the beginning of it.

        Raises:
            VMError: If there is none, or are several.
        """
        ...

    def header(self, text: str) -> Header:
        """As `run`, without its steps, which may be damaged in a store: what a person says of a run
        is about these facts.
        """
        ...

    def costs(
        self, by: Sequence[str], filter: RunFilter, prices: Mapping[str, Price] | None
    ) -> Summed:
        """What model calls of runs have cost, summed; and what they would have by *prices*."""
        ...

    def accounts(self, budgets: Mapping[str, SharedBudget]) -> list[tuple[Account, Standing]]:
        """How the accounts of budgets that runs share stand, with the limits of *budgets*, or as
        the workers of a server have them.
        """
        ...

    def decider(self, options: Options, *, asked: bool = True) -> str:
        """In whose name something is said; where it need not be *asked*, the account's."""
        ...

    def approve(self, run_id: str, path: str, shown: str, by: str, reason: str | None) -> int:
        """Approve what a run asks; how many more people have to before it counts."""
        ...

    def reject(
        self, run_id: str, path: str, shown: str | None, by: str, reason: str | None
    ) -> None:
        """Reject what a run asks."""
        ...

    def resolve(
        self,
        run_id: str,
        path: str,
        shown: str | None,
        by: str,
        done: Any,
        retry: bool,
        fail: str | None,
    ) -> None:
        """Say what became of a call in doubt."""
        ...

    def send_event(self, run_id: str | None, name: str, payload: Any, id: str | None) -> bool:
        """Send an event; whether it was not recorded before."""
        ...

    def cancel(self, run_id: str, by: str) -> None:
        """Have a run cancelled."""
        ...


def is_cluster(options: Options) -> bool:
    """Whether the runs of a command are on a cluster.

    Raises:
        click.UsageError: If the command line says two places.
    """
    only_one(options, "--engine", "--server")
    only_one(options, "--server", "--store")
    return options.engine is not None


def server_of(options: Options) -> str | None:
    """The server that the command line names, or else the environment; None for a store.

    Raises:
        UsageFault: If the environment names a server and a store, and the command line neither.
    """
    if options.server is not None or options.store is not None:
        return None if options.server is None else str(options.server)
    server = os.environ.get(VARIABLE)
    if server and os.environ.get(stores.VARIABLE):
        raise UsageFault(
            f"{VARIABLE} and {stores.VARIABLE} are both set: say --server URL or --store URL"
        )
    return server or None


def only_honoured(honoured: Collection[str]) -> None:
    """Refuse an option of the command line that a server would not honour.

    Raises:
        UsageFault: If there is one.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if isinstance(parameter, click.Option) and typed(name) and name not in (*honoured, *WHERE):
            raise UsageFault(
                f"{parameter.opts[-1]} does not go with a server"
                f"{_REASONS.get(name, '')}; the runs are on one by --server or {VARIABLE}"
            )


def store_only(options: Options, honoured: Collection[str]) -> None:
    """Refuse what a command does with a store alone, where its runs are on a server.

    Raises:
        UsageFault: If an option was given that is none of *honoured*.
    """
    if server_of(options) is not None:
        only_honoured(honoured)


_KEY = ": who says it, and in which project, follows from the key"
_WORKERS = ": its workers have the tools, models and rules"
_REASONS = {
    **dict.fromkeys(("by", "submitter", "project"), _KEY),
    **dict.fromkeys(
        ("tools", "mcp", "model", "base_url", "host", "answer", "policy", "approve", "budget"),
        _WORKERS,
    ),
    "signing_key": ": its workers sign what they record",
}


@contextmanager
def place_of(
    options: Options, *, honours: Collection[str] = (), read: bool = False
) -> Iterator[Place]:
    """The place that a command is about; of its options a server *honours* these. With *read*
    nothing is changed.
    """
    url = server_of(options)
    if url is None:
        with stores.store_of(options, read=read) as store:
            yield StorePlace(store, stores.given_url(options))
        return
    from .remote import connected

    only_honoured(frozenset(honours))
    with connected(url, options) as place:
        yield place


class StorePlace:
    """A store, as `Place`."""

    def __init__(self, store: Archive, given: str) -> None:
        self.store = store
        self.given = given
        self.keyed = False
        self.inbox = Inbox(store, None, time)

    def goes_on(self, run_id: str) -> str:
        """By a worker, or at once."""
        return f"it goes on by nano-vm work, or nano-vm resume {run_id} --tools ...{self.given}"

    def begins(self) -> str:
        """By a worker."""
        with_store = self.given and f", with{self.given}"
        return f"nano-vm work --tools ... begins it{with_store}"

    def left(self, run_id: str) -> str:
        """By a worker, or at once."""
        return f"nano-vm resume {run_id} --tools ...{self.given}"

    def undone(self, run_id: str) -> str:
        """By a worker, or at once."""
        return f"nano-vm work does it, or at once: nano-vm cancel {run_id} --tools ...{self.given}"

    def runs(self, filter: RunFilter, limit: int, damaged: list[str]) -> list[Brief]:
        """See `Place.runs`."""
        owners = living(self.store)
        found = self.store.runs(filter, limit=limit, damaged=damaged)
        return [brief(run, owners, "show") for run in found]

    def run(self, text: str) -> Facts:
        """See `Place.run`."""
        run = self.store.load(stores.run_id_of(self.store, text))
        return facts_of(run, living(self.store), "show")

    def header(self, text: str) -> Header:
        """See `Place.header`."""
        run = self.store.load(stores.run_id_of(self.store, text), rows=False)
        return header_of(run, living(self.store), "show")

    def costs(
        self, by: Sequence[str], filter: RunFilter, prices: Mapping[str, Price] | None
    ) -> Summed:
        """See `Place.costs`."""
        if prices is None and summed_by_columns(by):
            return Summed(self.store.costs(by, filter), [], [])
        calls = list(spent_in(self.store, filter))
        would = summed(calls, by, prices) if prices is not None else []
        return Summed(summed(calls, by), would, [])

    def accounts(self, budgets: Mapping[str, SharedBudget]) -> list[tuple[Account, Standing]]:
        """See `Place.accounts`."""
        from ..run.shared import standings

        return standings(budgets, self.store.accounts())

    def decider(self, options: Options, *, asked: bool = True) -> str:
        """Whoever is named, or the account of who sits there."""
        if asked:
            return principal(options)
        return str(options.by) if options.by is not None else account()

    def approve(self, run_id: str, path: str, shown: str, by: str, reason: str | None) -> int:
        """See `Place.approve`: who approves in a store is enough."""
        self.inbox.approve(run_id, path, shown=shown, by=by, reason=reason)
        return 0

    def reject(
        self, run_id: str, path: str, shown: str | None, by: str, reason: str | None
    ) -> None:
        """See `Place.reject`."""
        self.inbox.reject(run_id, path, shown=shown, by=by, reason=reason)

    def resolve(
        self,
        run_id: str,
        path: str,
        shown: str | None,
        by: str,
        done: Any,
        retry: bool,
        fail: str | None,
    ) -> None:
        """See `Place.resolve`."""
        self.inbox.resolve(run_id, path, shown=shown, by=by, done=done, retry=retry, fail=fail)

    def send_event(self, run_id: str | None, name: str, payload: Any, id: str | None) -> bool:
        """See `Place.send_event`."""
        return self.inbox.send_event(name, payload, run_id=run_id, id=id)

    def cancel(self, run_id: str, by: str) -> None:
        """See `Place.cancel`."""
        self.inbox.cancel(run_id, by=by)
