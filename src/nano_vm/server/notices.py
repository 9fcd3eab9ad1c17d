"""Notices of a database that another process has written, heard as a wake-up only. A connection
for them may hang as it is made, so that has a thread of its own, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

from ..errors import StoreError
from ..store.protocol import Ear, TableStore
from ..visible import name

LISTEN_AGAIN_SECONDS = 5.0
"""Between two attempts to connect, at least."""

logger = logging.getLogger("nano_vm.server")


class Notices:
    """Calls *wake* in the event loop when *store* gives notice, and when its notices begin or cease
    to be heard: what was written just then may have been missed.
    """

    def __init__(self, store: TableStore, wake: Callable[[], None]) -> None:
        self.store = store
        self._wake = wake
        self._ear: Ear | None = None
        self._socket = -1  # that of the ear, which knows it no longer once it is lost
        self._never = False  # the store gives none, or this event loop cannot hear them
        self._not_before = 0.0  # by the clock of the event loop
        self._attempt: object | None = None  # the one whose connection is still wanted
        self._connecting: threading.Thread | None = None

    @property
    def heard(self) -> bool:
        """Whether notices are heard now."""
        return self._ear is not None

    def listen(self) -> None:
        """Begin to connect, unless that is done, under way or was tried a moment ago."""
        loop = asyncio.get_running_loop()
        if self._never or self._ear is not None or loop.time() < self._not_before:
            return
        if self._connecting is not None and self._connecting.is_alive():
            return  # it hangs: one thread at a time may
        self._not_before = loop.time() + LISTEN_AGAIN_SECONDS
        self._attempt = attempt = object()
        # a daemon: the process ends though its connection hangs
        self._connecting = threading.Thread(
            target=self._connect, args=(loop, attempt), name="nano-vm-notices", daemon=True
        )
        self._connecting.start()

    def close(self) -> None:
        """Hear no more, until `listen` is called again."""
        self._attempt, self._not_before = None, 0.0
        self._drop()

    def _connect(self, loop: asyncio.AbstractEventLoop, attempt: object) -> None:
        ear, error = None, None
        try:
            ear = self.store.listened()
        except Exception as raised:  # noqa: BLE001 - the store is asked more often then
            error = raised
        try:
            loop.call_soon_threadsafe(self._connected, attempt, ear, error)
        except RuntimeError:  # the loop was closed: nobody listens
            if ear is not None:
                ear.close()

    def _connected(self, attempt: object, ear: Ear | None, error: Exception | None) -> None:
        if error is not None:
            logger.warning("notices are not heard: %s", told(error))
        elif ear is None:
            self._never = True
        elif attempt is not self._attempt:
            ear.close()
        else:
            self._hear_by(ear)

    def _hear_by(self, ear: Ear) -> None:
        try:
            self._socket = ear.fileno()
            asyncio.get_running_loop().add_reader(self._socket, self._hear)
        except NotImplementedError:  # that of Windows
            self._never = True
            ear.close()
        except Exception as error:  # noqa: BLE001 - of the driver, which may have lost it already
            logger.warning("notices are not heard: %s", told(error))
            ear.close()
        else:
            self._ear = ear
            self._wake()  # something may have been written before it listened

    def _hear(self) -> None:
        assert self._ear is not None
        try:
            if self._ear.heard():
                self._wake()
        except Exception as error:  # noqa: BLE001 - of the driver; the store is asked more often then
            logger.warning("notices are heard no longer: %s", told(error))
            self._drop()
            self._not_before = asyncio.get_running_loop().time() + LISTEN_AGAIN_SECONDS
            self._wake()

    def _drop(self) -> None:
        if self._ear is not None:
            ear, self._ear = self._ear, None
            asyncio.get_running_loop().remove_reader(self._socket)
            ear.close()


def told(error: Exception) -> str:
    """An error in the words of a log."""
    return name(str(error) if isinstance(error, StoreError) else repr(error))
