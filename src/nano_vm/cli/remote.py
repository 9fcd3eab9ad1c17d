"""Runs on a server, for commands that are given ``--server``: its API in place of a store."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..client import KEY_VARIABLE, Client, ServerError
from ..errors import StoreError, UnknownRun, VMError
from ..store.accounts import Account, Standing, account_of_json
from ..store.protocol import Cost
from ..values import UNSET
from .faults import Failure, NoRun, UsageFault
from .grammar import Options
from .places import Summed
from .times import moment

if TYPE_CHECKING:
    from ..prices import Price
    from ..run.durable.facts import Brief, Facts, Header
    from ..store.protocol import RunFilter
    from ..store.shared_budget import SharedBudget

MOST_SUMMED = 100_000
"""Runs whose costs are asked for: as many as a server sums."""

PAGE_RUNS = 200
"""Runs that are asked for at once: the most that a server gives."""

FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.05, 1.0
"""How often a run is looked at that somebody waits for."""


@contextmanager
def connected(url: str, options: Options) -> Iterator[ServerPlace]:
    """A server, with the key of the environment; what it refuses is one line.

    Raises:
        UsageFault: If the address or the key is none.
        Failure: If it refuses, cannot be reached, or is no server that knows what is asked.
    """
    if not os.environ.get(KEY_VARIABLE):
        raise UsageFault(f"which key? Set {KEY_VARIABLE}; an admin of the project makes one")
    try:
        client = Client(url)
    except VMError as error:
        raise UsageFault(f"--server: {error}") from None
    given = f" --server {shlex.quote(options.server)}" if options.server else ""
    with client:
        try:
            yield ServerPlace(client, given)
        except ServerError as error:
            raise Failure(f"{url}: {_refusal(error)}") from None
        except StoreError as error:
            raise Failure(f"{url}: {error}") from None


def _refusal(error: ServerError) -> str:
    if error.status == 401:
        return (
            f"the key in {KEY_VARIABLE} is not valid here: it is mistyped, expired or revoked; "
            f"an admin of the project makes another"
        )
    logged = f" (request {error.request_id})" if error.status >= 500 and error.request_id else ""
    return f"{error}{logged}"


class ServerPlace:
    """A server, as `places.Place`."""

    def __init__(self, client: Client, given: str) -> None:
        self.client = client
        self.given = given
        self.keyed = True

    def goes_on(self, run_id: str) -> str:
        """By its workers."""
        return "it goes on by a worker of the server"

    def begins(self) -> str:
        """By its workers."""
        return "a worker of the server begins it"

    def left(self, run_id: str) -> str:
        """By its workers."""
        return "another worker of the server resumes it"

    def undone(self, run_id: str) -> str:
        """By its workers."""
        return "a worker of the server does it"

    def runs(self, filter: RunFilter, limit: int, damaged: list[str]) -> list[Brief]:
        """See `Place.runs`."""
        query = _query(filter)
        found: list[Brief] = []
        while len(found) < limit:
            size = str(min(limit - len(found), PAGE_RUNS))
            page = self._known(partial(self.client.standings, **query, limit=size))
            found += page["runs"]
            damaged += page["damaged"]
            if page["after"] is None:
                break
            query["after"] = page["after"]
        return found

    def run(self, text: str) -> Facts:
        """See `Place.run`."""
        return cast("Facts", self.standing(text)["run"])

    def header(self, text: str) -> Header:
        """See `Place.header`: a server gives the whole run."""
        return self.run(text)

    def standing(self, text: str, seen: str = "") -> dict[str, Any]:
        """As `Client.standing`.

        Raises:
            NoRun: If there is no such run.
        """
        try:
            return self._known(partial(self.client.standing, text, seen))
        except UnknownRun:
            raise NoRun(
                f"there is no run {text!r} in the project of this key; nano-vm runs lists them"
            ) from None

    def _known(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the server answers.

        Raises:
            Failure: If it is older than this command, and has no such route.
        """
        try:
            return ask()
        except UnknownRun:
            if self._is_older():
                raise Failure(
                    "the server is older than this nano-vm, and cannot show runs to it; upgrade it"
                ) from None
            raise

    def _is_older(self) -> bool:
        try:
            return "list_standings" not in _operations(self.client.api())
        except UnknownRun:
            return True

    def costs(
        self, by: Sequence[str], filter: RunFilter, prices: Mapping[str, Price] | None
    ) -> Summed:
        """See `Place.costs`."""
        told = self.client.sums(
            ",".join(by), prices=prices, **_query(filter), newest=str(MOST_SUMMED)
        )
        rows, notes = told["costs"], list(told["damaged"])
        if not told["whole"]:
            notes.append(
                f"the server sums the newest {told['runs']:,} runs alone, made since "
                f"{moment(int(told['since'] * 1e6))}; --until asks for those before"
            )
        would = [_cost({**row, **_by_other(row)}) for row in rows] if prices is not None else []
        return Summed([_cost(row) for row in rows], would, notes)

    def accounts(self, budgets: Mapping[str, SharedBudget]) -> list[tuple[Account, Standing]]:
        """See `Place.accounts`: the limits are those of its workers."""
        return [account_of_json(told) for told in self.client.budgets()["accounts"]]

    def decider(self, options: Options, *, asked: bool = True) -> str:
        """Whom the key is of."""
        return str(self.client.me()["name"])

    def approve(self, run_id: str, path: str, shown: str, by: str, reason: str | None) -> int:
        """See `Place.approve`."""
        return self.client.approve(run_id, path, shown=shown, reason=reason or "")

    def reject(
        self, run_id: str, path: str, shown: str | None, by: str, reason: str | None
    ) -> None:
        """See `Place.reject`."""
        self.client.reject(run_id, path, shown=shown or "", reason=reason or "")

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
        output = None if done is UNSET else done
        self.client.resolve(run_id, path, shown=shown or "", done=output, retry=retry, fail=fail)

    def send_event(self, run_id: str | None, name: str, payload: Any, id: str | None) -> bool:
        """See `Place.send_event`."""
        if run_id is None:
            raise UsageFault("--match finds runs in a store; on a server, name the run")
        return self.client.send_event(run_id, name, payload, id=id)

    def cancel(self, run_id: str, by: str) -> None:
        """See `Place.cancel`."""
        self.client.cancel(run_id)

    def followed(self, run_id: str) -> Iterator[Facts]:
        """A run each time that it stands otherwise, until it has ended or waits."""
        version, wait = "", FIRST_LOOK_SECONDS
        while True:
            asked = time.monotonic()
            found = self.standing(run_id, version)
            took = time.monotonic() - asked
            version, facts = found["version"], cast("Facts | None", found["run"])
            if facts is not None:
                wait = FIRST_LOOK_SECONDS
                yield facts
                if facts["status"] not in ("pending", "running"):
                    return
            time.sleep(max(wait, 2 * took))  # a long run is a long answer
            wait = min(wait * 1.5, LONGEST_LOOK_SECONDS)


def _operations(document: Mapping[str, Any]) -> set[str]:
    paths = document.get("paths", {}).values()
    return {str(told.get("operationId")) for methods in paths for told in methods.values()}


def _by_other(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of costs says of other prices, in place of what was paid."""
    return {"cost_usd": row["what_if_usd"], "unpriced": row["what_if_unpriced"]}


def _cost(row: Mapping[str, Any]) -> Cost:
    told = {field.name: row[field.name] for field in fields(Cost)}
    return Cost(**{**told, "cost_usd": Decimal(row["cost_usd"])})


def _query(filter: RunFilter) -> dict[str, str]:
    """*filter* in the words of the server's lists."""
    found = {
        "status": ",".join(filter.status or ()),
        "program": filter.program,
        "submitter": filter.submitter,
        "parent": filter.parent,
        "labels": "\n".join(f"{name}={value}" for name, value in filter.labels.items()),
        "since": _milliseconds(filter.since_ns),
        "until": _milliseconds(filter.until_ns),
        "version": ",".join(filter.version or ()),
        "waiting": filter.waiting,
        "min_cost": None if filter.min_cost_usd is None else str(filter.min_cost_usd),
    }
    return {name: value for name, value in found.items() if value}


def _milliseconds(ns: int | None) -> str | None:
    return None if ns is None else repr(ns / 1e6)
