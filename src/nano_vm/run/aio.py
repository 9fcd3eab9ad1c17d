"""What blocks for a database, awaited instead: for web handlers and other code in an event loop.

Each call runs in a thread of the event loop's default executor and raises what the call itself
raises. A caller that is cancelled leaves what is being recorded to be recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from .inbox import Inbox
    from .vm import ExecutionVM

P = ParamSpec("P")
T = TypeVar("T")


def awaited(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """*function*, called in a thread."""

    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(function, *args, **kwargs)

    return call


class AsyncInbox:
    """The methods of an `Inbox`, to be awaited."""

    def __init__(self, inbox: Inbox) -> None:
        self.waiting = awaited(inbox.waiting)
        self.approve = awaited(inbox.approve)
        self.reject = awaited(inbox.reject)
        self.require_open = awaited(inbox.require_open)
        self.resolve = awaited(inbox.resolve)
        self.cancel = awaited(inbox.cancel)
        self.send_event = awaited(inbox.send_event)


class AsyncReads:
    """What a VM reads of its stored runs, to be awaited."""

    def __init__(self, vm: ExecutionVM) -> None:
        self.load = awaited(vm.load)
        self.runs = awaited(vm.runs)
