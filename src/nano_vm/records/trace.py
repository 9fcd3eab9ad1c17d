"""`Trace`: a run as users see it, and its JSON form.

A read-only view of a `Recording`. The *digest* says what happened and is equal for equal runs; the
*seal* covers every stored byte and holds salted hashes in place of values. JSON only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from typing import Any

from .. import pictures
from ..diagnostics import Diagnostic
from ..errors import MissingExtra, RunFailed, TraceError, VMError
from ..values import canonical, copied, kind_name, parse_json
from .digest import TRACE_FORMAT
from .record import Record, flattened, levels
from .recording import Recording
from .result import StepResult, moment, shown_as
from .status import StepStatus, TraceStatus
from .usage import LLMUsage


class Trace:
    """What happened in one run. Made by the VM; `from_json` reads one back.

    It shows how the run stands: that of a run under way grows.

    Examples:
        >>> from nano_vm import ExecutionVM, Program
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> trace = ExecutionVM().run_sync(program)
        >>> trace.status.value, trace.output, [step.path for step in trace.steps]
        ('success', {'x': 1}, ['a'])
    """

    __slots__ = ("__weakref__", "recording")

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    # --- what it says ---

    @property
    def run_id(self) -> str:
        """The run's identity."""
        return self.recording.run_id

    @property
    def program_name(self) -> str:
        """The name of the program that ran."""
        return self.recording.program_name

    @property
    def program_digest(self) -> str:
        """The digest of the program that ran."""
        return self.recording.program_digest

    @property
    def status(self) -> TraceStatus:
        """How the run stands or ended."""
        return self.recording.status

    @property
    def inputs(self) -> dict[str, Any]:
        """What the run was given, of what the program can read."""
        return copied(self.recording.inputs)

    @property
    def output(self) -> Any:
        """The run's output, as it is recorded: to be read only, `final_output` gives a copy."""
        return self.recording.output

    @property
    def final_output(self) -> Any:
        """The run's output: the program's declared one, or that of its last step."""
        return copied(self.output)

    @property
    def error(self) -> str | None:
        """Why the run failed, or was cancelled."""
        return self.recording.error

    @property
    def error_kind(self) -> str | None:
        """The kind of that error, as `catch` and `retry.on` name it."""
        return self.recording.error_kind

    @property
    def waiting(self) -> Sequence[dict[str, Any]]:
        """What a suspended run waits for. One that has ended waits for nothing: calls that it left in
        doubt are steps with the status ``in_doubt``.
        """
        found = self.recording.waiting
        return found if not found or self.status is TraceStatus.SUSPENDED else ()

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Why the run was refused, if it was."""
        return self.recording.diagnostics

    @property
    def ok(self) -> bool:
        """Whether the run ended well."""
        return self.status is TraceStatus.SUCCESS

    @property
    def steps(self) -> list[StepResult]:
        """The finished steps in order; those of branches and items before the step that joined
        them.
        """
        return self.recording.results()

    @property
    def about(self) -> dict[str, Any]:
        """The host of the run, as far as it decides what a run does: tools with effect and key,
        budget, limits; digests of policy, tool contracts, prices and proofs; untrusted inputs.
        """
        return copied(self.recording.about)

    @property
    def started_ns(self) -> int:
        """When the run began, by the clock that its records have; see `started_at`."""
        return self.recording.started_ns

    @property
    def finished_ns(self) -> int:
        """When the run ended, likewise; 0 while it runs."""
        return self.recording.finished_ns

    @property
    def started_at(self) -> datetime:
        """When the run began, UTC."""
        return moment(self.started_ns + self.recording.base_ns)

    @property
    def finished_at(self) -> datetime | None:
        """When the run ended, UTC."""
        finished = self.finished_ns
        return moment(finished + self.recording.base_ns) if finished else None

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds from start to end."""
        return (self.finished_ns - self.started_ns) / 1e6 if self.finished_ns else None

    def usage(self) -> LLMUsage:
        """What all model calls consumed, failed attempts included; the cost is None if that of any
        is unknown.
        """
        total = LLMUsage(cost_usd=Decimal(0))
        for record in flattened(self.recording.full()):
            if record.step.type != "llm":
                continue
            usage = record.usage
            if usage is None and record.called:
                usage = LLMUsage()  # nobody knows what it consumed
            if usage is not None:
                total = total + usage
        return total

    def total_tokens(self) -> int:
        """Tokens of all model calls, failed attempts included."""
        return self.usage().total_tokens

    def total_cost_usd(self) -> Decimal | None:
        """Dollars for all model calls; 0 without one, None if the cost of any is not known."""
        return self.usage().cost_usd

    def last_output(self) -> Any:
        """The output of the last step that succeeded."""
        return next(
            (step.output for step in reversed(self.steps) if step.status is StepStatus.SUCCESS),
            None,
        )

    def raise_for_status(self) -> Trace:
        """Itself, if the run ended well.

        Raises:
            RunFailed: If it failed, was cancelled, or is suspended. If a call in this process made
                it fail, its ``__cause__`` is the exception of the tool or adapter, with its
                traceback.
        """
        if self.ok:
            return self
        what = self.error or f"run is waiting for {', '.join(w['kind'] for w in self.waiting)}"
        fault = f"{self.program_name}: {self.status.value}: {what}"
        raise RunFailed(fault, self) from self.recording.raised

    def __repr__(self) -> str:
        return (
            f"Trace(program_name={self.program_name!r}, run_id={self.run_id!r}, "
            f"status={self.status.value!r})"
        )

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return pictures.html(self)

    def _repr_svg_(self) -> str | None:
        """Its picture."""
        return pictures.svg(self)

    def to_dataframe(self) -> Any:
        """A row for each step, as a data frame of pandas, or of polars where that alone is
        installed. Requests and outputs are JSON strings, times are of UTC, costs are floats.

        Raises:
            MissingExtra: If neither is installed.
        """
        for name in ("pandas", "polars"):
            try:
                library = import_module(name)
            except ModuleNotFoundError:
                continue
            rows = [_row(step) for step in self.steps]
            return library.DataFrame({name: [row[name] for row in rows] for name in _COLUMNS})
        raise MissingExtra("to_dataframe()", "dataframe")

    # --- identity ---

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of what happened: equal for equal program, inputs and outcomes.

        Raises:
            TraceError: If the values of the run were erased.
        """
        return self.recording.digest()

    @property
    def seed(self) -> int:
        """What the waits between attempts were drawn from: as given, or by the run's id."""
        return self.recording.seed

    @property
    def salt(self) -> str:
        """The run's own random bytes, in hex: without them the seal's hashes of values tell
        nothing. Drawn at first need.
        """
        return self.recording.salt

    @property
    def seal(self) -> str:
        """SHA-256 chain, in hex, over every line of `lines` in order, values by salted hash."""
        whole = self.recording.whole
        if whole is not None:
            return Trace(whole).seal
        if self.recording.said is not None:
            return self.recording.said[1]
        head = b""
        salt = bytes.fromhex(self.salt)
        for line in self.lines():
            hidden = {
                k: _salted(salt, v) if k in _HIDDEN and v is not None else v
                for k, v in line.items()
            }
            head = hashlib.sha256(head + canonical(hidden)).digest()
        return head.hex()

    @property
    def signature(self) -> str | None:
        """Of the seal, by the process that ran it, if that has a signing key: ``PUBLIC:SIGNATURE``,
        in hex.
        """
        sign = self.recording.sign
        if sign is not None and self.status is not TraceStatus.RUNNING:
            return sign(self.seal)
        return self.recording.given_signature

    # --- JSON ---

    def lines(self) -> Iterator[dict[str, Any]]:
        """The records as JSON objects: a header, each step, an end."""
        recording, base = self.recording, self.recording.base_ns
        yield {
            "record": "run",
            "format": TRACE_FORMAT,
            "run_id": self.run_id,
            "program_name": self.program_name,
            "program_digest": self.program_digest,
            "seed": self.seed,
            "started_ns": self.started_ns + base,
            "inputs": self.inputs,
            **({"host": about} if (about := self.about) else {}),
        }
        for record, level in levels(recording.full()):
            if record is None:
                yield {"record": "joined", "level": level}
            else:
                yield {"record": "step", **record.to_dict(base, level)}
        end: dict[str, Any] = {
            "record": "end",
            "status": self.status.value,
            "finished_ns": self.finished_ns + base,
            "output": self.output,
        }
        if self.error is not None:
            end |= {"error": self.error, "error_kind": self.error_kind}
        if self.recording.waiting:
            end["waiting"] = list(self.recording.waiting)
        if self.diagnostics:
            end["diagnostics"] = [d.to_dict() for d in self.diagnostics]
        yield end

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: the records, with digest, seal and salt."""
        signature = self.signature
        return {
            "format": TRACE_FORMAT,
            "digest": self.digest,
            "seal": self.seal,
            **({"signature": signature} if signature is not None else {}),
            "salt": self.salt,
            "records": list(self.lines()),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def summary(self) -> dict[str, Any]:
        """How the run ended, as a JSON object: status, output, error, what it waits for, and what
        it used.

        ``cost_usd`` is a decimal string, or None where the cost of a call is not known;
        ``duration_ms`` is milliseconds.
        """
        usage = self.usage()
        return {
            "run_id": self.run_id,
            "program": self.program_name,
            "status": self.status.value,
            "output": copied(self.output),
            "error": self.error,
            "error_kind": self.error_kind,
            "diagnostics": [d.to_dict() for d in self.diagnostics],
            "waiting": copied(list(self.waiting)),
            "steps": len(self.steps),
            "tokens": usage.total_tokens,
            "cost_usd": None if usage.cost_usd is None else str(usage.cost_usd),
            "duration_ms": self.duration_ms,
            "digest": self.digest,
        }

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """The fields that a trace of 0.1 had, as its `model_dump` gave them; *mode* ``json`` makes
        strings of the times.

        To store a trace and read it back, use `to_dict` and `from_dict`.
        """
        shown = shown_as(mode)
        return {
            "program_name": self.program_name,
            "status": self.status.value,
            "steps": [step.model_dump(mode=mode) for step in self.steps],
            "final_output": copied(self.output),
            "error": self.error,
            "started_at": shown(self.started_at),
            "finished_at": shown(self.finished_at),
            "duration_ms": self.duration_ms,
        }

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """`model_dump` as JSON text."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Trace:
        """The inverse of `to_json`; reads what ``nano-vm run --json`` prints, too.

        Raises:
            TraceError: If it is not a trace, or its digest or seal does not fit what it says.
        """
        if not isinstance(text, (str, bytes)):
            raise TraceError(f"a trace's text is a str or bytes, not {kind_name(text)}")
        try:
            data = parse_json(text if isinstance(text, str) else text.decode())
        except ValueError as error:
            raise TraceError(f"not a trace: {error}") from None
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Any) -> Trace:
        """The inverse of `to_dict`; raises as `from_json`."""
        if isinstance(data, dict) and "trace" in data and "records" not in data:
            trace = cls.from_dict(data["trace"])
            if canonical({**trace.summary(), "trace": data["trace"]}) != canonical(data):
                raise TraceError("the summary was changed: it does not fit the trace in it")
            return trace
        if not isinstance(data, dict) or not {"format", "records", "digest", "seal"} <= data.keys():
            raise TraceError("not a trace: it has no 'format', 'records', 'digest' and 'seal'")
        try:
            trace = cls(recording_of(data))
            whole = canonical(trace.to_dict()) == canonical(data)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, VMError) as error:
            raise TraceError(
                f"not a trace of format {TRACE_FORMAT}: {kind_name(error)}: {error}"
            ) from None
        for name in ("digest", "seal"):
            if data.get(name) != getattr(trace, name):
                raise TraceError(f"the trace was changed: its {name} does not fit its records")
        if not whole:
            raise TraceError("the trace was changed: it holds what no run writes")
        return trace


_COLUMNS = (
    "path step_id type status branch started_at duration_ms attempts prompt_tokens "
    "completion_tokens total_tokens cost_usd request output error error_kind"
).split()
"""Of `Trace.to_dataframe`."""


def _row(step: StepResult) -> dict[str, Any]:
    usage = step.usage
    cost = usage.cost_usd if usage is not None else None
    return {
        "path": step.path,
        "step_id": step.step_id,
        "type": step.type,
        "status": step.status.value,
        "branch": step.branch,
        "started_at": step.started_at,
        "duration_ms": step.duration_ms,
        "attempts": step.retries + 1,
        "prompt_tokens": usage.prompt_tokens if usage is not None else None,
        "completion_tokens": usage.completion_tokens if usage is not None else None,
        "total_tokens": usage.total_tokens if usage is not None else None,
        "cost_usd": float(cost) if cost is not None else None,
        "request": canonical(step.request).decode(),
        "output": canonical(step.output).decode(),
        "error": step.error,
        "error_kind": step.error_kind,
    }


_HIDDEN = frozenset({"inputs", "output", "request", "error", "attempts", "extra", "waiting"})


def _salted(salt: bytes, value: Any) -> str:
    return hashlib.sha256(salt + canonical(value)).hexdigest()


def recording_of(data: Any) -> Recording:
    """The run that the JSON form *data* says."""
    if data["format"] != TRACE_FORMAT:
        raise ValueError(f"format {data['format']!r} is not {TRACE_FORMAT}")
    head, *middle, end = data["records"]
    if head["record"] != "run" or end["record"] != "end":
        raise ValueError("cut short")
    open_frames: dict[int, list[list[Record]]] = {}  # by level: child frames that are complete
    current: dict[int, list[Record]] = {0: []}
    for line in middle:
        level = line.get("level", 0)
        if line["record"] == "joined":
            open_frames.setdefault(level, []).append(current.pop(level, []))
            continue
        record = Record.from_dict(line)
        if line.get("extra", {}).get("forked"):
            record.extra["children"] = open_frames.pop(level + 1, [])
        current.setdefault(level, []).append(record)
    read = Recording(
        head["program_name"],
        str(head["program_digest"]),
        head["run_id"],
        head["seed"],
        int(head["started_ns"]),
        records=current[0],
        salt=bytes.fromhex(data["salt"]).hex(),
        about=head.get("host"),
    )
    read.given_signature = str(data["signature"]) if "signature" in data else None
    read.inputs = dict(head["inputs"])
    read.status = TraceStatus(end["status"])
    read.output = end["output"]
    read.error, read.error_kind = end.get("error"), end.get("error_kind")
    read.finished_ns = int(end["finished_ns"])
    read.waiting = end.get("waiting", [])
    read.diagnostics = tuple(Diagnostic.from_dict(d) for d in end.get("diagnostics", []))
    return read


def shown_trace(data: Any) -> Trace:
    """A run as somebody who has all of it shows it, in the JSON form of a trace. What is hidden in
    it is covered by its digest and seal too, so these are as they were said; the digest may be
    hidden as well, and is empty then.

    Raises:
        TraceError: If it is not a trace.
    """
    try:
        recording = recording_of(data)
        recording.said = str(data.get("digest", "")), str(data["seal"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, VMError) as error:
        raise TraceError(
            f"not a trace of format {TRACE_FORMAT}: {kind_name(error)}: {error}"
        ) from None
    return Trace(recording)
