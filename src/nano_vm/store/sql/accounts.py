"""Accounts of shared budgets in the tables of a store. Each function is part of a transaction that
takes no lock before, but for `charge`, which comes after the runs that it charges for; accounts are
locked in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..accounts import Amount, Reservation, Shortage, Standing, shortage
from .database import Connection, marks

_ACCOUNTS = (
    "SELECT account, calls, tokens, picodollars, held_calls, held_tokens, held_picodollars "
    "FROM nano_accounts"
)
_HOLD = (
    "UPDATE nano_accounts SET held_calls = held_calls + ?, held_tokens = held_tokens + ?, "
    "held_picodollars = held_picodollars + ? WHERE account = ?"
)
_SETTLE = (
    "UPDATE nano_accounts SET calls = calls + ?, tokens = tokens + ?, picodollars = picodollars "
    "+ ?, held_calls = held_calls - ?, held_tokens = held_tokens - ?, "
    "held_picodollars = held_picodollars - ? WHERE account = ?"
)


def reserve(connection: Connection, reservation: Reservation) -> Shortage | None:
    """See `KeepsBudgets.reserve`; one that was made before, whose answer was lost, is not made
    again.
    """
    if connection.one("SELECT 1 FROM nano_reserved WHERE id = ?", reservation.id) is not None:
        return None
    keys = sorted({account.key for account in reservation.accounts})
    connection.many(
        "INSERT INTO nano_accounts VALUES (?, 0, 0, 0, 0, 0, 0) ON CONFLICT (account) DO NOTHING",
        [(key,) for key in keys],
    )
    lock = connection.database.dialect.for_update
    rows = connection.all(
        f"{_ACCOUNTS} WHERE account IN ({marks(keys)}) ORDER BY account{lock}", *keys
    )
    found = shortage(reservation, dict(map(_standing, rows)))
    if found is None:
        connection.many(_HOLD, [(*reservation.amount, key) for key in keys])
        connection.many(
            "INSERT INTO nano_reserved (id, account, run_id, calls, tokens, picodollars) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            [(reservation.id, key, reservation.run_id, *reservation.amount) for key in keys],
        )
    return found


def settle(connection: Connection, id: str, used: Amount | None) -> None:
    """See `KeepsBudgets.settle`."""
    rows = connection.all(
        "DELETE FROM nano_reserved WHERE id = ? RETURNING account, calls, tokens, picodollars", id
    )
    _settled(connection, rows, used)


def charge(connection: Connection, run_ids: Sequence[str]) -> None:
    """Settle what is open of runs by what was reserved: their calls were lost."""
    text = (
        "DELETE FROM nano_reserved WHERE run_id IN (*) "
        "RETURNING account, calls, tokens, picodollars"
    )
    _settled(connection, connection.among(text, run_ids), None)


def _settled(connection: Connection, rows: Iterable[Any], used: Amount | None) -> None:
    connection.many(
        _SETTLE,
        [(*(used or reserved), *reserved, key) for key, *reserved in sorted(map(tuple, rows))],
    )


def accounts(connection: Connection) -> dict[str, Standing]:
    """See `KeepsBudgets.accounts`."""
    return dict(sorted(map(_standing, connection.all(_ACCOUNTS))))


def _standing(row: Any) -> tuple[str, Standing]:
    return str(row[0]), Standing(Amount(*map(int, row[1:4])), Amount(*map(int, row[4:])))
