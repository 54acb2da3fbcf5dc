"""Estimates, costs and budgets by HTTP, with a maker that is paid and one that is free."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers.base import Cost
from providers.errors import ErrorClass, ProviderError
from server.errors import BadSettings
from server.settings import read_settings
from server.wiring import Parts
from tests.jobs.builders import FakeProvider, finished, forever
from tests.server.api import Api, Reply, fields, node
from tests.server.conftest import running
from tests.server.tokens import SECRET, bearer, token

PAID = {"provider": "fake"}
"""A maker whose pictures cost $0.001 each."""


@pytest.fixture
def maker() -> FakeProvider:
    return FakeProvider([forever()])


@pytest.fixture
async def api(tmp_path: Path, maker: FakeProvider) -> AsyncIterator[Api]:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0)
    async with running(settings, tmp_path, Parts(providers=(maker,))) as api:
        yield api
        await api.post("/api/images/jobs/cancel", {})


async def put(api: Api, limit_usd: float, scope: str = "all", key: str = "", period: str = "day") -> Reply:
    body = {"scope": scope, "key": key, "period": period, "limitUsd": limit_usd}
    return await api.client.put("/api/budgets", json=body)


async def generate(api: Api, workflow_id: str, *names: str, **options: Any) -> Reply:
    requests = [{"workflowId": workflow_id, "nodeId": name, **PAID, **options} for name in names]
    return await api.post("/api/images/generate", requests[0] if len(requests) == 1 else {"requests": requests})


async def canvas(api: Api, count: int = 4) -> str:
    return await api.workflow(*(node(f"n{number}", prompt="a fox") for number in range(count)))


async def test_an_estimate_tells_prices_and_starts_nothing(api: Api) -> None:
    workflow_id = await canvas(api)
    one = {"workflowId": workflow_id, "nodeId": "n0", **PAID, "promptSpec": {"n": 3}}
    reply = await api.post("/api/images/estimate", one)
    price = {"provider": "fake", "model": "fake-1", "usd": 0.003, "asOf": None}
    assert reply.json() == {"estimateUsd": 0.003, "unknown": 0, "prices": [price]}
    free = {"workflowId": workflow_id, "nodeId": "n1", "provider": "demo"}
    both = (await api.post("/api/images/estimate", {"requests": [one, free]})).json()
    assert (both["estimateUsd"], [line["usd"] for line in both["prices"]]) == (0.003, [0.003, 0])
    wrong = await api.post("/api/images/estimate", {"requests": [one, {**free, "nodeId": "none"}]})
    assert (wrong.status_code, fields(wrong)) == (404, ["requests.1.nodeId"])
    assert (await api.get("/api/images/jobs")).json() == {"jobs": []}


async def test_a_budget_without_room_is_told_with_what_to_do(api: Api) -> None:
    workflow_id = await canvas(api)
    budget = (await put(api, 0.0025, "workflow", workflow_id)).json()
    assert (budget["limitUsd"], budget["leftUsd"], budget["spentUsd"]) == (0.0025, 0.0025, 0)
    for name in ("n0", "n1"):
        assert (await generate(api, workflow_id, name)).status_code == 202
    refused = await generate(api, workflow_id, "n2")
    problem = refused.json()
    assert (refused.status_code, problem["type"].rpartition("/")[2]) == (402, "budget-exceeded")
    assert problem["budget"] == {
        "scope": "workflow",
        "key": workflow_id,
        "period": "day",
        "limitUsd": 0.0025,
        "spentUsd": 0,
        "reservedUsd": 0.002,
        "askedUsd": 0.001,
    }
    for words in ("daily budget of this canvas", "$0.0025", "$0.002 reserved", "about $0.001", "cancel what waits"):
        assert words in problem["detail"]
    batch = await generate(api, workflow_id, "n2", "n3")
    assert (batch.status_code, batch.json()["detail"][:11]) == (402, "requests.0:")
    listed = (await api.get(f"/api/budgets?workflowId={workflow_id}")).json()["budgets"]
    assert [(line["reservedUsd"], line["leftUsd"]) for line in listed] == [(0.002, 0.0005)]
    assert (await generate(api, workflow_id, "n2", provider="demo")).status_code == 202
    named = f"scope=workflow&key={workflow_id}&period=day"
    assert (await api.delete(f"/api/budgets?{named}")).status_code == 204
    gone = await api.delete(f"/api/budgets?{named}")
    assert (gone.status_code, fields(gone)) == (404, ["key"])
    assert (await generate(api, workflow_id, "n3")).status_code == 202


async def test_a_budget_of_a_maker_without_room_turns_to_the_next(api: Api) -> None:
    workflow_id = await canvas(api)
    await put(api, 0.001, "provider", "fake", "total")
    reply = await generate(api, workflow_id, "n0", "n1", "n2", fallbacks=[{"provider": "demo"}])
    assert reply.status_code == 202, reply.text
    jobs = [(await api.get(f"/api/images/jobs/{job['jobId']}")).json() for job in reply.json()["jobs"]]
    assert [job["provider"] for job in jobs] == ["fake", "demo", "demo"]
    events = (await api.get(f"/api/images/jobs/{jobs[1]['jobId']}/events")).json()["events"]
    assert [event["kind"] for event in events[:2]] == ["requested", "fell_back"]
    assert events[1]["payload"]["error"]["code"] == "budget_exceeded"
    single = await generate(api, workflow_id, "n3", fallbacks=[{"provider": "demo"}])
    assert (await api.finished(single.json()["jobId"]))["provider"] == "demo"
    done = await api.finished(jobs[2]["jobId"])
    assert done["adapted"][0].startswith("Demo was asked instead: The budget of fake has no room for it")


async def test_what_was_spent_is_told_to_the_canvas_and_to_the_job(api: Api, maker: FakeProvider) -> None:
    lost = ProviderError("The line broke.", ErrorClass.PERMANENT, billing_ambiguous=True)
    maker.answers[:] = [finished(cost=Cost(2_000, "usage")), lost]
    workflow_id = await canvas(api)
    paid = await api.finished((await generate(api, workflow_id, "n0")).json()["jobId"])
    assert (paid["costUsd"], paid["estimateUsd"]) == (0.002, 0.001)
    assert [(bill["usd"], bill["source"]) for bill in paid["bills"]] == [(0.002, "usage")]
    failed = await api.finished((await generate(api, workflow_id, "n1")).json()["jobId"])
    assert [(bill["usd"], bill["source"]) for bill in failed["bills"]] == [(0.001, "ambiguous")]
    costs = (await api.get(f"/api/costs?workflowId={workflow_id}")).json()
    assert (costs["costUsd"], costs["bills"], costs["ambiguousUsd"], costs["reservedUsd"]) == (0.003, 2, 0.001, 0)
    assert [(line["provider"], line["costUsd"]) for line in costs["byModel"]] == [("fake", 0.003)]
    assert [line["costUsd"] for line in costs["byDay"]] == [0.003]
    assert (await api.get("/api/costs?provider=none")).json()["costUsd"] == 0
    late = (await api.get(f"/api/costs?from={costs['byDay'][0]['day']}T00:00:00Z&to=2020-01-01T00:00:00Z")).json()
    assert late["bills"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "all", "key": "x", "period": "day", "limitUsd": 1},
        {"scope": "user", "period": "day", "limitUsd": 1},
        {"scope": "team", "key": "x", "period": "day", "limitUsd": 1},
        {"scope": "all", "period": "week", "limitUsd": 1},
        {"scope": "all", "period": "day", "limitUsd": -1},
        {"scope": "all", "period": "day", "limitUsd": 1e30},
        {"scope": "all", "period": "day"},
    ],
)
async def test_a_budget_that_cannot_be_is_refused(api: Api, body: object) -> None:
    assert (await api.client.put("/api/budgets", json=body)).status_code == 422
    assert (await api.get("/api/budgets")).json() == {"budgets": []}
    assert (await api.get("/api/costs?from=yesterday")).status_code == 422


async def test_two_who_ask_at_once_do_not_both_get_the_last_money(api: Api) -> None:
    workflow_id = await canvas(api)
    await put(api, 0.001)
    replies = await asyncio.gather(*(generate(api, workflow_id, f"n{number}") for number in range(4)))
    assert sorted(reply.status_code for reply in replies) == [202, 402, 402, 402]


async def test_budgets_are_for_admins_and_a_canvas_for_its_editors(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, secret=SECRET)
    async with running(settings, tmp_path) as api:
        api.client.headers.update(bearer(token("admin", sub="boss")))
        mine, other = await canvas(api), await canvas(api)
        assert (await put(api, 1, "workflow", mine)).json()["by"] == "boss"
        api.client.headers.update(bearer(token("editor", [mine], sub="ada")))
        for reply in (
            await put(api, 1),
            await api.delete("/api/budgets?scope=all&period=day"),
            await api.get("/api/budgets"),
            await api.get(f"/api/budgets?workflowId={other}"),
            await api.get("/api/costs"),
            await api.get("/api/costs?provider=demo"),
            await api.get("/api/costs?user=boss"),
            await api.get("/api/costs?user=ada"),
            await api.get(f"/api/costs?workflowId={other}"),
            await api.post("/api/images/estimate", {"workflowId": other, "nodeId": "n0"}),
        ):
            assert reply.status_code == 403
        assert len((await api.get(f"/api/budgets?workflowId={mine}")).json()["budgets"]) == 1
        assert (await api.get(f"/api/costs?workflowId={mine}")).status_code == 200
        api.client.headers.update(bearer(token("editor", "*", sub="ada")))
        assert (await api.get("/api/costs?user=ada")).status_code == 200


async def test_the_setting_says_who_is_asked_when_a_maker_cannot(tmp_path: Path, maker: FakeProvider) -> None:
    maker.answers[:] = [ProviderError("The key is not good.", ErrorClass.AUTH_ERROR)]
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, fallbacks="fake=demo:darkroom-1")
    async with running(settings, tmp_path, Parts(providers=(maker,))) as api:
        workflow_id = await canvas(api)
        done = await api.finished((await generate(api, workflow_id, "n0")).json()["jobId"])
        assert (done["status"], done["provider"]) == ("completed", "demo")
        assert done["adapted"] == ["Demo was asked instead: The key is not good."]
        none = await api.finished((await generate(api, workflow_id, "n1", fallbacks=[])).json()["jobId"])
        assert (none["status"], none["provider"]) == ("failed", "fake")
        wrong = await generate(api, workflow_id, "n2", fallbacks=[{"provider": "none"}])
        assert (wrong.status_code, fields(wrong)) == (422, ["fallbacks.0.provider"])


async def test_a_fallback_that_is_not_configured_stops_the_start(tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", fallbacks="demo=openai")
    with pytest.raises(BadSettings, match="DARKROOM_FALLBACKS: No provider named 'openai'"):
        async with running(settings, tmp_path):
            pass
    for text in ("demo", "=demo", "demo=", "demo=demo", "a=b,a=c"):
        with pytest.raises(BadSettings, match="fallbacks"):
            read_settings(fallbacks=text)
