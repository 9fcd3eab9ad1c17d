"""What the routes of one server share."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from fastapi import Request

from ..newest import Newest
from ..store.protocol import TableStore
from ..ui.library import MOST_VIEWS_BYTES
from .events import Events
from .hosts import Hosts
from .metrics import Requests, observer_of
from .rows import Tables
from .tables import users

if TYPE_CHECKING:
    from ..run.vm import ExecutionVM
    from ..telemetry.prometheus import Prometheus
    from .oidc import Provider

TOKEN_BYTES = 24

ViewKey = tuple[str, str, bool]
"""The id of a run, its version, and whether what was said in it is shown."""


@dataclass(slots=True)
class State:
    """A server over *store*. ``public_url`` is where it is reached, if not by a loopback address;
    ``vm`` is the server's own host, beside those of workers; ``provider`` is where people log in
    beside passwords; ``observer`` counts its runs. Who has the ``metrics_token`` is given metrics.
    """

    store: TableStore
    pepper: bytes
    public_url: str | None = None
    vm: ExecutionVM | None = None
    provider: Provider | None = None
    observer: Prometheus | None = None
    metrics_token: str | None = None
    setup_token: str | None = field(default=None, init=False)
    touched: dict[str, int] = field(default_factory=dict, init=False)
    tables: Tables = field(init=False)
    hosts: Hosts = field(init=False)
    events: Events = field(init=False)
    requests: Requests = field(init=False)
    views: Newest[ViewKey, bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self.store)
        self.hosts = Hosts(self.store, self.vm)
        self.events = Events(self.store)
        self.views = Newest(MOST_VIEWS_BYTES, len)
        self.requests = Requests(self.store, self.events.watch)
        if self.observer is None:
            self.observer = observer_of(self.store)
        if self.observer is not None:
            self.observer.registry.register(self.requests)
        if self._is_nobodys():
            self.setup_token = secrets.token_urlsafe(TOKEN_BYTES)

    def wants_owner(self) -> bool:
        """Whether the token that was printed still makes the first owner: another server of the
        database may have had one made since.
        """
        if self.setup_token is not None and not self._is_nobodys():
            self.setup_token = None
        return self.setup_token is not None

    def _is_nobodys(self) -> bool:
        with self.tables.reading() as rows:
            return rows.one(sa.select(users.c.name).limit(1)) is None

    @property
    def secure(self) -> bool:
        """Whether browsers reach it by TLS."""
        return self.public_url is not None and self.public_url.startswith("https:")

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; by its prefix a browser takes it from this host and by
        TLS only.
        """
        return "__Host-nano_vm_session" if self.secure else "nano_vm_session"

    @property
    def flow_cookie(self) -> str:
        """The name of the cookie of a login that has begun at the provider."""
        return f"{self.cookie}_flow"

    def origin(self, request: Request) -> str:
        """Where its own pages come from."""
        if self.public_url is not None:
            return self.public_url
        return f"http://{request.headers.get('host', '')}"
