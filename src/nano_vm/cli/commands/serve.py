"""``nano-vm serve``."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..faults import OK, UsageFault
from ..grammar import Options, command, flag, option, typed
from ..output import note
from ..parameters import (
    PLACE,
    STORE,
    STORED,
    file_option,
    takes_concurrency,
    takes_host,
    takes_keys,
    takes_price,
    takes_rules,
)

if TYPE_CHECKING:
    from ...run.observers import Observer
    from ...run.vm import ExecutionVM
    from ...server.oidc import Provider
    from ...server.state import State
    from ...store.protocol import Archive

EXAMPLES = """\
nano-vm serve --store sqlite:///runs.db
nano-vm serve --store sqlite:///runs.db --with-worker --tools refund.py:tools --model local
nano-vm serve --bind 0.0.0.0:8642 --public-url https://runs.example.org   (behind TLS)
"""

OIDC_VARIABLE = "NANO_VM_OIDC"
METRICS_TOKEN = "NANO_VM_METRICS_TOKEN"
MIN_TOKEN_CHARS = 16

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@command(examples=EXAMPLES, footer=STORED)
@option(
    "--bind",
    type=PLACE,
    default="127.0.0.1:8642",
    metavar="[HOST:]PORT",
    help="default: 127.0.0.1:8642; another address needs --public-url",
)
@option(
    "--public-url",
    metavar="URL",
    help="where browsers reach it, behind a proxy with TLS",
)
@file_option(
    "--secret-file",
    help="the secret that API keys are hashed with, made where it is not there; "
    "default: beside the database's file",
)
@file_option(
    "--oidc",
    help="a TOML file: the OpenID Connect provider by which people log in, and what its groups "
    "may do; default: NANO_VM_OIDC",
)
@flag("--with-worker", help="run what is started here in this process too")
@takes_concurrency()
@takes_host
@takes_rules
@takes_price("for max_cost_usd")
@option(
    "--store", metavar="URL", help="the database of runs; default: NANO_VM_STORE", section=STORE
)
@takes_keys
def serve(options: Options) -> int:
    """
    Serve the pages and an HTTP API to a team: logins, roles, an audit log.

    The first start prints a token by which the first owner of the instance makes an account. It
    listens on this machine alone unless --public-url says how it is reached by TLS. Needs the extra
    'server', and for --oidc 'oidc'. Ctrl-C ends it.
    """
    from ...errors import StoreError, VMError
    from ...store.protocol import open_tables
    from ..keys import signing_key
    from ..stores import named

    _require_installed()
    url = named(options.store)
    host, port = options.bind
    public_url = _public_url(options.public_url, host)
    try:
        store = open_tables(url, signing_key=signing_key(options))
    except StoreError as error:
        raise UsageFault(f"--store: {error}") from None
    try:
        from ...server.metrics import observer_of
        from ...server.secrets import pepper_of
        from ...server.state import State

        try:
            pepper = pepper_of(_secret_file(options.secret_file, url))
        except VMError as error:
            raise UsageFault(f"--secret-file: {error}") from None
        provider = _provider(options.oidc)
        token = _metrics_token()
        observer = observer_of(store)
        vm = _host(store, options, observer)
        state = State(store, pepper, public_url, vm, provider, observer, token)
        _serve(state, options, host, port)
    finally:
        store.close()
    return OK


def _require_installed() -> None:
    from ...errors import MissingExtra

    try:
        import argon2  # noqa: F401
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise MissingExtra("the server", "server") from None


def _serve(state: State, options: Options, host: str, port: int) -> None:
    from ...server.serving import serve as run

    listening = _listening(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = state.public_url or f"http://{shown}:{listening.getsockname()[1]}"
    if state.setup_token is not None:
        note(f"nano-vm: make the first account at {address}/#/setup/{state.setup_token}")
    note(f"nano-vm: serving at {address}/")
    with listening:
        run(state, listening, options.concurrency if options.with_worker else None)


def _metrics_token() -> str | None:
    """What a scraper of metrics proves itself with, if anything.

    Raises:
        UsageFault: If it could be guessed.
    """
    token = os.environ.get(METRICS_TOKEN)
    if not token:
        return None
    if len(token) < MIN_TOKEN_CHARS or not token.isascii() or any(c.isspace() for c in token):
        raise UsageFault(
            f"{METRICS_TOKEN} has at least {MIN_TOKEN_CHARS} characters, in ASCII without spaces: "
            f"openssl rand -hex 24 makes one"
        )
    return token


def _host(store: Archive, options: Options, observer: Observer | None) -> ExecutionVM | None:
    """The host of this process, if it was given one.

    Raises:
        UsageFault: If an option says something of a host, or of a worker, and there is none.
    """
    from ..host import has_host, refuse_host, vm_of
    from ..rules import load_policy

    if not options.with_worker and typed("concurrency"):
        raise UsageFault("--concurrency is of a worker, and there is none here: add --with-worker")
    if not options.with_worker and not has_host(options):
        refuse_host("add --with-worker, or --tools; the workers elsewhere have their own")
        return None
    observers = [] if observer is None else [observer]
    policy = load_policy(options.policy)
    return vm_of(options, policy=policy, store=store, observers=observers)


def _provider(given: str | None) -> Provider | None:
    """Where people log in beside passwords, if that is said.

    Raises:
        UsageFault: If its file is wrong.
        MissingExtra: If what it needs is not installed.
    """
    from ...errors import MissingExtra, VMError
    from ...server.providers import provider_in

    path = given or os.environ.get(OIDC_VARIABLE)
    if not path:
        return None
    try:
        known, secret = provider_in(Path(path))
    except VMError as error:
        raise UsageFault(f"--oidc: {error}") from None
    try:
        from ...server.oidc import Provider
    except ImportError:
        raise MissingExtra("logging in by OpenID Connect", "oidc") from None
    return Provider(known, secret)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol is named because asyncio sends at once (TCP_NODELAY) only where it is: without,
    # each answer waits 40 ms for an acknowledgement
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise UsageFault(
            f"--bind: cannot listen on {host}:{port}: {error.strerror or error}; choose another port"
        ) from None
    return listening


def _public_url(given: str | None, host: str) -> str | None:
    """Where browsers reach it, without what follows the host.

    Raises:
        UsageFault: If that is nowhere, or not said for an address that others reach.
    """
    if given is None:
        if host not in LOOPBACK:
            raise UsageFault(
                f"--bind: {host} can be reached by others, and passwords would cross the network in "
                f"clear; put a proxy with TLS before it and name it by --public-url https://..."
            )
        return None
    found = urlsplit(given)
    plain = found.scheme in ("http", "https") and found.netloc and found.path in ("", "/")
    if not plain or found.query or found.fragment or found.username is not None:
        raise UsageFault(f"--public-url: write https://runs.example.org, not {given!r}")
    if found.scheme == "http" and found.hostname not in LOOPBACK:
        raise UsageFault("--public-url: passwords would cross the network in clear; use https://")
    return f"{found.scheme}://{found.netloc}"


def _secret_file(given: str | None, url: str) -> Path:
    if given is not None:
        return Path(given)
    path = url.removeprefix("sqlite:///")
    if path == url:
        raise UsageFault(
            "--secret-file: name a file that all servers of this database share; it is made where "
            "it is not there"
        )
    return Path(f"{path}.secret")
