import re
from collections.abc import AsyncIterator, Iterator

import pytest

from crdt.child import ChildFailed
from crdt.compactor import CompactionFailed
from crdt.errors import BadUpdate, CrdtError, ProtocolError
from jobs.errors import (
    BadImage,
    IllegalTransition,
    IntentRefused,
    JobsError,
    PlaceLost,
    QueueAway,
    RunBusy,
    WriteRefused,
)
from providers.errors import ImageMakingError, ProviderError
from server.errors import DoorError
from server.problems import TABLE
from tests.server.api import Api, fields

INSIDE = (
    ProtocolError,
    BadUpdate,
    ChildFailed,
    CompactionFailed,
    IllegalTransition,
    IntentRefused,
    WriteRefused,
    RunBusy,
    BadImage,
    QueueAway,
    PlaceLost,
    ProviderError,
)
"""Errors that no request can meet: of websockets, of work in the background, of intents, and of attempts at work."""


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    children = kind.__subclasses__()
    if not children:
        yield kind
    for child in children:
        yield from leaves(child)


@pytest.mark.parametrize("root", [CrdtError, JobsError, ImageMakingError, DoorError])
def test_every_error_that_a_request_can_meet_has_a_status(root: type[Exception]) -> None:
    unmapped = [kind for kind in leaves(root) if not issubclass(kind, INSIDE) and not set(kind.__mro__) & set(TABLE)]
    assert unmapped == []


async def test_a_problem_is_told_as_rfc_9457_has_it(api: Api) -> None:
    reply = await api.get("/api/workflows/none", x_request_id="my-id.7")
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["x-request-id"] == "my-id.7"
    assert reply.json() == {
        "type": "https://darkroom.dev/problems/workflow-not-found",
        "title": "Workflow not found",
        "status": 404,
        "detail": "there is no workflow 'none'",
        "requestId": "my-id.7",
        "errors": [{"field": "workflowId", "message": "there is no workflow 'none'"}],
    }


async def test_a_request_without_a_good_id_gets_one(api: Api) -> None:
    ids = {(await api.get("/health", x_request_id=given)).headers["x-request-id"] for given in ("a b", "x" * 99, "")}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", given) for given in ids)


async def test_an_address_that_is_none_is_a_problem(api: Api) -> None:
    for path in ("/api/none", "/api/workflows/a/b/c", "/none/at/all", "/none.txt"):
        reply = await api.get(path)
        assert (reply.status_code, reply.json()["title"]) == (404, "Not found")


async def test_a_wrong_method_is_answered_with_the_right_ones(api: Api) -> None:
    reply = await api.client.put("/api/workflows")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "GET, HEAD, POST"
    assert "GET, HEAD, POST" in reply.json()["detail"]


@pytest.mark.parametrize(
    ("content", "content_type", "status", "field"),
    [
        (b"{", "application/json", 400, "body"),
        (b"\xff", "application/json", 400, "body"),
        (b'{"x": NaN}', "application/json", 400, "body"),
        (b"[" * 100_000, "application/json", 400, "body"),
        (b"{}", "text/plain", 415, "Content-Type"),
        (b"{}", "", 415, "Content-Type"),
        (b"[]", "application/json", 422, ""),
        (b'"x"', "application/json; charset=utf-8", 422, ""),
        (b" " * (1024 * 1024 + 1), "application/json", 413, "body"),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    api: Api, content: bytes, content_type: str, status: int, field: str
) -> None:
    reply = await api.client.post("/api/workflows", content=content, headers={"content-type": content_type})
    assert (reply.status_code, fields(reply)) == (status, [field])


async def test_a_body_that_does_not_tell_its_length_is_cut_off(api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 65_536

    reply = await api.client.post("/api/workflows", content=endless(), headers={"content-type": "application/json"})
    assert reply.status_code == 413


async def test_an_error_nobody_foresaw_tells_nothing_of_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("inner secret")

    monkeypatch.setattr(api.services.catalog, "list_workflows", broken)
    reply = await api.get("/api/workflows")
    assert reply.status_code == 500
    assert "inner secret" not in reply.text
    assert reply.json()["requestId"] == reply.headers["x-request-id"]
    assert "request_failed" in [getattr(record, "action", None) for record in caplog.records]


async def test_a_database_that_does_not_answer_is_unavailable(api: Api) -> None:
    async with api.services.engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE runs RENAME TO gone")
    reply = await api.get("/api/images/jobs/x")
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "2"
    assert "gone" not in reply.text
