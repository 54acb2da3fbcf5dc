import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.access import EVERYONE
from server.errors import TooManyStreams
from server.routes.canvas_events import stream
from server.routes.events import Lease
from server.settings import read_settings
from server.streams import Streams
from tests.server.api import Api, fields, node
from tests.server.conftest import running


async def events(api: Api, workflow_id: str, after: str = "") -> tuple[list[dict[str, Any]], str]:
    reply = await api.get(f"/api/workflows/{workflow_id}/events" + (f"?after={after}" if after else ""))
    assert reply.status_code == 200, reply.text
    return reply.json()["events"], reply.json()["next"]


def opened(api: Api, workflow_id: str, cursor: str | None = None) -> AsyncIterator[str]:
    services = api.services
    place = services.timeline.now() if cursor is None else services.timeline.parse(cursor)
    return stream(services, workflow_id, place, Lease(services, api.app.state.access, EVERYONE))


async def told(lines: AsyncIterator[str], count: int) -> list[tuple[str, dict[str, Any]]]:
    """Id and content of the next events."""
    found: list[tuple[str, dict[str, Any]]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            parts = dict(part.split(": ", 1) for part in (await anext(lines)).strip().splitlines())
            if "data" in parts:
                found.append((parts["id"], json.loads(parts["data"])))
    return found


async def test_the_events_of_all_jobs_of_a_canvas_are_listed_and_read_on(api: Api) -> None:
    workflow_id = await api.workflow(node("a", prompt="a fox"), node("b", prompt="a hare"))
    first = await api.finished((await api.run(workflow_id, "a"))["jobId"])
    listed, place = await events(api, workflow_id)
    assert {(event["jobId"], event["nodeId"]) for event in listed} == {(first["jobId"], "a")}
    assert [event["seq"] for event in listed] == list(range(1, first["seq"] + 1))
    assert (listed[0]["status"], listed[-1]["status"]) == ("pending", "completed")
    assert listed[-1]["imageUrl"] == first["imageUrl"]
    second = await api.finished((await api.run(workflow_id, "b"))["jobId"])
    more, place = await events(api, workflow_id, place)
    assert [(event["jobId"], event["seq"]) for event in more] == [
        (second["jobId"], seq) for seq in range(1, second["seq"] + 1)
    ]
    assert (await events(api, workflow_id, place))[0] == []


async def test_a_list_may_be_read_one_by_one(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    numbers: list[int] = []
    after = ""
    while True:
        page = (await api.get(f"/api/workflows/{workflow_id}/events?limit=1&after={after}")).json()
        if not page["events"]:
            break
        numbers, after = [*numbers, page["events"][0]["seq"]], page["next"]
    assert numbers == list(range(1, job["seq"] + 1))


async def test_a_stream_tells_what_comes_and_another_goes_on_from_any_of_its_ids(api: Api) -> None:
    workflow_id = await api.workflow(node("a", prompt="a fox"), node("b", prompt="a hare"))
    await api.finished((await api.run(workflow_id, "a"))["jobId"])
    lines = opened(api, workflow_id)
    assert "id: " in await anext(lines)
    job = await api.finished((await api.run(workflow_id, "b"))["jobId"])
    seen = await told(lines, job["seq"])
    assert [(event["nodeId"], event["seq"]) for _, event in seen] == [("b", seq) for seq in range(1, job["seq"] + 1)]
    for number, (place, _) in enumerate(seen[:-1], 1):
        rest = await told(opened(api, workflow_id, place), job["seq"] - number)
        assert rest[0][1] == seen[number][1]


async def test_a_stream_goes_on_after_a_restart_where_it_was_cut_off(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0)
    async with running(settings, tmp_path) as api:
        workflow_id = await api.workflow(node("a", prompt="a fox"), node("b", prompt="a hare"))
        lines = opened(api, workflow_id)
        head = await anext(lines)
        job = await api.run(workflow_id, "a")
        ((place, event),) = await told(lines, 1)
        assert (event["kind"], event["seq"]) == ("requested", 1)
        await api.finished(job["jobId"])
    async with running(settings, tmp_path) as api:
        total = (await api.get(f"/api/images/jobs/{job['jobId']}")).json()["seq"]
        rest = await told(opened(api, workflow_id, place), total - 1)
        assert [event["seq"] for _, event in rest] == list(range(2, total + 1))
        # The very first line named a place too.
        whole = await told(opened(api, workflow_id, head.split("id: ")[1].strip()), total)
        assert [event["seq"] for _, event in whole] == list(range(1, total + 1))


async def test_a_place_that_is_none_and_a_canvas_that_is_none_are_told(api: Api) -> None:
    workflow_id, _ = await api.canvas()
    path = f"/api/workflows/{workflow_id}/events"
    reply = await api.get(f"{path}?after=nonsense")
    assert (reply.status_code, fields(reply)) == (422, ["after"])
    reply = await api.get(path, last_event_id="nonsense", accept="text/event-stream")
    assert (reply.status_code, fields(reply)) == (422, ["Last-Event-ID"])
    assert (await api.get("/api/workflows/none/events")).status_code == 404


async def test_too_many_streams_are_refused_with_when_to_come_back(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.run(workflow_id, node_id)
    object.__setattr__(api.services, "streams", Streams(limit=0))
    for path in (f"/api/workflows/{workflow_id}/events", f"/api/images/jobs/{job['jobId']}/events?after=0"):
        reply = await api.get(path, accept="text/event-stream")
        if reply.status_code != 204:
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")


def test_streams_are_counted_by_canvas_and_together() -> None:
    streams = Streams(limit=3, of_canvas=2)
    with streams.opened("a"), streams.opened("a"):
        with pytest.raises(TooManyStreams):
            streams.check("a")
        with streams.opened("b"), pytest.raises(TooManyStreams):
            streams.check("c")
        streams.check("b")
    assert streams.count == 0
