"""Budgets that bind the runs of a project: what workers share, how the accounts stand, and which
programs have met one.

An account that other projects count in too says what those have spent: only an owner of the
instance is shown it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import sqlalchemy as sa
from fastapi.responses import JSONResponse

from ...errors import BudgetExceeded
from ...records.record import StepError
from ...run.shared import standings
from ...store.accounts import Account, account_json
from ...store.protocol import RunFilter
from ...store.shared_budget import SharedBudget
from ..access import Caller, Who
from ..hosts import Able
from ..routing import PROJECT, Routes, route
from ..shapes import AccountRow, BudgetRow, Budgets, MetRow
from ..tables import projects

ROUTES = Routes()

MOST_ACCOUNTS = 200
"""Accounts that are shown, the newest days first: a budget has one for each day and program."""

LOOKED_AT = 500
"""Runs that failed, the newest, of which it is counted how many met a budget."""

MET = StepError.of(BudgetExceeded("")).kind
"""The kind of the error of a run that met a budget."""


@route(ROUTES, "GET", f"{PROJECT}/budgets", "cost:read", answers=Budgets)
def list_budgets(who: Who) -> JSONResponse:
    """The budgets of workers that count runs of the project, how their accounts stand, and the
    programs of which runs have failed by a budget, a run's own or one that is shared.
    """
    hosts = list(who.state.hosts.able())
    rows = _budgets(who.scope.project, hosts)
    met, looked = _met(who)
    answer: Budgets = {
        "budgets": [row for _, row in rows],
        "accounts": _accounts(who, {row["name"]: budget for budget, row in rows}, hosts),
        "met": met,
        "looked": looked,
    }
    return JSONResponse(answer)


def _budgets(project: str, hosts: Iterable[Able]) -> list[tuple[SharedBudget, BudgetRow]]:
    """The budgets that count runs of the project, each with the workers that have it."""
    found: dict[tuple[str, SharedBudget], BudgetRow] = {}
    for host in hosts:
        for name, budget in host.vm.preparer.budgets.items():
            if budget.project not in (None, project):
                continue
            calls, tokens, _ = budget.limits
            cost = budget.max_cost_usd
            row = found.setdefault(
                (name, budget),
                {
                    "name": name,
                    "per": list(budget.per),
                    "program": budget.program,
                    "max_llm_calls": calls,
                    "max_tokens": tokens,
                    "max_cost_usd": None if cost is None else str(cost),
                    "shared": budget.project is None and "project" not in budget.per,
                    "hosts": [],
                },
            )
            row["hosts"].append(host.name)
    return [(budget, row) for (_, budget), row in sorted(found.items(), key=lambda one: one[0][0])]


def _accounts(
    who: Caller, budgets: Mapping[str, SharedBudget], hosts: Iterable[Able]
) -> list[AccountRow]:
    """How the accounts stand that whoever asks may see, the newest days first."""
    project = who.scope.project
    all_of_them = _is_alone(who)
    counted = _counted(hosts)

    def shown(account: Account) -> bool:
        of = dict(account.of)
        if "project" in of:
            return of["project"] == project
        return all_of_them or counted.get(account.budget) == {project}

    found = [one for one in standings(budgets, who.scope.store.accounts()) if shown(one[0])]
    found.sort(key=lambda one: dict(one[0].of).get("day", ""), reverse=True)
    return [cast("AccountRow", account_json(*one)) for one in found[:MOST_ACCOUNTS]]


def _counted(hosts: Iterable[Able]) -> dict[str, set[str | None]]:
    """The projects whose runs count in the accounts of a budget, by its name; None where those of
    all do. An account has only the name, and workers may have several budgets of one name.
    """
    found: dict[str, set[str | None]] = {}
    for host in hosts:
        for name, budget in host.vm.preparer.budgets.items():
            found.setdefault(name, set()).add(budget.project)
    return found


def _is_alone(who: Caller) -> bool:
    """Whether there is nothing of others that whoever asks may not see: to an owner, or where there
    is one project.
    """
    if who.principal.owner and who.principal.key_id is None:
        return True
    with who.state.tables.reading() as rows:
        return len(rows.all(sa.select(projects.c.name).limit(2))) < 2


def _met(who: Caller) -> tuple[list[MetRow], int]:
    """Of the newest runs that failed those that met a budget, by program; and how many there were."""
    page = who.scope.store.page(who.scope.within(RunFilter(status="failed")), size=LOOKED_AT)
    found: dict[str, MetRow] = {}
    for run in page.runs:
        if run.error_kind == MET:
            row = found.setdefault(
                run.program_name, {"program": run.program_name, "runs": 0, "newest": run.run_id}
            )
            row["runs"] += 1
    return [found[name] for name in sorted(found)], len(page.runs)
