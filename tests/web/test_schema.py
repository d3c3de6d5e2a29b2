"""Whatever is sent to the API, it answers as its own description says, and never with an error of its own."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from tests.web.conftest import House, Serve, app_of, sign_in
from tests.web.world import ask

EXAMPLES = 12
"""Of each request, valid and invalid ones each."""


@pytest.fixture
def unhurried(house: House, serve: Serve) -> TestClient:
    """The owner's client at a server that never says to slow down."""
    ask(house.store, house.pictures, overlap=5)
    return serve(requests_per_second=1e9, request_burst=1e9, joins_per_minute=1e9)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
def test_any_request_gets_an_answer_that_the_description_allows(house: House, unhurried: TestClient, mode: GenerationMode) -> None:
    schema: Any = schemathesis.openapi.from_dict(app_of(unhurried).openapi())
    checks: Any = HealthCheck
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 14
    for operation in operations:
        if mode == GenerationMode.NEGATIVE and not (operation.body or operation.path_parameters or operation.query):
            continue  # nothing that could be wrong
        sign_in(unhurried, house)  # the operation before may have been signing out

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(checks),
        )
        def send(case: schemathesis.Case[Any]) -> None:
            reply = unhurried.request(**request_of(case))
            assert reply.status_code < 500, (case, reply.text)
            assert str(reply.status_code) in case.operation.definition.raw["responses"], (case, reply.status_code, reply.text)

        send()


def request_of(case: schemathesis.Case[Any]) -> dict[str, Any]:
    """The case as a call of the test client."""
    sent = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
    kept = {"method": "method", "url": "url", "params": "params", "json": "json", "data": "content", "headers": "headers"}
    return {name: sent[key] for key, name in kept.items() if sent.get(key) is not None}
