"""docs/how-to/test-programs.md tells the truth: its tests pass as it prints, and it names every
field.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import find

from nano_vm.cli import main
from nano_vm.program_tests.document import Case, Document, Expected, ExpectedStep, PropertyCase

TEXT = find("test-programs.md").read_text(encoding="utf-8")


def test_its_files_give_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    files = re.findall(r'^```yaml title="(.*?)"\n(.*?)^```$', TEXT, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["refund.yaml", "refund.test.yaml"]
    for name, text in files:
        Path(name).write_text(text)
    (shown,) = re.findall(
        r"^```console\n\$ nano-vm test\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE
    )
    assert main(["test"]) == 0
    assert capsys.readouterr().out == shown


def test_it_names_every_field() -> None:
    named = set(re.findall(r"`(\w+)", TEXT))
    for part in (Document, Case, Expected, ExpectedStep, PropertyCase):
        assert set(part.model_fields) <= named, part.__name__
