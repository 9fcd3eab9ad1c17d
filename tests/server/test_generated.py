"""The whole API by its own document: requests as it describes them and others, made by
schemathesis. No answer is an error of ours, or one that the document does not declare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings

from nano_vm.server.document import DOCUMENT

from .conftest import HOST, World, world_at

SHOP = "/api/v1/projects/shop"

EXAMPLES = 5
"""Requests of each kind to each operation: some 1000 in half a minute."""

LONGEST_QUERY = 20_000
"""Longer ones the test client itself refuses."""

ENDS_SESSIONS = {"logout", "logout_everywhere"}

TOLD = json.loads(DOCUMENT.read_text(encoding="utf-8"))

OPERATIONS = {
    operation["operationId"]: (path, operation)
    for path, of_methods in TOLD["paths"].items()
    for operation in of_methods.values()
}


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    """The same, as schemathesis has them: it takes half a second to import."""
    from schemathesis import openapi

    found = openapi.from_dict(TOLD).get_all_operations()
    return {one.ok().definition.raw["operationId"]: one.ok() for one in found}


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server of its own: what is tried leaves much behind."""
    made = world_at(f"sqlite:///{tmp_path_factory.mktemp('generated')}/runs.db")
    made.start(run_id="known")
    assert made.operator.post(f"{SHOP}/runs/known/cancel").is_success
    made.work()  # so that it has ended, and who follows it comes to an end
    yield made
    made.state.store.close()


def known(path: str) -> dict[str, str]:
    """What stands in the address of something that is there."""
    there = {"project": "shop", "run_id": "known", "a": "known", "b": "known", "version": "1"}
    there["name"] = "viewer" if "/members/" in path else "refund"
    return {name: value for name, value in there.items() if f"{{{name}}}" in path}


def can_be_wrong(operation: dict[str, Any]) -> bool:
    """Whether there are requests that the document rules out: any string is a string."""
    parameters = operation.get("parameters", ())
    asked = [found["schema"] for found in parameters if found["in"] == "query"]
    return "requestBody" in operation or any(found.get("type") != "string" for found in asked)


def ways(path: str, operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    address = known(path)
    yield "positive", {}
    if address:
        yield "positive", address
    if can_be_wrong(operation):
        yield "negative", address


TRIED = [
    (name, *way)
    for name, operation in sorted(OPERATIONS.items())
    if name not in ENDS_SESSIONS
    for way in ways(*operation)
]


@pytest.mark.parametrize(
    ("name", "mode", "address"),
    TRIED,
    ids=[f"{name}-{mode}-{'there' if there else 'anywhere'}" for name, mode, there in TRIED],
)
def test_every_answer_is_declared(
    tried: World, operations: dict[str, Any], name: str, mode: str, address: dict[str, str]
) -> None:
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    expected = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    known = {"path_parameters": address} if address else {}

    @given(case=operations[name].as_strategy(generation_mode=GenerationMode(mode), **known))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def attempt(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url=HOST)
        sent.pop("cookies")  # the session's are the client's
        content = sent.pop("data", None)
        assume(len(str(sent.get("params"))) < LONGEST_QUERY)
        answer = tried.owner.request(**sent, content=content, follow_redirects=False)
        if answer.status_code == 501:
            pytest.skip("the pages are not built: make ui (wants npm)")
        case.validate_response(answer, checks=expected)

    attempt()
