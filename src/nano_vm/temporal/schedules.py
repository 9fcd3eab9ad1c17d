"""Schedules of a cluster that begin runs at times: made, found, paused, resumed and removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleListActionStartWorkflow,
    ScheduleListDescription,
    ScheduleSpec,
)
from temporalio.service import RPCError, RPCStatusCode

from ..errors import VMError
from .conversion import decoding
from .lists import ns_of
from .terms import WORKFLOW

ABOUT = "nano-vm-schedule"
"""The memo of a schedule that says its program and times: the server keeps times in another form."""

PAUSED = "paused by nano-vm"
"""The note of a schedule that was paused without a reason."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A schedule as it stands: ``begun`` has its latest runs and when they began, ``next_ns`` when
    the next ones do, which a schedule that is paused leaves out.
    """

    name: str
    program: str
    cron: str
    time_zone: str | None
    paused: bool
    note: str | None
    begun: tuple[tuple[str, int], ...]
    next_ns: tuple[int, ...]


class Schedules:
    """The schedules of programs in the namespace of *client*; those of other workflows are not
    seen, nor changed.
    """

    def __init__(self, client: Client) -> None:
        self.client = client

    async def make(
        self,
        name: str,
        action: ScheduleActionStartWorkflow,
        *,
        program: str,
        cron: str,
        time_zone: str | None,
    ) -> None:
        """Have *action* begin a run of *program* at each time that *cron* says.

        Raises:
            VMError: If there is a schedule of this name, or *cron* says no times.
        """
        spec = ScheduleSpec(cron_expressions=[cron], time_zone_name=time_zone)
        memo = {ABOUT: {"program": program, "cron": cron}}
        async with _said_of(name):
            try:
                await self.client.create_schedule(name, Schedule(action, spec), memo=memo)
            except ScheduleAlreadyRunningError:
                raise VMError(f"there is a schedule {name!r}; remove it, or name another") from None

    async def all(self) -> list[Scheduled]:
        """Each of them by name. A list of a cluster lags behind by a moment.

        Raises:
            VMError: If the server does not answer.
        """
        try:
            found = [
                await _scheduled(one)
                async for one in await self.client.list_schedules()
                # an old server does not say what a schedule begins
                if one.schedule is not None and _is_ours(one.schedule.action)
            ]
        except RPCError as error:
            raise VMError(
                f"schedules cannot be listed: the Temporal server says: {error.message}"
            ) from None
        return sorted(found, key=lambda one: one.name)

    async def find(self, name: str) -> Scheduled:
        """The schedule of this name.

        Raises:
            VMError: If there is none.
        """
        async with _said_of(name):
            return await _scheduled(await self._described(name))

    async def pause(self, name: str, reason: str | None = None) -> None:
        """Begin no runs until it is resumed; those under way go on.

        Raises:
            VMError: If there is no such schedule.
        """
        async with _said_of(name):
            await (await self._own(name)).pause(note=reason or PAUSED)

    async def resume(self, name: str) -> None:
        """Begin runs again, from the next time on.

        Raises:
            VMError: If there is no such schedule.
        """
        async with _said_of(name):
            await (await self._own(name)).unpause()

    async def remove(self, name: str) -> None:
        """Begin no more runs; those under way go on.

        Raises:
            VMError: If there is no such schedule.
        """
        async with _said_of(name):
            await (await self._own(name)).delete()

    async def _own(self, name: str) -> ScheduleHandle:
        """The handle of a schedule that begins programs."""
        await self._described(name)
        return self.client.get_schedule_handle(name)

    async def _described(self, name: str) -> ScheduleDescription:
        found = await self.client.get_schedule_handle(name).describe()
        if not _is_ours(found.schedule.action):
            raise VMError(
                f"schedule {name!r} begins workflows that are no programs; use temporal schedule"
            )
        return found


def _is_ours(action: Any) -> bool:
    known = ScheduleActionStartWorkflow | ScheduleListActionStartWorkflow
    return isinstance(action, known) and action.workflow == WORKFLOW


async def _scheduled(found: ScheduleDescription | ScheduleListDescription) -> Scheduled:
    schedule, info = found.schedule, found.info
    assert schedule is not None
    assert info is not None
    with decoding(f"schedule {found.id!r}"):
        about = await found.memo_value(ABOUT, {})
    return Scheduled(
        found.id,
        about.get("program", ""),
        about.get("cron", ""),
        schedule.spec.time_zone_name or None,
        schedule.state.paused,
        schedule.state.note or None,
        tuple(
            (one.action.workflow_id, ns_of(one.started_at))
            for one in info.recent_actions
            if isinstance(one.action, ScheduleActionExecutionStartWorkflow)
        ),
        () if schedule.state.paused else tuple(map(ns_of, info.next_action_times)),
    )


@asynccontextmanager
async def _said_of(name: str) -> AsyncIterator[None]:
    """What the server says of a schedule, as an error of this package."""
    try:
        yield
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise VMError(
                f"no schedule {name!r} on this cluster; nano-vm schedule list names those that "
                f"there are"
            ) from None
        raise VMError(f"schedule {name!r}: the Temporal server says: {error.message}") from None
