"""Where output goes: lines to stdout and stderr, JSON that nothing else disturbs, files that are
whole or not there.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from ..visible import safe_json
from .faults import UsageFault
from .text import safe


def say(text: str = "") -> None:
    """A line for people, to stdout."""
    print(text, flush=True)


def note(text: str) -> None:
    """A line about the work, to stderr."""
    print(text, file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """The one line that says what is wrong, to stderr."""
    note(f"nano-vm: {safe(message)}")


def emit(text: str) -> None:
    """Text for programs, to stdout: UTF-8 whatever the locale."""
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(text)
        return
    buffer.write(text.encode("utf-8", "backslashreplace"))
    buffer.flush()


def emit_json(value: Any) -> None:
    """A JSON document, to stdout."""
    emit(json_text(value) + "\n")


def on_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def prepare_streams() -> None:
    """What the terminal's encoding lacks is escaped, and a stream that was closed goes nowhere: no
    reasons to fail.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def leave_at_once(code: int) -> NoReturn:
    """End the process with what was printed, and without what Python does at its end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def abandon_stdout() -> None:
    """After the reader has gone: what is left in buffers goes nowhere, also at the interpreter's
    exit.
    """
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # a stdout without a descriptor has no pipe either
        pass


@contextmanager
def only_ours(wanted: bool) -> Iterator[Callable[[str], None]]:
    """What prints a line to stdout.

    Where *wanted*, nothing else gets there: what tools and libraries print goes to stderr, from
    Python and from below it.
    """
    if not wanted:
        yield say
        return
    own, kept = sys.stdout, -1
    own.flush()
    with suppress(OSError, ValueError):  # a stdout without a descriptor has nothing below Python
        if own.fileno() == 1:
            kept = os.dup(1)
            os.dup2(2, 1)
    with redirect_stdout(sys.stderr), ExitStack() as stack:
        stream: Any = own
        if kept >= 0:
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 1)
            stream = stack.enter_context(
                open(kept, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
            )
        yield lambda text: print(text, file=stream, flush=True)


def json_line(value: Any) -> str:
    """A JSON document on one line, which can be shown."""
    return safe_json(json.dumps(value, ensure_ascii=False))


def json_text(value: Any) -> str:
    """A JSON document for people and programs."""
    return safe_json(json.dumps(value, ensure_ascii=False, indent=2))


class OutputFile:
    """A file that is there when it is whole: a temporary one beside it takes its place at the end.

    A pipe or a device is written as it is. That the file can be written is found out before there
    is anything to write.

    Raises:
        UsageFault: If it cannot.
    """

    def __init__(self, path: str, what: str = "") -> None:
        self.path = path
        self.what = what
        self._temporary: str | None = None
        try:
            self._target = Path(os.path.realpath(path))
            found = self._target.stat() if self._target.exists() else None
            if found is not None and stat.S_ISDIR(found.st_mode):
                raise UsageFault(f"{what}cannot write {path}: it is a folder")
            if found is not None and not os.access(self._target, os.W_OK):
                raise UsageFault(f"{what}cannot write {path}: it is write-protected")
            if found is not None and not stat.S_ISREG(found.st_mode):
                self.stream: IO[bytes] = open(self._target, "wb")  # noqa: SIM115 - closed by close()
                return
            descriptor, self._temporary = tempfile.mkstemp(
                prefix=f".{self._target.name[:50]}.", dir=self._target.parent
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise UsageFault(
                f"{what}cannot write {path}: {getattr(error, 'strerror', None) or error}"
            ) from None
        self._mode = stat.S_IMODE(found.st_mode) if found is not None else 0o666 & ~_umask()
        self.stream = open(descriptor, "wb")  # noqa: SIM115 - as above

    def commit(self) -> None:
        """What was written is the file now.

        Raises:
            OSError: If it cannot be after all; see `fault`.
        """
        self.stream.flush()
        if self._temporary is not None:
            os.fsync(self.stream.fileno())
            os.chmod(self._temporary, self._mode)
            os.replace(self._temporary, self._target)
            self._temporary = None

    def fault(self, error: OSError) -> str:
        """What to say of an error while the file was written."""
        return f"{self.what}cannot write {self.path}: {error.strerror}"

    def close(self) -> None:
        """Leave nothing behind that was not committed."""
        with suppress(OSError):  # a full disk was reported when it was written to
            self.stream.close()
        if self._temporary is not None:
            os.unlink(self._temporary)


def write_file(path: str, content: str | bytes) -> None:
    """Write *content* to *path*, whole or not at all.

    Raises:
        UsageFault: If it cannot be written.
    """
    with closing(OutputFile(path)) as file:
        try:
            file.stream.write(content.encode() if isinstance(content, str) else content)
            file.commit()
        except OSError as error:
            raise UsageFault(file.fault(error)) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
