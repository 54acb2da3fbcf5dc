import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobs import signing
from server.__main__ import main
from server.errors import BadSettings
from server.settings import Settings, read_settings
from tests.emulators.receiver import Receiver
from tests.server.api import Api, fields, node
from tests.server.conftest import running

SECRET = signing.make_secret()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(secrets=(SECRET,)).serving() as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """As usual, and calls to this machine are allowed."""
    allow = ("127.0.0.1",)
    return read_settings(data=tmp_path / "data", demo_delay_s=0, fetch_allow=allow, outgoing_secret=SECRET)


async def test_whoever_asks_to_be_told_is_called_when_the_job_has_ended(api: Api, receiver: Receiver) -> None:
    workflow_id, node_id = await api.canvas()
    job = await api.run(workflow_id, node_id, {"webhookUrl": f"{receiver.origin}/hook?key=hush", "metadata": {"t": 7}})
    await receiver.heard()
    ((call_id, body),) = receiver.verified
    assert (body["type"], body["data"]["jobId"], body["data"]["metadata"]) == ("job.completed", job["jobId"], {"t": 7})
    assert body["data"]["imageUrl"].startswith("http://")
    reply = await api.get(f"/api/images/jobs/{job['jobId']}/calls")
    (call,) = reply.json()["calls"]
    assert (call["id"], call["host"]) == (call_id, f"127.0.0.1:{receiver.port}")
    assert "hush" not in reply.text


async def test_a_cancelled_job_is_told_too(receiver: Receiver, tmp_path: Path) -> None:
    settings = read_settings(
        data=tmp_path / "slow", demo_delay_s=600, fetch_allow=("127.0.0.1",), outgoing_secret=SECRET
    )
    async with running(settings, tmp_path) as slow:
        workflow_id, node_id = await slow.canvas()
        job = await slow.run(workflow_id, node_id, {"webhookUrl": receiver.origin})
        await slow.post(f"/api/images/jobs/{job['jobId']}/cancel")
        await receiver.heard()
    ((_, body),) = receiver.verified
    assert body["type"] == "job.cancelled"


NEVER_CALLED = (
    "ftp://receiver.example/hook",
    "receiver.example",
    "https://",
    "https://user:pass@receiver.example/",
    "http://10.0.0.8/hook",
    "http://[::1]/hook",
    "http://[::ffff:169.254.169.254]/hook",
    "http://2130706433/hook",
    "http://0x7f.1/hook",
    "http://localhost:9/hook",
    "http://LOCALHOST./hook",
    "https://receiver.example/" + "x" * 2048,
)


async def test_an_address_that_is_never_called_is_refused_at_the_door(tmp_path: Path) -> None:
    async with running(read_settings(data=tmp_path / "data", demo_delay_s=0), tmp_path) as api:
        workflow_id, node_id = await api.canvas()
        path = f"/api/workflows/{workflow_id}/nodes/{node_id}/runs"
        for url in NEVER_CALLED:
            reply = await api.post(path, {"webhookUrl": url})
            assert (reply.status_code, fields(reply)) == (422, ["webhookUrl"]), url
        start = {"workflowId": workflow_id, "nodeId": node_id, "webhookUrl": "http://10.0.0.8"}
        reply = await api.post("/api/images/generate", {"requests": [start]})
        assert (reply.status_code, fields(reply)) == (422, ["requests.0.webhookUrl"])
        assert "DARKROOM_FETCH_ALLOW" in reply.text
        assert (await api.get(path)).json() == {"runs": []}


async def test_calls_of_an_unknown_job_are_not_found_and_a_job_without_one_has_none(api: Api) -> None:
    assert (await api.get("/api/images/jobs/none/calls")).status_code == 404
    workflow_id = await api.workflow(node("n", prompt="a fox"))
    job = await api.run(workflow_id, "n")
    assert (await api.get(f"/api/images/jobs/{job['jobId']}/calls")).json() == {"calls": []}


async def test_the_command_line_tells_the_secret_that_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "own"))
    async with running(read_settings(demo_delay_s=0, fetch_allow=("127.0.0.1",)), tmp_path) as api:
        assert await asyncio.to_thread(main, ["webhook-secret"]) == 0
        async with Receiver(secrets=(capsys.readouterr().out.removesuffix("\n"),)).serving() as receiver:
            workflow_id, node_id = await api.canvas()
            await api.run(workflow_id, node_id, {"webhookUrl": receiver.origin})
            await receiver.heard()
            assert (len(receiver.verified), receiver.forged) == (1, [])


def test_the_command_line_tells_what_the_operator_set_and_makes_new_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = f"{signing.make_secret()},{SECRET}"
    monkeypatch.setenv("DARKROOM_WEBHOOK_SECRET", both)
    assert main(["webhook-secret"]) == 0
    assert capsys.readouterr().out == f"{both}\n"
    assert main(["webhook-secret", "--new"]) == 0
    assert signing.read_keys(capsys.readouterr().out.strip()) != signing.read_keys(both)


def test_a_secret_that_is_none_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_WEBHOOK_SECRET", "hunter2")
    with pytest.raises(BadSettings, match=r"^DARKROOM_WEBHOOK_SECRET: ") as refused:
        read_settings()
    assert "hunter2" not in str(refused.value)
