"""No base64 in any table, whatever a client or a maker sends: pictures are thrown at every door, then all is read."""

import base64
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Map, Text
from sqlalchemy.ext.asyncio import AsyncEngine

from crdt import canvas
from crdt.tables import metadata
from crdt.values import REMOVED, holds_picture_bytes, without_data_urls
from jobs.doors import for_table
from providers.base import Accepted, Finished, ImageResult
from providers.errors import ErrorClass, ProviderError
from server.parts import Parts
from server.settings import read_settings
from tests.jobs.builders import FakeProvider, finished, png
from tests.server.api import Api, fields, node
from tests.server.conftest import running

importlib.import_module("server.tables")

BYTES = base64.b64encode(png(200, 160)).decode()
URL = f"data:image/png;base64,{BYTES}"
SENTENCE = f"The model answered with {URL} instead."
THROWN = (URL, f"  {URL}", SENTENCE, BYTES, f"b64_json={BYTES}", URL.upper().replace(BYTES.upper(), BYTES))
EVERYWHERE: dict[str, Any] = {
    "whole": URL, "inside": SENTENCE, "bare": BYTES, "deep": [{"x": [URL]}], URL: "as a key", "prompt": "a fox"
}  # fmt: skip


def texts(table: sa.Table) -> list[sa.Column[Any]]:
    return [column for column in table.columns if isinstance(column.type, sa.String | sa.Text | sa.JSON)]


async def stored(engine: AsyncEngine) -> tuple[list[str], int]:
    """Where the picture's bytes are, among all texts and JSON of all tables, and how many values were looked at."""
    found, looked = [], 0
    async with engine.connect() as connection:
        for table in metadata.sorted_tables:
            columns = texts(table)
            for row in await connection.execute(sa.select(*columns)) if columns else ():
                for column, value in zip(columns, row, strict=True):
                    looked += value is not None
                    if BYTES[:24] in str(value) or ";base64," in str(value).lower():
                        found.append(f"{table.name}.{column.name}: {str(value)[:200]}")
    return found, looked


async def thrown_by_http(api: Api) -> str:
    """Every door of HTTP; what is refused says which field."""
    nodes = [{**node("n1", **EVERYWHERE), "type": "image", "style": {"background": URL}}, node("n2", prompt="a hare")]
    edges = [{"id": "e", "source": "n1", "target": "n2", "label": SENTENCE, "data": EVERYWHERE}]
    reply = await api.post("/api/workflows", {"title": f"A {URL}"[:200], "nodes": nodes, "edges": edges})
    assert reply.status_code == 201, reply.text
    workflow_id = str(reply.json()["id"])
    await api.patch(f"/api/workflows/{workflow_id}", {"title": URL[:200]})
    await api.patch(f"/api/workflows/{workflow_id}/nodes/n2", {"data": {**EVERYWHERE, "prompt": "a hare"}})
    bad_id = await api.post(f"/api/workflows/{workflow_id}/nodes", node(URL[:250]))
    assert bad_id.status_code == 422
    path = f"/api/workflows/{workflow_id}/nodes/n1/runs"
    for name in ("basePrompt", "negativePrompt", "previousImage", "quality"):
        for thrown in THROWN:
            reply = await api.post(path, {"promptSpec": {"basePrompt": "a fox", name: thrown}})
            assert (reply.status_code, fields(reply)) == (422, [f"promptSpec.{name}"])
    reply = await api.post(path, {"webhookUrl": f"https://receiver.example/?{URL}"[:2048]})
    assert (reply.status_code, fields(reply)) == (422, ["webhookUrl"])
    assert (await api.post(path, idempotency_key=URL[:199])).status_code == 422
    return workflow_id


async def thrown_by_document(api: Api, workflow_id: str) -> None:
    """What a peer may write into the document: there is no door but the way to SQL."""
    async with api.services.rooms.use(workflow_id) as room:
        with room.transact() as doc:
            nodes = canvas.nodes_of(doc)
            nodes["peer"] = Map({"id": "peer", "type": URL[:60], "position": {"x": 0, "y": 0}, "data": Map(EVERYWHERE)})
            nodes["peer"]["data"]["prompt"] = Text(SENTENCE)
            nodes[URL[:200]] = Map({"position": {"x": 0, "y": 0}, "data": Map({})})
            nodes["plain"] = {"position": {"x": 1, "y": 1}, "data": EVERYWHERE}
            canvas.meta_of(doc)["title"] = SENTENCE
        await api.services.rooms.flush(workflow_id)
    # The same by an intent: its prompt is picture data, so it is refused.
    reply = await api.post(f"/api/workflows/{workflow_id}/nodes/peer/runs")
    assert (reply.status_code, fields(reply)) == (422, ["data.prompt"])


async def thrown_by_makers(api: Api, provider: FakeProvider, workflow_id: str) -> list[dict[str, Any]]:
    """Every text that a maker's answer may hold."""
    answers = (
        ProviderError(SENTENCE, ErrorClass.PERMANENT, vendor_code=URL[:60], vendor_message=URL),
        Finished((ImageResult(None, url=URL),), None),
        finished(adapted=(SENTENCE, BYTES)),
        Accepted(URL[:500], poll_after_s=0.05),
    )
    jobs = []
    for answer in answers:
        provider.answers, provider.polls = [answer], [ProviderError(SENTENCE, ErrorClass.PERMANENT)]
        body = {
            "provider": "fake",
            "metadata": {"note": SENTENCE, **EVERYWHERE},
            "by": {"id": URL[:99], "name": URL[:99]},
        }
        body |= {"webhookUrl": "https://receiver.example/hook"}
        jobs.append(await api.finished((await api.run(workflow_id, "n1", body))["jobId"]))
    return jobs


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_no_table_holds_picture_bytes_whatever_is_sent(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    provider = FakeProvider()
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, database_url=url)
    async with running(settings, tmp_path, Parts(providers=(provider,))) as api:
        workflow_id = await thrown_by_http(api)
        await thrown_by_document(api, workflow_id)
        jobs = await thrown_by_makers(api, provider, workflow_id)
        await api.services.rooms.flush(workflow_id)
        found, looked = await stored(api.services.engine)
        assert found == []
        numbers = (await api.get("/metrics")).text
    assert looked > 150
    assert [job["status"] for job in jobs] == ["failed", "failed", "completed", "failed"]
    assert jobs[0]["error"]["message"] == f"The model answered with {REMOVED} instead."
    assert 'darkroom_data_urls_refused_total{door="metadata"} 4.0' in numbers


@pytest.mark.parametrize("thrown", THROWN)
def test_a_delivery_is_kept_without_its_pictures(thrown: str) -> None:
    payload: dict[str, Any] = {"id": "d1", "output": [thrown], "nested": {"image": {"b64_json": thrown}}, thrown: 1}
    kept = for_table(payload)
    assert isinstance(kept, Mapping)
    assert kept["id"] == "d1"
    assert BYTES[:24] not in str(kept)
    assert holds_picture_bytes(payload)
    assert not holds_picture_bytes(kept)


@pytest.mark.parametrize(
    "text",
    [
        "a sentence that begins with data: it is none",
        "https://cdn.example/9j/4AAQSkZJRgABAQAAAQABAADbAIQAExQWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh.jpg",
        "the base64, and other codings",
        "iVBORw0KGgo is how a PNG begins",
        "f" * 4_000,
    ],
)
def test_what_is_no_picture_stays_as_it_is(text: str) -> None:
    assert without_data_urls(text) == text


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=200), st.lists, max_leaves=20))
def test_cleaning_twice_is_cleaning_once(value: Any) -> None:
    once = without_data_urls(value)
    assert without_data_urls(once) == once
