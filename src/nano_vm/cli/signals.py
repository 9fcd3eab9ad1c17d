"""Signals while a command works: the first ask it to stop, the last ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def stopped_by_signals(
    *answers: Callable[[], object], farewell: str, leave: Callable[[], None] | None = None
) -> Iterator[list[int]]:
    """The numbers of the signals that have come: SIGINT and SIGTERM, while this lasts.

    The first calls the first of *answers* in the event loop, the second the second. The one after
    the last calls *leave*, prints *farewell* and ends the process: something does not let itself be
    stopped.
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def on_signal(number: int, _: object) -> None:
        received.append(number)
        if len(received) <= len(answers):
            loop.call_soon_threadsafe(answers[len(received) - 1])
            return
        if leave is not None:
            leave()
        os.write(2, f"nano-vm: stopped at once; {farewell}\n".encode())
        os._exit(128 + number)

    with _handled((signal.SIGINT, signal.SIGTERM), on_signal):
        yield received


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """The numbers of the signals that have come: SIGINT, SIGTERM and, where there is a terminal that
    can go away, SIGHUP, while this lasts. Whoever waits reads them; nothing is interrupted.
    """
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
    with _handled(numbers, lambda number, _: received.append(number)):
        yield received


@contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, object], object]) -> Iterator[None]:
    """*handler* takes the signals *numbers* while this lasts; one that the parent process had
    ignored (nohup, a job in the background) stays ignored.
    """
    taken = [n for n in set(numbers) if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
