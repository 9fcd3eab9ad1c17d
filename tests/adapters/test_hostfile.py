"""Host files: models, pools, limits and prices in TOML, in Python and on the command line."""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, Program, VMError
from nano_vm.adapters.hostfile import read_host
from nano_vm.cli import main
from nano_vm.prices import price_table
from nano_vm.testing import ScriptedLLM

SCRIPTED = """\
default = "judge"

[models.fast]
model = "scripted:fast.yaml"
requests_per_minute = 60
tags = ["eu"]
price = [0.1, "0.4"]

[models.good]
model = "scripted:good.yaml"
tags = ["eu", "gold"]

[pools.judge]
members = ["fast", "good"]
strategy = "cascade"

[prices]
good = {input = 3, output = 15, cached = 0.3}

[budget]
max_cost_usd = 0.5
"""

PROGRAM = """\
steps:
  - {id: s, type: llm, prompt: "Well?", allowed_outputs: [yes, no], max_tokens: 10}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "fast.yaml").write_text("s: perhaps")
    (tmp_path / "good.yaml").write_text("s: yes")
    (tmp_path / "p.yaml").write_text(PROGRAM)
    (tmp_path / "nano-vm.toml").write_text(SCRIPTED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_the_file_to_the_trace(folder: Path) -> None:
    trace = ExecutionVM("nano-vm.toml").run_sync(Program.from_file("p.yaml"))
    step = trace.steps[0]
    assert step.output == "yes"
    assert [a["member"] for a in step.extra["route"]["attempts"]] == ["fast", "good"]
    assert trace.total_cost_usd() is not None
    assert trace.about["prices"] == {
        "fast": ["0.1", "0.4"],
        "good": ["3", "15", "0.3", "3"],
    }


def test_what_it_says(folder: Path) -> None:
    host = read_host("nano-vm.toml")
    assert list(host.models) == ["judge", "fast", "good"]
    pool = host.models["judge"]
    assert (pool.strategy, pool.tags) == ("cascade", {"eu"})
    assert pool.members[0] is host.models["fast"].members[0], "a model has its limits once"
    assert host.budget is not None
    assert host.budget.max_cost_usd == 0.5
    assert pool.members[0].price == (Decimal("0.1"), Decimal("0.4"))


@pytest.mark.slow
def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "p.yaml"]) == 0
    assert "yes" in capsys.readouterr().out
    assert main(["check", "p.yaml"]) == 0
    assert "not checked" not in capsys.readouterr().out
    (folder / "nano-vm.toml").rename(folder / "other.toml")
    assert main(["run", "p.yaml"]) == 1
    capsys.readouterr()
    assert (
        main(["run", "p.yaml", "--host", "other.toml", "--model", "good=scripted:fast.yaml"]) == 1
    )
    assert "perhaps" in capsys.readouterr().err
    assert main(["run", "p.yaml", "--host", "other.toml", "--answer", "s=no"]) == 0


def test_keys_are_named_and_never_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[models.m]\nmodel = "openai/gpt-5-mini"\nkey_env = "MY_KEY"\n'
    Path("nano-vm.toml").write_text(text)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(VMError, match=r"models\.m\.key_env: MY_KEY is not set"):
        read_host("nano-vm.toml")
    assert main(["run", "p.yaml"]) == 2
    assert "MY_KEY is not set in the environment" in capsys.readouterr().err
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    adapter = read_host("nano-vm.toml").models["m"].members[0].adapter.adapter
    assert adapter._key() == "sk-very-secret"
    assert "secret" not in repr(adapter)


@pytest.mark.slow
def test_prices_of_the_table(folder: Path) -> None:
    Path("nano-vm.toml").write_text(
        'price_source = "genai-prices"\n'
        '[models.a]\nmodel = "openai/gpt-4o-mini"\n'
        '[models.b]\nmodel = "openai/no-such-model"\n'
    )
    models = read_host("nano-vm.toml").models
    price = models["a"].members[0].price
    assert price is not None
    assert price[0] > 0
    assert models["b"].members[0].price is None, "unknown, and not zero"
    prepared = ExecutionVM(models).preparer.prepare(Program.from_file("p.yaml"))
    (source,) = prepared.terms.to_dict()["price_sources"].items()
    assert source == ("a", f"genai-prices {version('genai-prices')}")


def test_where_prices_come_from() -> None:
    table = price_table(["gpt-4o-mini", "mine"], {"mine": (1, 2)})
    program = Program.from_yaml(PROGRAM)
    prepared = ExecutionVM(ScriptedLLM(["yes"]), prices=table).preparer.prepare(program)
    told = prepared.terms.to_dict()["price_sources"]
    assert told == {"gpt-4o-mini": f"genai-prices {version('genai-prices')}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "not TOML"),
        ("", "models: there is none"),
        ('[models.a]\nmodl = "x"', "models.a.modl: unknown field; did you mean 'model'?"),
        ("[models.a]\n", "models.a.model: it is missing"),
        ('[models.a]\nmodel = "nowhere/x"', "models.a: unknown model 'nowhere/x'"),
        ('[models.a]\nmodel = "scripted:none.yaml"', "models.a: "),
        ('[models.a]\nmodel = "scripted:fast.yaml"\nconcurrency = 0', "models.a.concurrency: "),
        ('[models.a]\nmodel = "scripted:fast.yaml"\nprice = [1]', "models.a: the price of 'a'"),
        ('default = "b"\n[models.a]\nmodel = "scripted:fast.yaml"', "default: there is no model"),
        (
            '[models.fast]\nmodel = "scripted:fast.yaml"\n[pools.p]\nmembers = ["fats"]',
            "pools.p.members[0]: there is no model 'fats'; did you mean 'fast'?",
        ),
        (
            '[models.a]\nmodel = "scripted:fast.yaml"\n[pools.p]\nmembers = []',
            "pools.p.members: ",
        ),
        (
            '[models.a]\nmodel = "scripted:fast.yaml"\n[pools.p]\nmembers = ["q"]\n'
            '[pools.q]\nmembers = ["p"]',
            "pools.p.members[0]: it has the pool 'q' in it",
        ),
        (
            '[models.a]\nmodel = "scripted:fast.yaml"\n[pools.a]\nmembers = ["a"]',
            "pools.a: a model has this name, too",
        ),
        (
            '[models.a]\nmodel = "scripted:fast.yaml"\n[pools.p]\nmembers = ["a"]\n'
            'require = ["eu"]',
            "pools.p: pool 'p': no member has the tags",
        ),
        (
            '[models.a]\nmodel = "scripted:fast.yaml"\n[pools.p]\nmembers = ["a"]\n'
            'strategy = "best"',
            "pools.p.strategy: ",
        ),
        (
            '[models.a]\nmodel = "scripted:fast.yaml"\n[budget]\nmax_dollars = 1',
            "budget: unknown field 'max_dollars'",
        ),
    ],
)
def test_faults_have_their_place(folder: Path, text: str, message: str) -> None:
    Path("nano-vm.toml").write_text(text)
    with pytest.raises(VMError) as caught:
        read_host("nano-vm.toml")
    assert str(caught.value).startswith(f"nano-vm.toml: {message}"), str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VMError, match="No such file"):
        read_host(tmp_path / "none.toml")
    given: Any = str(tmp_path / "none.toml")
    with pytest.raises(VMError, match="No such file"):
        ExecutionVM(given)
