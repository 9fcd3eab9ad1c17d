"""What the server adds: reading and starting runs by the API beside what a bare route and the store
alone take, and checking a program of 50 steps. Ratios within one run, medians of many requests.

    python benchmarks/server.py
"""

from __future__ import annotations

import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI, Response

from nano_vm import ExecutionVM, Program
from nano_vm.server import secrets, tables
from nano_vm.server.app import application
from nano_vm.server.rows import Rows
from nano_vm.server.state import State
from nano_vm.store.protocol import open_tables

PROJECT = "/api/v1/projects/bench"
STEPS = [{"id": f"s{n}", "type": "set", "values": {f"v{n}": n}} for n in range(20)]
SOURCE = "name: long\nsteps:\n" + "".join(
    f"  - {{id: s{n}, type: set, values: {{v{n}: {n}}}}}\n" for n in range(50)
)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_tables(f"sqlite:///{folder}/runs.db")
        vm = ExecutionVM(store=store)
        state = State(store, b"the pepper of a benchmark, 32 by", vm=ExecutionVM())
        key = seed(state)
        program = Program.from_dict({"name": "short", "steps": STEPS})
        run_id = vm.run_sync(program, {}, project="bench").run_id
        bare = FastAPI()
        with serving(application(state)) as address, serving(bare) as other:
            client = httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"})
            content = client.get(f"{PROJECT}/runs/{run_id}").content
            bare.get("/")(lambda: Response(content, media_type="application/json"))
            plain = httpx.Client(base_url=other)
            least = median(200, lambda _: plain.get("/"))
            reads = median(200, lambda _: client.get(f"{PROJECT}/runs/{run_id}"))
            show("read a run of 20 steps", reads, f"{reads / least:.1f} x a bare route")
            show("list of runs", median(200, lambda _: client.get(f"{PROJECT}/runs")))
            put = {"source": "name: short\nsteps:\n" + SOURCE.partition("steps:\n")[2]}
            client.post(f"{PROJECT}/programs", json=put).raise_for_status()
            alone = median(200, lambda _: store.create(vm.pending(program, {}, project="bench")))
            starts = median(
                200, lambda _: client.post(f"{PROJECT}/runs", json={"program": "short"})
            )
            show("start a run", starts, f"{alone / starts:.2f} x the store alone")
            changed = (f"{SOURCE}# {n}\n" for n in range(1_000))
            checks = median(
                50,
                lambda _: client.post(f"{PROJECT}/programs/check", json={"source": next(changed)}),
            )
            show("check a program of 50 steps", checks)
            client.close()
            plain.close()
        vm.close()


def seed(state: State) -> str:
    """Make a project and an owner; a key of theirs."""
    made, now = secrets.new_key(), time.time_ns()
    row = {"project": "bench", "name": "bench", "maker": "ada", "role": "admin", "created_ns": now}

    def job(rows: Rows) -> None:
        rows.run(sa.insert(tables.projects).values(name="bench", settings="{}", created_ns=now))
        account = {"name": "ada", "owner": 1, "disabled": 0, "created_ns": now}
        rows.run(sa.insert(tables.users).values(**account))
        kept = secrets.keyed_hash(made.text, state.pepper)
        rows.run(sa.insert(tables.keys).values(id=made.id, hash=kept, **row))

    state.tables.write(job)
    return made.text


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address at which *app* answers."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def median(count: int, call: Callable[[int], Any]) -> float:
    """Milliseconds of a call, after some that warm up."""
    took = []
    for number in range(count + 10):
        began = time.perf_counter()
        answer = call(number)
        took.append(time.perf_counter() - began)
        if isinstance(answer, httpx.Response):
            answer.raise_for_status()
    return statistics.median(took[10:]) * 1e3


def show(what: str, milliseconds: float, beside: str = "") -> None:
    """Print a line."""
    print(f"{what:30} {milliseconds:8.2f} ms   {beside}")


if __name__ == "__main__":
    main()
