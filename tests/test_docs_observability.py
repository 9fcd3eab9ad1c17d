"""observability.md tells the truth: its examples run and print what they say, and its tables
name what is there.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import page, printed
from prometheus_client import CollectorRegistry

from nano_vm.telemetry import names
from nano_vm.telemetry.prometheus import Prometheus

TEXT, EXAMPLES = page("observability.md")


@pytest.mark.slow
@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_its_examples_run(text: str, tmp_path: Path) -> None:
    told = printed(text, tmp_path)
    lines = [line for line in re.findall(r"^# (.*)$", text, re.M) if not line.startswith("...")]
    if lines:
        told = re.sub(r'"time": "[^"]+"', '"time": "..."', told)  # and others that change
        told = re.sub(r'"duration_ms": [\d.]+', '"duration_ms": ...', told)
        assert told == "".join(f"{line}\n" for line in lines)


def test_every_attribute_is_named() -> None:
    attributes = {
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and "." in value
    } | set(names.REQUEST_OPTIONS.values())
    events = {names.EXCEPTION_TYPE, names.EXCEPTION_MESSAGE, names.TOKEN_TYPE}
    assert {name for name in attributes - events if f"`{name}`" not in TEXT} == set()
    assert f"`{names.CAPTURE_CONTENT}=true`" in TEXT


def test_every_metric_is_named() -> None:
    registry = CollectorRegistry()
    Prometheus(registry)
    names_told = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in registry.collect()
    }
    assert len(names_told) > 9
    assert {name for name in names_told if f"| `{name}` |" not in TEXT} == set()
