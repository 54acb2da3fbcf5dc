"""A request that is refused names the field, says what to do, and writes nothing."""

import http.client
import json
from typing import Any

import pytest

from jobs.tables import run_events, runs
from tests.support.api import canvas_api
from tests.support.server import ServerProcess

GENERATE = "/api/images/generate"
RUNS = "/api/workflows/{workflow}/nodes/n1/runs"
GOOD = {"nodeId": "n1", "workflowId": "{workflow}", "promptSpec": {"basePrompt": "a fox"}}


async def rows_written(server: ServerProcess) -> int:
    return await server.count(runs) + await server.count(run_events)


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        (RUNS, {}, 422, "promptSpec.basePrompt"),
        (RUNS, {"promptSpec": {"basePrompt": "  "}}, 422, "promptSpec.basePrompt"),
        (RUNS, {"promptSpec": {"basePrompt": 5}}, 422, "promptSpec.basePrompt"),
        (RUNS, {"promptSpec": {"basePrompt": "x", "size": "huge"}}, 422, "promptSpec.size"),
        (RUNS, {"promptSpec": {"basePrompt": "x", "n": 0}}, 422, "promptSpec.n"),
        (RUNS, {"promptSpec": {"basePrompt": "x"}, "provider": "nobody"}, 422, "provider"),
        (RUNS, {"promptSpec": {"basePrompt": "x"}, "model": "gpt-image-0"}, 422, "model"),
        (RUNS, {"promptSpec": {"basePrompt": "x"}, "after": 7}, 422, "after"),
        (RUNS, {"promptSpec": {"basePrompt": "x"}, "colour": "red"}, 422, "colour"),
        ("/api/workflows/{workflow}/nodes/nowhere/runs", {"promptSpec": {"basePrompt": "x"}}, 404, "nodeId"),
        ("/api/workflows/nowhere/nodes/n1/runs", {"promptSpec": {"basePrompt": "x"}}, 404, "workflowId"),
        (GENERATE, {**GOOD, "nodeId": "nowhere"}, 404, "nodeId"),
        (GENERATE, {"promptSpec": {"basePrompt": "x"}, "nodeId": "n1"}, 422, "workflowId"),
        (GENERATE, {"requests": [GOOD, {**GOOD, "nodeId": "nowhere"}]}, 404, "requests.1.nodeId"),
        (GENERATE, {"requests": []}, 422, "requests"),
        (
            GENERATE,
            {**GOOD, "promptSpec": {"basePrompt": "x", "previousImage": "file:///etc/passwd"}},
            422,
            "promptSpec",
        ),
    ],
)
async def test_the_field_is_named(shared_server: ServerProcess, path: str, body: Any, status: int, field: str) -> None:
    async with canvas_api(shared_server.url) as api:
        await api.add_node(id="n1", type="image", data={})
        before = await rows_written(shared_server)
        filled = json.loads(json.dumps(body).replace("{workflow}", api.workflow_id))
        answer = await api.client.post(path.format(workflow=api.workflow_id), json=filled)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert any(error["field"].startswith(field) for error in problem["errors"]), problem
        assert problem["requestId"] == answer.headers["x-request-id"]
        assert await rows_written(shared_server) == before


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{bad", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b"a=b", "application/x-www-form-urlencoded", 415),
    ],
)
async def test_a_body_that_is_no_json_object_is_told_so(
    shared_server: ServerProcess, content: bytes, content_type: str, status: int
) -> None:
    async with canvas_api(shared_server.url) as api:
        answer = await api.client.post(GENERATE, content=content, headers={"content-type": content_type})
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]


def test_a_client_that_sends_ten_megabytes_reads_why_it_was_refused(shared_server: ServerProcess) -> None:
    """A client that sends all before it reads: cut off in the middle, it would only see a reset."""
    connection = http.client.HTTPConnection("127.0.0.1", shared_server.port, timeout=20)
    connection.request("POST", GENERATE, body=b" " * 10_000_000, headers={"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 413
    assert "8" in json.loads(answer.read())["detail"]
    connection.close()
