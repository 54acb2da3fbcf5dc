from pathlib import Path

from server.settings import read_settings
from tests.server.api import Api
from tests.server.conftest import running


async def test_events_are_listed_in_order(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    path = f"/api/images/jobs/{job['jobId']}/events"
    events = (await api.get(path)).json()["events"]
    assert [event["seq"] for event in events] == list(range(1, job["seq"] + 1))
    assert (events[0]["kind"], events[-1]["kind"]) == ("requested", "completed")
    assert (await api.get(f"{path}?after={job['seq'] - 1}")).json()["events"] == events[-1:]


async def test_a_stream_ends_with_the_job_and_tells_the_picture(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.run(workflow_id, node_id)
    events = [event for event in await api.stream(job["jobId"]) if event["kind"] != "progress"]
    assert [event["status"] for event in (events[0], events[-1])] == ["pending", "completed"]
    assert events[-1]["imageUrl"] == (await api.finished(job["jobId"]))["imageUrl"]
    assert {event["jobId"] for event in events} == {job["jobId"]}


async def test_a_stream_goes_on_behind_the_last_event_seen(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    rest = await api.stream(job["jobId"], last_event_id=str(job["seq"] - 1))
    assert [event["seq"] for event in rest] == [job["seq"]]


async def test_a_stream_that_was_seen_to_its_end_is_not_opened_again(api: Api) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.finished((await api.run(workflow_id, node_id))["jobId"])
    path = f"/api/images/jobs/{job['jobId']}/events"
    reply = await api.get(path, accept="text/event-stream", last_event_id=str(job["seq"]))
    assert reply.status_code == 204


async def test_progress_is_told_between_events(tmp_path: Path) -> None:
    async with running(read_settings(data=tmp_path / "slow", demo_delay_s=1), tmp_path) as api:
        workflow_id, node_id = await api.canvas()
        job = await api.run(workflow_id, node_id)
        told = [event for event in await api.stream(job["jobId"]) if event["kind"] == "progress"]
    assert any(0 < (event["progress"] or 0) < 1 for event in told)
    assert all(event["status"] == "running" and "seq" not in event for event in told)


async def test_a_stop_ends_streams_of_jobs_at_work(tmp_path: Path) -> None:
    async with running(read_settings(data=tmp_path / "slow", demo_delay_s=600), tmp_path) as api:
        workflow_id, node_id = await api.canvas()
        job = await api.run(workflow_id, node_id)
        api.services.stop()
        assert await api.stream(job["jobId"]) == []
        # A stop would give the run at work its time.
        await api.post(f"/api/images/jobs/{job['jobId']}/cancel")
