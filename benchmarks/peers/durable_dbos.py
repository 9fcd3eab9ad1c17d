"""DBOS: an async workflow of async steps over its SQLite system database, as it opens it: a
rollback journal at ``synchronous=FULL``.

A step is stored once it has ended, in a transaction of its own.
"""

from __future__ import annotations

import asyncio

from dbos import DBOS, DBOSConfig
from durable_peer import STEPS, folder, serve

config: DBOSConfig = {
    "name": "durable",
    "system_database_url": f"sqlite:///{folder() / 'dbos.sqlite'}",
    "run_admin_server": False,
    "log_level": "ERROR",
}
DBOS(config=config)


@DBOS.step()
async def noop(x: str) -> str:
    return x


@DBOS.workflow()
async def program(x: str) -> str:
    for _ in range(STEPS):
        x = await noop(x)
    return x


async def main() -> None:
    await serve(program)


DBOS.launch()
try:
    asyncio.run(main())
finally:
    DBOS.destroy()
