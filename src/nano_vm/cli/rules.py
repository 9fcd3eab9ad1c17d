"""What the command line lets programs do: policy, approved programs, budget, prices. Anything wrong
is a `UsageFault`, or a `ProgramError` with the faults of the policy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..diagnostics import Diagnostic
from ..errors import ProgramError
from ..language.policy import Budget, Policy, tightest
from ..language.reader import MAX_PROGRAM_BYTES
from ..values import parse_json
from .faults import UsageFault
from .inputs import text_of
from .stdin import STDIN


def load_policy(path: str | None) -> Policy | None:
    """The policy in a file.

    Raises:
        UsageFault: If it cannot be read.
        ProgramError: With every fault of it.
    """
    policy, faults = read_policy(path)
    if faults:
        raise ProgramError(faults)
    return policy


def read_policy(path: str | None) -> tuple[Policy | None, list[Diagnostic]]:
    """What can be read of the policy in a file, and what is wrong with it; see `Policy.readable`.

    Raises:
        UsageFault: If the file cannot be read.
    """
    if path is None:
        return None, []
    text = text_of(path, "--policy")
    if len(text) > MAX_PROGRAM_BYTES:
        raise UsageFault(f"--policy: {path} is too long to be a policy: {len(text):,} characters")
    return Policy.readable(text, file="<stdin>" if path == STDIN else path)


def read_budget(given: Sequence[str]) -> dict[str, Any] | None:
    """``max_tokens=1000`` and its kin."""
    from pydantic import ValidationError

    budget: dict[str, Any] = {}
    for entry in given:
        name, separator, text = entry.partition("=")
        if not separator or name not in Budget.model_fields:
            raise UsageFault(
                f"--budget takes name=number, not {entry!r}; names are "
                f"{', '.join(Budget.model_fields)}"
            )
        try:
            budget[name] = parse_json(text)
            Budget.model_validate({name: budget[name]})
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]["msg"]
            raise UsageFault(
                f"--budget {name}: {fault[0].lower()}{fault[1:]}, not {text}"
            ) from None
        except ValueError:
            raise UsageFault(f"--budget {name} takes a number, not {text!r}") from None
    return budget or None


def tighter(given: Mapping[str, Any] | None, host: Budget | None) -> Any:
    """The budget of a VM, of what the command line says and what the host file does."""
    if host is None:
        return given
    own = [Budget.model_validate(dict(given))] if given is not None else []
    return tightest([host, *own])


def read_prices(given: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """``model=input,output``, in dollars per million tokens."""
    prices = {}
    for entry in given:
        model, _, amounts = entry.rpartition("=")
        pair = amounts.split(",")
        if not model or len(pair) != 2:
            raise UsageFault(
                f"--price takes MODEL=INPUT,OUTPUT in dollars per million tokens, not {entry!r}"
            )
        prices[model] = (pair[0].strip(), pair[1].strip())
    return prices or None


_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def read_digests(given: Sequence[str]) -> list[str]:
    """Digests of programs, as `nano-vm plan` prints them."""
    for digest in given:
        if not _DIGEST.match(digest):
            raise UsageFault(
                f"--approve takes the digest of a program, 64 hexadecimal digits, not {digest!r}"
            )
    return list(given)
