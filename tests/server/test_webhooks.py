from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobs.tables import run_costs, webhook_deliveries
from server.parts import Parts
from server.settings import read_settings
from tests.jobs.builders import png, rows
from tests.server.api import Api, Reply, node
from tests.server.calling import SECRET, CallingMaker, event, job_of, signed
from tests.server.conftest import running


@pytest.fixture
def maker() -> CallingMaker:
    return CallingMaker()


@pytest.fixture
async def api(maker: CallingMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """The application with a maker that calls back, on an address it can call."""
    monkeypatch.setenv("CALLER_WEBHOOK_SECRET", SECRET)
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, app_url="https://darkroom.example")
    async with running(settings, tmp_path / "page", Parts(providers=(maker,))) as api:
        yield api


async def started(api: Api) -> dict[str, Any]:
    """A job that the maker has taken."""
    workflow_id = await api.workflow(node("n1", prompt="a fox"))
    job = await api.run(workflow_id, "n1", {"provider": "caller"})
    await accepted(api, job["jobId"])
    return job


async def accepted(api: Api, job_id: str) -> None:
    """Until the run waits for its maker."""
    with api.services.signals.watch(job_id) as watch:
        while (await api.services.runs.get(job_id)).remote_id is None:
            assert await watch.wait(10)


async def call(api: Api, body: bytes, headers: dict[str, str], provider: str = "caller") -> Reply:
    return await api.client.post(f"/webhooks/{provider}", content=body, headers=headers)


async def test_a_call_finishes_its_run_at_once(api: Api, maker: CallingMaker) -> None:
    job = await started(api)
    maker.done[job_of(job["jobId"])] = png()
    body = event("job.completed", job["jobId"])
    assert (await call(api, body, signed(body))).status_code == 200
    assert (await api.finished(job["jobId"]))["status"] == "completed"
    assert maker.polled == [job_of(job["jobId"])]
    kinds = [each.kind for each in await api.services.runs.events(job["jobId"])]
    assert kinds == ["requested", "started", "accepted", "heard", "answered", "completed"]
    assert len(await rows(api.services.engine, run_costs)) == 1
    (row,) = await rows(api.services.engine, webhook_deliveries)
    assert (row.run_id, row.settled_at is None) == (job["jobId"], False)
