"""A picture that is made in the background: asked for by HTTP, told of by a signed call, shown to everybody."""

from tests.emulators.openai_responses import OpenAIResponsesEmulator
from tests.server.calling import SECRET
from tests.support.api import Api, canvas_api
from tests.support.peer import YPeer
from tests.support.server import ServerFactory

MODEL = "gpt-image-2-background"


async def taken(api: Api, job_id: str) -> str:
    """The maker's id of a job, once it is recorded; its events are followed until then."""
    url = f"/api/images/jobs/{job_id}/events"
    async with api.client.stream("GET", url, headers={"accept": "text/event-stream"}) as stream:
        async for line in stream.aiter_lines():
            if "remoteId" in line:
                break
    (accepted,) = [each for each in await api.events(job_id) if each["kind"] == "accepted"]
    return str(accepted["payload"]["remoteId"])


async def test_a_call_shows_the_picture_to_everybody_and_a_restart_loses_none(start_server: ServerFactory) -> None:
    async with OpenAIResponsesEmulator(secret=SECRET).serving() as openai:
        env = {
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": openai.base_url,
            "OPENAI_WEBHOOK_SECRET": SECRET,
            "DARKROOM_FETCH_ALLOW": "127.0.0.1",
        }
        server = start_server.describe(env=env)
        openai.hook = f"{server.url}/webhooks/openai"
        await server.start()
        async with canvas_api(server.url) as api, YPeer(server.ws_url, api.workflow_id).connected() as watcher:
            for name in ("n1", "n2"):
                await api.add_node(id=name, type="image", data={"prompt": "a fox"})
            first = (await api.generate("n1", model=MODEL)).json()["jobId"]
            await openai.finish(await taken(api, first), times=2)
            await watcher.until_status("n1", "completed")
            second = (await api.generate("n2", model=MODEL)).json()["jobId"]
            response = await taken(api, second)
        await server.kill()
        kind = openai.settle(response, "completed")
        await server.start()
        await openai.tell(kind, response)
        async with canvas_api(server.url, api.workflow_id) as api:
            assert (await api.ended(second))["status"] == "completed"
            kinds = [event["kind"] for event in await api.events(second)]
        assert kinds.count("heard") == 1
        assert "incident" not in kinds
        assert openai.sent == [200, 200, 200]
        assert [each.retrieved for each in openai.responses.values()] == [1, 1]
