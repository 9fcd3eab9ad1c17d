"""A refund that a manager approves, and that survives `kill -9`: between request and approval, and
in the middle of the payment.

    python examples/refund-approval.py                  # with a scripted model
    python examples/refund-approval.py --model local    # with the small one on this machine

The worker is a process of its own and gets killed twice. The run goes on from its records each
time: the model is not asked again, the manager is not asked again, and the bank, which had the
payment when its caller died, is asked instead of paid a second time.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nano_vm import ExecutionVM, LocalAdapter, Program, tool
from nano_vm.testing import ScriptedLLM

HERE = Path(__file__).parent
BANK = Path(os.environ.get("BANK", "bank.jsonl"))  # what the bank has paid, a line each
# it pays at once and takes its time to answer: the moment in which a crash is nasty
BANK_SECONDS = 1.0
MESSAGE = "The blender arrived broken, I want my money back"


@tool(effect="read")
async def get_order(order_id: str) -> dict:
    """The order with this id."""
    return {"item": "blender", "amount": 49.9}


@tool(effect="irreversible")
async def issue_refund(order_id: str, amount: float) -> str:
    """Pay back *amount* dollars."""
    with BANK.open("a") as bank:
        bank.write(json.dumps({"order_id": order_id, "amount": amount}) + "\n")
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


tools = {f.__name__: f for f in (get_order, issue_refund, find_refund, answer_politely)}


def payments() -> list[dict]:
    """What the bank has paid so far."""
    return [json.loads(line) for line in BANK.read_text().splitlines()] if BANK.exists() else []


def vm_over(store: str, model: str) -> ExecutionVM:
    """The same VM in every process."""
    llm = (
        LocalAdapter() if model == "local" else ScriptedLLM({"money back": "unhappy", "": "happy"})
    )
    return ExecutionVM(
        llm, tools, store=store, roles=lambda name: ["manager"] if name == "mia" else []
    )


def worker(store: str, model: str) -> subprocess.Popen:
    """A process that takes up whatever there is to do, for ever."""
    command = [sys.executable, __file__, "--work", "--store", store, "--model", model]
    return subprocess.Popen(command, env={**os.environ, "BANK": str(BANK)})


def until(what: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for something to happen."""
    end = time.monotonic() + 60
    while not what():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit("the worker ended, or nothing happens")
        time.sleep(0.02)


def kill(process: subprocess.Popen) -> None:
    """`kill -9`."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def story(store: str, model: str) -> None:
    """What happens, and how often the bank pays."""
    program = Program.from_file(HERE / "refund-approval.yaml")
    vm = vm_over(store, model)
    inputs = {"user_input": MESSAGE, "order_id": "A-1001"}
    run = asyncio.run(vm.submit(program, inputs, run_id="refund-1"))
    print(f"1. A customer writes: {MESSAGE!r}")

    process = worker(store, model)
    until(lambda: bool(vm.waiting(run)), process)
    (request,) = vm.waiting(run)
    print(
        f"2. Worker {process.pid} asked the model and looked up the order. The run waits for a "
        f"manager: {request['show']}"
    )

    kill(process)
    print(f"3. kill -9 {process.pid}. No process is left; the run is in {store}")

    vm.approve(run, request["path"], shown=request["shown"], by="mia", reason="clearly broken")
    print("4. The manager approves what she was shown")

    process = worker(store, model)
    until(lambda: bool(payments()), process)
    kill(process)
    print(
        f"5. Worker {process.pid} goes on from there and calls the bank. kill -9, before the bank "
        f"answers"
    )

    process = worker(store, model)
    until(lambda: vm.load(run).ok, process)
    kill(process)
    trace = vm.load(run)
    print(
        f"6. Worker {process.pid} does not pay again: it asks the bank. The run ends: "
        f"{trace.status.value}, {trace.output!r}"
    )
    for step in trace.steps:
        print(f"   {step.path:<18} {step.status.value:<9} {step.output}")
    print(f"The bank paid {len(payments())} time: {payments()}")
    vm.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=["scripted", "local"], default="scripted")
    parser.add_argument(
        "--store",
        help="a database's URL; without one, a file in a folder that is removed at the end",
    )
    parser.add_argument("--work", action="store_true", help="be a worker")
    given = parser.parse_args()
    if given.work:
        asyncio.run(vm_over(given.store, given.model).work(poll_seconds=0.05))
    else:
        with tempfile.TemporaryDirectory() as folder:
            BANK = Path(folder) / "bank.jsonl"
            story(given.store or f"sqlite:///{folder}/runs.db", given.model)
