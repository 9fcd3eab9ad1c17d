"""The inputs of a batch, in JSON Lines: read one by one, from a file or a pipe. Nothing is run here."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ...errors import VMError
from ...values import canonical, parse_json

if TYPE_CHECKING:
    from .results import Results


class BatchFault(VMError):
    """A file of a batch cannot be read or written, or is not the one that the batch began with."""


DIGEST_HEX = 16
"""Hex digits of a digest in a result: 64 bits, against mistakes; nobody forges inputs of his own.
"""

MAX_LINE_BYTES = 256 * 1024 * 1024
"""A longer line is none: as much as a run may hold."""

READ_AHEAD = 64
"""Lines that are read from a pipe before they are wanted."""


class Input(NamedTuple):
    """A line of the inputs: its number from 1, the digest of its text, and its value or what is
    wrong with it.
    """

    line: int
    digest: str
    value: dict[str, Any] | None
    fault: str | None


def text_of(line: int, raw: bytes) -> bytes:
    """A line without what surrounds its JSON."""
    return (raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw).strip()


def digest_of(line: int, raw: bytes) -> str:
    """What identifies the input of a line."""
    return sha256(text_of(line, raw)).hexdigest()[:DIGEST_HEX]


def read_line(line: int, raw: bytes) -> Input:
    """What a line says."""
    digest = digest_of(line, raw)
    raw = text_of(line, raw)
    if len(raw) > MAX_LINE_BYTES:
        return Input(line, digest, None, f"longer than {MAX_LINE_BYTES} bytes")
    try:
        value = parse_json(raw.decode())
    except UnicodeDecodeError as error:
        return Input(line, digest, None, f"not UTF-8: byte {error.start}")
    except (ValueError, RecursionError) as error:
        return Input(line, digest, None, f"not JSON: {error}")
    if type(value) is not dict:
        return Input(line, digest, None, f"an object of inputs is needed, not {_written(value)}")
    return Input(line, digest, value, None)


def _written(value: Any) -> str:
    """The beginning of a value, as JSON."""
    text = canonical(value).decode()
    return text if len(text) <= 60 else f"{text[:59]}…"


class Inputs:
    """Where inputs come from: a file, or a pipe, which is read once and in a thread of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "standard input" if path == "-" else path
        self.stopped = False
        self._waiting: asyncio.Queue[tuple[int, bytes] | OSError | None] | None = None
        try:
            # a stream of its own: a thread that waits in the interpreter's stdin would hold its lock at the end
            self.stream: IO[bytes] = open(0 if path == "-" else path, "rb", closefd=path != "-")  # noqa: SIM115
        except OSError as error:
            raise BatchFault(f"cannot read {self.name}: {error.strerror}") from None
        except ValueError as error:  # a NUL in the name
            raise BatchFault(f"cannot read {path!r}: {error}") from None
        self.regular = (
            stat.S_ISREG(os.fstat(self.stream.fileno()).st_mode) and self.stream.seekable()
        )

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line that is not blank, with its number; of a line that is too long only the
        beginning.
        """
        number = 0
        while raw := self.stream.readline(MAX_LINE_BYTES + 2):
            number += 1
            line = raw
            while len(raw) == MAX_LINE_BYTES + 2 and not raw.endswith(b"\n"):  # the rest of it
                raw = self.stream.readline(MAX_LINE_BYTES + 2)
            if line.strip():
                yield number, line

    def look_ahead(self, results: Results) -> int | None:
        """The number of inputs, where it can be known; raises if one that has a result was
        changed.
        """
        if not self.regular:
            return None
        start, count, last = self.stream.tell(), 0, 0
        for last, raw in self.lines():
            count += 1
            if results.last:
                results.compare(last, digest_of(last, raw))
        if results.last > last:
            raise BatchFault(
                f"{results.path} has the result of line {results.last}, and {self.name} has only "
                f"{last} lines; "
                "give the inputs that it was begun with, or --restart to begin it anew"
            )
        self.stream.seek(start)
        return count

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        if self.regular:
            for numbered in self.lines():
                if self.stopped:
                    return
                yield numbered
            return
        self._waiting = asyncio.Queue()
        slots = threading.Semaphore(READ_AHEAD)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, args=(loop, self._waiting, slots), daemon=True).start()
        while (found := await self._waiting.get()) is not None and not self.stopped:
            if isinstance(found, OSError):
                raise found
            slots.release()
            yield found

    def _read(
        self,
        loop: asyncio.AbstractEventLoop,
        waiting: asyncio.Queue[Any],
        slots: threading.Semaphore,
    ) -> None:
        last: OSError | None = None
        try:
            try:
                for numbered in self.lines():
                    slots.acquire()
                    loop.call_soon_threadsafe(waiting.put_nowait, numbered)
            except OSError as error:
                last = error
            loop.call_soon_threadsafe(waiting.put_nowait, last)
        except RuntimeError:  # the loop was closed: nobody waits
            pass

    def stop(self) -> None:
        """Give no more."""
        self.stopped = True
        if self._waiting is not None:
            self._waiting.put_nowait(None)

    def close(self) -> None:
        """Let go of a file; a pipe may still be waited for by its thread."""
        if self.regular:
            self.stream.close()
