"""How a command reaches a Temporal cluster: by which options, keys and certificates."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import VMError
from .faults import UsageFault
from .grammar import Options, typed
from .output import note
from .parameters import ADDRESS, NAMESPACE
from .telemetry import spans_to

if TYPE_CHECKING:
    from temporalio.client import Client

    from ..run.vm import ExecutionVM
    from ..temporal import TemporalRuns

T = TypeVar("T")


def telemetry_of(options: Options, stack: ExitStack) -> dict[str, Any]:
    """What a client of the cluster is given so that its SDK tells of itself: spans to an address,
    which go over client, workflow and activities, and metrics at a port; *stack* closes them.

    Raises:
        UsageFault: If a port or an address is none, or the port is taken.
        MissingExtra: If what they need is not installed.
    """
    more: dict[str, Any] = {}
    if (url := options.get("otlp")) is not None:
        spans = spans_to(url, stack)
        from temporalio.contrib.opentelemetry import TracingInterceptor

        more["interceptors"] = [TracingInterceptor(spans.provider.get_tracer("nano_vm.temporal"))]
    if (place := options.get("metrics_port")) is not None:
        more["runtime"] = _measured(*place)
    return more


def _measured(host: str, port: int) -> Any:
    from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

    try:
        with socket.create_server((host, port)):
            pass  # the SDK does not say what was wrong
        metrics = PrometheusConfig(bind_address=f"{host}:{port}")
        runtime = Runtime(telemetry=TelemetryConfig(metrics=metrics))
    except (OSError, RuntimeError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise UsageFault(f"--metrics-port: cannot listen on {host}:{port}: {told}") from None
    note(f"nano-vm: metrics at http://{host}:{port}/metrics")
    return runtime


async def connected(options: Options, **more: Any) -> Client:
    """A client of the cluster that *options* name; *more* is `telemetry_of` it.

    Raises:
        UsageFault: If an option is wrong.
        VMError: If no server answers.
    """
    from ..temporal import connect

    return await connect(
        options.address,
        namespace=options.namespace,
        tls=_tls(options),
        api_key=_secret(options, "api_key_env"),
        payloads=options.payloads,
        encryption=encryption_of(options),
        **more,
    )


def _secret(options: Options, name: str) -> str | None:
    """What the environment variable holds that an option names."""
    variable = getattr(options, name)
    if variable is None:
        return None
    found = os.environ.get(variable)
    if not found:
        raise UsageFault(f"--{name.replace('_', '-')}: the variable {variable} is not set")
    return found


def encryption_of(options: Options) -> Any:
    key = _secret(options, "encryption_key_env")
    if key is None:
        return None
    from ..temporal.encryption import Encryption, key_of, named

    try:
        return Encryption(named([key_of(key)]))
    except VMError as error:
        raise UsageFault(f"--encryption-key-env: {error}") from None


def _tls(options: Options) -> Any:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageFault("--tls-cert and --tls-key go together")
    files = (options.tls_ca, options.tls_cert, options.tls_key)
    root, cert, key = (None if path is None else _bytes(path) for path in files)
    if root is None and cert is None:
        return options.tls or options.api_key_env is not None
    from temporalio.service import TLSConfig

    return TLSConfig(server_root_ca_cert=root, client_cert=cert, client_private_key=key)


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise UsageFault(f"cannot read {path!r}: {error}") from None


_NAMED = "tls_ca tls_cert tls_key api_key_env payloads encryption_key_env".split()


def given(options: Options) -> str:
    """The options that name the cluster and how its payloads are read, for a command that is shown.
    Keys are in variables, which only their names are of.
    """
    told = " --engine temporal"
    for name, usual in (("address", ADDRESS), ("namespace", NAMESPACE)):
        value = getattr(options, name)
        if value != usual:
            told += f" --{name} {shlex.quote(value)}"
    if options.tls:
        told += " --tls"
    for name in _NAMED:
        value = getattr(options, name)
        if value is not None:
            told += f" --{name.replace('_', '-')} {shlex.quote(value)}"
    return told


_OF_A_STORE = {
    "store": "a cluster has its runs itself; a worker's --store keeps those that have ended",
    "signing_key": "the store of a worker signs what it keeps",
    "trust": "the store of a worker says whose signatures count",
    "graph": "a graph is drawn of a run in a store, where a worker's --store keeps it",
    "match": "it finds runs in a store; name the run",
    "until_idle": "a cluster gives its workers what there is, now or later",
    "concurrency": "a worker takes as many calls at a time as its host has threads",
    "name": "the cluster knows a worker by its process and host",
}
"""What says nothing of runs on a cluster, and why."""


def refuse(
    options: Options, others: Mapping[str, str] = MappingProxyType({}), but: Collection[str] = ()
) -> None:
    """Refuse what is given and would be ignored: what a store needs, and *others*, with the reason;
    *but* for what this command uses.

    Raises:
        UsageFault: If so.
    """
    for name, why in {**_OF_A_STORE, **others}.items():
        if name not in but and typed(name):
            written = name.replace("_", "-")
            raise UsageFault(f"--{written} does not go with --engine {options.engine}: {why}")


def on_cluster(
    options: Options,
    job: Callable[[TemporalRuns], Awaitable[T]],
    vm: ExecutionVM | None = None,
    telemetry: Mapping[str, Any] = MappingProxyType({}),
) -> T:
    """What *job* gives, over the cluster that *options* name; *telemetry* as `telemetry_of`."""

    async def done() -> T:
        from ..temporal import TASK_QUEUE, TemporalRuns

        client = await connected(options, **telemetry)
        found = options.get("search_attributes") is True
        queue = options.get("queue", TASK_QUEUE)
        runs = TemporalRuns(client, queue, vm=vm, search_attributes=found)
        return await job(runs)

    return asyncio.run(done())
