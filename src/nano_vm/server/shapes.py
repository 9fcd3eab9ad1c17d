"""What the API answers, where no other module has the shape of it already."""

from __future__ import annotations

import json
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from ..draw.chart import ChartData
from ..draw.traffic import Traffic
from ..draw.view import RunView
from ..run.durable.facts import Brief, Facts
from ..ui.library import StepDifference


def json_bytes(value: Any) -> bytes:
    """*value* as JSON; a lone surrogate, which UTF-8 cannot say, is escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        return line_bytes(value)


def line_bytes(value: Any) -> bytes:
    """*value* as JSON in ASCII: one line for whoever reads lines, also those who end them at U+2028,
    U+2029 or U+0085, which JSON leaves as they are.
    """
    return json.dumps(value, separators=(",", ":")).encode()


class BriefList(TypedDict):
    """Runs, newest first; ``after`` is what the next page is asked for with."""

    runs: list[Brief]
    after: str | None
    damaged: list[str]


class CurrentFacts(TypedDict):
    """How a run stands, and its version; ``run`` is None where it is as it was seen."""

    version: str
    run: Facts | None


class Started(TypedDict):
    """A run that was started, or was there already."""

    id: str
    program: str
    version: int
    created: bool


class Recorded(TypedDict):
    """Whether what was said is recorded now; False where it was before."""

    recorded: bool


class Decided(TypedDict):
    """That an answer is recorded, and how many more people have to approve before it counts."""

    recorded: bool
    missing: int


class Verified(TypedDict):
    """Whether recomputing a run gave its records."""

    identical: bool
    complete: bool
    text: str


class Cancelled(TypedDict):
    """What came of cancelling a run: ``fault`` says why it was not."""

    id: str
    recorded: bool
    fault: str | None


class CancelledList(TypedDict):
    """What came of cancelling several runs, in their order."""

    runs: list[Cancelled]


class Day(TypedDict):
    """How many runs began on a day, by how they stand now; ``day`` is its beginning (UTC)."""

    day: float
    statuses: dict[str, int]


class DayList(TypedDict):
    """The last days, the oldest first, those without runs too."""

    days: list[Day]


class View(TypedDict):
    """A filter of the list of runs that somebody keeps under a name."""

    name: str
    query: str


class ViewList(TypedDict):
    """The views of whoever asks, by name."""

    views: list[View]


class CostRow(TypedDict):
    """What some model calls consumed; ``cost_usd`` is a decimal, and ``what_if_usd`` what they would
    have cost by the prices that were given.
    """

    of: dict[str, str]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: str
    unpriced: int
    what_if_usd: NotRequired[str]
    what_if_unpriced: NotRequired[int]


class Costs(TypedDict):
    """Costs by what they are summed by, of so many ``runs``, the newest, of which the first began
    ``since`` then; ``whole`` says that there are no others. ``versions`` has the numbers of a
    program's versions by its digest, ``tables`` those tables by which the newest runs were priced.
    """

    costs: list[CostRow]
    runs: int
    since: float | None
    whole: bool
    versions: dict[str, list[int]]
    tables: list[str]
    damaged: list[str]


class BudgetRow(TypedDict):
    """A budget that runs share, as the workers ``hosts`` have it; ``shared`` says that it counts
    runs of other projects too.
    """

    name: str
    per: list[str]
    program: str | None
    max_llm_calls: int | None
    max_tokens: int | None
    max_cost_usd: str | None
    shared: bool
    hosts: list[str]


class AmountRow(TypedDict):
    """What calls of models use; ``cost_usd`` is a decimal."""

    calls: int
    tokens: int
    cost_usd: str


class AccountRow(TypedDict):
    """How a budget stands for what is counted apart, ``of``; with its limits, where they are known."""

    name: str
    of: dict[str, str]
    spent: AmountRow
    reserved: AmountRow
    max_llm_calls: int | None
    max_tokens: int | None
    max_cost_usd: str | None


class MetRow(TypedDict):
    """A program of which runs met a budget, with the newest of these."""

    program: str
    runs: int
    newest: str


class Budgets(TypedDict):
    """Budgets of a project, their accounts, and what met one of the newest runs that failed, of
    which so many were ``looked`` at.
    """

    budgets: list[BudgetRow]
    accounts: list[AccountRow]
    met: list[MetRow]
    looked: int


class ProgramRow(TypedDict):
    """The newest version of a program."""

    name: str
    version: int
    digest: str
    put_by: str
    put: float


class ProgramList(TypedDict):
    """Programs of a project."""

    programs: list[ProgramRow]


class ProgramVersion(ProgramRow):
    """A version of a program, as it was put."""

    source: str
    inputs: dict[str, Any]
    versions: list[int]


class AuditRow(TypedDict):
    """An entry of the audit log."""

    number: int
    at: float
    project: str
    actor: str
    key_id: str | None
    ip: str
    action: str
    target: str
    detail: dict[str, Any]
    request_id: str
    hash: str


class AuditList(TypedDict):
    """Entries, newest first; ``before`` is what the next page is asked for with."""

    entries: list[AuditRow]
    before: int | None


class AuditFaults(TypedDict):
    """What is wrong with the log; nothing if it is as it was written."""

    faults: list[str]


class MemberRow(TypedDict):
    """A member of a project."""

    name: str
    role: str
    approves: list[str]


class MemberList(TypedDict):
    """Members of a project."""

    members: list[MemberRow]


class KeyRow(TypedDict):
    """An API key, without its secret."""

    id: str
    name: str
    maker: str
    role: str
    created: float
    expires: float | None
    used: float | None
    revoked: float | None


class KeyList(TypedDict):
    """Keys of a project."""

    keys: list[KeyRow]


class NewKey(TypedDict):
    """A key that was made; ``key`` is shown this once."""

    id: str
    key: str


class ProjectRow(TypedDict):
    """A project."""

    name: str
    created: float


class ProjectList(TypedDict):
    """All projects of the instance."""

    projects: list[ProjectRow]


class UserRow(TypedDict):
    """A person who may log in."""

    name: str
    owner: bool
    disabled: bool
    local: bool
    created: float


class UserList(TypedDict):
    """All people of the instance."""

    users: list[UserRow]


class HostTool(TypedDict):
    """A tool of a worker; ``arguments`` is a JSON Schema."""

    name: str
    effect: str
    description: str
    arguments: dict[str, Any]


class Host(TypedDict):
    """A worker as it announced itself; ``fault`` says why that cannot be read."""

    name: str
    alive: bool
    version: str
    since: float
    seen: float
    concurrency: int
    policy: bool
    tools: list[HostTool]
    models: list[str]
    fault: str | None


class Stranded(TypedDict):
    """A program with pending runs that no living worker can drive."""

    program: str
    digest: str
    runs: int
    reasons: list[str]


class HostList(TypedDict):
    """Workers, and what none of them can drive."""

    hosts: list[Host]
    stranded: list[Stranded]


class PolicyRow(TypedDict):
    """A version of a project's policy."""

    version: int
    digest: str
    put_by: str
    put: float


class PolicyList(TypedDict):
    """The versions of a project's policy, newest first."""

    policies: list[PolicyRow]


class PolicyVersion(PolicyRow):
    """A version of a project's policy, as it was put."""

    source: str


class Counterexample(TypedDict):
    """A run that was executed and breaks the statement of a proof, by its number in the report."""

    proof: int
    run: RunView


class DiagnosticView(TypedDict):
    """A fault of a program, with its place in the text that was put."""

    code: str
    severity: Literal["error", "warning", "hint"]
    loc: list[str | int]
    place: str
    message: str
    hint: NotRequired[str]
    file: NotRequired[str]
    line: NotRequired[int]
    column: NotRequired[int]


class ProofView(TypedDict):
    """A statement of a policy, and what is known of it."""

    kind: str
    tool: str
    statement: str
    status: Literal["proved", "refuted", "unproved"]
    place: NotRequired[str]
    path: NotRequired[list[dict[str, Any]]]
    run: NotRequired[dict[str, Any]]
    reason: NotRequired[str]
    note: NotRequired[str]


class ReportView(TypedDict):
    """What the verifier found, as ``nano-vm verify --json`` has it."""

    ok: bool
    program: str
    digest: str
    proofs_digest: str
    diagnostics: list[DiagnosticView]
    proofs: list[ProofView]
    ceiling: dict[str, Any] | None
    flows: list[dict[str, Any]]
    released: list[dict[str, Any]]


class Checked(TypedDict):
    """What is to be said of a program: its faults, proofs, worst case and flows, and its graph;
    ``host`` names the worker that it was held against, ``policy`` is the version of the project's.
    ``bound`` is the worst case in words.
    """

    host: str | None
    name: str | None
    policy: int | None
    bound: str | None
    counterexamples: list[Counterexample]
    diagnostics: list[DiagnosticView]
    report: ReportView | None
    chart: ChartData | None


class PathMap(Traffic):
    """What the last runs of a version of a program did, on its graph; ``since`` is when the first
    of them began.
    """

    version: int
    since: float | None
    chart: ChartData


class ProgramDifference(TypedDict):
    """What differs between two versions of a program, as text and as fields: of the whole, and of
    each step, whose ``path`` is its id behind those of the calls that it stands in. ``a`` and ``b``
    are their graphs, None of one that has none without the programs that it calls.
    """

    same: bool
    text: str
    whole: dict[str, tuple[str, str]]
    steps: list[StepDifference]
    a: ChartData | None
    b: ChartData | None


class Settings(TypedDict):
    """Settings of a project."""

    four_eyes: bool
    approvers: dict[str, int]
