"""What `os.fork` does to threads, locks and connections: the child has none of the first, and must
not use the others.

Servers that load an application before they fork their workers (gunicorn's ``preload``, Celery,
multiprocessing on Linux) hand a used VM to each child. What cannot be used after a fork registers
here: it rests before, goes on in the parent, and begins anew in the child, which is another
process and shares nothing with its parent but files and servers.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Protocol


class Forked(Protocol):
    """Something that cannot be used after a fork. None of these may raise."""

    def before_fork(self) -> None:
        """Rest, soon: what another thread is in the middle of, the child never ends."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...

    def after_fork_in_child(self) -> None:
        """Begin anew. Nothing of the parent's may be ended here, see `leave`."""
        ...


class Begins:
    """A `Forked` that needs no rest."""

    __slots__ = ()

    def before_fork(self) -> None:
        """Nothing is shared with the child."""

    def after_fork_in_parent(self) -> None:
        """Nothing has changed."""


_joined: weakref.WeakSet[Forked] = weakref.WeakSet()
_left: list[Any] = []


def join(member: Forked) -> None:
    """Tell *member* of every fork from now on, as long as it lives."""
    _joined.add(member)


def leave(*things: Any) -> None:
    """Keep what belongs to the parent as it is, for ever: to end it would end it for the parent
    too.
    """
    _left.extend(things)


def _before() -> None:
    for member in list(_joined):
        member.before_fork()


def _in_parent() -> None:
    for member in list(_joined):
        member.after_fork_in_parent()


def _in_child() -> None:
    for member in list(_joined):
        member.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
