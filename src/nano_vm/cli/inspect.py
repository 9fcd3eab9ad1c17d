"""Commands that look at a program and run nothing: ``check``, ``explain``, ``graph``,
``schema``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Diagnostic, ProgramError
from .faults import UsageFault
from .grammar import Options
from .text import FAILED, OK, diagnostic_lines, emit, emit_json, note, safe, safe_lines, say

if TYPE_CHECKING:
    from ..draw.graph import Marks
    from ..language.flow import Flow
    from ..language.policy import Policy
    from ..run.vm import ExecutionVM
    from ..verify.report import Proof, Report
    from .sources import Loaded


SHOWN_PROOFS = 15
"""As `SHOWN_DIAGNOSTICS`; statements that are not proved have several lines each, so fewer of them
are shown.
"""
SHOWN_COUNTEREXAMPLES = 5
SHOWN_FLOWS = 8
SHOWN_CALLS = 6


def check(options: Options) -> int:
    """Every fault of a program, those of its files and those that the host shows; what is proved of
    it; its worst case.
    """
    from ..cli import host, sources

    policy, found = host.read_policy(options.policy)
    loaded = None
    try:
        loaded = sources.load(options.program, options.program_file)
    except ProgramError as error:
        found += error.diagnostics
    if loaded is None:
        return _told(options, _strictly(found, options), ["graph", "tools", "models"], None, loaded)
    if found:
        found += misnamed(loaded, policy, options)
        return _told(options, _strictly(found, options), ["graph", "tools", "models"], None, loaded)
    report, skipped = _examined(loaded, policy, options)
    found = loaded.placed([*loaded.warnings(), *report.diagnostics])
    return _told(options, _strictly(found, options), skipped, report, loaded)


def misnamed(loaded: Loaded, policy: Policy | None, options: Options) -> list[Diagnostic]:
    """What a policy that has faults of its own names besides, and this host and program have not:
    told with those faults.

    What else it demands can only be said of a whole one.
    """
    if policy is None:
        return []
    report, _ = _examined(loaded, policy, options)
    return [d for d in report.diagnostics if d.code in _NAMES]


_NAMES = frozenset({"V051", "V059"})
"""Codes of what a policy names that is not there, and of inputs that it does not name."""


def _examined(loaded: Loaded, policy: Policy | None, options: Options) -> tuple[Report, list[str]]:
    """What is found, and what could not be looked at."""
    from ..cli import host
    from ..language.program import LLMStep

    vm, skipped = host_of(loaded, options, policy)
    if "tools" in skipped and not any(
        True for _ in host.tool_names(loaded.program, loaded.programs)
    ):
        skipped.remove("tools")
    steps = [
        step
        for program in (loaded.program, *loaded.programs.values())
        for step, _ in program.walk()
    ]
    if "models" in skipped and not any(isinstance(step, LLMStep) for step in steps):
        skipped.remove("models")
    untrusted = host.untrusted_inputs(options.untrusted, loaded.program, loaded.programs)
    return vm.verify(loaded.program, untrusted=untrusted), skipped


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
) -> int:
    """Print what was found; the exit code."""
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
    if report is not None and loaded is not None:
        asked = (
            options.policy is not None or options.untrusted or proofs or loaded.program.untrusted
        )
        for line in [
            *_proof_lines(report, loaded),
            *(_flow_lines(report) if asked else ()),
            *_worst_case(report),
        ]:
            say(safe(line))
    theirs = [d for d in found if d.file is not None and d.file == options.policy]
    own = [d for d in found if d not in theirs]
    texts = _counts(own) + _statuses(proofs)
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
        rest = f"; {options.policy}: {', '.join(_counts(theirs))}{rest}"
    say(safe(f"{options.program}: {', '.join(texts) or 'no faults'}{rest}"))
    return code


def _counts(found: Sequence[Diagnostic]) -> list[str]:
    """How many errors, warnings and hints there are, as far as there are any."""
    counts = [
        (sum(d.severity == name for d in found), name) for name in ("error", "warning", "hint")
    ]
    return [f"{count} {name}{'s' * (count != 1)}" for count, name in counts if count]


def _statuses(proofs: Sequence[Proof]) -> list[str]:
    counts = [
        (sum(p.status == name for p in proofs), name) for name in ("refuted", "unproved", "proved")
    ]
    return [f"{count} {name}" for count, name in counts if count]


def _proof_lines(report: Report, loaded: Loaded) -> Iterator[str]:
    """What is proved, a line each; of what is not, the place, the path, the run that was found."""
    proved = [proof for proof in report.proofs if proof.status == "proved"]
    # what proves little is not among those that are only counted
    proved.sort(key=lambda proof: proof.note is None)
    others = [proof for proof in report.proofs if proof.status != "proved"]
    for proof in proved[:SHOWN_PROOFS]:
        yield from str(proof).splitlines()
    if len(proved) > SHOWN_PROOFS:
        yield f"and {len(proved) - SHOWN_PROOFS} more are proved"
    misnamed = {
        d.loc[2]
        for d in report.diagnostics
        if d.code == "V051" and len(d.loc) > 3 and d.severity == "error"
    }
    for proof in others[:SHOWN_COUNTEREXAMPLES]:
        fault = proof.fault()
        assert fault is not None
        (at,) = loaded.placed(loaded.program.place([fault]))
        yield f"{at.place + ': ' if at.loc else ''}{proof.status}: {proof.statement}"
        # a rule that names nothing is broken by any run
        if proof.tool in misnamed and proof.kind != "flow":
            continue
        if proof.path:
            yield f"  path: {proof.way}"
        yield from (
            f"  {flow}" for flow in report.flows if flow.loc == proof.loc and proof.kind == "flow"
        )
        if proof.run is not None:
            yield "  a run that does it, found and executed:"
            yield from (f"    {line}" for line in proof.run.text().splitlines())
        if proof.reason:
            yield f"  {proof.reason}"
    if len(others) > SHOWN_COUNTEREXAMPLES:
        yield f"and {len(others) - SHOWN_COUNTEREXAMPLES} more are not proved (--json shows all)"


def _flow_lines(report: Report) -> Iterator[str]:
    """Where untrusted values go, by what right."""
    failed = {
        proof.loc for proof in report.proofs if proof.kind == "flow" and proof.status != "proved"
    }
    flows = [flow for flow in report.flows if flow.loc not in failed]
    yield from (f"flow: {flow}" for flow in flows[:SHOWN_FLOWS])
    if len(flows) > SHOWN_FLOWS:
        yield f"and {len(flows) - SHOWN_FLOWS} more flows (--json shows all)"


def _worst_case(report: Report) -> Iterator[str]:
    """The worst case in one line, and what costs can not be told."""
    most = report.ceiling
    if most is None or any(
        d.severity == "error" and d.code[:3] != "V07" for d in report.diagnostics
    ):
        return
    parts = [f"{most.steps:,} step{'s' * (most.steps != 1)}"]
    for count, what, calls in (
        (most.llm_calls, "model call", most.models),
        (most.tool_calls, "tool call", most.tools),
    ):
        if count:
            known = [
                (name, number)
                for name, number in calls.items()
                if (name, len(calls)) != ("default", 1)
            ]
            names = ", ".join(f"{name} {number:,}" for name, number in known[:SHOWN_CALLS])
            names += ", ..." if len(known) > SHOWN_CALLS else ""
            parts.append(f"{count:,} {what}{'s' * (count != 1)}{f' ({names})' if names else ''}")
    if most.llm_calls:
        parts.append(
            f"{most.tokens:,} tokens" if most.tokens is not None else "tokens without bound"
        )
        if most.cost_usd is not None:
            parts.append(f"${most.cost_usd:f}")
        elif most.cost.low:
            parts.append(f"${most.cost.low:f} and what is not known")
    yield f"at most: {', '.join(parts)}"
    if most.llm_calls and (most.tokens is None or most.cost.low):
        reasons = [
            reason for reason in most.open if most.cost.low or ": no price is known" not in reason
        ]
        yield from (f"  {reason}" for reason in reasons[:SHOWN_FLOWS])


def host_of(
    loaded: Loaded, options: Options, policy: Policy | None = None
) -> tuple[ExecutionVM, list[str]]:
    """A VM with the tools and models of the command line, and stubs that take anything for those
    not given.
    """
    from ..cli import host
    from ..run.vm import ExecutionVM

    skipped = []
    if options.tools is not None:
        tools = host.load_tools(options.tools)
    else:
        tools = host.stub_tools(loaded.program, loaded.programs, policy)
        skipped.append("tools")
    llm: Any = host.load_models(
        getattr(options, "model", ()),
        getattr(options, "base_url", None),
        getattr(options, "answer", ()),
    )
    if llm is None:
        llm = host.StubModel()
        skipped.append("models")
    prices = host.read_prices(getattr(options, "price", ()))
    approved = host.read_digests(getattr(options, "approve", ()))
    vm = ExecutionVM(
        llm=llm,
        tools=tools,
        programs=loaded.programs,
        prices=prices,
        policy=policy,
        approved=approved,
    )
    return vm, skipped


def explain(options: Options) -> int:
    """The plan: what is executed, a line an operation."""
    from ..cli import sources

    loaded = sources.load(options.program, options.program_file)
    vm, skipped = host_of(loaded, options)
    try:
        plan = vm.plan(loaded.program)
    except ProgramError as error:
        raise ProgramError(loaded.placed(error.diagnostics)) from None
    say(safe_lines(plan.explain()))
    if "tools" in skipped and plan.tools:
        note(
            "tools were not given: their effects are taken for 'write'; --tools shows what they "
            "declare"
        )
    return OK


def graph(options: Options) -> int:
    """The graph that is verified and executed, drawn."""
    from ..cli import sources
    from ..draw.graph import FORMATS, MERMAID_MAX_EDGES
    from ..language.flow import Flow

    loaded = sources.load(options.program, options.program_file)
    flow = Flow(loaded.program, loaded.programs)
    errors = [d for d in flow.diagnostics if d.severity == "error"]
    if errors:
        raise ProgramError(loaded.placed(loaded.program.place(errors)))
    proofs = options.proofs or options.policy is not None or options.untrusted
    text = FORMATS[options.format](flow, _marks(flow, loaded, options) if proofs else None)
    if (
        options.format == "mermaid"
        and sum("->" in line for line in text.splitlines()) > MERMAID_MAX_EDGES
    ):
        note(
            f"more than {MERMAID_MAX_EDGES} edges, which Mermaid does not draw by default; "
            f"--format svg does"
        )
    if options.output is None:
        emit(text)
    else:
        write_file(options.output, text)
    return OK


def _marks(flow: Flow, loaded: Loaded, options: Options) -> Marks:
    """What is proved of the program, to be drawn; what speaks against it besides is told."""
    from ..cli import host
    from .marks import marks_of

    policy = host.load_policy(options.policy)
    vm, _ = host_of(loaded, options, policy)
    untrusted = host.untrusted_inputs(options.untrusted, loaded.program, loaded.programs)
    report = vm.verify(loaded.program, untrusted=untrusted)
    found = loaded.placed([d for d in report.diagnostics if d.severity == "error"])
    for line in diagnostic_lines(found):
        note(line)
    return marks_of(flow, report, policy)


def schema(options: Options) -> int:
    """The JSON Schema of the language."""
    from ..language.program import Program

    emit_json(Program.json_schema())
    return OK


def write_file(path: str, text: str) -> None:
    """Write *text* to *path*, whole or not at all; a pipe or device is written as it is.

    Raises:
        UsageFault: If it can not be written.
    """
    temporary = None
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            with open(target, "w", encoding="utf-8", newline="") as stream:
                stream.write(text)
            return
        if target.exists() and not os.access(target, os.W_OK):
            raise UsageFault(f"can not write {path}: it is write-protected")
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name[:50]}.", dir=target.parent)
        with open(descriptor, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
        os.chmod(temporary, file_mode(target))
        os.replace(temporary, target)
        temporary = None
    except (OSError, ValueError) as error:
        raise UsageFault(
            f"can not write {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def file_mode(target: Path) -> int:
    """The permissions that a file at *target* has or would get."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
