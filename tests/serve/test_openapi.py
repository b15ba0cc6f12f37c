"""The server against its own OpenAPI document: whatever schemathesis thinks of, no 5xx and no other shape."""

from __future__ import annotations

import json
import os
import urllib.request

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")
positive_data_acceptance = pytest.importorskip("schemathesis.specs.openapi.checks").positive_data_acceptance

EXAMPLES = int(os.environ.get("PICOLLM_TEST_EXAMPLES", "8"))


PATHS = {
    "/v1/chat/completions": "POST",
    "/v1/completions": "POST",
    "/v1/models": "GET",
    "/v1/models/{name}": "GET",
    "/tokenize": "POST",
    "/render": "POST",
    "/health": "GET",
    "/metrics": "GET",
    "/": "GET",
}


@pytest.fixture(scope="module")
def document(server):
    with urllib.request.urlopen(f"{server.url}/openapi.json") as response:
        found = schemathesis.openapi.from_dict(json.load(response))
    found.config.update(base_url=server.url)
    return found


def test_every_path_is_documented(document) -> None:
    assert set(document) == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_as_documented(document, path: str) -> None:
    @given(case=document[path][PATHS[path]].as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    def check(case) -> None:
        # What a conversation may be (who follows whom, how long) is more than a schema can say.
        case.call_and_validate(timeout=60, excluded_checks=[positive_data_acceptance])

    check()
