"""The OpenAPI document of the API, which is committed: whoever changes a route sees what it changes
for others. ``python -m nano_vm.server.document`` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path

DOCUMENT = Path(__file__).with_name("openapi.json")


def main() -> None:
    """Write it."""
    from ..store.protocol import open_tables
    from .app import application
    from .state import State

    store = open_tables("sqlite://")
    document = application(State(store, b"no key is made here")).openapi()
    store.close()
    DOCUMENT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
