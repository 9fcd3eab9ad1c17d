"""What adapters over a provider's own SDK have in common: it is imported before the first call, has
a client for each event loop, and is named by its address.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ._loops import PerLoop


class SdkAdapter:
    """An adapter whose calls are those of an SDK's asynchronous client."""

    _package: ClassVar[str]
    """What is imported."""

    base_url: str

    def __init__(self, http_client: Any) -> None:
        self._http_client = http_client
        self._sdk: Any = None
        self._clients = PerLoop[Any](self._open, self._close)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; `asyncio.run` does it at its end."""
        await self._clients.aclose()

    async def ready(self) -> None:
        """Import the SDK and make its client, before the time of a first call begins."""
        await self._client()

    async def _client(self) -> Any:
        # over a second of CPU: in a thread, so that the loop's other runs and deadlines go on
        if self._sdk is None:
            self._sdk = await asyncio.to_thread(import_module, self._package)
        return await self._clients.get()

    def _open(self) -> Any:
        """A client of the SDK, which is imported by then."""
        raise NotImplementedError

    async def _close(self, client: Any) -> None:
        if self._http_client is None:  # one that was given is the giver's to close
            await client.close()

    @property
    def _host(self) -> str:
        """The address without what may be secret in it: user, password and query."""
        return urlsplit(self.base_url).netloc.rpartition("@")[2]
