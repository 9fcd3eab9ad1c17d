"""The results of a batch, in JSON Lines, of which there are only whole lines.

A result says which line of the inputs it is of, and the digests of program and input, so that
another start knows what is done and notices what was changed. Nothing is run here.
"""

from __future__ import annotations

import json
import os
import stat
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from ...records.secrecy import error_of
from ...records.trace import Trace
from ...values import canonical
from ...visible import safe_json
from .inputs import DIGEST_HEX, BatchFault, Input, Inputs

PART = 4096
"""Lines whose digests stand together: 8 bytes a line, so a million of results take 8 MB at another
start.
"""

STATUSES = ("success", "failed", "cancelled", "suspended")


@dataclass(slots=True)
class Counts:
    """What results give together; ``unpriced`` of them have a cost that nobody knows."""

    statuses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.statuses.values())

    def add(self, result: dict[str, Any], count: int = 1) -> None:
        """One more; one less where *count* is -1."""
        self.statuses[result["status"]] += count
        self.tokens += count * result.get("tokens", 0)
        if result.get("cost_usd", "0") is None:
            self.unpriced += count
        else:
            self.cost += count * Decimal(result.get("cost_usd", "0"))


class Results:
    """The file of results: what it has from an earlier start, and what is written to it now, whole
    lines only.

    A line that has a result and gets another (``again``) keeps its place: the new results are
    written to a file beside, and take the places of the old ones when this one is closed, or at the
    next start.

    Raises:
        BatchFault: If it cannot be written, is something else, or was begun with another program.
    """

    def __init__(
        self, path: str, program_digest: str, inputs: Inputs, *, restart: bool, ordered: bool
    ) -> None:
        self.path, self.program, self.ordered = path, program_digest[:DIGEST_HEX], ordered
        self.counts = Counts()
        self.last = 0  # the highest line that has a result
        self.cut = False  # whether an earlier start was killed while it wrote
        self.unwritten: list[int] = []
        self.fault: str | None = None
        # by line: the result that another takes the place of
        self.again: dict[int, dict[str, Any]] = {}
        self.repeated = 0  # how many of them did
        self._beside: IO[bytes] | None = None
        # by line, in parts: the digest of its input, 0 without a result
        self._done: dict[int, array[int]] = {}
        self._file = self._open(inputs)
        try:
            self._lock()
            self._take_places(dropped=restart)
            self._end = self._read(restart)
            self._file.truncate(self._end)
            self._file.seek(self._end)
        except BaseException:
            self._file.close()
            raise

    def _open(self, inputs: Inputs) -> IO[bytes]:
        path = self.path
        if path == "-":
            raise BatchFault(
                "-o takes a file: a batch that is interrupted goes on from what it has"
            )
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise BatchFault(f"cannot write {path}: {error.strerror}") from None
        except ValueError as error:  # a NUL in the name
            raise BatchFault(f"cannot write {path!r}: {error}") from None
        found = os.fstat(descriptor)
        own = os.fstat(inputs.stream.fileno())
        if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) == (
            own.st_dev,
            own.st_ino,
        ):
            os.close(descriptor)
            what = "no regular file" if not stat.S_ISREG(found.st_mode) else "the file of inputs"
            raise BatchFault(f"cannot write the results to {path}: it is {what}")
        return open(descriptor, "r+b", buffering=0)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchFault(
                f"{self.path} is being written by another batch; wait for it, or name another"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _read(self, restart: bool) -> int:
        """Take note of what is there, and give where its whole lines end."""
        end = 0
        with open(self._file.fileno(), "rb", closefd=False) as stream:
            for number, raw in enumerate(stream, start=1):
                if not raw.endswith(b"\n"):
                    if not (raw.startswith(MARK) or MARK.startswith(raw)):
                        raise self._no_result(number)
                    self.cut = True
                    break
                result = _result(raw)
                if result is None:
                    raise self._no_result(number)
                if restart:
                    return 0
                self._note(result, number)
                end += len(raw)
        return end

    def repeat(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Note the lines whose result is *wanted* to be had again; what they gave is left out of
        what is kept of them.
        """
        for result in self._results():
            if wanted(result):
                self.again[result["line"]] = {key: result[key] for key in _KEPT if key in result}

    def _results(self) -> Iterator[dict[str, Any]]:
        """Those of the file's whole lines."""
        self._file.seek(0)
        with open(self._file.fileno(), "rb", closefd=False) as stream:
            for raw in stream:
                result = _result(raw) if raw.endswith(b"\n") else None
                if result is not None:
                    yield result
        self._file.seek(self._end)

    def _take_places(self, *, dropped: bool = False) -> None:
        """Put the results of the file beside into the places of those before them; *dropped*:
        forget them.
        """
        beside = Path(f"{self.path}.again")
        if not beside.exists():
            return
        found = {} if dropped else _by_line(beside)
        if found:
            place = Path(f"{self.path}.new")
            old, self._file = self._file, open(place, "w+b", buffering=0)  # noqa: SIM115 - it takes the other's place
            self._lock()
            old.seek(0)
            with open(old.fileno(), "rb", closefd=False) as stream, open(place, "r+b") as copy:
                for raw in stream:
                    result = _result(raw) if raw.endswith(b"\n") else None
                    copy.write(found.get(result["line"], raw) if result is not None else raw)
                copy.flush()
                os.fsync(copy.fileno())
                os.fchmod(copy.fileno(), stat.S_IMODE(os.fstat(old.fileno()).st_mode))
            os.replace(place, self.path)
            old.close()
        beside.unlink()

    def _no_result(self, number: int) -> BatchFault:
        return BatchFault(
            f"{self.path}:{number}: is no result of a batch; nothing was changed: name another "
            f"file, or remove this one"
        )

    def _note(self, result: dict[str, Any], number: int) -> None:
        line = result["line"]
        if result["program"] != self.program:
            raise BatchFault(
                f"{self.path}:{number}: was made by another program ({result['program']}, and "
                f"this is {self.program}); "
                "name another file, or give --restart to begin it anew"
            )
        if self.has(line):
            raise BatchFault(
                f"{self.path}:{number}: has a second result of line {line}; remove one of the two"
            )
        if self.ordered and line < self.last:
            raise self._unordered(line)
        part = self._done.get(line // PART)
        if part is None:
            part = self._done[line // PART] = array("Q", bytes(8 * PART))
        part[line % PART] = _number(result["input"])
        self.last = max(self.last, line)
        self.counts.add(result)

    def _unordered(self, line: int) -> BatchFault:
        return BatchFault(
            f"{self.path} was begun without --ordered, and line {line} comes late in it; leave "
            f"--ordered out, "
            "or give --restart to begin it anew"
        )

    def has(self, line: int) -> bool:
        """Whether there is a result of an input line."""
        return self._digest(line) != 0

    def _digest(self, line: int) -> int:
        part = self._done.get(line // PART)
        return part[line % PART] if part is not None else 0

    def compare(self, line: int, digest: str) -> bool:
        """Whether an input line has a result.

        Raises:
            BatchFault: If it is of another input, or cannot be had in order any more.
        """
        if not self.has(line):
            if self.ordered and line < self.last:
                raise self._unordered(line)
            return False
        if self._digest(line) != _number(digest):
            raise BatchFault(
                f"line {line} of the inputs is not what it was when {self.path} was begun; give "
                f"those inputs, name another "
                "file, or give --restart to begin it anew"
            )
        return True

    def write(self, result: dict[str, Any]) -> None:
        """Add a line. Where that is not possible, the file stays as it was, and `fault` says
        why.
        """
        if self.fault is None and result["line"] in self.again:
            self._write_beside(result)
            return
        if self.fault is None:
            data = memoryview(f"{safe_json(canonical(result).decode())}\n".encode())
            size = len(data)
            try:
                while data:
                    data = data[self._file.write(data) or 0 :]
            except OSError as error:
                self.fault = f"cannot write {self.path}: {error.strerror}"
                with suppress(OSError):
                    self._file.truncate(self._end)
            else:
                self._end += size
                self.counts.add(result)
                return
        self.unwritten.append(result["line"])

    def _write_beside(self, result: dict[str, Any]) -> None:
        """Write a result that takes the place of another."""
        try:
            if self._beside is None:
                self._beside = open(f"{self.path}.again", "wb")  # noqa: SIM115 - closed with this one
            self._beside.write(f"{safe_json(canonical(result).decode())}\n".encode())
            self._beside.flush()
        except OSError as error:
            self.fault = f"cannot write {self.path}.again: {error.strerror}"
            self.unwritten.append(result["line"])
            return
        self.counts.add(self.again.pop(result["line"]), -1)
        self.counts.add(result)
        self.repeated += 1

    def close(self) -> None:
        """Make it durable, and let it go."""
        with suppress(OSError):
            if self._beside is not None:
                os.fsync(self._beside.fileno())
                self._beside.close()
                self._take_places()
            os.fsync(self._file.fileno())
        self._file.close()


_KEPT = ("line", "status", "run_id", "error", "tokens", "cost_usd")


def ended_lines(path: str) -> int:
    """How many results a file has of runs that began; 0 where there is none."""
    try:
        with open(path, "rb") as stream:
            found = (_result(raw) for raw in stream)
            return sum(result is not None and "run_id" in result for result in found)
    except (OSError, ValueError):
        return 0


def _by_line(path: Path) -> dict[int, bytes]:
    """The whole lines of a file of results, by the input that they are of."""
    found = {}
    for raw in path.read_bytes().splitlines(keepends=True):
        result = _result(raw) if raw.endswith(b"\n") else None
        if result is not None:
            found[result["line"]] = raw
    return found


MARK = b'{"line":'


def _number(digest: str) -> int:
    return int(digest, 16) or 1


def _result(raw: bytes) -> dict[str, Any] | None:
    """A line of results, if it is one."""
    try:
        found = json.loads(raw)
        fine = (
            type(found) is dict
            and type(found["line"]) is int
            and 0 < found["line"] < 1 << 40
            and found["status"] in STATUSES
            and len(bytes.fromhex(found["input"]))
            == len(bytes.fromhex(found["program"]))
            == DIGEST_HEX // 2
            and type(found.get("tokens", 0)) is int
            and Decimal(found.get("cost_usd") or 0).is_finite()
        )
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return None
    return found if fine else None


def result_of(given: Input, program: str, trace: Trace) -> dict[str, Any]:
    """A line of results."""
    usage = trace.usage()
    result: dict[str, Any] = {"line": given.line, "status": trace.status.value}
    if given.fault is not None:
        result |= {"error": given.fault, "error_kind": "refused"}
    elif trace.error is not None:
        result |= {"error": error_of("errors", trace), "error_kind": trace.error_kind}
    else:
        result["output"] = trace.final_output
    if trace.waiting:
        result["waiting"] = trace.waiting
    if given.fault is None:
        result["run_id"] = trace.run_id
        result["steps"] = len(trace.steps)
        if usage.total_tokens or usage.cost_usd is None:
            result |= {
                "tokens": usage.total_tokens,
                "cost_usd": None if usage.cost_usd is None else str(usage.cost_usd),
            }
        result["duration_ms"] = round(trace.duration_ms or 0.0, 3)
        result["digest"] = trace.digest
    return {**result, "input": given.digest, "program": program}
