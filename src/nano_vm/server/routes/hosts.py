"""Workers: what each has said that it can do, and runs that none of them can drive."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from ...errors import ProgramError
from ...language.program import Program
from ...store.protocol import RunFilter
from ...store.records import PENDING
from ..access import Caller, Who
from ..hosts import Able, Hosts, Worker
from ..routing import PROJECT, Routes, route
from ..shapes import HostList

ROUTES = Routes()

LOOKED_AT = 200
"""Pending runs, newest first, that are held against what the workers can do."""


@route(ROUTES, "GET", f"{PROJECT}/hosts", "host:read", answers=HostList)
def list_hosts(who: Who) -> JSONResponse:
    """Workers that have announced themselves, and the project's pending runs that none can drive,
    each program with the reason.
    """
    workers = who.state.hosts.workers()
    return JSONResponse(
        {"hosts": [_shown(worker) for worker in workers], "stranded": _stranded(who, workers)}
    )


def _shown(worker: Worker) -> dict[str, Any]:
    told = worker.document if worker.fault is None else {}
    return {
        "name": worker.said.name,
        "alive": worker.alive,
        "version": str(told.get("version", "")),
        "since": worker.said.since_ns / 1e6,
        "seen": worker.said.seen_ns / 1e6,
        "concurrency": told.get("concurrency", 0),
        "policy": told.get("policy") is not None,
        "tools": [
            {
                "name": tool["name"],
                "effect": tool["effect"],
                "description": tool["description"],
                "arguments": tool["arguments"],
            }
            for tool in told.get("tools", ())
        ],
        "models": [model["name"] or model["model"] or "" for model in told.get("models", ())],
        "fault": worker.fault,
    }


def _stranded(who: Caller, workers: list[Worker]) -> list[dict[str, Any]]:
    hosts = who.state.hosts
    able = list(hosts.able_of(worker.said for worker in workers if worker.alive))
    counts: dict[str, int] = {}
    programs: dict[str, Any] = {}
    listed = who.scope.store.runs(
        who.scope.within(RunFilter(status=PENDING)), limit=LOOKED_AT, damaged=[]
    )
    for run in listed:
        counts[run.program_digest] = counts.get(run.program_digest, 0) + 1
        programs[run.program_digest] = run
    found = []
    for digest, run in programs.items():
        reasons = _reasons(hosts, run.document["program"], able)
        if reasons:
            found.append(
                {
                    "program": run.program_name,
                    "digest": digest,
                    "runs": counts[digest],
                    "reasons": reasons,
                }
            )
    return found


def _reasons(hosts: Hosts, document: Any, able: list[Able]) -> list[str]:
    """Why no host can drive runs of a program; empty if one can."""
    try:
        program = Program.from_dict(document)
    except ProgramError as error:  # another version has submitted it
        return [f"server: {found}" for found in error.diagnostics]
    verdict = hosts.judge(program, able)
    if verdict.vm is not None:
        return []
    told = [f"{name}: {found}" for name, errors in verdict.refusals for found in errors]
    return told or ["no worker is alive"]
