from pathlib import Path

from server.settings import read_settings
from tests.server.api import node
from tests.server.conftest import running


async def test_the_same_journey_on_every_database(database_url: str, tmp_path: Path) -> None:
    settings = read_settings(data=tmp_path / "data", demo_delay_s=0, database_url=database_url)
    async with running(settings, tmp_path) as api:
        workflow_id = await api.workflow(node("n", prompt="a fox\u0000"), node("m"), title="Foxes")
        await api.post(f"/api/workflows/{workflow_id}/edges", {"id": "e", "source": "n", "target": "m"})
        job = await api.finished((await api.run(workflow_id, "n", {"metadata": {"\u0000": "\u0000"}}))["jobId"])
        assert job["status"] == "completed"
        assert (await api.get(job["imageUrl"])).status_code == 200
        assert (await api.get("/readyz")).status_code == 200
        assert (await api.get("/api/workflows")).json()["workflows"][0]["nodeCount"] == 2
        assert "darkroom_runs_unfinished" in (await api.get("/metrics")).text
    async with running(settings, tmp_path) as api:
        flow = await api.flow(workflow_id)
        assert sorted(n["id"] for n in flow["nodes"]) == ["m", "n"]
        assert next(n for n in flow["nodes"] if n["id"] == "n")["data"]["imageUrl"] == job["imageUrl"]
        assert (await api.get(f"/api/images/jobs/{job['jobId']}")).json() == job
