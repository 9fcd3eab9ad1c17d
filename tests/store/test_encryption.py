"""Values that are encrypted where they lie: what the file holds, keys that are missing, changed and
replaced, and that everything else works as without.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program, VMError, tool
from nano_vm.cli import main
from nano_vm.errors import StoreError
from nano_vm.store.encryption import KEY_FILE, KEYS, MARK, StoreKeys
from nano_vm.store.kept import KeptAnswer
from nano_vm.store.protocol import open_store

SECRET = "zq-secret-zq"
FIRST, SECOND = "11" * 32, "22" * 32
PROGRAM = Program.from_dict(
    {
        "name": "p",
        "steps": [
            {"id": "a", "type": "tool", "tool": "echo", "args": {"text": "$iban"}},
            {
                "id": "b",
                "type": "tool",
                "tool": "broken",
                "args": {"text": "$iban"},
                "on_error": "skip",
            },
            {"id": "c", "type": "set", "values": {"x": "see $iban"}},
        ],
        "output": "$x",
    }
)


@tool(effect="write", inline=True)
def echo(text: str) -> str:
    return f"echo {text}"


@tool(effect="read", inline=True)
def broken(text: str) -> str:
    raise ValueError(f"no {text}")


def kept(file: Path, keys: StoreKeys | None, run_id: str = "r") -> Any:
    """A run that is stored there."""
    with open_store(f"sqlite:///{file}", keys=keys) as store:
        vm = ExecutionVM(tools={"echo": echo, "broken": broken}, store=store)
        return vm.run_sync(PROGRAM, {"iban": SECRET}, run_id=run_id)


def bytes_of(file: Path) -> bytes:
    return b"".join(part.read_bytes() for part in file.parent.glob(f"{file.name}*"))


def test_no_value_stands_in_the_file(tmp_path: Path) -> None:
    plain, sealed = tmp_path / "plain.db", tmp_path / "sealed.db"
    one, other = kept(plain, None), kept(sealed, StoreKeys([FIRST]))
    assert SECRET.encode() in bytes_of(plain)
    assert SECRET.encode() not in bytes_of(sealed)
    assert one.digest == other.digest
    with open_store(f"sqlite:///{sealed}", keys=StoreKeys([FIRST])) as store:
        run = store.load("r")
        assert run.inputs == {"iban": SECRET}
        assert run.output == f"see {SECRET}"
        assert store.check() == []


def test_what_is_encrypted_cannot_be_read_without_its_key(tmp_path: Path) -> None:
    file = tmp_path / "sealed.db"
    kept(file, StoreKeys([FIRST]))
    with (
        open_store(f"sqlite:///{file}") as store,
        pytest.raises(StoreError, match=f"its values are encrypted; set {KEYS} to 64"),
    ):
        store.load("r")
    other = open_store(f"sqlite:///{file}", keys=StoreKeys([SECOND]))
    with other, pytest.raises(StoreError, match="which is not among those that are given"):
        other.load("r")


def test_a_key_is_replaced_by_one_before_it(tmp_path: Path) -> None:
    file = tmp_path / "sealed.db"
    kept(file, StoreKeys([FIRST]), "r1")
    kept(file, StoreKeys([SECOND, FIRST]), "r2")
    with open_store(f"sqlite:///{file}", keys=StoreKeys([SECOND, FIRST])) as store:
        assert [store.load(name).inputs for name in ("r1", "r2")] == [{"iban": SECRET}] * 2
    with open_store(f"sqlite:///{file}", keys=StoreKeys([SECOND])) as store:
        assert store.load("r2").inputs == {"iban": SECRET}
        with pytest.raises(StoreError, match="is encrypted by the key"):
            store.load("r1")


def test_a_store_that_was_plain_goes_on_encrypted(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    kept(file, None, "r1")
    kept(file, StoreKeys([FIRST]), "r2")
    with open_store(f"sqlite:///{file}", keys=StoreKeys([FIRST])) as store:
        assert [store.load(name).inputs for name in ("r1", "r2")] == [{"iban": SECRET}] * 2


def test_equal_values_are_stored_once_and_erased_with_their_last_run(tmp_path: Path) -> None:
    file = tmp_path / "sealed.db"
    for name in ("r1", "r2"):
        kept(file, StoreKeys([FIRST]), name)
    with sqlite3.connect(file) as database:
        found = database.execute("SELECT body, refs FROM nano_contents").fetchall()
    sealed = [refs for body, refs in found if body[:1] == MARK]
    assert max(sealed) > 1
    with open_store(f"sqlite:///{file}", keys=StoreKeys([FIRST])) as store:
        store.erase("r1")
        assert store.load("r2").inputs == {"iban": SECRET}
        store.erase("r2")
        assert store.check() == []
    with sqlite3.connect(file) as database:
        left = database.execute("SELECT body FROM nano_contents").fetchall()
    opened = [StoreKeys([FIRST]).open(body, "here") for (body,) in left if body[:1] == MARK]
    assert not [body for body in opened if SECRET.encode() in body]


WAITING = Program.from_dict(
    {
        "name": "w",
        "steps": [
            {"id": "ask", "type": "approval", "role": "boss", "show": {"iban": "$iban"}},
            {"id": "hear", "type": "wait", "event": "paid", "match": {"order": "$order"}},
            {"id": "gate", "type": "approval", "role": "boss", "show": {"n": 1}},
        ],
        "output": "$hear.output",
    }
)


def granted(vm: ExecutionVM, run_id: str, reason: str) -> None:
    (entry,) = vm.waiting(run_id)
    vm.approve(run_id, entry["path"], shown=entry["shown"], by="anna", reason=reason)


async def said(file: Path, keys: StoreKeys | None, project: str = "default") -> None:
    """A run that a person and an event told something, and an event that no run has."""
    with open_store(f"sqlite:///{file}", keys=keys) as store:
        vm = ExecutionVM(tools={}, store=store)
        inputs = {"iban": SECRET, "order": "o1"}
        await vm.run(WAITING, inputs, run_id="r", labels={"team": "x"}, project=project)
        granted(vm, "r", f"I saw {SECRET}")
        await vm.resume("r")
        vm.send_event("r", "paid", {"order": "o1", "by": SECRET})
        vm.send_event("paid", {"order": "o2", "by": SECRET})


@pytest.mark.slow
@pytest.mark.parametrize("project", ["default", "eu"])
async def test_what_is_said_to_runs_is_encrypted_too(tmp_path: Path, project: str) -> None:
    plain, sealed = tmp_path / "plain.db", tmp_path / "sealed.db"
    keys = StoreKeys([FIRST, f"eu:{SECOND}"])
    await said(plain, None, project)
    await said(sealed, keys, project)
    assert bytes_of(plain).count(SECRET.encode()) > 4
    assert SECRET.encode() not in bytes_of(sealed)
    with open_store(f"sqlite:///{sealed}", keys=keys) as store:
        assert store.check() == []
        vm = ExecutionVM(tools={}, store=store)
        assert (await vm.resume("r")).waiting[0]["path"] == "gate"
        granted(vm, "r", "fine")
        assert (await vm.resume("r")).output == {"order": "o1", "by": SECRET}
        await vm.run(WAITING, {"iban": SECRET, "order": "o2"}, run_id="r2", project=project)
        granted(vm, "r2", "")
        await vm.resume("r2")
        assert (await vm.resume("r2")).waiting[0]["path"] == "gate"
        assert store.check() == []
    assert SECRET.encode() not in bytes_of(sealed)
    with open_store(f"sqlite:///{sealed}") as store:
        with pytest.raises(StoreError, match="its values are encrypted"):
            store.load("r", rows=False)
        assert "its values are encrypted" in "".join(store.check())


async def test_what_was_said_in_a_plain_store_is_read_with_keys(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    await said(file, None)
    with open_store(f"sqlite:///{file}", keys=StoreKeys([FIRST])) as store:
        again = await ExecutionVM(tools={}, store=store).resume("r")
        assert again.waiting[0]["path"] == "gate"
        assert store.check() == []


def test_the_runs_of_a_project_have_its_key(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    both = StoreKeys([FIRST, f"eu:{SECOND}"])
    for run_id, project in (("r1", "default"), ("r2", "eu"), ("r3", "us")):
        with open_store(f"sqlite:///{file}", keys=both) as store:
            vm = ExecutionVM(tools={"echo": echo, "broken": broken}, store=store)
            vm.run_sync(PROGRAM, {"iban": SECRET}, run_id=run_id, project=project)
    assert SECRET.encode() not in bytes_of(file)
    with open_store(f"sqlite:///{file}", keys=StoreKeys([FIRST])) as store:
        assert [store.load(run_id).inputs for run_id in ("r1", "r3")] == [{"iban": SECRET}] * 2
        with pytest.raises(StoreError, match="is encrypted by the key"):
            store.load("r2")
    replaced = StoreKeys([FIRST, f"eu:{'33' * 32}", f"eu:{SECOND}"])
    with open_store(f"sqlite:///{file}", keys=replaced) as store:
        assert store.load("r2").inputs == {"iban": SECRET}
        assert store.check() == []
        store.erase("r2")
        assert store.load("r1").inputs == {"iban": SECRET}
        assert store.check() == []


async def test_answers_that_are_kept_are_encrypted(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    answer = KeptAnswer("k", "r", f'"{SECRET}"', 5, 9)
    with open_store(f"sqlite:///{file}", keys=StoreKeys([FIRST])) as store:
        await store.keep(answer)
        assert await store.kept("k", 1) == answer.body
    assert SECRET.encode() not in bytes_of(file)
    with (
        open_store(f"sqlite:///{file}") as store,
        pytest.raises(StoreError, match="its values are encrypted"),
    ):
        await store.kept("k", 1)


def test_a_value_that_was_changed_is_found(tmp_path: Path) -> None:
    keys = StoreKeys([FIRST])
    sealed = keys.seal(b'"value"')
    assert keys.open(sealed, "here") == b'"value"'
    for at in range(1, len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(StoreError):
            keys.open(bytes(changed), "here")


def test_keys_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, keys = tmp_path / "runs.db", tmp_path / "keys"
    keys.write_text(f"{SECOND}\n{FIRST}\n")
    monkeypatch.setenv(KEYS, FIRST)
    kept(file, None)
    assert SECRET.encode() not in bytes_of(file)
    monkeypatch.delenv(KEYS)
    assert main(["show", "r", "--store", f"sqlite:///{file}"]) == 1
    assert "its values are encrypted; set NANO_VM_STORE_KEY" in capsys.readouterr().err
    monkeypatch.setenv(KEY_FILE, str(keys))
    assert main(["show", "r", "--store", f"sqlite:///{file}"]) == 0
    assert SECRET in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([], "there is no key; set NANO_VM_STORE_KEY to 64 hexadecimal digits"),
        (["abc"], "key 1 of the store is none; set"),
        ([FIRST, "11" * 31], "key 2 of the store is none; set"),
        ([FIRST, "zz" * 32], "key 2 of the store is none; set"),
        ([FIRST, f":{SECOND}"], "key 2 of the store is none; set"),
        ([f"eu:{FIRST}"], "there is no key for runs of any project; set"),
    ],
)
def test_what_is_no_key_is_refused(keys: list[str], text: str) -> None:
    with pytest.raises(VMError, match=text):
        StoreKeys(keys)


def test_a_file_of_keys_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VMError, match=r"cannot read the keys of the store, .*none: No such file"):
        StoreKeys.from_environment({KEY_FILE: str(tmp_path / "none")})
