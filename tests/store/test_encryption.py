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
    ],
)
def test_what_is_no_key_is_refused(keys: list[str], text: str) -> None:
    with pytest.raises(VMError, match=text):
        StoreKeys(keys)


def test_a_file_of_keys_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VMError, match=r"cannot read the keys of the store, .*none: No such file"):
        StoreKeys.from_environment({KEY_FILE: str(tmp_path / "none")})
