"""The seal of stored runs, signatures and receipts: what they cover, and that what was changed is
found and not gone on with.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from damage import full_after
from patience import HANGS_SECONDS
from postgres import url_of

from nano_vm import ExecutionVM, Program, VMError, tool
from nano_vm.records.status import StepStatus
from nano_vm.replay import subject_of, verify
from nano_vm.store import signing
from nano_vm.store.protocol import open_store
from nano_vm.store.records import INTENT, STEP, Message, Row, StoredRun
from nano_vm.store.seals import seal_of, signed, signed_message
from nano_vm.store.signing import KeyFault, SigningKey, holds, public_key
from nano_vm.store.sql.cells import row_crc
from nano_vm.store.sql.schema import ROW_CELLS

PAY = Program.from_dict(
    {
        "name": "pay",
        "steps": [
            {"id": "order", "type": "tool", "tool": "order", "args": {"n": "$n"}},
            {"id": "ask", "type": "approval", "role": "boss", "show": {"n": "$n"}},
            {"id": "pay", "type": "tool", "tool": "pay", "args": {"n": "$order.output"}},
        ],
    }
)
KEY, OTHER = SigningKey.generate(), SigningKey.generate()


@tool(effect="read")
def order(n: int) -> int:
    return n


class Till:
    """What was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def pay(self, n: int) -> str:
        self.paid.append(n)
        return f"paid {n}"


@pytest.fixture
def till() -> Till:
    return Till()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture(params=("file", "postgres"))
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


def vm_at(url: str, till: Till, key: SigningKey | None = None, **options: Any) -> ExecutionVM:
    return ExecutionVM(
        tools={"order": order, "pay": till.pay}, store=url, signing_key=key, **options
    )


def paused(url: str, till: Till, run_id: str = "r", key: SigningKey | None = None) -> None:
    """A run that waits for its approval."""
    vm = vm_at(url, till, key)
    assert vm.run_sync(PAY, {"n": 3}, run_id=run_id).status.value == "suspended"
    vm.close()


def approve(url: str, till: Till, run_id: str = "r", key: SigningKey | None = None) -> None:
    vm = vm_at(url, till, key)
    (request,) = vm.waiting(run_id)
    vm.approve(run_id, request["path"], shown=request["shown"], by="ann")
    vm.close()


def resumed(
    url: str, till: Till, run_id: str = "r", key: SigningKey | None = None, **options: Any
) -> Any:
    vm = vm_at(url, till, key, **options)
    try:
        return asyncio.run(vm.resume(run_id))
    finally:
        vm.close()


def paid(url: str, till: Till, run_id: str = "r", key: SigningKey | None = None) -> None:
    """A run that has ended."""
    paused(url, till, run_id, key)
    approve(url, till, run_id, key)
    assert resumed(url, till, run_id, key).status.value == "success"


def problems(url: str, **options: Any) -> list[str]:
    with open_store(url) as store:  # type: ignore[attr-defined]
        return store.check(**options)  # type: ignore[no-any-return]


def edit(url: str, statement: str, *values: Any) -> int:
    """As somebody with the database open would."""
    with sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None) as connection:
        changed = connection.execute(statement, values).rowcount
        for run, seq, *cells, _ in connection.execute(
            f"SELECT run, seq, {', '.join(ROW_CELLS)}, crc FROM nano_rows"
        ).fetchall():
            crc = row_crc(run, seq, tuple(cells))
            connection.execute(
                "UPDATE nano_rows SET crc = ? WHERE run = ? AND seq = ?", (crc, run, seq)
            )
    connection.close()
    return changed


def remade(url: str, run_id: str, key: SigningKey | None = None) -> None:
    """Make the seal of a run anew, as its owner does: nothing that is not secret keeps anybody from
    it.
    """
    with open_store(url) as store:  # type: ignore[attr-defined]
        run = store.load(run_id)
        run.seal = seal_of(run)
        signature = signed(run.seal, key) if key is not None else run.signature
    edit(
        url,
        "UPDATE nano_runs SET seal = ?, signature = ? WHERE run_id = ?",
        run.seal,
        signature,
        run_id,
    )


# --- the seal -------------------------------------------------------------------------------------


def test_a_run_has_a_seal_that_fits_from_its_beginning(any_url: str, till: Till) -> None:
    vm = vm_at(any_url, till)
    asyncio.run(vm.submit(PAY, {"n": 3}, run_id="r"))
    seals = [vm.store.load("r").seal]  # type: ignore[union-attr]
    assert seals == [seal_of(vm.store.load("r"))]  # type: ignore[union-attr]
    seen: list[tuple[str, bool]] = []

    def look(n: int) -> str:
        run = vm.store.load("r")  # type: ignore[union-attr]
        seen.append((run.status, run.seal == seal_of(run)))
        return "paid"

    vm.register_tool("pay", look)
    asyncio.run(vm.resume("r"))
    assert problems(any_url) == []
    (request,) = vm.waiting("r")
    vm.approve("r", "ask", shown=request["shown"], by="ann")
    assert problems(any_url) == []
    asyncio.run(vm.resume("r"))
    vm.close()
    assert seen == [("running", True)]
    assert problems(any_url) == []


@pytest.mark.slow
def test_who_claims_a_run_and_dies_leaves_a_seal_that_holds(any_url: str, till: Till) -> None:
    for state in ("pending", "suspended"):
        vm = vm_at(any_url, till)
        if state == "pending":
            asyncio.run(vm.submit(PAY, {"n": 3}, run_id=state))
        else:
            vm.run_sync(PAY, {"n": 3}, run_id=state)
        assert vm.store is not None
        assert vm.store.claim([state], "somebody", 77)
        assert vm.store.load(state).status == "running"
        vm.close()
        assert problems(any_url) == []
        assert resumed(any_url, till, state).status.value == "suspended"


CHANGES = {
    "a row's output": (
        "UPDATE nano_rows SET output = CAST('4' AS BLOB) WHERE path = 'order' AND output IS NOT "
        "NULL",
        (),
    ),
    "a row's time": ("UPDATE nano_rows SET started_ns = started_ns - 1 WHERE seq = 0", ()),
    "what an approval shows": (
        "UPDATE nano_runs SET waiting = replace(waiting, 'boss', 'bose')",
        (),
    ),
    "when it is due": ("UPDATE nano_runs SET wake_ns = 5", ()),
    "its status": ("UPDATE nano_runs SET status = 'pending'", ()),
    "its cost": ("UPDATE nano_runs SET cost_usd = '0.01'", ()),
    "its tokens": ("UPDATE nano_runs SET tokens = 7", ()),
    "its steps": ("UPDATE nano_runs SET steps = 9", ()),
    "when it began": ("UPDATE nano_runs SET started_ns = started_ns + 1", ()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_unfinished_run_that_was_changed_is_found_and_not_gone_on_with(
    url: str, till: Till, what: str
) -> None:
    paused(url, till)
    with open_store(url) as store:  # type: ignore[attr-defined]
        if what == "what an approval shows":  # so short that it stands in its cell
            waiting = json.dumps([{"path": "ask", "kind": "approval", "role": "x"}]).encode()
            edit(url, "UPDATE nano_runs SET waiting = ?", waiting[:])
        else:
            assert edit(url, CHANGES[what][0])
    approve(url, till) if what not in ("its status", "what an approval shows") else None
    assert any("its seal does not fit its records" in problem for problem in problems(url)), what
    with open_store(url) as store:  # type: ignore[attr-defined]
        assert not verify(subject_of("r", store=store))
    with pytest.raises(
        VMError, match="'r' is not resumed: its seal does not fit its records: they were changed"
    ):
        resumed(url, till)
    assert till.paid == []
    assert any("its seal does not fit its records" in problem for problem in problems(url)), (
        "and that is kept"
    )


# --- signatures -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_signed_and_was_remade_is_found_by_the_key(url: str, till: Till) -> None:
    paid(url, till, "a", KEY)
    paid(url, till, "b", KEY)
    assert problems(url) == problems(url, keys=[KEY.public]) == []
    assert edit(url, "UPDATE nano_runs SET tokens = 3 WHERE run_id = 'a'")
    remade(url, "a")
    edit(
        url,
        "UPDATE nano_receipts SET seal = (SELECT seal FROM nano_runs WHERE run_id = 'a') WHERE "
        "run_id = 'a'",
    )
    found = "\n".join(problems(url))
    assert "run 'a': its signature does not fit its seal" in found
    assert "receipt 1 (run 'a'): its hash does not fit" in found
    edit(url, "UPDATE nano_runs SET signature = NULL")
    edit(url, "UPDATE nano_receipts SET signature = NULL")
    found = "\n".join(problems(url, keys=[KEY.public]))
    assert "run 'a': it is not signed" in found
    assert "receipt 1 (run 'a'): it is not signed" in found
    with open_store(url) as store:  # type: ignore[attr-defined]
        assert not verify(subject_of("a", store=store), keys=[KEY.public])
    remade(url, "a", OTHER)
    assert f"run 'a': it is signed by another key: {OTHER.public}" in problems(
        url, keys=[KEY.public]
    )


@pytest.mark.parametrize(
    ("key", "trusted", "why"),
    [
        (None, (), "it is not signed, as this process demands"),
        (OTHER, (), f"it is signed by the key {OTHER.public}, which this process does not trust"),
        (OTHER, (OTHER.public,), None),
        (KEY, (), None),
    ],
)
def test_a_process_with_a_key_goes_on_with_what_it_trusts(
    url: str, till: Till, key: SigningKey | None, trusted: tuple[str, ...], why: str | None
) -> None:
    paused(url, till, key=key)
    approve(url, till, key=key)
    if why is None:
        assert resumed(url, till, key=KEY, trusted_keys=trusted).status.value == "success"
        return
    with pytest.raises(VMError, match=f"'r' is not resumed: {why}"):
        resumed(url, till, key=KEY, trusted_keys=trusted)
    assert till.paid == []
    assert resumed(url, till, key=key).status.value == "success", "and others still may"


def test_a_remade_row_of_a_signed_unfinished_run_is_not_gone_on_with(url: str, till: Till) -> None:
    paused(url, till, key=KEY)
    approve(url, till, key=KEY)
    assert edit(
        url,
        "UPDATE nano_rows SET output = CAST('4000' AS BLOB) WHERE path = 'order' AND output IS "
        "NOT NULL",
    )
    remade(url, "r")
    assert problems(url) == ["run 'r': its signature does not fit its seal: it was changed"]
    with pytest.raises(
        VMError, match="its signature does not fit its seal: it was changed in the database"
    ):
        resumed(url, till, key=KEY)
    assert till.paid == []


@pytest.mark.slow
def test_an_approval_that_nobody_trusted_has_signed_is_not_used(
    url: str, till: Till, caplog: pytest.LogCaptureFixture
) -> None:
    paused(url, till, key=KEY)
    approve(url, till)
    with caplog.at_level(logging.WARNING):
        assert resumed(url, till, key=KEY).status.value == "suspended"
    assert (
        "run r: 'approve' by 'ann' is not signed by a key that this process trusts, and is not used"
        in caplog.text
    )
    assert till.paid == []
    with open_store(url) as store:  # type: ignore[attr-defined]
        message = replace(store.load("r").inbox[0], by="boss")
        assert store.claimable(0, 9) == {}, "and no worker looks at it again and again"
    # one that was signed for another run, or by somebody else
    for run_id, key in (("other", KEY), ("r", OTHER)):
        signature = signed_message(run_id, message, key)
        edit(
            url,
            "INSERT INTO nano_inbox (run, kind, message, signature, used) VALUES (1, 'approve', "
            "?, ?, 0)",
            message.content(),
            signature,
        )
        assert resumed(url, till, key=KEY).status.value == "suspended"
    edit(
        url,
        "INSERT INTO nano_inbox (run, kind, message, signature, used) VALUES (1, 'approve', ?, ?, "
        "0)",
        message.content(),
        signed_message("r", message, KEY),
    )
    assert resumed(url, till, key=KEY).status.value == "success"


def test_a_submitted_run_may_be_unsigned(url: str, till: Till) -> None:
    vm = vm_at(url, till)
    asyncio.run(vm.submit(PAY, {"n": 3}, run_id="r"))
    vm.close()
    assert resumed(url, till, key=KEY).status.value == "suspended"
    with open_store(url) as store:  # type: ignore[attr-defined]
        assert verify(subject_of("r", store=store), keys=[KEY.public])


# --- receipts -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_was_taken_away_is_missed(url: str, till: Till) -> None:
    for name in "abc":
        paid(url, till, name, KEY)
    with open_store(url) as store:  # type: ignore[attr-defined]
        head = store.head()
        assert [r.entry.kind for r in store.receipts("b")] == ["ended"]
    key = 2

    def delete(name: str) -> None:
        for table, column in (("nano_rows", "run"), ("nano_inbox", "run"), ("nano_runs", "key")):
            edit(url, f"DELETE FROM {table} WHERE {column} = {key}")

    delete("b")
    found = "\n".join(problems(url))
    assert (
        "run 'b' has a receipt and is not there: it was taken away, and not by 'store prune'"
        in found
    )
    edit(url, "DELETE FROM nano_receipts WHERE number = 2")
    found = "\n".join(problems(url))
    assert (
        "receipt 3 (run 'c') follows a receipt that is not there: it was taken away or changed"
        in found
    )
    # linked anew: only the signatures tell
    with open_store(url) as store, store.database.writing() as connection:  # type: ignore[attr-defined]
        from nano_vm.store.sql.receipts import receipts

        first, last = (receipt for receipt, _ in receipts(connection))
        made = replace(last, previous=first.hash)
        connection.run(
            "UPDATE nano_receipts SET previous = ?, hash = ? WHERE number = 3",
            first.hash,
            made.hash,
        )
        connection.run("UPDATE nano_tips SET hash = ?", made.hash)
    found = "\n".join(problems(url))
    assert "receipt 3 (run 'c'): its signature does not fit" in found
    assert head is not None
    assert any(
        "the receipt 3 that was kept is not there" in problem
        for problem in problems(url, head=head)
    )


@pytest.mark.slow
def test_the_newest_receipts_are_missed_by_who_kept_a_head(url: str, till: Till) -> None:
    for name in "ab":
        paid(url, till, name, KEY)
    with open_store(url) as store:  # type: ignore[attr-defined]
        head = store.head()
        assert store.check(head=head) == []
    paid(url, till, "c", KEY)
    assert problems(url, head=head) == []
    with open_store(url) as store:  # type: ignore[attr-defined]
        (first,) = store.receipts("a")
    for number in (2, 3):
        for table, column in (
            ("nano_rows", "run"),
            ("nano_inbox", "run"),
            ("nano_runs", "key"),
            ("nano_receipts", "number"),
        ):
            edit(url, f"DELETE FROM {table} WHERE {column} = {number}")
    edit(url, "UPDATE nano_tips SET hash = ?", first.hash)
    assert [p for p in problems(url, keys=[KEY.public], head=head) if "receipt" in p] == [
        "the receipt 2 that was kept is not there: receipts were taken away, or this is an older "
        "copy"
    ]


@pytest.mark.slow
def test_erasure_and_pruning_leave_receipts_and_are_no_alarm(any_url: str, till: Till) -> None:
    for name in "abc":
        paid(any_url, till, name, KEY)
    with open_store(any_url, signing_key=KEY) as store:  # type: ignore[attr-defined]
        seal = store.load("a").seal
        assert store.erase("a")
        erased = store.load("a")
        assert erased.seal == seal == seal_of(erased)
        assert store.check(keys=[KEY.public]) == []
        assert verify(subject_of("a", store=store), keys=[KEY.public])
        store.prune(erased.finished_ns + 1)
        assert store.check(keys=[KEY.public]) == []
        assert [(r.entry.kind, r.entry.seal) for r in store.receipts("a")] == [
            (k, seal) for k in ("ended", "erased", "deleted")
        ]
        store.prune(2**62)
        assert store.check(keys=[KEY.public]) == []
    paid(any_url, till, "a", KEY)
    assert problems(any_url, keys=[KEY.public]) == [], "an id may be used again"


def test_an_ended_run_that_is_set_back_is_found(url: str, till: Till) -> None:
    paused(url, till, key=KEY)
    path = Path(url.removeprefix("sqlite:///"))
    with sqlite3.connect(path) as connection:
        columns = (
            "status, finished_ns, output, error, error_kind, waiting, wake_ns, seal, "
            "signature, row_count, steps"
        )
        before = connection.execute(f"SELECT {columns} FROM nano_runs").fetchone()
    connection.close()
    approve(url, till, key=KEY)
    assert resumed(url, till, key=KEY).status.value == "success"
    edit(url, f"UPDATE nano_runs SET ({columns}) = ({', '.join('?' * len(before))})", *before)
    edit(url, "DELETE FROM nano_rows WHERE seq >= ?", before[-2])
    edit(url, "DELETE FROM nano_inbox")
    found = "\n".join(problems(url, keys=[KEY.public]))
    assert "run 'r' has a receipt, so it has ended, and it is said to be suspended" in found


@pytest.mark.slow
async def test_runs_that_end_at_once_in_several_processes_have_one_list(any_url: str) -> None:
    program = Program.from_dict(
        {"name": "one", "steps": [{"id": "a", "type": "set", "values": {"x": 1}}]}
    )
    vms = [ExecutionVM(store=any_url, signing_key=KEY) for _ in range(3)]
    for vm in vms:
        await asyncio.gather(*(vm.run(program) for _ in range(20)))
    await asyncio.gather(*(vm.run(program) for vm in vms for _ in range(20)))
    for vm in vms:
        vm.close()
    with open_store(any_url) as store:  # type: ignore[attr-defined]
        assert store.check(keys=[KEY.public]) == []
        assert store.signers()[0][:2] == (KEY.public, 120)


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_is_written_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    KEY.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path).public == SigningKey.load(str(path)).public == KEY.public
    assert public_key(str(path)) == public_key(KEY.public.upper()) == KEY.public
    with pytest.raises(FileExistsError):
        OTHER.write(path)


def test_a_key_for_which_there_is_no_room_leaves_no_part_of_one(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with full_after(20), pytest.raises(OSError, match="File too large"):
        KEY.write(path)
    assert not path.exists()
    KEY.write(path)


def test_a_key_of_which_the_writing_is_interrupted_leaves_no_part_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(io.FileIO):
        def write(self, content: Any) -> int:
            super().write(content[:20])
            raise KeyboardInterrupt

    path = tmp_path / "key.pem"
    with monkeypatch.context() as patch:
        patch.setattr(signing, "open", Interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt):
            KEY.write(path)
    assert not path.exists()
    KEY.write(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (b"x" * 20_000, "too long"),
    ],
)
def test_what_is_no_key(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(KeyFault, match=why):
        SigningKey.load(path)
    with pytest.raises(KeyFault, match="cannot read the key"):
        SigningKey.load(tmp_path / "none")
    with pytest.raises(KeyFault):
        public_key("abc")


def test_a_key_of_another_kind_is_told(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    other = generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with pytest.raises(KeyFault, match="Ed25519 is needed"):
        SigningKey.load(other)
    hidden = KEY._private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    with pytest.raises(KeyFault, match="is encrypted"):
        SigningKey.load(hidden)


def test_a_signature_is_of_one_purpose() -> None:
    signature = KEY.sign("seal", b"x")
    assert holds(signature, "seal", b"x")
    assert not holds(signature, "receipt", b"x")
    assert not holds(signature, "seal", b"y")
    for broken in (
        signature[:-2],
        signature.replace(":", ""),
        "",
        f"{OTHER.public}:{signature.partition(':')[2]}",
        "x:y",
    ):
        assert not holds(broken, "seal", b"x")


@pytest.mark.slow
def test_without_the_library_seals_are_verified_and_keys_name_their_extra(
    url: str, till: Till
) -> None:
    paid(url, till)
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from nano_vm import ExecutionVM; from nano_vm.errors import MissingExtra; from "
        "nano_vm.store.protocol import open_store\n"
        f"assert open_store({url!r}).check() == []\n"
        "try: ExecutionVM(signing_key=b'x')\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a signature needs an extra: pip install 'llm-nano-vm[sign]'\n"


# --- the command line -----------------------------------------------------------------------------


class Shell:
    """`nano-vm` in a folder of its own, with a program, its tools and a store."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        from nano_vm.cli import main

        got = main(list(arguments))
        out, err = self.capsys.readouterr()
        assert got == code, (arguments, got, out, err)
        return out + err


@pytest.fixture
def sh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANO_VM_STORE", "sqlite:///runs.db")
    monkeypatch.delenv("NANO_VM_SIGNING_KEY", raising=False)
    Path("pay.json").write_text(json.dumps(PAY.to_dict()))
    Path("till.py").write_text(
        "def order(n): return n\ndef pay(n): return f'paid {n}'\ntools = {'order': order, 'pay': "
        "pay}\n"
    )
    return Shell(capsys)


@pytest.mark.slow
def test_the_way_of_a_signed_run_on_the_command_line(
    sh: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = sh("keys", "make", "key.pem").strip()
    assert sh("keys", "show", "key.pem").strip() == public
    assert "is there already, and a key is not overwritten" in sh("keys", "make", "key.pem", code=2)
    tools = ("--tools", "till.py:tools")
    signed_ = ("--signing-key", "key.pem")
    sh(
        "run",
        "pay.json",
        *tools,
        *signed_,
        "-i",
        "n:=3",
        "--run-id",
        "r",
        "--trace",
        "r.json",
        code=3,
    )
    shown = json.loads(sh("show", "r", "--json"))["waiting"][0]["shown"]
    sh("approve", "r", "ask", "--shown", shown, "--by", "ann", *signed_)
    monkeypatch.setenv("NANO_VM_SIGNING_KEY", "key.pem")
    sh("resume", "r", *tools)
    assert f"signature: ok: signed by {public}" in sh("verify", "r", "--key", public)
    assert f"signature: ok: signed by {public}" in sh(
        "verify", "r.json", "--program", "pay.json", "--key", "key.pem"
    )
    sh("store", "export", "r", "-o", "r.jsonl")
    sh("verify", "r.jsonl", "--key", public)
    other = sh("keys", "make", "other.pem").strip()
    assert f"signature: WRONG: it is signed by another key: {public}" in sh(
        "verify", "r.jsonl", "--key", other, code=1
    )
    assert f"run 'r': it is signed by another key: {public}" in sh(
        "store", "check", "--key", other, code=1
    )
    head = sh("store", "head").strip()
    assert sh("store", "check", "--key", public, "--head", head) == "no problem was found\n"
    assert sh("keys", "list").startswith(f"{public}       1 receipt  ")
    sh("run", "pay.json", *tools, "-i", "n:=3", "--run-id", "s", code=3)
    monkeypatch.setenv("NANO_VM_SIGNING_KEY", "other.pem")
    assert f"it is signed by the key {public}, which this process does not trust" in sh(
        "resume", "s", *tools, code=1
    )
    sh("resume", "s", *tools, "--trust", public, code=3)
    sh("store", "prune", "--older-than", "0s")
    assert "it was deleted by 'store prune' (receipt 2," in sh("show", "r", code=1)
    sh("store", "check")


def test_a_trace_that_was_remade_is_found_by_its_signature(till: Till) -> None:
    from nano_vm import Trace

    vm = ExecutionVM(tools={"order": order, "pay": till.pay}, signing_key=KEY)
    one = Program.from_dict(
        {
            "name": "one",
            "steps": [{"id": "order", "type": "tool", "tool": "order", "args": {"n": 3}}],
        }
    )
    trace = vm.run_sync(one)
    assert trace.signature is not None
    data = json.loads(trace.to_json())
    assert Trace.from_dict(data).to_dict() == trace.to_dict() == data
    assert verify(subject_of(Trace.from_dict(data), one), keys=[KEY.public])
    data["records"][-1]["finished_ns"] += 1
    other = Trace.from_dict(data | {"seal": _seal_of_lines(data)})
    assert verify(subject_of(trace, one))
    assert not verify(subject_of(other, one))
    assert not verify(subject_of(other, one), keys=[KEY.public])


def _seal_of_lines(data: dict[str, Any]) -> str:
    from nano_vm.records.trace import Trace, recording_of

    return Trace(recording_of(data)).seal


@pytest.mark.parametrize("command", [("verify", "r"), ("store", "check")])
def test_a_key_that_is_none_is_refused_at_once(sh: Shell, command: tuple[str, ...]) -> None:
    sh("run", "pay.json", "--tools", "till.py:tools", "-i", "n:=3", "--run-id", "r", code=3)
    assert "cannot read the key nonsense" in sh(*command, "--key", "nonsense", code=2)
    assert "--signing-key: cannot read the key none.pem" in sh(
        "run", "pay.json", "--tools", "till.py:tools", "--signing-key", "none.pem", code=2
    )
    assert "takes what 'store head' prints" in sh("store", "check", "--head", "7", code=2)


@pytest.mark.slow
async def test_a_live_run_is_cancelled_only_by_who_is_trusted(url: str, till: Till) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tool(effect="read")
    async def order(n: int) -> int:
        begun.set()
        await asyncio.wait_for(go_on.wait(), HANGS_SECONDS)
        return n

    one = Program.from_dict(
        {
            "name": "one",
            "steps": [{"id": "order", "type": "tool", "tool": "order", "args": {"n": "$n"}}],
        }
    )
    for key, status in ((None, "success"), (KEY, "cancelled")):
        begun.clear()
        go_on.clear()
        vm = ExecutionVM(tools={"order": order}, store=url, signing_key=KEY)
        run = vm.start(one, {"n": 3}, run_id=status)
        await begun.wait()
        (journal,) = vm._durable.journals
        with open_store(url, signing_key=key) as store:  # type: ignore[attr-defined]
            store.send(status, Message("cancel", "", {}, "ann", 5))
        async with asyncio.timeout(HANGS_SECONDS):
            while not journal.heard.messages:  # noqa: ASYNC110 - it is told by nothing else
                await asyncio.sleep(0.02)
        go_on.set()
        assert (await run.result()).status.value == status
        vm.close()


def test_the_form_of_a_seal_stays_so_that_runs_of_stores_and_exports_made_before_still_hold() -> (
    None
):
    done = StepStatus.SUCCESS
    run = StoredRun(
        "r", "p", "d" * 64, 1_000, {"program": {"name": "p"}}, {"x": "é"}, {"options": {}}, 7
    )
    run.salt, run.status, run.started_ns, run.steps = b"salt", "suspended", 2_000, 1
    run.waiting = [{"kind": "event", "path": "w"}]
    run.rows = [
        Row(INTENT, "", "a", "tool", None, 2_001),
        Row(
            STEP, "", "a", "tool", done, 2_001, 2_002, {"x": [1, None, True]}, "out", {"lost": [1]}
        ),
        Row(INTENT, "", "w", "wait", None, 2_003, rest={"owner": "o"}),
    ]
    run.decided = [Message("event", "e", {"payload": 1}, None, 2_004, 1)]
    assert seal_of(run) == "2cea63666703a18bbed990244343f2aab69e3affe932992c0683e8682e75b08e"
