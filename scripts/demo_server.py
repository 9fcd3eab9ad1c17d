"""A server to look at: a project with the refund that a manager approves, a run of it that waits, and
a worker on the small model of this machine. Prints the address and a login that is made for this time.

    make demo-server                    # or with ARGS="--model scripted:answers.yaml --port 8643"

Everything is in a temporary folder, which is gone at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import secrets
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from nano_vm import ExecutionVM, Program
from nano_vm.server import tables
from nano_vm.server.access import ANY_ROLE, approving
from nano_vm.server.rows import Rows
from nano_vm.server.secrets import hash_of_password, pepper_of
from nano_vm.server.serving import serve
from nano_vm.server.state import State
from nano_vm.store.protocol import open_tables

EXAMPLES = Path(__file__).parents[1] / "examples"
PROJECT = "shop"
PEOPLE: dict[str, tuple[str, list[str]]] = {
    "ada": ("admin", [ANY_ROLE]),
    "max": ("operator", ["manager"]),
    "vic": ("viewer", []),
}
MESSAGE = "The blender arrived broken, I want my money back"


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--model", default="local")
    parser.add_argument("--port", type=int, default=8642)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(proto=socket.IPPROTO_TCP) as listening,
    ):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", options.port))
        listening.listen()
        store = open_tables(f"sqlite:///{folder}/runs.db")
        vm = ExecutionVM(options.model, tools(Path(folder)), store=store)
        state = State(store, pepper_of(Path(folder) / "secret"), vm=vm)
        password = secrets.token_urlsafe(9)
        seed(state, vm, password)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/projects/{PROJECT}/", flush=True)
        print(f"log in as {', '.join(PEOPLE)} with the password {password}", flush=True)
        print("ada administers, max approves, vic looks on; Ctrl-C ends it", flush=True)
        serve(state, listening, concurrency=4)
        vm.close()


def seed(state: State, vm: ExecutionVM, password: str) -> None:
    """Make the project, its people and its program, and a run."""
    now, kept = time.time_ns(), hash_of_password(password)
    text = (EXAMPLES / "refund-approval.yaml").read_text(encoding="utf-8")
    program = Program.from_yaml(text)
    version = {
        "project": PROJECT,
        "name": program.name,
        "version": 1,
        "digest": program.digest,
        "source": text,
        "document": json.dumps(program.to_dict()),
        "put_by": "ada",
        "put_ns": now,
    }

    def job(rows: Rows) -> None:
        rows.run(sa.insert(tables.projects).values(name=PROJECT, settings="{}", created_ns=now))
        for name, (role, approves) in PEOPLE.items():
            account = {"name": name, "password": kept, "disabled": 0, "created_ns": now}
            rows.run(sa.insert(tables.users).values(owner=int(name == "ada"), **account))
            member = {"project": PROJECT, "user_name": name, "role": role}
            rows.run(sa.insert(tables.members).values(approves=approving(approves), **member))
        rows.run(sa.insert(tables.programs).values(**version))

    state.tables.write(job)
    state.setup_token = None
    inputs = {"order_id": "A-1001", "user_input": MESSAGE}
    state.store.create(vm.pending(program, inputs, project=PROJECT, submitter="vic"))


def tools(folder: Path) -> dict[str, Any]:
    """The tools of the example, whose file is no module's name; what its bank pays is noted in
    *folder*.
    """
    place = EXAMPLES / "refund-approval.py"
    spec = importlib.util.spec_from_file_location("refund_approval", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__dict__["BANK"] = folder / "bank.jsonl"
    names = ("get_order", "issue_refund", "find_refund", "answer_politely")
    return {name: getattr(module, name) for name in names}


if __name__ == "__main__":
    main()
