"""``nano-vm check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ...diagnostics import Diagnostic
from ...errors import ProgramError
from ..faults import FAILED, OK
from ..grammar import Options, command, flag
from ..output import emit_json, say
from ..parameters import takes_host, takes_json, takes_policy, takes_price, takes_program
from ..schemas import newer_schema
from ..text import diagnostic_lines, safe

if TYPE_CHECKING:
    from ...language.policy import Policy
    from ...verify.report import Report
    from ..sources import Loaded

EXAMPLES = """\
nano-vm check refund.yaml --tools refund.py:tools --strict
nano-vm check refund.yaml --tools refund.py:tools --policy refund.policy.yaml
nano-vm check plan.yaml --tools refund.py:tools --untrusted user_input --json | jq .proofs
"""

SHOWN_PROOFS = 15
"""As `SHOWN_DIAGNOSTICS`; statements that are not proved have several lines each, so fewer of them
are shown.
"""

SHOWN_COUNTEREXAMPLES = 5

SHOWN_FLOWS = 8


@command(examples=EXAMPLES)
@takes_program
@takes_host
@takes_policy
@takes_price("for what a run can cost")
@flag("--strict", help="treat warnings as errors")
@takes_json("print the report as JSON")
def check(options: Options) -> int:
    """
    List every fault of a program, with its place, and what is known about all its runs. Nothing is
    run.

    What a policy demands is proved, or refuted by a run that was found and executed with made-up
    outcomes, or unproved. The last lines give the worst case: steps, calls, tokens and dollars.
    Without --tools and --model, what depends on them is not checked, and the last line says so.
    """
    from .. import host, rules, sources

    policy, found = rules.read_policy(options.policy)
    loaded = report = None
    try:
        loaded = sources.load(options.program, options.program_file)
    except ProgramError as error:
        found += error.diagnostics
    skipped = ["graph", "tools", "models"]
    if loaded is not None and found:
        found += host.misnamed(loaded, policy, options)
    elif loaded is not None:
        report = host.examined(loaded, policy, options)
        found = loaded.placed([*loaded.warnings(), *report.diagnostics])
        skipped = _skipped(loaded, options)
    return _told(options, _strictly(found, options), skipped, report, loaded, policy)


def _skipped(loaded: Loaded, options: Options) -> list[str]:
    """What the program needs and was not given, so that it could not be looked at."""
    from ...language.program import LLMStep
    from ..host import not_given
    from ..tools import tool_names

    programs = (loaded.program, *loaded.programs.values())
    needs = {
        "tools": any(True for _ in tool_names(loaded.program, loaded.programs)),
        "models": any(isinstance(step, LLMStep) for p in programs for step, _ in p.walk()),
    }
    return [name for name in not_given(options) if needs[name]]


def _strictly(found: list[Diagnostic], options: Options) -> list[Diagnostic]:
    """*found*, where a strict check takes warnings for errors."""
    if not options.strict:
        return found
    return [replace(d, severity="error") if d.severity == "warning" else d for d in found]


def _told(
    options: Options,
    found: list[Diagnostic],
    skipped: list[str],
    report: Report | None,
    loaded: Loaded | None,
    policy: Policy | None,
) -> int:
    """Print what was found; the exit code."""
    from ...verify.summary import counts, statuses, worst_case

    proofs = report.proofs if report is not None else ()
    failed = any(d.severity == "error" for d in found) or any(
        proof.status != "proved" for proof in proofs
    )
    code = FAILED if failed else OK
    if options.json:
        said = report.to_dict() if report is not None else {}
        emit_json(
            {
                **said,
                "ok": not failed,
                "diagnostics": [d.to_dict() for d in found],
                "not_checked": skipped,
            }
        )
        return code
    for line in diagnostic_lines(found):
        say(line)
    if loaded is None and (newer := newer_schema(options.program)):
        say(safe(f"note: {newer}"))
    if report is not None and loaded is not None:
        asked = (
            options.policy is not None or options.untrusted or proofs or loaded.program.untrusted
        )
        for line in [
            *_proof_lines(report, loaded, policy),
            *(_flow_lines(report) if asked else ()),
            *worst_case(report),
        ]:
            say(safe(line))
    theirs = [d for d in found if d.file is not None and d.file == options.policy]
    own = [d for d in found if d not in theirs]
    texts = counts(own) + statuses(proofs)
    if not failed and not any(d.severity in ("error", "warning") for d in found):
        texts.insert(0, "no faults")
    remedies = {
        "tools": "tools (give --tools)",
        "models": "models (give --model)",
        "graph": "what follows from the whole program",
    }
    left = ["graph"] if "graph" in skipped else skipped
    rest = f"; not checked: {', '.join(remedies[name] for name in left)}" if left else ""
    if theirs:
        rest = f"; {options.policy}: {', '.join(counts(theirs))}{rest}"
    say(safe(f"{options.program}: {', '.join(texts) or 'no faults'}{rest}"))
    return code


def _proof_lines(report: Report, loaded: Loaded, policy: Policy | None) -> Iterator[str]:
    """What is proved, a line each; of what is not, the place, the path, the run that was found."""
    from ...language.flow import Flow
    from ..cures import cures

    proved = [proof for proof in report.proofs if proof.status == "proved"]
    # what proves little is not among those that are only counted
    proved.sort(key=lambda proof: proof.note is None)
    others = [proof for proof in report.proofs if proof.status != "proved"]
    for proof in proved[:SHOWN_PROOFS]:
        yield from str(proof).splitlines()
    if len(proved) > SHOWN_PROOFS:
        yield f"and {len(proved) - SHOWN_PROOFS} more are proved"
    misnamed = {
        d.loc[2] for d in report.diagnostics if d.code in ("V054", "V055") and d.severity == "error"
    }
    flow = Flow(loaded.program, loaded.programs)
    for proof in others[:SHOWN_COUNTEREXAMPLES]:
        fault = proof.fault()
        assert fault is not None
        (at,) = loaded.placed(loaded.program.place([fault]))
        yield f"{at.place + ': ' if at.loc else ''}{proof.status}: {proof.statement}"
        # a rule that names nothing is broken by any run
        if proof.tool in misnamed and not proof.of_values:
            continue
        if proof.path:
            yield f"  path: {proof.way}"
        yield from (f"  {flow}" for flow in report.flows if proof.about(flow))
        if proof.run is not None:
            yield "  a run that does it, found and executed:"
            yield from (f"    {line}" for line in proof.run.text().splitlines())
        if proof.reason:
            yield f"  {proof.reason}"
        for number, cure in enumerate(cures(proof, flow, policy)):
            yield f"  {'or' if number else 'to mend it'}: {cure}"
    if len(others) > SHOWN_COUNTEREXAMPLES:
        yield f"and {len(others) - SHOWN_COUNTEREXAMPLES} more are not proved (--json shows all)"


def _flow_lines(report: Report) -> Iterator[str]:
    """Where untrusted and secret values go, what declassifies them, and how much that gives away."""
    failed = [proof for proof in report.proofs if proof.of_values and proof.status != "proved"]
    flows = [flow for flow in report.flows if not any(proof.about(flow) for proof in failed)]
    yield from (f"flow: {flow}" for flow in flows[:SHOWN_FLOWS])
    if len(flows) > SHOWN_FLOWS:
        yield f"and {len(flows) - SHOWN_FLOWS} more flows (--json shows all)"
    yield from (f"released: {released}" for released in report.released)
