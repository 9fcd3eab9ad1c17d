"""Where tools are, by what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from nano_vm.adapters.hostfile import beside
from nano_vm.tools.named import parts_of, tools_file


@pytest.mark.parametrize(
    ("spec", "source", "name", "file"),
    [
        ("tools.py:tools", "tools.py", "tools", "tools.py"),
        ("tools.py", "tools.py", "", "tools.py"),
        ("a/b/tools.py:Host.tools", "a/b/tools.py", "Host.tools", "a/b/tools.py"),
        (r"C:\work\tools.py", r"C:\work\tools.py", "", r"C:\work\tools.py"),
        (r"C:\work\tools.py:tools", r"C:\work\tools.py", "tools", r"C:\work\tools.py"),
        ("package.tools:tools", "package.tools", "tools", None),
        ("package.tools", "package.tools", "", None),
        ("tools.py:1x", "tools.py:1x", "", None),
        (":tools", ":tools", "", None),
        ("", "", "", None),
    ],
)
def test_a_spec_is_a_file_or_a_module_and_an_object_in_it(
    spec: str, source: str, name: str, file: str | None
) -> None:
    assert parts_of(spec) == (source, name)
    assert tools_file(spec) == file


def test_a_file_is_beside_the_file_that_names_it_and_a_module_is_not() -> None:
    folder = Path("project") / "inner"
    assert beside(folder, "tools.py:tools") == str(folder / "tools.py:tools")
    assert beside(folder, "package.tools:tools") == "package.tools:tools"
